import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold

from harness.evaluation.regression import ALPHAS, GAMMAS, kernel_r2, linear_r2, squared_distances


@pytest.fixture
def halves():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 3))
    y = np.stack([np.sin(2 * x[:, 0]) + 0.1 * rng.normal(size=240), x[:, 1] * x[:, 2]], axis=1)
    return x[:120], y[:120], x[120:], y[120:]


def test_kernel_ridge_agrees_with_sklearn(halves):
    fit_x, fit_y, score_x, score_y = halves
    found = kernel_r2(fit_x, [fit_y[:, :1], fit_y[:, 1:]], score_x, [score_y[:, :1], score_y[:, 1:]])
    mean, spread = fit_x.mean(axis=0), fit_x.std(axis=0)
    for k in range(2):
        centre, unit = fit_y[:, k].mean(), fit_y[:, k].std()
        search = GridSearchCV(
            KernelRidge(kernel="rbf"), {"alpha": list(ALPHAS), "gamma": list(GAMMAS)}, cv=KFold(3), scoring="r2"
        )
        search.fit((fit_x - mean) / spread, (fit_y[:, k] - centre) / unit)
        expected = r2_score((score_y[:, k] - centre) / unit, search.predict((score_x - mean) / spread))
        assert found[k] == pytest.approx(expected, abs=1e-8)
    assert found[0] > 0.8


def test_least_squares_agrees_with_sklearn(halves):
    fit_x, fit_y, score_x, score_y = halves
    found = linear_r2(fit_x, [fit_y[:, :1]], score_x, [score_y[:, :1]])
    expected = r2_score(score_y[:, 0], LinearRegression().fit(fit_x, fit_y[:, 0]).predict(score_x))
    assert found[0] == pytest.approx(expected)


def test_distances_against_a_loop():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(5, 7)) + 1e4, rng.normal(size=(6, 7)) + 1e4
    expected = [[((p - q) ** 2).sum() for q in b] for p in a]
    np.testing.assert_allclose(squared_distances(a, b), expected, rtol=1e-9)
    assert (squared_distances(a, a) >= 0).all()


def test_constant_features_and_factors_score_zero():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(60, 1)), np.ones((60, 1))
    assert kernel_r2(y, [x], y, [x]) == [0.0]
    assert kernel_r2(x, [y], x, [y]) == [0.0]
    assert linear_r2(x, [y], x, [y]) == [0.0]
