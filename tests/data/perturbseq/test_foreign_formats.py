"""Neighbouring formats: each is named for what it is, and the line that is given makes an .h5ad of it that is read."""

import bz2
import gzip
import lzma
import zipfile

import anndata
import h5py
import numpy as np
import pytest
from file_order import as_filed
from small_screen import GENES, counts, csr, lines_of, per_cell, run_line, screen

from harness import cli
from harness.data import load
from harness.data_spec import PerturbseqData
from harness.errors import UserError


@pytest.fixture
def given(tmp_path):
    """A folder with ``cells.h5ad`` under another name, so that it can be made."""
    folder = tmp_path / "my given's"
    folder.mkdir()
    screen(csr(counts())).write_h5ad(tmp_path / "plain.h5ad")
    return folder


def read(path):
    return as_filed(load(PerturbseqData(path=str(path)), path.parent.parent / "cache"), path)


def refusal(path, capsys):
    with pytest.raises(UserError) as refused:
        read(path)
    said = str(refused.value)
    assert said.startswith(f"{path} is ")
    assert "\n" not in said
    assert cli.main(["data", "inspect", str(path)]) == 2
    assert said in capsys.readouterr().err
    return said


def right(path):
    np.testing.assert_allclose(read(path).frames.numpy(), np.log1p(per_cell(counts())), rtol=1e-5)


def mudata(path, kinds, plain):
    """As mudata writes it, with a block of text before the HDF5 file."""
    with h5py.File(path, "w", userblock_size=512) as file, h5py.File(plain) as one:
        file.attrs["encoding-type"], file.attrs["encoding-version"] = "MuData", "0.1.0"
        for kind in kinds:
            part = file.create_group(f"mod/{kind}")
            for name in one:
                one.copy(name, part)
        for name in ("obs", "var"):
            one.copy(name, file)


@pytest.mark.parametrize(
    ("kinds", "chosen"), [(("rna",), "rna"), (("gdo", "rna"), "rna"), (("prot", "GEX"), "GEX"), (("mine",), "mine")]
)
def test_mudata_is_named_and_its_gene_expression_taken_out(given, capsys, kinds, chosen):
    mudata(given / "cells.h5mu", kinds, given.parent / "plain.h5ad")
    said = refusal(given / "cells.h5mu", capsys)
    assert f"is a MuData (.h5mu) file of {', '.join(sorted(kinds))}; make an .h5ad of {chosen} with   python" in said
    made = run_line(said, given, shell=True)
    assert made.name == f"cells_{chosen}.h5ad"
    right(made)
    assert anndata.read_h5ad(made).shape == (120, GENES)


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_a_zarr_store_is_named_and_written_as_h5ad(given, capsys):
    pytest.importorskip("zarr")
    anndata.read_h5ad(given.parent / "plain.h5ad").write_zarr(given / "cells.zarr")
    said = refusal(given / "cells.zarr", capsys)
    assert "is a zarr store, which is not read; make an .h5ad of it with   python" in said
    right(run_line(said, given, shell=True))


@pytest.mark.parametrize(
    ("name", "kind", "opened"),
    [
        ("cells.h5ad.gz", "gzip", gzip.open),
        ("cells.h5ad", "gzip", gzip.open),
        ("cells.h5ad.bz2", "bzip2", bz2.open),
        ("cells.h5ad.xz", "xz", lzma.open),
    ],
)
def test_a_file_compressed_as_a_whole_is_known_by_its_first_bytes(given, capsys, name, kind, opened):
    with opened(given / name, "wb") as file:
        file.write((given.parent / "plain.h5ad").read_bytes())
    before = (given / name).read_bytes()
    said = refusal(given / name, capsys)
    assert f"is compressed with {kind}; unpack it with   " in said
    made = run_line(said, given, shell=True)
    assert made.suffix == ".h5ad"
    right(made)
    assert (given / name).read_bytes() == before


def test_a_zip_archive_is_named(given, capsys):
    with zipfile.ZipFile(given / "cells.zip", "w") as archive:
        archive.write(given.parent / "plain.h5ad", "cells.h5ad")
    said = refusal(given / "cells.zip", capsys)
    assert "is compressed with zip; unpack it with   unzip -p " in said


def tenx(path, earlier):
    """As Cell Ranger writes it, genes × cells in columns."""
    x = csr(counts())
    with h5py.File(path, "w") as file:
        group = file.create_group("GRCh38" if earlier else "matrix")
        group["barcodes"] = np.array([f"AC{k}-1" for k in range(120)], dtype="S")
        group["data"], group["indices"], group["indptr"] = x.data.astype("i4"), x.indices, x.indptr
        group["shape"] = np.array([GENES, 120])
        ids, names = (np.array([f"{word}{k}" for k in range(GENES)], dtype="S") for word in ("ENSG", "G"))
        if earlier:
            group["genes"], group["gene_names"] = ids, names
            return
        features = group.create_group("features")
        features["id"], features["name"] = ids, names
        features["feature_type"] = np.array([b"Gene Expression"] * GENES)
        features["genome"] = np.array([b"GRCh38"] * GENES)


@pytest.mark.parametrize("earlier", [False, True])
def test_cell_rangers_file_is_named(given, capsys, earlier):
    tenx(given / "cells.h5", earlier)
    said = refusal(given / "cells.h5", capsys)
    assert "is a 10x Genomics .h5 file, which does not say how its cells were perturbed; make an .h5ad of it" in said
    assert "scanpy.read_10x_h5" in lines_of(said)[0]


@pytest.mark.parametrize("earlier", [False, True])
def test_the_line_for_cell_rangers_file_makes_one_that_lacks_perturbations_alone(given, capsys, earlier):
    pytest.importorskip("scanpy", reason="scanpy is not installed; the sentence is tested above")
    tenx(given / "cells.h5", earlier)
    made = run_line(refusal(given / "cells.h5", capsys), given)
    with pytest.raises(UserError, match="no obs column names the perturbation"):
        read(made)
    data = anndata.read_h5ad(made)
    data.obs["condition"] = screen(counts()).obs["condition"].to_numpy()
    data.write_h5ad(made)
    right(made)


def loom(path, described):
    with h5py.File(path, "w") as file:
        file["matrix"] = counts().T
        for name in ("row_attrs", "col_attrs", "layers", "row_graphs", "col_graphs", "attrs"):
            file.create_group(name)
        file["attrs/LOOM_SPEC_VERSION"] = "3.0.0"
        if described:
            text = h5py.string_dtype()
            file["row_attrs/Gene"] = np.array([f"G{k}" for k in range(GENES)], dtype=text)
            file["col_attrs/CellID"] = np.array([f"c{k}" for k in range(120)], dtype=text)
            file["col_attrs/condition"] = np.array(screen(counts()).obs["condition"], dtype=text)


@pytest.mark.parametrize("described", [True, False])
def test_a_loom_file_is_named(given, capsys, described):
    loom(given / "cells.loom", described)
    said = refusal(given / "cells.loom", capsys)
    assert "is a loom file" in said
    assert ("pip install loompy" in said) == described
    assert ("says nothing of its cells" in said) == (not described)


def test_the_line_for_a_loom_file_makes_one_that_is_read(given, capsys):
    pytest.importorskip("loompy", reason="loompy is not installed; the sentence is tested above")
    loom(given / "cells.loom", True)
    right(run_line(refusal(given / "cells.loom", capsys), given))


def test_the_line_for_a_loom_file_without_labels_makes_one_that_lacks_them_alone(given, capsys):
    loom(given / "cells.loom", False)
    made = run_line(refusal(given / "cells.loom", capsys), given)
    with pytest.raises(UserError, match="no obs column names the perturbation"):
        read(made)
    data = anndata.read_h5ad(made)
    data.obs["condition"] = screen(counts()).obs["condition"].to_numpy()
    data.write_h5ad(made)
    right(made)


def test_no_line_overwrites_what_is_there(given, capsys):
    (given / "cells.h5ad").write_text("mine")
    with gzip.open(given / "cells.h5ad.gz", "wb") as file:
        file.write((given.parent / "plain.h5ad").read_bytes())
    made = run_line(refusal(given / "cells.h5ad.gz", capsys), given, shell=True)
    assert made.name == "cells_2.h5ad"
    right(made)
    assert (given / "cells.h5ad").read_text() == "mine"
