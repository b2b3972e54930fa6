"""CITRIS's scores on latents whose matrix is known."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV

from harness.evaluation.citris_scores import assigned, citris_scores
from harness.evaluation.scores import NonFiniteError


def columns(true):
    return [true[:, k : k + 1] for k in range(true.shape[1])]


def circle(angle):
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


@pytest.fixture(scope="module")
def true():
    return np.random.default_rng(0).uniform(-1, 1, size=(1000, 3))


def test_permuted_warped_latents_are_perfect(true):
    learned = np.stack([5.0 * true[:, 2], np.sinh(true[:, 0]), 3.0 - true[:, 1] ** 3, true[:, 0] ** 3], axis=1)
    assert assigned(learned, columns(true)) == [2, 0, 1, 0]
    found = citris_scores(learned, columns(true), seed=0)
    for name in ("r2_diagonal", "spearman_diagonal"):
        assert found[name] > 0.97
    assert found["r2_off_diagonal"] < 0.05
    assert found["spearman_off_diagonal"] < 0.2  # |rank correlation| over 500 rows: its sd is 0.045, here of six
    assert found["r2_off_diagonal_mean"] <= found["r2_off_diagonal"]


def test_every_entry_agrees_with_sklearn(true):
    rng = np.random.default_rng(1)
    learned = true[:200] @ rng.normal(size=(3, 3)) + 0.2 * rng.normal(size=(200, 3))
    order = np.random.default_rng([4, 0]).permutation(200)
    fit, score = order[:100], order[100:]
    groups = assigned(learned[fit], columns(true[:200][fit]))
    mean, spread = learned[fit].mean(0), learned[fit].std(0)
    features = (learned - mean) / spread
    matrices = np.zeros((2, 3, 3))
    for row in set(groups):
        own = [j for j in range(3) if groups[j] == row]
        for k in range(3):
            target = (true[:200, k] - true[:200][fit, k].mean()) / true[:200][fit, k].std()
            grid = {"alpha": [1.0, 0.1, 0.01, 0.001], "gamma": np.logspace(-2, 2, 4)}
            search = GridSearchCV(KernelRidge(kernel="rbf"), grid, cv=3).fit(features[fit][:, own], target[fit])
            predicted = search.predict(features[score][:, own])
            matrices[:, row, k] = r2_score(target[score], predicted), spearmanr(target[score], predicted)[0]
    found = citris_scores(learned, columns(true[:200]), seed=4)
    for name, matrix in zip(("r2", "spearman"), matrices, strict=True):
        away = np.where(np.eye(3, dtype=bool), 0.0, matrix.clip(min=0.0))
        assert found[f"{name}_diagonal"] == pytest.approx(np.diag(matrix).mean(), abs=1e-8)
        assert found[f"{name}_off_diagonal"] == pytest.approx(away.max(), abs=1e-8)
        assert found[f"{name}_off_diagonal_mean"] == pytest.approx(away.max(axis=1).mean(), abs=1e-8)


def test_a_copy_in_the_wrong_group_shows_off_the_diagonal(true):
    # a latent that holds two factors belongs to one of them, and tells of the other
    learned = np.stack([true[:, 0] + 0.9 * true[:, 1], true[:, 2]], axis=1)
    found = citris_scores(learned, columns(true), seed=0)
    assert found["r2_off_diagonal"] > 0.3
    assert found["r2_off_diagonal_mean"] < found["r2_off_diagonal"]
    assert found["r2_diagonal"] < 0.6  # the second factor has no latent and counts 0


def test_an_angle_is_no_number():
    rng = np.random.default_rng(2)
    angle, height = rng.uniform(0, 2 * np.pi, 1000), rng.normal(size=(1000, 1))
    learned = np.concatenate([circle(angle + 1.0), height], axis=1)
    assert assigned(learned, [height, circle(angle)]) == [1, 1, 0]
    found = citris_scores(learned, [height, circle(angle)], seed=0)
    assert found["r2_diagonal"] > 0.98
    assert found["spearman_diagonal"] > 0.98


def test_what_cannot_be_predicted_gives_numbers(true):
    flat = np.ones((1000, 1))
    for learned in (np.ones((1000, 3)), np.ones((1000, 0))):
        assert set(citris_scores(learned, columns(true), seed=0).values()) == {0.0}
    assert assigned(np.concatenate([flat, true], axis=1), columns(true)) == [-1, 0, 1, 2]
    found = citris_scores(true, [flat, circle(0.0 * true[:, 0]), *columns(true)], seed=0)
    assert found["r2_diagonal"] == pytest.approx(3 / 5, abs=0.02)
    assert all(np.isfinite(value) for value in found.values())
    assert citris_scores(true[:, :1], columns(true)[:1], seed=0)["r2_off_diagonal"] == 0.0
    with pytest.raises(NonFiniteError, match="learned latents"):
        citris_scores(np.full((1000, 2), np.inf), columns(true), seed=0)
