"""Class accuracy against scikit-learn's own pipeline and closed forms."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from harness.evaluation.classes import class_accuracy, majority_accuracy
from harness.evaluation.scores import NonFiniteError


def test_a_shift_between_two_classes_scores_what_it_must():
    # two normals two sds apart: no reader does better than naming the nearer one, Φ(1)
    rng = np.random.default_rng(0)
    classes = rng.integers(2, size=20_000)
    learned = rng.normal(size=(20_000, 3))
    learned[:, 1] += 2.0 * classes
    assert class_accuracy(learned * [1.0, -50.0, 0.01] + 7.0, classes, seed=0) == pytest.approx(norm.cdf(1), abs=0.01)


def test_several_classes_agree_with_a_pipeline():
    rng = np.random.default_rng(1)
    classes = rng.integers(5, size=600)
    learned = np.eye(5)[classes] @ rng.normal(size=(5, 4)) + 0.7 * rng.normal(size=(600, 4))
    order = np.random.default_rng([2, 0]).permutation(600)
    fit, score = order[:300], order[300:]
    reader = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(learned[fit], classes[fit])
    assert class_accuracy(learned, classes, seed=2) == pytest.approx(reader.score(learned[score], classes[score]))


def test_latents_that_know_nothing_score_the_majority():
    rng = np.random.default_rng(3)
    classes = np.where(rng.random(4000) < 0.8, 3, 6)
    assert majority_accuracy(classes, seed=0) == pytest.approx(0.8, abs=0.02)
    for learned in (rng.normal(size=(4000, 2)), np.ones((4000, 2)), np.ones((4000, 0))):
        assert class_accuracy(learned, classes, seed=0) == pytest.approx(majority_accuracy(classes, seed=0), abs=0.01)


def test_a_class_seen_in_one_half_alone_gives_a_number():
    order = np.random.default_rng([0, 0]).permutation(40)
    classes = np.zeros(40, dtype=np.int64)
    classes[order[30]] = 1  # among those scored
    learned = np.random.default_rng(4).normal(size=(40, 2))
    assert class_accuracy(learned, classes, seed=0) == majority_accuracy(classes, seed=0) == 19 / 20


def test_nan_is_refused():
    with pytest.raises(NonFiniteError, match="learned latents"):
        class_accuracy(np.full((20, 2), np.nan), np.arange(20) % 2, seed=0)
