"""``harness data inspect``: what a file holds, and every problem with its remedy."""

import os
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from harness import cli
from harness.data.perturbseq.inspection import inspect_file

#: Each convention's column, and its words for control, a single and a pair.
CONVENTIONS = {
    "PerturBench": ("condition", "control", "{}", "{}+{}"),
    "GEARS": ("condition", "ctrl", "{}+ctrl", "{}+{}"),
    "scPerturb": ("perturbation", "control", "{}", "{}_{}"),
    "CPA": ("guide_ids", "", "{}", "{},{}"),
}


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


def _unlabelled(data):
    data.obs["condition"] = data.obs["condition"].where(np.arange(len(data)) > 0, None)


def _no_control(data):
    data.obs["condition"] = data.obs["condition"].astype(str).replace("control", "safe")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_nan, "NaN or an infinite value at cell 'c7', gene 'g2'; fill or drop it"),
        (_scaled, "it is unclear whether the file holds counts or log-normalised values"),
        (_unlabelled, "1 of 125 cells have no label in obs['condition']; remove these cells or label them"),
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
    assert cli.main(["data", "inspect", str(tmp_path / "notes.h5ad")]) == 2
    assert "is not a readable .h5ad (HDF5) file" in capsys.readouterr().err


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
