import numpy as np
import pytest

from harness.evaluation.baselines import BASELINES, Baselines, CannotPredict
from harness.evaluation.scores import NonFiniteError


@pytest.fixture
def train():
    control = np.array([[0.0, 1.0], [2.0, 3.0]])  # mean (1, 2)
    return {"control": control, "A": np.array([[2.0, 2.0]]), "B": np.array([[1.0, 5.0], [1.0, 7.0]])}


def test_shifts_by_hand(train):
    baselines = Baselines(train)
    np.testing.assert_allclose(baselines.shift("control_mean", "A+B"), [0, 0])
    np.testing.assert_allclose(baselines.shift("additive", "A"), [1, 0])
    np.testing.assert_allclose(baselines.shift("additive", "A+B"), [1, 4])
    np.testing.assert_allclose(baselines.shift("additive", "B+A"), [1, 4])
    np.testing.assert_allclose(baselines.shift("mean_effect", "A+B"), [0.5, 2])


def test_predictions_keep_the_variance_of_the_control_cells(train):
    baselines = Baselines(train)
    cells = np.random.default_rng(0).normal(size=(20, 2))
    for name in BASELINES:
        predicted = baselines.predict(name, "A+B", cells)
        np.testing.assert_allclose(predicted.std(axis=0), cells.std(axis=0))
        np.testing.assert_allclose(predicted.mean(axis=0), cells.mean(axis=0) + baselines.shift(name, "A+B"))


def test_additive_is_exact_where_the_truth_is(train):
    rng = np.random.default_rng(1)
    effects = rng.normal(size=(2, 5))
    control = rng.normal(size=(10, 5))
    baselines = Baselines({"control": control, "A": control + effects[0], "B": control + effects[1]})
    np.testing.assert_allclose(baselines.predict("additive", "A+B", control), control + effects.sum(axis=0))


def test_doubles_in_training_are_ignored(train):
    more = Baselines(train | {"A+B": np.full((3, 2), 99.0)})
    np.testing.assert_allclose(more.mean_effect, Baselines(train).mean_effect)


def test_refusals(train):
    with pytest.raises(CannotPredict, match="no training cells of C alone"):
        Baselines(train).shift("additive", "A+C")
    with pytest.raises(ValueError, match="unknown baseline"):
        Baselines(train).shift("best", "A")
    with pytest.raises(ValueError, match="control"):
        Baselines({"A": train["A"]})
    with pytest.raises(ValueError, match="no single perturbation"):
        Baselines({"control": train["control"]})
    with pytest.raises(ValueError, match="training cells of B are empty"):
        Baselines(train | {"B": np.zeros((0, 2))})
    with pytest.raises(NonFiniteError, match="training cells of A"):
        Baselines(train | {"A": np.array([[np.nan, 0.0]])})
