"""The published protocol against scikit-learn, at sizes small enough to wait for."""

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler

from harness.evaluation.published_r2 import BATCH, FEWEST_ROWS, FITTED_BATCHES, SCORED_BATCHES, published_r2
from harness.trial_spec import PUBLISHED_R2_CELLS

SMALL = {"batch": 30, "scored": 10, "fitted": 5}


def by_sklearn(learned, true, seed, batches):
    """Mean R² over batches, by estimators that share nothing with ours but the order of rows."""
    order = np.random.default_rng([seed, 1]).permutation(len(learned))
    fit, rest = order[:150], order[150:]
    features, target = StandardScaler().fit(learned[fit]), StandardScaler().fit(true[fit])
    grid = {"alpha": [1.0, 0.1, 0.01, 0.001], "gamma": np.logspace(-2, 2, 4)}
    means = []
    for estimator in (GridSearchCV(KernelRidge(kernel="rbf"), grid, cv=3), LinearRegression()):
        estimator.fit(features.transform(learned[fit]), target.transform(true[fit]))
        each = []
        for k in range(batches):
            part = rest[30 * k : 30 * (k + 1)]
            each.append(r2_score(target.transform(true[part]), estimator.predict(features.transform(learned[part]))))
        means.append(np.mean(each))
    return means


def test_the_mean_over_batches_agrees_with_sklearn():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(450, 2))
    learned = np.stack([np.tanh(true[:, 0]) + 0.1 * rng.normal(size=450), true.sum(1), rng.normal(size=450)], axis=1)
    found = published_r2(learned, [true[:, :1], true[:, 1:]], seed=3, **SMALL)
    for k in range(2):
        assert tuple(found[k]) == pytest.approx(by_sklearn(learned, true[:, [k]], 3, batches=10), abs=1e-8)
    assert found[0].kernel > 0.9


def test_with_fewer_rows_fewer_batches_are_scored_and_none_was_fitted():
    rng = np.random.default_rng(1)
    true = rng.normal(size=(230, 1))  # 150 to fit, two batches of 30 and 20 rows left over
    learned = true + 0.5 * rng.normal(size=(230, 1))
    assert tuple(published_r2(learned, [true], seed=0, **SMALL)[0]) == pytest.approx(
        by_sklearn(learned, true, 0, batches=2), abs=1e-8
    )
    with pytest.raises(ValueError, match="at least 180 are needed"):
        published_r2(learned[:179], [true[:179]], seed=0, **SMALL)


def test_an_angle_has_one_score_and_nothing_learned_scores_zero():
    rng = np.random.default_rng(2)
    angle = rng.uniform(0, 2 * np.pi, 450)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert min(published_r2(circle @ [[0.6, -0.8], [0.8, 0.6]], [circle], seed=0, **SMALL)[0]) > 0.99
    assert published_r2(np.ones((450, 2)), [circle], seed=0, **SMALL) == [(0.0, 0.0)]
    assert published_r2(np.ones((450, 0)), [circle], seed=0, **SMALL) == [(0.0, 0.0)]


def test_the_sizes_are_the_published_ones():
    assert (FITTED_BATCHES * BATCH, SCORED_BATCHES * BATCH) == (5 * 2048, 10 * 2048)
    assert FEWEST_ROWS == PUBLISHED_R2_CELLS  # what a study is refused by before it runs
