import numpy as np
import pytest

from harness.evaluation.baselines import Baselines, CannotPredict
from harness.evaluation.ood import METRICS, score_condition
from harness.evaluation.prediction import evaluate_ood
from harness.evaluation.scores import NonFiniteError

EFFECTS = {m: np.random.default_rng(i).normal(size=8) for i, m in enumerate("ABCD")}
BASE = np.arange(8.0)


def draw(condition, n, seed):
    shift = sum((EFFECTS[m] for m in condition.split("+") if m != "control"), np.zeros(8))
    return np.random.default_rng(seed).normal(size=(n, 8)) * 0.5 + BASE + shift


TRAIN = {c: draw(c, 200, i) for i, c in enumerate(("control", "A", "B", "C"))}
DOUBLES = {c: draw(c, 60, 10 + i) for i, c in enumerate(("A+B", "A+C", "B+C"))}
CONTROL = draw("control", 80, 99)


def additive(condition, control):
    return control + sum(EFFECTS[m] for m in condition.split("+"))


def test_every_row_stands_on_the_same_conditions_and_metrics():
    found = evaluate_ood(DOUBLES, TRAIN, CONTROL, additive, max_cells=50, seed=0)
    assert found.conditions == tuple(DOUBLES)
    assert set(found.baselines) == {"control_mean", "mean_effect", "additive"}
    for scores in (found.metrics, *found.baselines.values()):
        assert set(scores) == set(METRICS)
    assert all(tuple(table) == tuple(DOUBLES) for table in found.per_condition.values())
    assert set(found.floors) == {m.floor_name for m in METRICS.values()}
    assert found.excluded == {}
    assert found.warnings == ()
    for name, (low, high) in found.intervals.items():
        assert low <= found.metrics[name] <= high


def test_order_of_rows_in_an_additive_world():
    found = evaluate_ood(DOUBLES, TRAIN, CONTROL, additive, seed=0)
    assert found.metrics["pearson_delta"] > 0.98
    assert found.baselines["additive"]["pearson_delta"] > 0.98
    assert found.baselines["control_mean"]["pearson_delta"] == 0.0
    for name in ("rmse_relative", "rmse", "energy_distance", "mmd"):
        assert found.metrics[name] < found.baselines["mean_effect"][name]
    assert found.metrics["rmse_relative"] == pytest.approx(found.floors["rmse_relative_floor"], rel=0.1)


def test_a_row_is_scored_as_score_condition_does():
    found = evaluate_ood({"A+B": DOUBLES["A+B"]}, TRAIN, CONTROL, additive, seed=7)
    expected = score_condition(additive("A+B", CONTROL), DOUBLES["A+B"], CONTROL, seed=7).values
    assert found.per_condition["model"]["A+B"] == expected
    assert found.metrics == expected
    assert found.intervals == {}
    shifted = Baselines(TRAIN).predict("additive", "A+B", CONTROL)
    by_hand = score_condition(shifted, DOUBLES["A+B"], CONTROL, seed=7).values
    assert found.baselines["additive"] == pytest.approx(by_hand)


def test_what_one_row_cannot_predict_is_in_no_row():
    def model(condition, control):
        if condition == "A+C":
            raise CannotPredict("it has never seen A with C")
        return additive(condition, control)

    cells = DOUBLES | {"A+D": draw("A+D", 40, 30)}
    found = evaluate_ood(cells, TRAIN, CONTROL, model, seed=0)
    assert found.conditions == ("A+B", "B+C")
    assert found.excluded == {
        "A+D": "additive: no training cells of D alone",
        "A+C": "model: it has never seen A with C",
    }
    assert all(set(table) == {"A+B", "B+C"} for table in found.per_condition.values())


def test_a_baseline_that_can_predict_nothing_leaves_the_table():
    found = evaluate_ood({"A+D": draw("A+D", 40, 30)}, TRAIN, CONTROL, additive, seed=0)
    assert set(found.baselines) == {"control_mean", "mean_effect"}
    assert found.conditions == ("A+D",)
    assert any("additive can predict no condition" in w for w in found.warnings)


def test_control_is_not_a_condition_and_nothing_is_no_crash():
    found = evaluate_ood({"control": CONTROL, "A": draw("A", 40, 40)}, TRAIN, CONTROL, additive, seed=0)
    assert found.conditions == ("A",)
    empty = evaluate_ood({}, TRAIN, CONTROL, additive, seed=0)
    assert empty.metrics == {}
    assert empty.conditions == ()


def test_model_without_change_is_named_once():
    found = evaluate_ood(DOUBLES, TRAIN, CONTROL, lambda condition, control: control, seed=0)
    assert found.metrics["pearson_delta"] == 0.0
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith("model: pearson_delta")
    assert "3 of 3 conditions" in found.warnings[0]


def test_a_diverged_model_is_refused_by_name():
    with pytest.raises(NonFiniteError, match=r"model prediction of A\+B"):
        evaluate_ood(DOUBLES, TRAIN, CONTROL, lambda condition, control: control * np.nan, seed=0)


def test_same_seed_same_numbers_and_subsampling():
    kwargs = {"max_cells": 20}
    first = evaluate_ood(DOUBLES, TRAIN, CONTROL, additive, seed=1, **kwargs)
    assert first == evaluate_ood(DOUBLES, TRAIN, CONTROL, additive, seed=1, **kwargs)
    assert first.metrics != evaluate_ood(DOUBLES, TRAIN, CONTROL, additive, seed=2, **kwargs).metrics
    with pytest.raises(ValueError, match="max_cells"):
        evaluate_ood(DOUBLES, TRAIN, CONTROL, additive, max_cells=0)
