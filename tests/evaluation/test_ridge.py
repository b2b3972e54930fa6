import numpy as np
import pytest
from sklearn.linear_model import Ridge as SklearnRidge

from harness.evaluation.ridge import PENALTIES, Ridge


@pytest.mark.parametrize("intercept", [True, False])
def test_against_sklearn_fitted_without_each_condition_in_turn(intercept):
    random = np.random.default_rng(0)
    vectors = random.normal(size=(12, 4))
    changes = vectors @ random.normal(size=(4, 7)) + random.normal(size=(12, 7)) + 1.0
    found = Ridge(vectors, changes, intercept=intercept)
    centred = vectors - vectors.mean(axis=0) if intercept else vectors
    unit = float(np.mean(np.linalg.svd(centred, compute_uv=False) ** 2))
    errors = {}
    for penalty in PENALTIES:
        errors[penalty] = 0.0
        for out in range(12):
            rest = np.arange(12) != out
            other = SklearnRidge(penalty * unit, fit_intercept=intercept).fit(vectors[rest], changes[rest])
            errors[penalty] += float(((other.predict(vectors[[out]]) - changes[out]) ** 2).sum())
    assert found.errors == pytest.approx(errors)
    assert found.penalty == pytest.approx(unit * min(errors, key=errors.__getitem__))
    whole = SklearnRidge(found.penalty, fit_intercept=intercept).fit(vectors, changes)
    new = np.array([0.3, -1.0, 2.0, 0.1])
    np.testing.assert_allclose(found(new), whole.predict(new[None])[0])


def test_of_level_penalties_the_smallest():
    changes = np.random.default_rng(1).normal(size=(5, 3))
    found = Ridge(np.eye(5), changes, intercept=False)
    assert found.penalty == pytest.approx(PENALTIES[0])
    np.testing.assert_allclose(found(np.eye(5)[2]), changes[2], rtol=1e-3)
