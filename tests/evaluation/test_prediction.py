import numpy as np
import pytest
from comparing import evaluate, means, score_condition

from harness.evaluation.baselines import Baselines, CannotPredict
from harness.evaluation.discrimination import NORMALISED, RANK
from harness.evaluation.measured import Measured
from harness.evaluation.ood import measures_of
from harness.evaluation.prediction import Comparison, evaluate_ood
from harness.evaluation.registry import split_half_name
from harness.evaluation.scores import NonFiniteError

ROWS = {"control_mean", "mean_effect", "additive", "linear", "nearest"}

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
    found = evaluate(DOUBLES, TRAIN, CONTROL, additive, max_cells=50, seed=0)
    assert found.conditions == tuple(DOUBLES)
    assert set(found.baselines) == ROWS
    names = {*measures_of(genes=False), RANK, NORMALISED}
    for scores in (found.metrics, *found.baselines.values()):
        assert set(scores) == names
    assert all(tuple(table) == tuple(DOUBLES) for table in found.per_condition.values())
    assert set(found.floors) == {split_half_name(name) for name in names}
    assert found.excluded == {}
    assert found.warnings == ()
    assert set(found.intervals) == {"model", "floor", *ROWS}
    for row, scores in (("model", found.metrics), ("floor", found.floors), *found.baselines.items()):
        assert set(found.intervals[row]) == set(scores)
        for name, (low, high) in found.intervals[row].items():
            assert low <= scores[name] + 1e-12
            assert high >= scores[name] - 1e-12


def test_order_of_rows_in_an_additive_world():
    found = evaluate(DOUBLES, TRAIN, CONTROL, additive, seed=0)
    assert found.metrics["pearson_delta"] > 0.98
    assert found.baselines["additive"]["pearson_delta"] > 0.98
    assert found.baselines["control_mean"]["pearson_delta"] == 0.0
    for name in ("rmse_relative", "rmse", "energy_distance", "mmd"):
        assert found.metrics[name] < found.baselines["mean_effect"][name]
    assert found.metrics["rmse_relative"] == pytest.approx(found.floors["rmse_relative_floor"], rel=0.1)


def test_several_cells_of_one_control_cell_are_no_pair():
    """Control cells several times over are the baseline of no change, whose cells stand there once."""
    found = evaluate(DOUBLES, TRAIN, CONTROL, lambda condition, control: np.repeat(control, 5, axis=0), seed=0)
    for name in ("energy_distance", "mmd"):
        assert found.metrics[name] == pytest.approx(found.baselines["control_mean"][name], rel=1e-9)


def test_a_row_is_scored_as_score_condition_does():
    found = evaluate({"A+B": DOUBLES["A+B"]}, TRAIN, CONTROL, additive, starts=CONTROL, seed=7)
    expected = score_condition(additive("A+B", CONTROL), DOUBLES["A+B"], CONTROL, seed=7).values
    assert found.per_condition["model"]["A+B"] == expected
    assert found.metrics == expected
    assert not any(found.intervals.values())
    shifted = Baselines(means(TRAIN)).predict("additive", "A+B", CONTROL)
    by_hand = score_condition(shifted, DOUBLES["A+B"], CONTROL, seed=7).values
    assert found.baselines["additive"] == pytest.approx(by_hand)


def test_what_one_row_cannot_predict_is_in_no_row():
    def model(condition, control):
        if condition == "A+C":
            raise CannotPredict("it has never seen A with C")
        return additive(condition, control)

    cells = DOUBLES | {"A+D": draw("A+D", 40, 30)}
    found = evaluate(cells, TRAIN, CONTROL, model, seed=0)
    assert found.conditions == ("A+B", "B+C")
    assert found.excluded == {
        "A+D": "additive: no training cells of D alone",
        "A+C": "model: it has never seen A with C",
    }
    assert all(set(table) == {"A+B", "B+C"} for table in found.per_condition.values())


def test_a_baseline_that_can_predict_nothing_leaves_the_table():
    found = evaluate({"A+D": draw("A+D", 40, 30)}, TRAIN, CONTROL, additive, seed=0)
    assert set(found.baselines) == {"control_mean", "mean_effect", "nearest"}  # A is shared
    assert found.conditions == ("A+D",)
    assert any("additive can predict no condition" in w for w in found.warnings)


def test_control_is_not_a_condition_and_nothing_is_no_crash():
    found = evaluate({"control": CONTROL, "A": draw("A", 40, 40)}, TRAIN, CONTROL, additive, seed=0)
    assert found.conditions == ("A",)
    empty = evaluate({}, TRAIN, CONTROL, additive, seed=0)
    assert empty.metrics == {}
    assert empty.conditions == ()


def test_model_without_change_is_named_once():
    found = evaluate(DOUBLES, TRAIN, CONTROL, lambda condition, control: control, seed=0)
    assert found.metrics["pearson_delta"] == 0.0
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith("model: pearson_delta")
    assert "3 of 3 conditions" in found.warnings[0]


def test_a_diverged_model_is_refused_by_name():
    with pytest.raises(NonFiniteError, match=r"model prediction of A\+B"):
        evaluate(DOUBLES, TRAIN, CONTROL, lambda condition, control: control * np.nan, seed=0)


def test_same_seed_same_numbers_and_subsampling():
    kwargs = {"max_cells": 20}
    first = evaluate(DOUBLES, TRAIN, CONTROL, additive, seed=1, **kwargs)
    assert first == evaluate(DOUBLES, TRAIN, CONTROL, additive, seed=1, **kwargs)
    assert first.metrics != evaluate(DOUBLES, TRAIN, CONTROL, additive, seed=2, **kwargs).metrics


GENES = tuple(f"g{k}" for k in range(60))


def genes_of(condition, n, seed):
    """Cells of 60 genes, of which the first eight change."""
    random = np.random.default_rng(seed)
    cells = random.normal(size=(n, 60)) + 2.0
    cells[:, :8] += draw(condition, n, seed) - BASE
    return cells


def test_rows_on_genes_have_gene_sets_ranks_and_floors():
    train = {c: genes_of(c, 100, i) for i, c in enumerate(("control", "A", "B", "C"))}
    cells = {c: genes_of(c, 60, 10 + i) for i, c in enumerate(("A+B", "A+C", "B+C"))}
    best = Baselines(means(train))

    def model(condition, control):
        return best.predict("additive", condition, control)

    found = evaluate(cells, train, train["control"], model, seed=0, features=GENES)
    assert found.metrics["perturbation_rank"] == 1.0
    assert found.baselines["control_mean"]["perturbation_rank"] < 1.0
    assert found.floors["perturbation_rank_ceiling"] == 1.0
    assert found.metrics["de_auroc"] > 0.9
    assert found.baselines["control_mean"]["de_auroc"] == 0.5
    assert found.metrics["direction_accuracy_top20de"] > 0.8
    by_hand = score_condition(model("A+B", train["control"]), cells["A+B"], train["control"], seed=0, genes=True).values
    row = found.per_condition["model"]["A+B"]
    assert {name: row[name] for name in by_hand} == by_hand
    assert {split_half_name(name) for name in found.metrics} == set(found.floors)
    assert found.embeddings == dict.fromkeys(cells, "one-hot")


def test_only_what_is_asked_for_is_scored():
    found = evaluate(DOUBLES, TRAIN, CONTROL, additive, seed=0, metrics=("rmse", "pearson_delta"))
    assert set(found.metrics) == {"rmse", "pearson_delta"}
    whole = evaluate(DOUBLES, TRAIN, CONTROL, additive, seed=0)
    assert found.metrics["rmse"] == whole.metrics["rmse"]


class Counted(dict):
    """A mapping that counts how often each condition is read."""

    def __init__(self, *args):
        super().__init__(*args)
        self.read = {}

    def __getitem__(self, name):
        self.read[name] = self.read.get(name, 0) + 1
        return super().__getitem__(name)


def test_cells_are_read_condition_by_condition_and_once():
    cells = Counted({name: Measured.of(of, name) for name, of in DOUBLES.items()})
    held_out = Measured.of(CONTROL, "control")
    evaluate_ood([Comparison(cells, held_out, TRAIN["control"], Baselines(means(TRAIN)), additive)], seed=0)
    assert cells.read == dict.fromkeys(DOUBLES, 1)
