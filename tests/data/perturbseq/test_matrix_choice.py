"""Which matrix of a file is read: X, a layer or raw, in every layout; what is said where X cannot be."""

import re

import anndata
import numpy as np
import pytest
from file_order import as_filed
from scipy import sparse
from small_screen import GENES, counts, csr, notes, per_cell, screen, study_lines

from harness import cli
from harness.data import load
from harness.data.perturbseq.inspection import inspect_file
from harness.data_spec import PerturbseqData
from harness.errors import UserError


def read(path, **options):
    return as_filed(load(PerturbseqData(path=str(path), **options), path.parent / "cache"), path)


def logs(raw=None):
    return np.log1p(per_cell(counts() if raw is None else raw))


def standardised(x):
    return (x - x.mean(0)) / np.maximum(x.std(0), 1e-6)


def written(path, x, *, raw=None, genes=GENES, **layers):
    """A file of the first ``genes`` genes, with all of them in raw."""
    data = screen(x, layers={name: csr(values) for name, values in layers.items()})
    if raw is not None:
        data.raw = screen(csr(raw))
    data[:, :genes].copy().write_h5ad(path)
    return path


def refusal(path, **options):
    with pytest.raises(UserError) as refused:
        read(path, **options)
    said = str(refused.value)
    assert said.startswith(str(path))
    assert "\n" not in said
    return said


# ---------------------------------------------------------------------------------------- raw and other layers


@pytest.mark.parametrize(
    ("x", "raw", "held", "told"),
    [
        (standardised(logs()), counts(), "counts", "holds negative values"),
        (standardised(logs()), logs(), "log-normalised values", "holds negative values"),
        (per_cell(counts()), counts(), "counts", "scaled counts without logarithm"),
    ],
)
def test_where_x_is_no_use_raw_is_named_and_its_line_reads_all_its_genes(tmp_path, capsys, x, raw, held, told):
    path = written(tmp_path / "cells.h5ad", x, raw=raw, genes=40)
    said = refusal(path)
    assert told in said
    assert f"raw holds {held}; to read it put under data: in the study file   layer: raw   " in said
    ((key, value),) = study_lines(said)
    data = read(path, **{key: value})
    assert data.feature_names == tuple(f"G{k}" for k in range(GENES))
    np.testing.assert_allclose(data.frames.numpy(), logs(), rtol=1e-5)
    np.testing.assert_allclose(data.library.numpy(), counts().sum(1), rtol=1e-4)
    assert cli.main(["data", "inspect", str(path)]) == 2
    assert "(harness data inspect: --layer raw)" in capsys.readouterr().out
    assert cli.main(["data", "inspect", str(path), "--layer", "raw"]) == 0
    said = capsys.readouterr().out
    assert "120 cells × 60 genes" in said
    assert re.search(f"^raw +{held}", said, re.MULTILINE)
    assert said.rstrip().endswith(f"--set data.path={path} --set data.layer=raw")


def test_a_layer_that_would_do_is_named_and_one_that_would_not_is_not(tmp_path):
    path = written(tmp_path / "cells.h5ad", standardised(logs()), scaled=counts() - 1.5, umi=counts(), ln=logs())
    said = refusal(path)
    assert "scaled" not in said.split("; ", 1)[1]
    assert "layers['umi'] holds counts and layers['ln'] holds log-normalised values; to read one put" in said
    for key, value in study_lines(said):
        np.testing.assert_allclose(read(path, **{key: value}).frames.numpy(), logs(), rtol=1e-5)


def test_a_line_is_given_that_agrees_with_the_users_word_on_values(tmp_path):
    path = written(tmp_path / "cells.h5ad", per_cell(counts()), raw=counts())
    said = refusal(path, values="lognorm")
    assert said.endswith("   layer: raw   (harness data inspect: --layer raw), and leave data.values out")
    np.testing.assert_allclose(read(path, layer="raw").frames.numpy(), logs(), rtol=1e-5)
    said = refusal(written(tmp_path / "cells.h5ad", standardised(logs()), raw=logs()), values="lognorm")
    assert "data.values is lognorm, but X holds negative values (such as -" in said
    assert said.endswith("(harness data inspect: --layer raw)")
    np.testing.assert_allclose(read(path, layer="raw", values="lognorm").frames.numpy(), logs(), rtol=1e-5)


def test_raw_of_no_use_is_not_proposed(tmp_path):
    said = refusal(written(tmp_path / "cells.h5ad", standardised(logs()), raw=standardised(logs())))
    assert "raw holds" not in said
    assert said.endswith("give counts or log-normalised values, not scaled ones, or put counts into layers['counts']")
    spoiled = counts()
    spoiled[100, 3] = np.nan
    assert "raw holds" not in refusal(written(tmp_path / "cells.h5ad", standardised(logs()), raw=spoiled))


def test_layer_x_is_x_even_where_the_layer_counts_would_be_read(tmp_path):
    path = written(tmp_path / "cells.h5ad", standardised(logs()), counts=counts())
    assert read(path).frames.shape == (120, GENES)
    assert study_lines(refusal(path, layer="X")) == [("layer", "counts")]


def test_a_layer_named_raw_is_read_as_such_where_there_is_no_other_and_by_its_full_name_where_there_is(tmp_path):
    path = written(tmp_path / "cells.h5ad", logs(), **{"raw": 3 * counts()})
    np.testing.assert_array_equal(read(path, layer="raw").library.numpy(), 3 * counts().sum(1))
    path = written(tmp_path / "both.h5ad", logs(), raw=counts())
    data = anndata.read_h5ad(path)
    data.layers["raw"] = csr(3 * counts())
    data.write_h5ad(path)
    np.testing.assert_array_equal(read(path, layer="raw").library.numpy(), counts().sum(1))
    np.testing.assert_array_equal(read(path, layer="layers/raw").library.numpy(), 3 * counts().sum(1))
    notes = inspect_file(PerturbseqData(path=str(path), layer="raw")).notes
    assert "layer: raw is read as AnnData's .raw; for layers['raw'] say layer: layers/raw" in notes


def test_a_matrix_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    path = written(tmp_path / "cells.h5ad", logs(), raw=counts(), umi=counts())
    said = r"there is no layers\['reads'\]; data.layer can be one of: X, raw, umi"
    with pytest.raises(UserError, match=said):
        read(path, layer="reads")


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_repeated_names_of_raw_are_refused_with_a_remedy_for_raw(tmp_path):
    data = screen(csr(counts()))
    raw = screen(csr(counts()), ["G0", "G0", *(f"G{k}" for k in range(2, GENES))])
    data.raw = raw
    data.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(
        UserError, match=r"raw.var: 1 gene names occur more than once, first 'G0'; make .* with (.*)"
    ) as no:
        read(tmp_path / "cells.h5ad", layer="raw")
    adata = anndata.read_h5ad(tmp_path / "cells.h5ad")
    exec(str(no.value).split("make them unique with ")[1], {"adata": adata})
    adata.write_h5ad(tmp_path / "cells.h5ad")
    assert read(tmp_path / "cells.h5ad", layer="raw").feature_names[:2] == ("G0", "G0-1")


# ------------------------------------------------------------------------------------------------ without X


@pytest.mark.parametrize(
    ("more", "line"), [({"raw": counts()}, "raw"), ({"umi": counts()}, "umi"), ({"umi": logs(), "s": -logs()}, "umi")]
)
def test_without_x_another_matrix_is_named_with_its_line_which_is_obeyed(tmp_path, capsys, more, line):
    path = written(tmp_path / "cells.h5ad", None, **more)
    said = refusal(path)
    assert "there is no X and no layers['counts']; " in said
    assert study_lines(said) == [("layer", line)]
    np.testing.assert_allclose(read(path, layer=line).frames.numpy(), logs(), rtol=1e-5)
    assert cli.main(["data", "inspect", str(path)]) == 2
    shown = capsys.readouterr().out
    assert f"layer: {line}   (harness data inspect: --layer {line})" in shown
    assert "control" in shown  # the rest is told all the same
    assert cli.main(["data", "inspect", str(path), "--layer", line]) == 0


def test_without_x_the_layer_counts_is_read(tmp_path):
    path = written(tmp_path / "cells.h5ad", None, counts=counts(), raw=counts())
    np.testing.assert_allclose(read(path).frames.numpy(), logs(), rtol=1e-5)


def test_without_x_a_layer_of_no_use_is_said_to_be(tmp_path):
    said = refusal(written(tmp_path / "cells.h5ad", None, scaled=-logs()))
    assert said.endswith("none of layers['scaled'] holds counts or log-normalised values; put counts into X")


def test_without_any_matrix_there_is_nothing_to_read(tmp_path):
    path = written(tmp_path / "cells.h5ad", None)
    assert "has neither X nor a layer nor raw, so no values of genes" in refusal(path)


# ------------------------------------------------------------------------------------------- types and layouts


def unsorted(x):
    m = csr(x)
    for row in range(m.shape[0]):
        of = slice(m.indptr[row], m.indptr[row + 1])
        order = np.random.default_rng(row).permutation(of.stop - of.start)
        m.indices[of], m.data[of] = m.indices[of][order], m.data[of][order]
    m.has_sorted_indices = False
    return m


FORMS = {
    "int8": lambda x: x.astype(np.int8),
    "int8 csr": lambda x: sparse.csr_matrix(x.astype(np.int8)),
    "uint8 csc": lambda x: sparse.csc_matrix(x.astype(np.uint8)),
    "uint16": lambda x: x.astype(np.uint16),
    "uint16 csr": lambda x: sparse.csr_matrix(x.astype(np.uint16)),
    "int32": lambda x: x.astype(np.int32),
    "uint32 csr": lambda x: sparse.csr_matrix(x.astype(np.uint32)),
    "int64 csc": lambda x: sparse.csc_matrix(x.astype(np.int64)),
    "float16": lambda x: x.astype(np.float16),
    "float32": lambda x: x.astype(np.float32),
    "float64 csc": sparse.csc_matrix,
    "column by column": np.asfortranarray,
    "unsorted": unsorted,
}


@pytest.mark.parametrize("where", ["X", "counts", "raw"])
@pytest.mark.parametrize("form", FORMS)
def test_every_type_and_layout_of_counts_gives_the_same_values(tmp_path, form, where):
    raw = np.minimum(counts(), 127)
    given = FORMS[form](raw)
    data = screen(given if where == "X" else csr(logs(3 * raw + 1)))
    if where == "counts":
        data.layers["counts"] = given
    if where == "raw":
        data.raw = screen(given)
    data.write_h5ad(tmp_path / "cells.h5ad")
    read_as = read(tmp_path / "cells.h5ad", layer=where)
    np.testing.assert_allclose(read_as.frames.numpy(), logs(raw), rtol=1e-5)
    np.testing.assert_array_equal(read_as.library.numpy(), raw.sum(1))


@pytest.mark.parametrize(
    ("form", "error"),
    [
        (lambda x: x.astype(np.float16), 2e-3),
        (lambda x: np.round(x, 3), 6e-4),
        (np.float64, 1e-6),
        (lambda x: sparse.csc_matrix(x.astype(np.float32)), 1e-6),
        (unsorted, 1e-6),
    ],
)
@pytest.mark.parametrize("library", [150, 400, 9000])
def test_logarithms_are_known_in_every_precision(tmp_path, form, error, library):
    values = logs(counts(library))
    screen(form(values)).write_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_allclose(read(tmp_path / "cells.h5ad").frames.numpy(), values, atol=error)


def test_values_of_0_and_1_alone_are_noted(tmp_path):
    screen(counts() > 0).write_h5ad(tmp_path / "cells.h5ad")
    data = read(tmp_path / "cells.h5ad")
    assert data.frames.shape == (120, GENES)
    assert "all values of X are 0 or 1, so that they may say whether a gene was seen" in notes(data)
    screen(csr(counts())).write_h5ad(tmp_path / "cells.h5ad")
    assert "0 or 1" not in notes(read(tmp_path / "cells.h5ad"))
