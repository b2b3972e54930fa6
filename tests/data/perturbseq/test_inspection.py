"""``harness data inspect``: what a file holds, and every problem with its remedy."""

import os
import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from harness import cli
from harness.data import load
from harness.data.perturbseq.inspection import inspect_file as inspect_spec
from harness.data.perturbseq.values import log_normalise
from harness.data_spec import PerturbseqData

#: Each convention's column, and its words for control, a single and a pair.
CONVENTIONS = {
    "PerturBench": ("condition", "control", "{}", "{}+{}"),
    "GEARS": ("condition", "ctrl", "{}+ctrl", "{}+{}"),
    "scPerturb": ("perturbation", "control", "{}", "{}_{}"),
    "CPA": ("guide_ids", "", "{}", "{},{}"),
}


def inspect_file(path, **options):
    return inspect_spec(PerturbseqData(path=str(path), **options))


def written(path, convention="PerturBench", *, cells=25, sparse=True, change=lambda data: None):
    """A file of counts: control, two singles, their pair, and a pair with a stranger."""
    column, control, single, pair = CONVENTIONS[convention]
    names = [
        control,
        single.format("KLF1"),
        single.format("SET"),
        pair.format("SET", "KLF1"),
        pair.format("KLF1", "MYC"),
    ]
    labels = np.repeat(names, cells)
    counts = np.random.default_rng(0).poisson(2.0, size=(len(labels), 12)).astype(np.float32)
    obs = pd.DataFrame(
        {column: labels, "batch": np.arange(len(labels)) % 3}, index=[f"c{k}" for k in range(len(labels))]
    )
    obs["batch"] = obs["batch"].astype(str)
    genes = pd.DataFrame(index=["KLF1", *(f"g{k}" for k in range(11))])
    data = anndata.AnnData(scipy.sparse.csr_matrix(counts) if sparse else counts, obs, genes)
    change(data)
    data.write_h5ad(path)
    return path


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("sparse", [True, False])
def test_every_convention_is_told(tmp_path, convention, sparse):
    found = dict(inspect_file(written(tmp_path / "cells.h5ad", convention, sparse=sparse)).found)
    column, control, _, _ = CONVENTIONS[convention]
    assert "125 cells × 12 genes" in found["file"]
    assert found["X"].startswith("counts: ")
    assert found["perturbation"].startswith(f"obs[{column!r}], pairs written ")
    assert found["control"] == f"25 cells labelled {control!r}"
    assert found["singles"] == found["doubles"] == "2, of 25 to 25 cells"
    assert found[""] == "1 with both members among the singles, 1 with one, 0 with neither"
    assert found["batches"] == "obs['batch']: 3 values, 0, 1, 2"


def test_what_a_study_leaves_out_is_noted_and_the_command_to_go_on_is_given(tmp_path, capsys):
    path = written(tmp_path / "cells.h5ad")
    assert cli.main(["data", "inspect", str(path), "--min-cells", "10"]) == 0
    said = capsys.readouterr().out
    assert "note: 1 conditions cannot be predicted, and are left out by name: KLF1+MYC" in said
    assert "note: 2 of 3 perturbed genes are not among the genes: MYC, SET" in said
    assert said.rstrip().endswith(f"--set data.path={path} --set data.min_cells=10")


def _nan(data):
    data.X[7, 3] = np.nan


def _scaled(data):
    data.X = data.X - 1.5


def _no_control(data):
    data.obs["condition"] = data.obs["condition"].astype(str).replace("control", "K562")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_nan, "NaN or an infinite value at cell 'c7', gene 'g2'; fill or drop it"),
        (_scaled, "it is unclear whether the file holds counts or log-normalised values"),
        (_no_control, "no control cells in obs['condition']"),
    ],
)
def test_each_problem_is_named_with_its_remedy_and_the_rest_is_told_all_the_same(tmp_path, capsys, change, words):
    path = written(tmp_path / "cells.h5ad", sparse=False, change=change)
    assert cli.main(["data", "inspect", str(path)]) == 2
    said = capsys.readouterr().out
    assert any(line.startswith("problem: ") and words in line for line in said.splitlines())
    assert "125 cells × 12 genes" in said
    assert "use it" not in said


def test_small_conditions_are_a_problem_beside_others(tmp_path):
    problems = inspect_file(written(tmp_path / "cells.h5ad", sparse=False, change=_nan), min_cells=30).problems
    assert len(problems) == 2
    assert "conditions have fewer than 30 cells" in problems[1]


def test_what_is_no_file_of_cells_is_refused_in_a_sentence(tmp_path, capsys):
    (tmp_path / "notes.h5ad").write_text("no HDF5")
    written(tmp_path / "empty.h5ad", cells=0)
    for name, words in (
        ("notes.h5ad", "is not a readable .h5ad (HDF5) file"),
        ("none.h5ad", "none.h5ad: there is no such file; check the path"),
        ("", "is a folder; name the .h5ad file in it"),
        ("empty.h5ad", "empty.h5ad is empty, 0 cells × 12 genes"),
    ):
        assert cli.main(["data", "inspect", str(tmp_path / name)]) == 2
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1


def notes(path, change=lambda data: None, **options):
    found = inspect_file(written(path / "cells.h5ad", sparse=False, change=change), **options)
    assert not found.problems
    return found.notes


def _logs(data):
    data.X = log_normalise(data.X)


@pytest.mark.parametrize(
    ("change", "word", "words"),
    [
        (_logs, "counts", "problem: .* data.values is counts, but X holds fractions .*; leave data.values out"),
        (
            _scaled,
            "counts",
            "problem: .* X holds a negative value at cell 'c0', gene .*; give counts or log-normalised",
        ),
        (_scaled, "auto", "problem: .* X holds negative values .*; give counts or log-normalised values, not scaled"),
        (lambda data: None, "lognorm", "note: data.values is lognorm, but all values of X are whole numbers"),
    ],
)
def test_a_word_on_values_that_they_contradict_is_told(tmp_path, capsys, change, word, words):
    path = written(tmp_path / "cells.h5ad", sparse=False, change=change)
    assert cli.main(["data", "inspect", str(path), "--values", word]) == (2 if words.startswith("problem") else 0)
    assert re.search(f"^{words}", capsys.readouterr().out, re.MULTILINE)


def test_names_that_only_their_order_tells_apart_are_told(tmp_path):
    def joined(data):
        data.obs.index = [f"c{k % 100}" for k in range(len(data))]

    assert not any("cell names" in note for note in notes(tmp_path))
    told = notes(tmp_path, joined)
    assert any(
        note.startswith("25 cell names occur more than once, first 'c0', ") and "obs_names_make_unique" in note
        for note in told
    )


def test_columns_that_were_not_taken_are_told_with_how_to_take_them(tmp_path):
    def more(data):
        data.obs["perturbation"] = np.roll(data.obs["condition"].str.replace("KLF1", "IFNg"), 5)
        data.obs["guide_ids"] = data.obs["condition"]
        data.obs["Time"] = np.arange(len(data)) % 2
        data.obs["day"] = np.arange(len(data)) % 5

    told = [note for note in notes(tmp_path, more, min_cells=4) if "taken for" in note]
    unordered = (
        "holds {} times, but perturbations do not begin after the first of them, so that it is taken for no time "
        "course: to take it put under data: in the study file   time: {}   (here: --time {})"
    )
    assert told == [
        "obs['condition'] is taken for the perturbation, of whose names 1 are genes of the file; obs['perturbation'], "
        "of whose names 0 are and which differs from it in 85 cells, is not: to take it put under data: in the study "
        "file   column: perturbation   (here: --column perturbation)",
        f"obs['Time'] {unordered.format(2, 'Time', 'Time')}",
        f"obs['day'] {unordered.format(5, 'day', 'day')}",
        "obs['condition'] is taken for the perturbation; obs['guide_ids'], which says the same, is not: to take it put "
        "under data: in the study file   column: guide_ids   (here: --column guide_ids)",
    ]
    named = notes(tmp_path, more, column="condition", min_cells=4)
    assert not any("is taken for the perturbation" in note for note in named)


def _course(data):
    """Perturbations begin after day 0, by which alone some control cells are."""
    data.obs["day"] = np.where(np.arange(len(data)) < 12, "D0", np.array(["D2", "D6"])[np.arange(len(data)) % 2])


def test_of_two_columns_of_times_the_one_that_orders_conditions_is_taken(tmp_path):
    def more(data):
        _course(data)
        data.obs["time"] = np.arange(len(data)) % 2
        data.obs["hours"] = data.obs["day"].str.replace("D", "")

    found = inspect_file(written(tmp_path / "cells.h5ad", change=more), min_cells=5)
    assert dict(found.found)["time"].startswith("obs['day']: 3 time points, D0 (12 cells)")
    assert any("obs['hours'], which puts cells in the same order, is not" in note for note in found.notes)
    assert any("obs['time'], which differs from it, is not" in note for note in found.notes)


def _singles(data):
    data.obs["condition"] = data.obs["condition"].astype(str).replace({"SET+KLF1": "g1", "KLF1+MYC": "g2"})


def _times(data):
    data.obs["day"] = np.array(["D0", "D2", "D6"])[np.arange(len(data)) % 3]


@pytest.mark.parametrize(
    ("changes", "options", "lines"),
    [
        ((), {}, []),
        ((_singles,), {}, [{"split": "leave_perturbation_out", "perturbation_features": "loadings"}]),
        (
            (_singles, _times),
            {"min_cells": 8, "time": "day"},
            [{"split": "leave_perturbation_out", "perturbation_features": "loadings"}, {"split": "leave_time_out"}],
        ),
        ((_times,), {"min_cells": 8, "time": "day"}, [{"split": "leave_time_out"}]),
    ],
)
def test_splits_that_the_file_serves_are_proposed_as_lines_that_work(tmp_path, changes, options, lines):
    def change(data):
        for one in changes:
            one(data)

    told = [note for note in notes(tmp_path, change, **options) if note.startswith("to predict")]
    found = [dict(re.findall(r"   (\w+): (\w+)", note)) for note in told]
    assert found == lines
    for line in lines:
        data = load(PerturbseqData(path=str(tmp_path / "cells.h5ad"), **options, **line), tmp_path)
        assert data.ood or data.split_record["held_out"]


def test_perturbed_genes_that_are_not_measured_need_vectors_from_elsewhere(tmp_path):
    def change(data):
        _singles(data)
        data.var.index = [f"h{k}" for k in range(12)]

    assert any("perturbation_features: genes.csv   (your file" in note for note in notes(tmp_path, change))


def test_a_small_condition_at_one_time_is_a_problem(tmp_path):
    found = inspect_file(written(tmp_path / "cells.h5ad", change=_times), time="day")
    assert any("fewer than 20 cells" in problem and "at time D" in problem for problem in found.problems)


def test_nothing_is_written_beside_or_into_the_file(tmp_path):
    path = written(tmp_path / "cells.h5ad")
    before, listed = path.read_bytes(), sorted(tmp_path.iterdir())
    os.chmod(path, 0o444)
    inspect_file(path)
    assert path.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == listed


@pytest.mark.skipif("HARNESS_REAL_DATA" not in os.environ, reason="HARNESS_REAL_DATA names no folder of real cells")
def test_the_real_subset_is_told():
    found = inspect_file(Path(os.environ["HARNESS_REAL_DATA"]) / "norman19_subset.h5ad")
    told = dict(found.found)
    assert told["X"].startswith("log-normalised")
    assert told["layers/counts"].startswith("counts")
    assert told["singles"].startswith("18, of 95")
    assert told[""] == "5 with both members among the singles, 3 with one, 7 with neither"
    assert not found.problems
