"""Files in every convention and form of matrix, and files that must be refused."""

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from file_order import as_filed
from scipy import sparse

from harness.data import load
from harness.data.perturbseq import cell_file
from harness.data.perturbseq.cell_file import CellFile
from harness.data.perturbseq.values import log_normalise, what_holds
from harness.data_spec import PerturbseqData
from harness.errors import UserError

GENES = 12
CELLS = 30  # of each condition
LABELS = {
    "condition": ("control", "KLF1", "SET", "SET+KLF1"),
    "condition ": ("ctrl", "KLF1+ctrl", "ctrl+SET", "SET+KLF1"),  # GEARS
    "perturbation": ("control", "KLF1", "SET", "SET_KLF1"),
    "guide_ids": ("", "KLF1", "SET", "SET,KLF1"),
}
FORMS = {
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "dense": np.asarray,
    "float64": lambda x: x.astype(np.float64),
    "int64": lambda x: x.astype(np.int64),
    "sparse_int": lambda x: sparse.csr_matrix(x.astype(np.int32)),
}


def counts():
    return np.random.default_rng(0).poisson(3.0, (4 * CELLS, GENES)).astype(np.float32)


def cells(values=None, column="condition", categorical=True, **layers):
    labels = np.repeat(LABELS[column], CELLS)
    order = np.random.default_rng(1).permutation(len(labels))
    obs = pd.DataFrame({column.strip(): pd.Categorical(labels) if categorical else labels})
    obs.index = [f"cell{k}" for k in range(len(obs))]
    adata = anndata.AnnData(
        counts() if values is None else values,
        obs=obs,
        var=pd.DataFrame(index=[f"g{k}" for k in range(GENES)]),
        layers=layers,
    )
    return adata[order].copy()


def write(adata, tmp_path):
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    return str(path)


def read(path, tmp_path, **options):
    return as_filed(load(PerturbseqData(path=path, **options), tmp_path / "cache"), path)


def expected_frames(adata):
    """The file's expression in the order of rows, by scanpy-free arithmetic in float64."""
    x = np.asarray(adata.X.todense() if sparse.issparse(adata.X) else adata.X, dtype=np.float64)
    return np.log1p(1e4 * x / x.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("column", LABELS)
@pytest.mark.parametrize("categorical", [True, False])
def test_every_convention_gives_the_same_data(tmp_path, column, categorical):
    data = read(write(cells(column=column, categorical=categorical), tmp_path), tmp_path)
    assert data.conditions == ("control", "KLF1", "SET", "KLF1+SET")
    assert data.perturbations == ("KLF1", "SET")
    assert data.ood == ("double_seen2",)
    assert {name: len(rows) for name, rows in data.splits.items()} == {
        "train": 2 * 22 + 18,
        "validation": 2 * 2 + 2,
        "test": 2 * 6 + 10,  # a third of the control cells, which true changes are taken from
        "double_seen2": CELLS,
    }
    double = data.splits["double_seen2"]
    assert data.u[double].eq(1).all()
    assert data.u[data.control_rows("train")].eq(0).all()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_counts_is_log_normalised(tmp_path, form, monkeypatch):
    monkeypatch.setattr(cell_file, "_BLOCK_ENTRIES", 7 * GENES)  # several blocks, the last one shorter
    adata = cells()
    right = expected_frames(adata)
    adata.X = FORMS[form](adata.X)
    data = read(write(adata, tmp_path), tmp_path)
    # every cell of every condition is used
    np.testing.assert_allclose(data.frames.numpy(), right, rtol=1e-5)
    assert data.frames.dtype.is_floating_point
    assert data.feature_names == tuple(f"g{k}" for k in range(GENES))
    assert data.pairs == "random"
    assert data.truth is None


@pytest.mark.parametrize("form", ["csr", "dense", "float64"])
def test_log_normalised_values_are_kept(tmp_path, form):
    values = log_normalise(counts())
    adata = cells(FORMS[form](values))
    data = read(write(adata, tmp_path), tmp_path)
    x = np.asarray(adata.X.todense() if sparse.issparse(adata.X) else adata.X, dtype=np.float32)
    np.testing.assert_array_equal(data.frames.numpy(), x)


def test_counts_in_a_layer_help_where_x_is_unclear(tmp_path):
    raw = counts()
    scaled = (raw - raw.mean(0)) / raw.std(0)
    adata = cells(scaled, counts=raw)
    x = adata.layers["counts"]
    data = read(write(adata, tmp_path), tmp_path)
    np.testing.assert_allclose(data.frames.numpy(), np.log1p(1e4 * x / x.sum(1, keepdims=True)), rtol=1e-5)
    assert "layers/counts holds counts" in data.read


def test_a_layer_is_enough_without_x(tmp_path):
    adata = cells(counts=counts())
    adata.X = None
    assert read(write(adata, tmp_path), tmp_path).frames.shape == (4 * CELLS, GENES)


def test_the_users_word_on_values_wins_but_what_is_improbable_is_said(tmp_path):
    path = write(cells(), tmp_path)
    raw = read(path, tmp_path, values="lognorm")
    assert raw.frames.max() > 5
    assert raw.frames.eq(raw.frames.round()).all()
    assert raw.notes[0].startswith("data.values is lognorm, but all values of X are whole numbers, as counts are")
    assert read(path, tmp_path, values="counts").frames.frac().any()
    assert read(write(cells(log_normalise(counts())), tmp_path), tmp_path, values="lognorm").notes == ()


def test_only_used_cells_are_kept(tmp_path):
    adata = cells()
    adata = adata[adata.obs["condition"] != "SET"].copy()
    data = read(write(adata, tmp_path), tmp_path)
    assert len(data.frames) == 2 * CELLS
    assert data.ood == ()
    assert list(data.excluded) == ["KLF1+SET"]
    assert "SET not seen as a single" in data.excluded["KLF1+SET"]
    assert data.quality["double_seen1_excluded"] == 1
    assert data.quality["cells_excluded"] == CELLS
    np.testing.assert_allclose(
        data.frames.numpy(), expected_frames(adata[adata.obs["condition"] != "SET+KLF1"]), rtol=1e-5
    )


def test_what_was_read_is_one_sentence(tmp_path):
    sentence = read(write(cells(column="perturbation"), tmp_path), tmp_path).read
    assert sentence.startswith("cells.h5ad: 120 cells × 12 genes; X holds counts (counts of X scaled to 10,000 a cell")
    assert "; obs['perturbation'] names 2 singles and 1 pairs, written A_B, and 30 control cells" in sentence
    assert sentence.endswith("labelled 'control'; no strata; left out: nothing")


def test_a_cell_without_counts_is_zero_and_counted(tmp_path):
    adata = cells()
    adata.X[0] = 0
    data = read(write(adata, tmp_path), tmp_path)
    assert data.frames[0].eq(0).all()
    assert data.quality["cells_without_counts"] == 1


# ------------------------------------------------------------------------------------ what a matrix holds


@pytest.mark.parametrize("target", [1e4, 1e6, 730.0])
@pytest.mark.parametrize("mean", [0.2, 1.0, 40.0])
def test_logs_of_scaled_counts_are_recognised(target, mean):
    raw = np.random.default_rng(0).poisson(mean, (200, 300)).astype(np.float64)
    total = raw.sum(1, keepdims=True)
    values = np.log1p(raw * target / total).astype(np.float32)
    assert what_holds(raw.astype(np.float32))[0] == "counts"
    assert what_holds(values)[0] == "lognorm"
    assert what_holds((raw * target / total).astype(np.float32))[0] is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (np.sqrt, "neither counts nor logs"),
        (lambda x: np.log2(1 + x * 1.7), "neither counts nor logs"),
        (lambda x: x * np.random.default_rng(1).gamma(2.0, 1.0, x.shape).astype(np.float32), "neither counts nor logs"),
        (
            lambda x: np.log1p(x + np.random.default_rng(1).random(x.shape).astype(np.float32)),
            "neither counts nor logs",
        ),
        (lambda x: x - x.mean(0), "negative"),
        (lambda x: 0 * x, "only zeros"),
    ],
)
def test_other_transformations_are_unclear(change, why):
    raw = np.random.default_rng(0).poisson(3.0, (100, 80)).astype(np.float32)
    held, sentence = what_holds(change(raw))
    assert held is None
    assert why in sentence


# -------------------------------------------------------------------------------------------- refusals


def lengths(raw):
    """Logs of counts divided by a length of each gene, which no unit divides."""
    return np.log1p(raw / np.linspace(0.7, 3.1, GENES, dtype=np.float32) ** 1.5)


def spoil(adata, row, gene, value):
    adata.X[row, gene] = value
    return adata


@pytest.mark.parametrize(
    ("make", "options", "sentence"),
    [
        (lambda: spoil(cells(), 5, 3, np.nan), {}, "X holds NaN or an infinite value at cell 'cell.*', gene 'g3'"),
        (lambda: spoil(cells(), 5, 3, np.inf), {}, "X holds NaN or an infinite value at cell 'cell.*', gene 'g3'"),
        (lambda: spoil(cells(), 5, 3, -1), {"values": "counts"}, "X holds a negative value at .* gene 'g3'"),
        (
            lambda: spoil(cells(), 5, 3, -1),
            {},
            "unclear .* X holds negative values .*; give counts or log-normalised values, not scaled ones, or put ",
        ),
        (lambda: cells(lengths(counts())), {}, "unclear .* set data.values to lognorm if they are log-normalised all"),
        (lambda: cells(0 * counts()), {}, "unclear .* only zeros .* set data.values to counts or lognorm, or put"),
        (
            lambda: cells(lengths(counts()), scaled=counts() - 1.5, whole=counts()),
            {},
            r"X holds fractions .*; layers\['whole'\] holds counts; to read it put .*   layer: whole   ",
        ),
        (
            lambda: cells(log_normalise(counts())),
            {"values": "counts"},
            r"data.values is counts, but X holds fractions such as \d+\.\d+, and counts are whole; leave data.val",
        ),
        (
            lambda: cells(lengths(counts())),
            {"values": "counts"},
            "but X holds fractions .*; if they are estimated counts, make .*; if they are log-normalised, set data",
        ),
        (
            lambda: cells(20 * counts()),
            {"values": "lognorm"},
            "data.values is lognorm, but X holds whole numbers up to .*, which are counts; leave data.values out",
        ),
        (cells, {"min_cells": 40}, "4 conditions have fewer than 40 cells .* lower data.min_cells"),
        (cells, {"column": "pert"}, "no column obs"),
        (cells, {"control": "NT"}, "no control cells"),
        (lambda: cells()[cells().obs["condition"].isin(["control", "SET+KLF1"])], {}, "no single perturbation"),
    ],
)
def test_bad_cells_are_refused_with_a_sentence(tmp_path, make, options, sentence):
    path = write(make().copy(), tmp_path)
    with pytest.raises(UserError, match=sentence) as refusal:
        read(path, tmp_path, **options)
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_repeated_gene_names_are_refused(tmp_path):
    adata = cells()
    adata.var.index = ["g0", *adata.var.index[:-1]]
    with pytest.warns(UserWarning, match="not unique"):
        path = write(anndata.AnnData(adata.X, obs=adata.obs, var=adata.var), tmp_path)
    with pytest.raises(UserError, match="1 gene names occur more than once, first 'g0'"):
        read(path, tmp_path)


def test_a_matrix_larger_than_memory_is_refused(tmp_path, monkeypatch):
    path = write(cells(), tmp_path)
    monkeypatch.setattr(cell_file.os, "sysconf", lambda name: 64)
    with pytest.raises(UserError, match="keep the most variable genes"):
        read(path, tmp_path)


def test_files_that_are_no_h5ad_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read(str(tmp_path / "missing.h5ad"), tmp_path)
    text = tmp_path / "text.h5ad"
    text.write_text("gene,cell\n")
    with pytest.raises(UserError, match=r"not a readable \.h5ad"):
        read(str(text), tmp_path)
    with pytest.raises(UserError, match=r"is a folder; name the \.h5ad file in it"):
        CellFile(tmp_path)
    other = tmp_path / "other.h5ad"
    with h5py.File(other, "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(UserError, match="without obs and var, so no"):
        read(str(other), tmp_path)


@pytest.mark.parametrize(("kept", "size"), [(np.s_[:0], "0 cells × 12 genes"), (np.s_[:, :0], "120 cells × 0 genes")])
@pytest.mark.parametrize("form", ["csr", "dense"])
def test_a_file_without_cells_or_genes_is_said_to_be_empty(tmp_path, kept, size, form):
    path = write(cells(FORMS[form](counts()))[kept].copy(), tmp_path)
    with pytest.raises(UserError, match=rf"cells\.h5ad is empty, {size}; give the file before"):
        read(path, tmp_path)


def test_a_matrix_that_disagrees_with_its_tables_is_refused(tmp_path):
    path = write(cells(), tmp_path)
    with h5py.File(path, "a") as file:
        del file["X"]
        file["X"] = np.ones((3, GENES))
    with pytest.raises(UserError, match="X is 3 × 12 but obs and var say 120 cells × 12 genes"):
        read(path, tmp_path)


def test_a_file_cut_short_is_refused(tmp_path):
    path = write(cells(), tmp_path)
    with open(path, "r+b") as file:
        file.truncate(9000)
    with pytest.raises(UserError, match=r"not a readable \.h5ad"):
        read(path, tmp_path)


@pytest.mark.filterwarnings("ignore::anndata.OldFormatWarning")
def test_tables_of_old_files_are_read(tmp_path):
    """Before anndata 0.7, obs and var were compound datasets and X might be h5sparse."""
    path = str(tmp_path / "old.h5ad")
    labels = np.repeat(LABELS["guide_ids"], CELLS)
    raw = sparse.csr_matrix(counts())
    with h5py.File(path, "w") as file:
        file["obs"] = np.array(
            [(f"cell{k}".encode(), label.encode()) for k, label in enumerate(labels)],
            dtype=[("index", "S8"), ("guide_ids", "S8")],
        )
        file["var"] = np.array([(f"g{k}".encode(),) for k in range(GENES)], dtype=[("index", "S8")])
        group = file.create_group("X")
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", raw.shape
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(raw, name)
        file["raw.X"] = np.hstack([raw.toarray(), raw.toarray()])
        file["raw.var"] = np.array([(f"r{k}".encode(),) for k in range(2 * GENES)], dtype=[("index", "S8")])
    data = read(path, tmp_path)
    assert data.conditions == ("control", "KLF1", "SET", "KLF1+SET")
    assert data.feature_names == tuple(f"g{k}" for k in range(GENES))
    own = read(path, tmp_path, layer="raw")
    assert own.feature_names == tuple(f"r{k}" for k in range(2 * GENES))
    np.testing.assert_array_equal(own.library.numpy(), 2 * data.library.numpy())
