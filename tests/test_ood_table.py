"""The table of every OOD score, and the cells it is made from."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from comparing import evaluate

from harness.data.fingerprint import fingerprint
from harness.data.simulation import build
from harness.data_spec import SimulationData
from harness.evaluation.measures import has_transport
from harness.evaluation.registry import MAIN, METRICS
from harness.ood_table import write_ood
from harness.scoring import FEWEST_GENES, genes_of, score_ood
from harness.split_cells import SplitCells

GENES = tuple(f"g{k}" for k in range(60))


def drawn(seed, shift):
    return np.random.default_rng(seed).normal(size=(40, 60)) + 2.0 + shift * (np.arange(60) < 10)


@pytest.fixture(scope="module")
def result():
    train = {"control": drawn(0, 0.0), "A": drawn(1, 1.0), "B": drawn(2, -2.0)}
    cells = {"A+B": drawn(3, -1.0), "A": drawn(4, 1.0), "A+D": drawn(5, 0.0)}
    return evaluate(cells, train, drawn(9, 0.0), lambda _, control: control + 0.1, features=GENES)


@pytest.fixture(scope="module")
def lines(result, tmp_path_factory):
    path = tmp_path_factory.mktemp("ood") / "ood.csv"
    write_ood(path, {"double": result})
    with path.open() as file:
        return list(csv.DictReader(file))


def test_every_score_is_there_by_row_gene_set_and_condition(result, lines):
    def value(row, genes, condition, metric):
        (line,) = [one for one in lines if (one["row"], one["genes"], one["condition"]) == (row, genes, condition)]
        return float(line[metric])

    assert {line["row"] for line in lines} == {"model", *result.baselines, "floor"}
    assert {line["genes"] for line in lines} == {"all", "top20de", "top50de", "top1000"}
    assert {line["condition"] for line in lines} == {"(mean)", "(low)", "(high)", "A+B", "A"}  # D was never seen
    close = {"rel": 1e-5, "abs": 1e-9}
    assert value("model", "all", "A+B", "r2") == pytest.approx(result.per_condition["model"]["A+B"]["r2"], **close)
    of_genes = result.per_condition["linear"]["A"]["energy_distance_top20de"]
    assert value("linear", "top20de", "A", "energy_distance") == pytest.approx(of_genes, **close)
    assert value("additive", "all", "(mean)", "l2") == pytest.approx(result.baselines["additive"]["l2"], **close)
    low, high = result.intervals["model"]["mmd_top50de"]
    assert value("model", "top50de", "(low)", "mmd") == pytest.approx(low, **close)
    assert value("model", "top50de", "(high)", "mmd") == pytest.approx(high, **close)
    floor, ceiling = result.floors["rmse_floor"], result.floor_per_condition["A"]["pearson_delta_ceiling"]
    assert value("floor", "all", "(mean)", "rmse") == pytest.approx(floor, **close)
    assert value("floor", "all", "A", "pearson_delta") == pytest.approx(ceiling, **close)


def test_what_is_not_taken_leaves_its_field_empty(lines):
    assert all(line["de_auroc"] == "" for line in lines if line["genes"] == "top20de")
    assert {line["embedding"] for line in lines if line["row"] == "linear" and line["condition"] == "A"} == {"one-hot"}
    assert list(lines[0])[5:] == [name for name in METRICS if name != "wasserstein" or has_transport()]


@pytest.mark.parametrize("installed", [True, False])
def test_a_metric_of_a_missing_package_has_no_column(result, tmp_path, installed):
    def taken(scores):
        kept = {name: value for name, value in scores.items() if not name.startswith("wasserstein")}
        return {**kept, "wasserstein": 1.0} if installed else kept

    model = {condition: taken(scores) for condition, scores in result.per_condition["model"].items()}
    write_ood(tmp_path / "ood.csv", {"double": replace(result, per_condition={"model": model}, floor_per_condition={})})
    with (tmp_path / "ood.csv").open() as file:
        found = list(csv.DictReader(file))
    assert ("wasserstein" in found[0]) is installed
    assert set(METRICS) - set(found[0]) == (set() if installed else {"wasserstein"})


@pytest.fixture(scope="module")
def data():
    spec = SimulationData(preset="tiny")
    return build(spec, fingerprint(spec), Path())


def test_cells_of_a_split_are_last_frames_drawn_from_all_of_a_condition_and_its_moments_are_over_all(data):
    cells = SplitCells(data, "double", 7, seed=0)
    assert list(cells) == list(data.by_condition("double"))
    for name, rows in data.by_condition("double").items():
        every = data.frames[data.index[rows, -1]].double().numpy()
        found = cells[name]
        assert found.cells.dtype == np.float64
        assert found.cells.shape == (7, every.shape[1])
        which = [np.flatnonzero((every == cell).all(axis=1)).item() for cell in found.cells]
        assert len(set(which)) == 7
        assert max(which) > 7  # not the first ones
        np.testing.assert_allclose(found.moments.mean, every.mean(0))
        np.testing.assert_allclose(found.moments.variance, every.var(0, ddof=1))
        assert found.moments.count == len(rows)
    again, other = SplitCells(data, "double", 7, seed=0), SplitCells(data, "double", 7, seed=1)
    name = next(iter(cells))
    np.testing.assert_array_equal(again[name].cells, cells[name].cells)
    assert not np.array_equal(other[name].cells, cells[name].cells)
    earlier = SplitCells(data, "double", 1000, seed=0, seen=1)
    first = data.index[data.by_condition("double")[name], 0]
    np.testing.assert_array_equal(earlier[name].cells, data.frames[first].double().numpy())


class Same(torch.nn.Module):
    """Predicts the control cells."""

    transform = None

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))


class NoChange:
    """A predictor of the control cells."""

    def __init__(self, *_):
        pass

    def within(self, stratum):
        return lambda condition, control: control


def test_scores_are_logged_with_intervals_and_gene_sets_of_the_main_metrics(data, monkeypatch):
    wide = replace(
        data,
        frames=data.frames.repeat(1, 4)[:, :60].contiguous() + torch.arange(60),
        feature_names=GENES,
    )
    monkeypatch.setattr("harness.scoring.Predictor", NoChange)
    monkeypatch.setattr("harness.scoring.score_latents", lambda *_: {})
    scored = score_ood(Same(), wide, None, 40, 0)
    (split,) = wide.ood
    names = {name.removeprefix(f"ood/{split}/") for name in scored.metrics}
    for metric in MAIN:
        assert {metric, f"{metric}_low", f"{metric}_high", f"{metric}_top20de", f"{metric}_top1000"} <= names
    assert {"r2", "de_auroc", "de_auroc_ceiling", "perturbation_rank", "rmse_relative_top50de_floor"} <= names
    assert "r2_top20de" not in names
    assert "r2_low" not in names
    assert f"baseline/linear/ood/{split}/pearson_delta_low" in scored.baselines
    assert "r2_top20de" in scored.ood[split].metrics
    low, high = (scored.metrics[f"ood/{split}/rmse_relative_{end}"] for end in ("low", "high"))
    assert low <= scored.metrics[f"ood/{split}/rmse_relative"] <= high


def test_few_features_or_nameless_ones_are_no_genes(data):
    assert len(data.feature_names) <= FEWEST_GENES
    assert genes_of(data) == ()
    assert genes_of(replace(data, feature_names=())) == ()
