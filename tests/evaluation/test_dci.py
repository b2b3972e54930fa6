"""DCI on importance matrices whose entropies are known, and on latents that are."""

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.ensemble import RandomForestRegressor

from harness.evaluation.dci import dci_scores, disentanglement_and_completeness
from harness.evaluation.scores import NonFiniteError


def columns(true):
    return [true[:, k : k + 1] for k in range(true.shape[1])]


@pytest.mark.parametrize(
    ("importances", "disentanglement", "completeness"),
    [
        (np.eye(3)[[2, 0, 1]], 1.0, 1.0),
        (np.ones((3, 3)), 0.0, 0.0),
        # two latents share a factor: each serves it alone, it is served by both
        ([[0.5, 0.0], [0.5, 0.0], [0.0, 1.0]], 1.0, 1 - 0.5 * np.log(2) / np.log(3)),
        # one latent serves both factors, another none
        ([[1.0, 1.0], [0.0, 0.0]], 0.0, 1.0),
        (np.zeros((2, 3)), 0.0, 0.0),
        ([[0.3], [0.7]], 1.0, 1 - entropy([0.3, 0.7]) / np.log(2)),
        ([[0.3, 0.7]], 1 - entropy([0.3, 0.7]) / np.log(2), 1.0),
    ],
)
def test_known_importances_have_known_scores(importances, disentanglement, completeness):
    found = disentanglement_and_completeness(np.asarray(importances, dtype=float))
    assert found == pytest.approx((disentanglement, completeness))


def test_any_importances_agree_with_the_definition():
    importances = np.random.default_rng(0).gamma(0.5, size=(5, 3))
    share = importances / importances.sum()
    by_row = [1 - entropy(row / row.sum(), base=3) for row in importances]
    by_column = [1 - entropy(column / column.sum(), base=5) for column in importances.T]
    found = disentanglement_and_completeness(importances)
    assert found == pytest.approx((by_row @ share.sum(1), by_column @ share.sum(0)))


def test_permuted_scaled_latents_are_disentangled_complete_and_informative():
    true = np.random.default_rng(1).normal(size=(2000, 3))
    found = dci_scores(true[:, [1, 2, 0]] * [3.0, -0.1, 50.0] + 2.0, columns(true), seed=0)
    assert found["disentanglement"] > 0.95
    assert found["completeness"] > 0.95
    assert found["informativeness"] > 0.85


def test_a_rotation_is_neither_disentangled_nor_complete_and_a_forest_agrees():
    rng = np.random.default_rng(2)
    true = rng.normal(size=(2000, 3))
    learned = true @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    found = dci_scores(learned, columns(true), seed=0)
    forest = RandomForestRegressor(30, max_depth=8, random_state=0)
    importances = [forest.fit(learned[:1000], true[:1000, k]).feature_importances_ for k in range(3)]
    other = disentanglement_and_completeness(np.stack(importances, axis=1))
    assert other == pytest.approx((found["disentanglement"], found["completeness"]), abs=0.1)
    assert found["disentanglement"] < 0.6


def test_informativeness_of_noise_has_a_closed_form():
    # of a factor that is half noise, no reader explains more than half the variance: the error is sqrt(1/2) at least
    rng = np.random.default_rng(3)
    known = rng.normal(size=(2000, 1))
    factor = known + rng.normal(size=(2000, 1))
    found = dci_scores(known, [factor], seed=0)["informativeness"]
    assert 0.2 < found <= 1 - np.sqrt(0.5) + 0.03


def test_an_angle_is_one_factor():
    rng = np.random.default_rng(4)
    angle = rng.uniform(0, 2 * np.pi, 2000)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    found = dci_scores(circle, [circle], seed=0)
    assert found["informativeness"] > 0.9
    assert found["disentanglement"] == 1.0
    assert found["completeness"] == pytest.approx(0.0, abs=0.05)  # cosine and sine, half each


def test_constant_latents_and_factors_give_numbers():
    true = np.random.default_rng(5).normal(size=(200, 2))
    for learned in (np.ones((200, 2)), np.ones((200, 0))):
        assert set(dci_scores(learned, columns(true), seed=0).values()) == {0.0}
    found = dci_scores(np.concatenate([np.ones((200, 1)), true], axis=1), [np.ones((200, 1)), *columns(true)], seed=0)
    assert all(np.isfinite(value) for value in found.values())
    assert found["informativeness"] < 2 / 3
    with pytest.raises(NonFiniteError, match="learned latents"):
        dci_scores(np.full((200, 2), np.nan), columns(true), seed=0)
