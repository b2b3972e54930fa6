"""Cells without a label of use: a study of a file is the study of the file without them, and says how many they are."""

import json
import shlex

import anndata
import numpy as np
import pandas as pd
import pytest
import yaml

from harness import cli
from harness.data import load
from harness.data.perturbseq.inspection import inspect_file
from harness.data_spec import PerturbseqData

GENES = ("KLF1", "SET", *(f"g{k}" for k in range(10)))


def screen(path, *, times=False, without=()):
    """A screen whose labels name also no guide, three genes or nothing; or the same file without such cells."""
    random = np.random.default_rng(0)
    labels = ["control", "KLF1", "SET", "KLF1_SET", "nan", "KLF1_SET_g0", None]
    label = random.permutation(np.repeat(np.array(labels, dtype=object), 60))
    obs = pd.DataFrame({"perturbation": label}, index=[f"cell{k}" for k in range(len(label))])
    if times:
        obs["day"] = np.array(["D0", "D2"], dtype=object)[random.integers(0, 2, len(label))]
        obs.loc[obs["perturbation"] == "nan", "day"] = None
    counts = random.poisson(5.0, (len(label), len(GENES))).astype(np.float32)
    data = anndata.AnnData(counts, obs, pd.DataFrame(index=list(GENES)))
    data[~obs["perturbation"].isin(without).to_numpy()].copy().write_h5ad(path)
    return str(path)


OF_NO_USE = ("nan", "KLF1_SET_g0", None)


@pytest.mark.parametrize("times", [False, True])
def test_a_file_is_read_as_if_such_cells_were_not_there(tmp_path, times):
    every = load(PerturbseqData(path=screen(tmp_path / "all.h5ad", times=times)), tmp_path)
    used = load(PerturbseqData(path=screen(tmp_path / "used.h5ad", times=times, without=OF_NO_USE)), tmp_path)
    assert every.conditions == used.conditions == ("control", "KLF1", "SET", "KLF1+SET")
    np.testing.assert_array_equal(every.frames, used.frames)
    np.testing.assert_array_equal(every.index, used.index)
    assert every.split_record == used.split_record
    assert {name: rows.tolist() for name, rows in every.splits.items()} == {
        name: rows.tolist() for name, rows in used.splits.items()
    }
    assert (every.quality["cells_without_label"], used.quality["cells_without_label"]) == (180, 0)


def test_a_split_is_replayed_on_a_file_with_such_cells(tmp_path):
    path = screen(tmp_path / "cells.h5ad")
    first = load(PerturbseqData(path=path), tmp_path)
    (tmp_path / "split.json").write_text(json.dumps(first.split_record))
    again = load(PerturbseqData(path=path, split={"kind": "replay", "path": str(tmp_path / "split.json")}), tmp_path)
    np.testing.assert_array_equal(again.frames, first.frames)


def test_inspection_tells_them_by_label(tmp_path):
    told = dict(inspect_file(PerturbseqData(path=screen(tmp_path / "cells.h5ad"))).found)
    assert told["left out"] == (
        "180 cells, labelled (missing) (60; it has no label), 'KLF1_SET_g0' (60; it names 3 perturbations together, "
        "and only pairs are predicted), 'nan' (60; it names no perturbation)"
    )
    used = inspect_file(PerturbseqData(path=screen(tmp_path / "used.h5ad", without=OF_NO_USE)))
    assert "left out" not in dict(used.found)


def test_how_labels_were_read_is_said_by_inspection_and_when_a_study_reads_them(tmp_path):
    path = screen(tmp_path / "cells.h5ad")
    data = anndata.read_h5ad(path)
    data.obs["perturbation"] = data.obs["perturbation"].astype(object).replace("control", "NT")
    data.write_h5ad(path)
    note = "'NT' is taken for control, since there is no usual word for it"
    assert any(note in told for told in inspect_file(PerturbseqData(path=path)).notes)
    assert any(note in told for told in load(PerturbseqData(path=path), tmp_path / "cache").notes)


# ------------------------------------------------------------------------------------- the command line


def command(said):
    """What is printed as the command that uses the file, as keys of a study file's data."""
    words = shlex.split(next(line for line in said.splitlines() if line.startswith("use it: ")))
    changes = [word.removeprefix("data.").partition("=") for word in words if word.startswith("data.")]
    return {key: yaml.safe_load(value) for key, _, value in changes}


@pytest.mark.parametrize(
    ("labels", "options", "stated"),
    [
        (["control", "A|B", "C"], ["--pair-mark", "|"], {"pair_mark": "|"}),
        (["control", "A:B", "C"], ["--pair-mark", ":"], {"pair_mark": ":"}),
        (["control", "A+B", "C"], ["--pair-mark", "none"], {"pair_mark": "none"}),
        (["NT", "AAVS1", "C"], ["--control", "NT", "--control", "AAVS1"], {"control": ["NT", "AAVS1"]}),
        (["null", "", "C"], ["--control", "null", "--control", ""], {"control": ["null", ""]}),
        (["[('X', 0, 'uM')]", "C", "A"], ["--control", "[('X', 0, 'uM')]"], {"control": "[('X', 0, 'uM')]"}),
        (
            ["NTg1", "safe-2", "A_1", "A-3", "B_2"],
            [
                *("--guides", "{gene}_{guide}", "--guides", "{gene}-{guide}"),
                *("--guide-control", "NTg{guide}", "--guide-control", "safe-{guide}"),
            ],
            {"guides": {"pattern": ["{gene}_{guide}", "{gene}-{guide}"], "control": ["NTg{guide}", "safe-{guide}"]}},
        ),
    ],
)
def test_options_given_twice_add_up_and_the_printed_command_reads_the_same(tmp_path, capsys, labels, options, stated):
    cells = np.repeat(np.array(labels, dtype=object), 40)
    counts = np.random.default_rng(0).poisson(5.0, (len(cells), len(GENES))).astype(np.float32)
    obs = pd.DataFrame({"perturbation": cells}, index=[f"cell{k}" for k in range(len(cells))])
    path = tmp_path / "cells.h5ad"
    anndata.AnnData(counts, obs, pd.DataFrame(index=list(GENES))).write_h5ad(path)
    assert cli.main(["data", "inspect", str(path), *options]) == 0
    given = command(capsys.readouterr().out)
    assert given == {"path": str(path), **stated}
    found = dict(inspect_file(PerturbseqData(**given)).found)
    assert "40 cells" in found["control"] or "80 cells" in found["control"]


def test_an_empty_mark_is_refused_in_a_sentence(tmp_path, capsys):
    assert cli.main(["data", "inspect", screen(tmp_path / "cells.h5ad"), "--pair-mark", ""]) == 2
    assert capsys.readouterr().err.startswith("harness: --pair-mark is empty; give the mark")
