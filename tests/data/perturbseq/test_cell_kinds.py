"""Cells of counts among log-normalised cells, or the reverse: each is found, and no other cell is taken for one."""

import os

import anndata
import numpy as np
import pandas as pd
import pytest
from file_order import as_filed
from scipy import sparse
from small_screen import CELLS, GENES, counts, csr, per_cell, run_line, screen, study_lines

from harness import cli
from harness.data import load
from harness.data.perturbseq import cell_file
from harness.data.perturbseq.cell_kinds import CellKinds, best_column
from harness.data.perturbseq.inspection import inspect_file
from harness.data_spec import PerturbseqData
from harness.errors import UserError

N = 4 * CELLS
SHALLOW = np.minimum(counts(160), 16)
LAYOUTS = {
    "csr": csr,
    "dense": lambda x: x.astype(np.float32),
    "csc": lambda x: sparse.csc_matrix(x.astype(np.float32)),
}


def read(path, **options):
    return as_filed(load(PerturbseqData(path=str(path), min_cells=5, **options), path.parent / "cache"), path)


def mixed(folder, odd, layout="csr", of_counts=True, times=1, labels=("lab1", "lab2")):
    """A file in which the cells ``odd`` hold counts and the others logs, or the reverse."""
    folder.mkdir()
    one, other = (SHALLOW, np.log1p(per_cell(SHALLOW)))[:: 1 if of_counts else -1]
    x = np.where(odd[:, None], np.tile(one, (times, 1)), np.tile(other, (times, 1)))
    data = anndata.concat([screen(csr(counts()))] * times, index_unique=None if times == 1 else "-")
    data.X = LAYOUTS[layout](x)
    data.obs["batch"] = pd.Categorical(np.where(odd, *labels))
    data.obs["plate"] = pd.Categorical(np.arange(len(x)) % 5)
    data.write_h5ad(folder / "cells.h5ad")
    return folder / "cells.h5ad", x


def refusals(path, **options):
    """The sentence that a study gives, which inspection gives too."""
    with pytest.raises(UserError) as refused:
        read(path, **options)
    problems = inspect_file(PerturbseqData(path=str(path), min_cells=5, **options)).problems
    assert str(refused.value) in problems
    assert "\n" not in str(refused.value)
    return str(refused.value)


def third():
    return np.random.default_rng(0).random(N) < 0.3


@pytest.mark.parametrize("of_counts", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_cells_of_another_kind_are_counted_and_the_batch_that_holds_them_named(tmp_path, layout, of_counts):
    odd = third()
    path, _ = mixed(tmp_path / "given", odd, layout, of_counts)
    said = refusals(path)
    kinds = ("whole numbers, as counts are", "fractions, as log-normalised values are")[:: 1 if of_counts else -1]
    assert f"X holds in {odd.sum()} of {N} cells {kinds[0]}, and in the others {kinds[1]}; " in said
    assert f"{odd.sum()} of them, and 0 others, have 'lab1' in obs['batch']; make all cells alike, or leave" in said


@pytest.mark.parametrize("of_counts", [True, False])
def test_the_line_that_leaves_them_out_leaves_the_others_as_they_are(tmp_path, of_counts):
    for few in (False, True):
        odd = third() if not few else np.isin(np.arange(N), (7, 40, 99))
        path, _ = mixed(tmp_path / f"given{few}", odd, of_counts=of_counts)
        data = read(run_line(refusals(path), path.parent, shell=not few))
        logs = np.log1p(per_cell(SHALLOW))[~odd]
        np.testing.assert_allclose(data.frames.numpy(), logs, rtol=1e-5)


@pytest.mark.parametrize(("of_counts", "word"), [(True, "auto"), (True, "lognorm"), (False, "auto"), (False, "counts")])
@pytest.mark.parametrize("number", [1, 3])
def test_a_single_cell_is_found_wherever_it_is_and_named(tmp_path, monkeypatch, number, of_counts, word):
    """2,400 cells, of which a thousand are looked at to see what the matrix holds; many blocks."""
    monkeypatch.setattr(cell_file, "_BLOCK_ENTRIES", 100 * GENES)
    odd = np.isin(np.arange(20 * N), (1501, 1502, 2100)[:number])
    path, _ = mixed(tmp_path / "given", odd, of_counts=of_counts, times=20)
    data = anndata.read_h5ad(path)
    data.obs["batch"] = np.resize(["lab1", "lab2"], len(data))
    data.write_h5ad(path)
    said = refusals(path, values=word)
    names = ", ".join(repr(name) for name in data.obs_names[odd])
    assert f"X holds in {number} of 2,400 cells " in said
    assert f"; they are {names}; make all cells alike" in said


@pytest.mark.parametrize("first", [True, False])
def test_cells_of_large_counts_are_told_too(tmp_path, first):
    """Among a sample, counts above 16 make the whole matrix look like no logarithms."""
    odd = np.arange(N) % 8 == 0 if first else np.arange(N) >= N - 3
    folder = tmp_path / "given"
    folder.mkdir()
    deep = counts(20000)
    data = screen(csr(np.where(odd[:, None], deep, np.log1p(per_cell(deep)))))
    data.write_h5ad(folder / "cells.h5ad")
    assert f"X holds in {odd.sum()} of {N} cells whole numbers, as counts are" in refusals(folder / "cells.h5ad")


def test_a_layer_that_holds_the_same_in_all_cells_is_named_in_place_of_leaving_cells_out(tmp_path):
    path, _ = mixed(tmp_path / "given", third())
    data = anndata.read_h5ad(path)
    data.layers["counts"] = csr(SHALLOW)
    data.write_h5ad(path)
    said = refusals(path)
    assert "in obs['batch']; layers['counts'] holds counts; to read it put under data:" in said
    ((key, value),) = study_lines(said)
    np.testing.assert_allclose(read(path, **{key: value}).frames.numpy(), np.log1p(per_cell(SHALLOW)), rtol=1e-5)


def test_a_matrix_of_two_kinds_is_not_proposed(tmp_path):
    path, _ = mixed(tmp_path / "given", third())
    data = anndata.read_h5ad(path)
    data.layers["umi"] = csr(SHALLOW)
    data.raw = screen(data.X)
    data.X = csr(np.log1p(per_cell(counts())) - 1)
    data.write_h5ad(path)
    said = str(inspect_file(PerturbseqData(path=str(path))).problems)
    assert "layers['umi'] holds counts; to read it" in said
    assert "raw holds" not in said


def test_a_study_that_reads_none_of_them_is_not_refused(tmp_path):
    """Cells of a pair that has no single are in no split."""
    odd = np.arange(N) >= N - CELLS
    path, x = mixed(tmp_path / "given", odd)
    data = anndata.read_h5ad(path)
    data.obs["condition"] = data.obs["condition"].astype(str).replace("SET+KLF1", "MYC+KLF1")
    data.write_h5ad(path)
    np.testing.assert_allclose(read(path).frames.numpy(), x[~odd], rtol=1e-5)


def test_inspection_exits_as_for_any_problem(tmp_path, capsys):
    path, _ = mixed(tmp_path / "given", third())
    assert cli.main(["data", "inspect", str(path)]) == 2
    said = capsys.readouterr().out
    assert "problem: " in said
    assert "use it" not in said


# ------------------------------------------------------------------------------------------------ no false alarm

PRECISIONS = {
    "float32": np.float32,
    "float16": np.float16,
    "3 decimals": lambda x: np.round(x, 3),
    "2 decimals": lambda x: np.round(x, 2),
}


@pytest.mark.parametrize("layout", [sparse.csr_array, np.asarray])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("library", [5, 20, 60, 400])
def test_no_shallow_log_normalised_cell_is_taken_for_counts(library, precision, layout):
    for genes in (20, 400):
        raw = np.concatenate([counts(library, genes, seed) for seed in range(5)])
        for target in (1e4, 1e6, 500.0, 1.0, np.median(raw.sum(1))):
            logs = PRECISIONS[precision](np.log1p(per_cell(raw, target))).astype(np.float32)
            kinds = CellKinds(len(logs), "lognorm")
            kinds.add(np.arange(len(logs)), layout(logs))
            assert not kinds.whole.any()
            assert kinds.odd() is None


@pytest.mark.parametrize("layout", [sparse.csr_array, np.asarray])
def test_nearly_every_cell_of_counts_is_known(layout):
    """Also with zeros stored; a cell of one value, or none, says nothing."""
    raw = counts(60).astype(np.float32)
    block = layout(raw)
    if sparse.issparse(block):
        block.data[::9] = 0
        raw = block.toarray()
    kinds = CellKinds(len(raw), "lognorm")
    kinds.add(np.arange(len(raw)), block)
    several = np.array([len(np.unique(row[row > 0])) > 1 for row in raw])
    np.testing.assert_array_equal(kinds.whole, several)
    assert several.mean() > 0.95


def test_whole_rows_and_rows_with_a_fraction_are_told_by_sparse_and_dense_blocks_alike():
    rng = np.random.default_rng(0)
    values = rng.choice([0, 0, 1, 2, 2.5], (300, 6), p=[0.4, 0.2, 0.2, 0.15, 0.05]).astype(np.float32)
    for held in ("lognorm", "counts", None):
        found = []
        for block in (values, sparse.csr_array(values)):
            kinds = CellKinds(300, held)
            kinds.add(np.arange(300), block)
            found.append((kinds.whole, kinds.broken))
        for of_dense, of_sparse in zip(*found, strict=True):
            np.testing.assert_array_equal(of_dense, of_sparse)
        fractions = (values != np.round(values)).any(1)
        np.testing.assert_array_equal(found[0][1], fractions)


@pytest.mark.skipif("HARNESS_REAL_DATA" not in os.environ, reason="HARNESS_REAL_DATA names no folder of real cells")
def test_no_real_cell_is_taken_for_another_kind():
    real = anndata.read_h5ad(os.path.join(os.environ["HARNESS_REAL_DATA"], "norman19_subset.h5ad"))
    for held, x in (("lognorm", real.X), ("counts", real.layers["counts"])):
        kinds = CellKinds(len(real), held)
        kinds.add(np.arange(len(real)), sparse.csr_array(x, dtype=np.float32))
        assert kinds.odd() is None


# -------------------------------------------------------------------------------------------- where they are


def test_the_column_that_holds_them_best_is_found():
    n = 300
    batch = np.arange(n) % 10
    odd = np.isin(batch, (2, 5))
    obs = pd.DataFrame(
        {
            "barcode": [f"AC{k}" for k in range(n)],
            "nearly": np.where(np.arange(n) % 29 == 0, "b", np.where(odd, "a", "b")),
            "batch": pd.Categorical(batch),
            "half": np.where(batch == 2, "x", None),
        }
    )
    every = np.ones(n, dtype=bool)
    assert best_column(obs, odd, every) == ("batch", ["2", "5"], 60, 0)
    column, values, inside, beside = best_column(obs.drop(columns="batch"), odd, every)
    assert (column, values, beside) == ("nearly", ["a"], 0)
    assert 50 < inside < 60
    assert best_column(obs[["barcode"]], odd, every) is None
    assert best_column(pd.DataFrame({"batch": batch % 2}), odd, every) is None
    assert best_column(pd.DataFrame(index=obs.index), odd, every) is None
