"""Steps from counts to what models see: normalisation, choice of genes, and what one count gives."""

import anndata
import numpy as np
import pandas as pd
import pytest
from file_order import as_filed
from scipy import sparse

from harness.data import load
from harness.data.fingerprint import fingerprint
from harness.data.perturbseq import cell_file
from harness.data.perturbseq.grid import counted_in
from harness.data.perturbseq.preprocessing import Moments, highly_variable, moments, normalised_dispersion
from harness.data.perturbseq.values import log_normalise
from harness.data_spec import PerturbseqData
from harness.errors import UserError

GENES, CELLS = 60, 40  # cells of each condition
LABELS = ("control", "KLF1", "SET", "SET+KLF1")
METHODS = ("seurat", "cell_ranger")


def screen(path, change=lambda counts, labels: counts, layout=sparse.csr_matrix):
    """A file of counts over genes of very different means, KLF1 and SET among them, and its counts and labels."""
    rng = np.random.default_rng(0)
    mean = rng.gamma(0.4, 3.0, GENES)
    labels = np.repeat(LABELS, CELLS)
    spread = rng.gamma(2.0, 0.5, (len(labels), GENES))
    counts = rng.poisson(mean * spread).astype(np.float32)
    counts[:, 0] += 1  # no cell is empty
    counts = change(counts, labels)
    names = [f"g{k}" for k in range(GENES)]
    names[3], names[7] = "KLF1", "SET"
    obs = pd.DataFrame({"condition": pd.Categorical(labels)}, index=[f"c{k}" for k in range(len(labels))])
    anndata.AnnData(layout(counts), obs, pd.DataFrame(index=names)).write_h5ad(path)
    return counts


def read(path, tmp_path, **options):
    return as_filed(load(PerturbseqData(path=str(path), **options), tmp_path / "cache"), path)


def training_cells(data):
    return np.unique(data.index[data.splits["train"]].numpy())


# ------------------------------------------------------------------------------------------- choice of genes


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layout", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_genes_are_those_of_scanpy_on_the_training_cells(tmp_path, method, layout, monkeypatch):
    scanpy = pytest.importorskip("scanpy", reason="scanpy is not installed; it is only an independent check")
    monkeypatch.setattr(cell_file, "_BLOCK_ENTRIES", 7 * GENES)
    counts = screen(tmp_path / "cells.h5ad", layout=layout)
    every = read(tmp_path / "cells.h5ad", tmp_path)
    data = read(tmp_path / "cells.h5ad", tmp_path, preprocess={"highly_variable": {"genes": 20, "method": method}})
    theirs = anndata.AnnData(counts[training_cells(every)], var=pd.DataFrame(index=list(every.feature_names)))
    scanpy.pp.normalize_total(theirs, target_sum=1e4)
    scanpy.pp.log1p(theirs)
    scanpy.pp.highly_variable_genes(theirs, n_top_genes=20, flavor=method)
    wanted = set(theirs.var_names[theirs.var["highly_variable"]]) | {"KLF1", "SET"}
    assert set(data.feature_names) == wanted
    of = moments([theirs.X], GENES, method)
    np.testing.assert_allclose(normalised_dispersion(of, method), theirs.var["dispersions_norm"], rtol=2e-4, atol=1e-5)


def varied_counts():
    rng = np.random.default_rng(11)
    return rng.poisson(rng.gamma(0.4, 3.0, 60) * rng.gamma(2.0, 0.5, (90, 60))).astype(np.float32) + np.eye(90, 60)


#: What scanpy 1.11.5 chose of these counts, so that the comparison is made where scanpy is not installed too.
SCANPY_CHOSE = {
    "seurat": [2, 4, 12, 22, 25, 28, 40, 42, 47, 52, 53, 58],
    "cell_ranger": [5, 10, 11, 13, 14, 17, 23, 24, 34, 39, 41, 42],
}


@pytest.mark.parametrize("method", METHODS)
def test_genes_are_those_that_scanpy_once_chose(method):
    logs = log_normalise(varied_counts())
    assert highly_variable(moments([logs[:50], logs[50:]], 60, method), 12, method).tolist() == SCANPY_CHOSE[method]


def test_the_gene_choice_agrees_with_the_definition_on_a_case_done_by_hand():
    """Four genes of one mean and one apart: z-scores of log dispersions, and 1 for the gene alone in its bin."""
    mean = np.array([1.0, 1.0, 1.0, 1.0, 50.0])
    variance = np.array([1.0, 2.0, 4.0, 8.0, 50.0 * np.e])
    logs = np.log([1.0, 2.0, 4.0, 8.0])
    expected = [*(logs - logs.mean()) / logs.std(ddof=1), 1.0]
    np.testing.assert_allclose(normalised_dispersion(Moments(mean, variance), "seurat"), expected)


def test_deviations_are_from_the_median_of_genes_of_like_mean():
    """All genes of one mean fall into one bin: distance from the median in median absolute deviations."""
    dispersion = np.array([1.0, 2.0, 3.0, 5.0, 9.0])
    expected = (dispersion - 3.0) / (2.0 / 0.6744897501960817)
    np.testing.assert_allclose(
        normalised_dispersion(Moments(np.ones(5), dispersion), "cell_ranger"), expected, rtol=1e-12
    )


@pytest.mark.parametrize("method", METHODS)
def test_genes_that_do_not_vary_are_never_chosen(method):
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(1.0, 2.0, 50), (80, 50)).astype(np.float64)
    counts[:, :5] = 0
    chosen = highly_variable(moments([np.log1p(counts)], 50, "seurat"), 50, "seurat")
    assert not set(range(5)) & set(chosen.tolist())


@pytest.mark.parametrize("method", METHODS)
def test_no_cell_beyond_training_has_a_say(tmp_path, method):
    """Whatever test cells hold, the same genes are kept and training cells are the same to the bit."""
    path = tmp_path / "cells.h5ad"
    options = {"preprocess": {"highly_variable": {"genes": 15, "method": method}}}
    screen(path)
    before = read(path, tmp_path, **options)
    trained = training_cells(before)

    def poison(counts, labels):
        held_out = np.setdiff1d(np.arange(len(counts)), trained)
        counts[held_out] = np.random.default_rng(5).poisson(40, (len(held_out), GENES)) * (np.arange(GENES) % 3 == 0)
        counts[held_out, 0] += 1
        return counts

    screen(path, poison)
    after = read(path, tmp_path, **options)
    assert after.feature_names == before.feature_names
    assert np.array_equal(after.frames[trained].numpy(), before.frames[trained].numpy())
    assert not np.array_equal(after.frames.numpy(), before.frames.numpy())


def test_perturbed_genes_are_kept_and_the_files_order_too(tmp_path):
    screen(tmp_path / "cells.h5ad")
    every = read(tmp_path / "cells.h5ad", tmp_path)
    data = read(tmp_path / "cells.h5ad", tmp_path, preprocess={"highly_variable": {"genes": 5}})
    assert {"KLF1", "SET"} <= set(data.feature_names)
    where = [every.feature_names.index(name) for name in data.feature_names]
    assert where == sorted(where)
    np.testing.assert_array_equal(data.frames.numpy(), every.frames[:, where].numpy())
    np.testing.assert_array_equal(data.library.numpy(), every.library.numpy())
    assert data.quality["genes_in_file"] == GENES
    assert data.quality["genes_kept"] == len(data.feature_names)
    assert data.quality["genes_highly_variable"] + data.quality["genes_kept_as_perturbed"] == len(data.feature_names)


def test_more_genes_than_there_are_is_refused(tmp_path):
    screen(tmp_path / "cells.h5ad")
    with pytest.raises(UserError, match=r"highly_variable\.genes is 61, but there are only 60 genes; lower it"):
        read(tmp_path / "cells.h5ad", tmp_path, preprocess={"highly_variable": {"genes": 61}})


# ---------------------------------------------------------------------------------------------- normalisation


def test_the_target_sum_scales_counts(tmp_path):
    counts = screen(tmp_path / "cells.h5ad").astype(np.float64)
    data = read(tmp_path / "cells.h5ad", tmp_path, preprocess={"target_sum": 500.0})
    total = counts.sum(1, keepdims=True)
    np.testing.assert_allclose(data.frames.numpy(), np.log1p(500 * counts / total), rtol=1e-5)
    np.testing.assert_allclose(
        np.expm1(data.frames.double().numpy()) * data.library.numpy()[:, None] / 1e4, counts, atol=1e-3
    )


def test_a_target_sum_for_values_that_are_logs_is_refused(tmp_path):
    screen(tmp_path / "cells.h5ad", lambda counts, labels: log_normalise(counts))
    with pytest.raises(UserError, match=r"X is log-normalised already.* leave it out, or name a layer of counts"):
        read(tmp_path / "cells.h5ad", tmp_path, preprocess={"target_sum": 500.0})


def test_each_step_is_part_of_the_fingerprint(tmp_path):
    screen(tmp_path / "cells.h5ad")
    steps = [
        {},
        {"preprocess": {"target_sum": 500.0}},
        {"preprocess": {"highly_variable": {"genes": 5}}},
        {"preprocess": {"highly_variable": {"genes": 6}}},
        {"preprocess": {"highly_variable": {"genes": 5, "method": "cell_ranger"}}},
        {"guides": {"pattern": "{gene}_{guide}"}},
        {"guides": {"pattern": "{gene}_{guide}", "control": "NT{guide}"}},
        {"layer": "counts"},
        {"gene_names": "symbol"},
    ]
    marks = [fingerprint(PerturbseqData(path=str(tmp_path / "cells.h5ad"), **step)) for step in steps]
    assert len(set(marks)) == len(steps)


def test_the_steps_are_told(tmp_path):
    screen(tmp_path / "cells.h5ad")
    told = read(tmp_path / "cells.h5ad", tmp_path, preprocess={"highly_variable": {"genes": 5}}).read
    assert (
        "counts of X scaled to 10,000 a cell over all 60 genes, log1p, 5 highly variable genes kept (seurat, " in told
    )


# ------------------------------------------------------------------------------------------- library sizes


@pytest.mark.parametrize("layout", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_library_sizes_of_counts_are_their_sums(tmp_path, layout):
    counts = screen(tmp_path / "cells.h5ad", layout=layout)
    np.testing.assert_array_equal(read(tmp_path / "cells.h5ad", tmp_path).library.numpy(), counts.sum(1))


@pytest.mark.parametrize("layout", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_library_sizes_are_told_back_from_logs(tmp_path, layout):
    """Also where genes were dropped after normalisation, so that the file's values do not sum to 10,000."""
    totals = {}

    def logs_of_some_genes(counts, labels):
        counts[5] = 0
        totals["all"] = counts.sum(1)
        logs = log_normalise(counts)
        logs[:, 40:] = 0
        totals["left"] = np.where(np.arange(GENES) < 40, counts, 0)
        return logs

    screen(tmp_path / "cells.h5ad", logs_of_some_genes, layout)
    data = read(tmp_path / "cells.h5ad", tmp_path)
    filled = totals["left"].any(1)
    assert data.library[5] == 0
    np.testing.assert_allclose(data.library.numpy()[filled], totals["all"][filled], rtol=1e-5)
    back = np.expm1(data.frames.double().numpy()) * data.library.numpy()[:, None] / 1e4
    np.testing.assert_allclose(back, totals["left"], atol=1e-3)


def test_values_without_a_unit_have_no_library(tmp_path):
    screen(tmp_path / "cells.h5ad", lambda counts, labels: np.log1p(counts / np.linspace(1, 9, GENES) ** 1.5))
    assert read(tmp_path / "cells.h5ad", tmp_path, values="lognorm").library is None


@pytest.mark.parametrize("target", [730.0, 1e4, 1e6])
def test_what_one_count_gives_is_found_in_each_cell(target):
    mean = np.r_[0.1, 0.5, 1, 2, 3, 5, 30, 800]
    counts = np.random.default_rng(0).poisson(np.broadcast_to(mean, (400, len(mean))))
    total = counts.sum(1)
    logs = np.log1p(counts * (target / total)[:, None]).astype(np.float32)
    # counts that are all even cannot be told from counts half as large
    told = (np.gcd.reduce(counts, axis=1) == 1) & (counts.min(1, where=counts > 0, initial=99) <= 6)
    assert told.sum() > 300
    assert (counts.min(1, where=counts > 0, initial=99)[told] > 1).sum() > 5
    for block in (logs, sparse.csr_array(logs)):
        np.testing.assert_allclose(counted_in(block)[told], (target / total)[told], rtol=1e-4)
