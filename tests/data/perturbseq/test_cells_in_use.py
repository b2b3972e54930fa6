"""Which cells are used, in whatever order a file has them: selections, strata, small conditions, uneven columns."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from harness import cli
from harness.comparisons import comparisons, sides_of
from harness.data import load
from harness.data.perturbseq.uneven_columns import cramers_v, uneven_columns
from harness.data_spec import PerturbseqData
from harness.errors import UserError
from harness.evaluation.prediction import evaluate_ood
from harness.model_spec import PerturbedVAESpec
from harness.scoring import genes_of
from harness.training.pairing import Pairing
from harness.trial import run_trial
from harness.trial_spec import SecondStageSpec, StartsSpec, TrainSpec, TrialSpec

GENES = 60
LABELS = {"control": 90, "A": 40, "B": 40, "C": 40, "A+B": 30, "B+C": 30}


def screen(path, labels=LABELS, columns=lambda labels, random: {}, shift=lambda obs: 0.0, seed=0):
    """Counts without effects of any label; ``columns`` makes further columns of obs, ``shift`` log means from them."""
    random = np.random.default_rng(seed)
    names = random.permutation(np.repeat(list(labels), list(labels.values())))
    obs = pd.DataFrame({"condition": names, **columns(names, random)}, index=[f"cell{k}" for k in range(len(names))])
    mean = np.exp(np.log(random.gamma(2.0, 2.0, GENES)) + shift(obs))
    counts = random.poisson(mean * random.gamma(8.0, 0.125, (len(names), 1)), (len(names), GENES))
    var = pd.DataFrame(index=["A", "B", "C", *(f"g{k}" for k in range(GENES - 3))])
    anndata.AnnData(counts.astype(np.float32), obs, var).write_h5ad(path)
    return str(path)


def read(path, tmp_path, **fields):
    return load(PerturbseqData(path=str(path), **fields), tmp_path / "cache")


def scored(data, most=25):
    """Scores of baselines, with so few cells drawn that the draw matters."""
    genes = genes_of(data)
    sides, missing = sides_of(data, most, 0, genes)
    assert not missing

    class NoChange:
        def within(self, stratum):
            return lambda condition, control: control

    return evaluate_ood(comparisons(data, "double_seen2", sides, NoChange(), most, 0), seed=0, features=genes)


# --------------------------------------------------------------------------------------------------------- order


@pytest.mark.parametrize("order", ["by condition", "by batch", "at random"])
def test_the_order_of_a_files_rows_changes_nothing(tmp_path, order):
    """Down to the weights of a model: cells are drawn by a hash of their names, and not by their place."""
    columns = {"columns": lambda labels, random: {"batch": random.permutation(np.resize(["b1", "b2"], len(labels)))}}
    path = screen(tmp_path / "cells.h5ad", **columns)
    cells = anndata.read_h5ad(path)
    key = {"by condition": "condition", "by batch": "batch", "at random": None}[order]
    rows = np.random.default_rng(1).permutation(len(cells))
    if key is not None:
        rows = np.argsort(cells.obs[key].to_numpy(), kind="stable")
    cells[rows].copy().write_h5ad(tmp_path / "other.h5ad")
    one, other = read(path, tmp_path), read(tmp_path / "other.h5ad", tmp_path)
    assert torch.equal(one.frames, other.frames)
    assert torch.equal(one.index, other.index)
    assert one.split_record["cells"] == other.split_record["cells"]
    assert scored(one).per_condition == scored(other).per_condition
    results = [
        _trained(tmp_path / name, data, tmp_path) for name, data in (("1", path), ("2", tmp_path / "other.h5ad"))
    ]
    assert results[0] == results[1]


def _trained(folder, path, tmp_path):
    data = PerturbseqData(path=str(path))
    spec = TrialSpec(
        model=PerturbedVAESpec(latent_dim=4, responsive_dim=2, hidden=8),
        data=data,
        train=TrainSpec(epochs=2, starts=StartsSpec(number=2), second_stage=SecondStageSpec(restarts=0)),
        evaluate={"cells": 20, "conditions": False},
        data_fingerprint=read(path, tmp_path).fingerprint,
    )
    result = run_trial(spec, folder, device="cpu", cache_dir=tmp_path / "cache")
    assert result.state == "finished", result.failure
    return {name: value for name, value in {**result.metrics, **result.baselines}.items() if "time/" not in name}


# ----------------------------------------------------------------------------------------- selections and strata


def lines(labels, random):
    """Each condition was mostly screened in one of two lines, control mostly in the other."""
    share = np.where(np.isin(labels, ["control", "C"]), 0.85, 0.25)
    return {"cell_line": np.where(random.random(len(labels)) < share, "K562", "RPE1")}


def differ(obs):
    """The lines differ in every gene."""
    apart = np.random.default_rng(9).normal(0, 0.8, GENES)
    return (obs["cell_line"] == "RPE1").to_numpy()[:, None] * apart


def two_lines(tmp_path):
    return screen(tmp_path / "cells.h5ad", {**LABELS, "control": 160}, lines, differ)


def test_two_lines_pooled_look_like_an_effect_and_are_named_with_a_number(tmp_path):
    data = read(two_lines(tmp_path), tmp_path)
    assert scored(data).baselines["mean_effect"]["pearson_delta"] > 0.6
    (note,) = data.notes
    assert note.startswith("obs['cell_line'] is unevenly spread over conditions (Cramér's V 0.")
    assert (
        "score within each value with data.strata: cell_line, or read one of them with data.where: {cell_line:" in note
    )


def test_within_strata_the_effect_is_gone(tmp_path):
    data = read(two_lines(tmp_path), tmp_path, strata="cell_line")
    assert data.strata == ("K562", "RPE1")
    assert data.notes == ()
    found = scored(data)
    for row in ("mean_effect", "additive", "linear", "nearest"):
        low, high = found.intervals[row]["pearson_delta"]
        assert low <= 0.0 <= high
    assert "strata of obs: K562, RPE1" in data.read


def test_every_control_beside_a_cell_is_of_its_stratum(tmp_path):
    data = read(two_lines(tmp_path), tmp_path, strata="cell_line")
    of_frame = torch.full((len(data.frames),), -1)
    of_frame[data.index[:, -1]] = data.stratum
    assert torch.equal(of_frame[data.index[:, 0]], data.stratum)
    for kind in ("random", "ot"):
        pairing = Pairing(data, kind, 0)
        for split in ("train", "validation"):
            drawn = pairing.index(split, 1)
            assert torch.equal(of_frame[drawn[:, 0]], data.stratum[data.splits[split]])


def test_one_stratum_alone_can_be_read(tmp_path):
    path = two_lines(tmp_path)
    data = read(path, tmp_path, where={"cell_line": ["K562"]}, min_cells=5)
    cells = anndata.read_h5ad(path)
    names = [name for own in data.split_record["cells"].values() for part in own.values() for name in part]
    assert set(cells.obs.loc[names, "cell_line"]) == {"K562"}
    assert f"{int((cells.obs['cell_line'] == 'RPE1').sum()):,} cells not in data.where" in data.read
    assert data.notes == ()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"where": {"line": ["K562"]}}, r"data\.where names obs\['line'\], and there is no such column"),
        ({"where": {"cell_line": ["HeLa"]}}, r"data\.where asks for 'HeLa' in obs\['cell_line'\].* K562, RPE1"),
        ({"strata": "line"}, r"data\.strata names obs\['line'\], and there is no such column; there are condition"),
        ({"strata": "condition"}, r"no value of .* has 3 control cells|no single perturbation"),
    ],
)
def test_a_selection_that_cannot_be_made_is_refused(tmp_path, fields, sentence):
    with pytest.raises(UserError, match=sentence):
        read(two_lines(tmp_path), tmp_path, **fields)


def test_a_stratum_without_control_cells_is_left_out_and_said(tmp_path):
    def three(labels, random):
        line = lines(labels, random)["cell_line"]
        return {"cell_line": np.where((labels == "A") & (random.random(len(labels)) < 0.3), "HeLa", line)}

    path = screen(tmp_path / "cells.h5ad", {**LABELS, "control": 160}, three)
    data = read(path, tmp_path, strata="cell_line")
    assert data.strata == ("K562", "RPE1")
    assert "cells of stratum HeLa, which has 0 control cells" in data.read


def test_numbers_are_selected_however_they_are_written(tmp_path):
    def doses(labels, random):
        return {"dose": np.where(labels == "control", 0.0, random.choice([0.5, 10.0], len(labels)))}

    path = screen(tmp_path / "cells.h5ad", columns=doses)
    for asked in ([0, 10], [0.0, 10.0], ["0", "10"]):
        data = read(path, tmp_path, where={"dose": asked}, min_cells=5)
        assert len(data.frames) < 250


# ------------------------------------------------------------------------------------------------ uneven columns


def notes(columns, labels=LABELS):
    random = np.random.default_rng(0)
    names = random.permutation(np.repeat(list(labels), list(labels.values())))
    obs = pd.DataFrame({"condition": names, **columns(names, random)})
    return [(one.column, one.v is None) for one in uneven_columns(obs, names, {"condition"})]


@pytest.mark.parametrize(
    ("column", "found"),
    [
        (lambda labels, random: np.resize(["b1", "b2"], len(labels)), []),  # dealt evenly
        (lambda labels, random: np.where(labels == "A", "d1", random.choice(["d1", "d2"], len(labels))), ["V"]),
        (lambda labels, random: np.where(labels == "control", "b1", "b2"), []),  # the number of members, no batch
        (lambda labels, random: np.where(np.isin(labels, ["control", "A"]), "b1", "b2"), ["V"]),
        (lambda labels, random: [len(label.split("+")) * (label != "control") for label in labels], []),
        (lambda labels, random: [f"{label}_{k % 2}" for k, label in enumerate(labels)], []),  # guides
        (lambda labels, random: np.where(labels == "control", 0.0, random.choice([1.0, 10.0], len(labels))), ["dose"]),
        (lambda labels, random: random.normal(size=len(labels)), []),  # a measurement
        (lambda labels, random: ["K562"] * len(labels), []),
    ],
)
def test_columns_are_told_apart_by_how_conditions_lie_in_them(column, found):
    told = notes(lambda labels, random: {"column": column(labels, random)})
    assert ["dose" if is_dose else "V" for _, is_dose in told] == found


def test_what_a_perturbation_does_to_cells_is_no_design():
    cluster = {"columns": lambda labels, random: {"leiden": np.where(labels == "A", "1", "0")}}
    assert notes(cluster["columns"]) == []


def test_cramers_v_against_known_tables():
    assert cramers_v(np.array([[50, 0], [0, 50]]))[0] == pytest.approx(1.0, abs=0.01)
    v, chance = cramers_v(np.array([[50, 50], [50, 50]]))
    assert (v, chance) == (0.0, 1.0)
    random = np.random.default_rng(0)
    by_chance = [cramers_v(random.multinomial(40, [0.25] * 4, size=30) + 1)[0] for _ in range(50)]
    assert np.mean(by_chance) < 0.05  # uncorrected it would be 0.16


# ---------------------------------------------------------------------------------------------- small conditions


def test_small_conditions_are_refused_or_left_out_by_a_word(tmp_path):
    path = screen(tmp_path / "cells.h5ad", {**LABELS, "C": 7})
    with pytest.raises(
        UserError, match=r"1 conditions have fewer than 20 cells \(least: C with 7\); lower .*drop: true"
    ):
        read(path, tmp_path)
    data = read(path, tmp_path, min_cells={"drop": True})
    assert data.excluded["C"] == "7 cells, and data.min_cells asks for 20"
    assert data.excluded["B+C"].startswith("double_seen1")
    assert "left out: 37 cells of 2 conditions that no split can use" in data.read


def test_inspect_prints_a_command_that_reads_the_same(tmp_path, capsys):
    path = screen(tmp_path / "cells.h5ad", {**LABELS, "control": 160, "C": 7}, lines, differ)
    arguments = ["--drop-small", "--strata", "cell_line", "--min-cells", "10"]
    assert cli.main(["data", "inspect", path, *arguments]) == 0
    said = capsys.readouterr().out
    assert "strata        obs['cell_line']: K562 (" in said
    assert '--set \'data.min_cells={"least": 10, "drop": true}\' --set data.strata=cell_line' in said
    assert cli.main(["data", "inspect", path]) == 2
    assert "leave them out with data.min_cells: {drop: true}" in capsys.readouterr().out
    assert cli.main(["data", "inspect", path, "--min-cells", "5", "--where", "cell_line=K562"]) == 0
    assert '--set \'data.where={"cell_line": ["K562"]}\'' in capsys.readouterr().out
    assert cli.main(["data", "inspect", path, "--where", "K562"]) == 2
    assert "write COLUMN=VALUE" in capsys.readouterr().err
