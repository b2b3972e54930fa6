"""Which features of a file are read, and what they are called."""

import re

import anndata
import numpy as np
import pandas as pd
import pytest
from file_order import as_filed
from scipy import sparse
from small_screen import GENES, counts, csr, notes, per_cell, screen, study_lines

from harness import cli
from harness.data import load
from harness.data.perturbseq.cell_file import CellFile
from harness.data.perturbseq.inspection import inspect_file
from harness.data_spec import PerturbseqData
from harness.errors import UserError

GUIDES = ("KLF1_g1", "KLF1_g2", "SET_g1", "NT_g1")
FORMS = {"csr": csr, "csc": lambda x: sparse.csc_matrix(x.astype(np.float32)), "dense": lambda x: x.astype(np.float32)}


def read(path, **options):
    return as_filed(load(PerturbseqData(path=str(path), **options), path.parent / "cache"), path)


def with_guides(
    path, form="csr", column="feature_types", kinds=("Gene Expression", "CRISPR Guide Capture"), order=None
):
    """Counts of genes beside large counts of guides."""
    both = np.hstack([counts(), np.random.default_rng(1).poisson(500, (len(counts()), len(GUIDES)))])
    names = np.array([*(f"G{k}" for k in range(GENES)), *GUIDES])
    kind = np.repeat(np.array(kinds, dtype=object), [GENES, len(GUIDES)])
    order = np.arange(len(names)) if order is None else order
    data = screen(FORMS[form](both[:, order]), names[order])
    data.var[column] = kind[order]
    data.write_h5ad(path)
    return path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mixed", [False, True])
def test_guides_among_the_genes_are_left_out_of_matrix_totals_and_names(tmp_path, form, mixed):
    order = np.random.default_rng(3).permutation(GENES + len(GUIDES)) if mixed else None
    path = with_guides(tmp_path / "cells.h5ad", form, order=order)
    data = read(path)
    genes = np.arange(GENES) if order is None else order[order < GENES]
    assert data.feature_names == tuple(f"G{k}" for k in genes)
    np.testing.assert_allclose(data.frames.numpy(), np.log1p(per_cell(counts()))[:, genes], rtol=1e-5)
    np.testing.assert_array_equal(data.library.numpy(), counts().sum(1))
    assert data.quality["features_left_out"] == len(GUIDES)
    assert data.quality["genes_in_file"] == GENES


@pytest.mark.parametrize(
    ("column", "kinds"),
    [
        ("feature_types", ("gene_expression", "Antibody Capture")),
        ("feature_type", ("GEX", "crispr")),
        ("modality", ("rna", "gdo")),
        ("modality", ("RNA", "prot")),
        ("feature_types", ("Gene Expression", None)),
    ],
)
def test_gene_expression_is_known_by_several_words_in_any_case(tmp_path, column, kinds):
    data = read(with_guides(tmp_path / "cells.h5ad", column=column, kinds=kinds))
    assert len(data.feature_names) == GENES


def test_what_is_left_out_is_said_by_inspection_and_when_a_study_reads_the_file(tmp_path):
    path = with_guides(tmp_path / "cells.h5ad")
    said = (
        "4 of 64 features are left out by their kind in var['feature_types'], 4 of CRISPR Guide Capture; to read them"
    )
    (note,) = [note for note in inspect_file(PerturbseqData(path=str(path))).notes if "features" in note]
    assert note.startswith(said)
    assert said in notes(read(path))
    ((key, value),) = study_lines(note)
    assert read(path, **{key: value}).feature_names[-4:] == GUIDES


def test_kinds_are_chosen_by_name_and_all_takes_every_one(tmp_path):
    path = with_guides(tmp_path / "cells.h5ad")
    guides = read(path, features="crispr guide capture")
    assert guides.feature_names == GUIDES
    assert guides.quality["features_left_out"] == GENES
    for words in (["all"], ["Gene Expression", "CRISPR Guide Capture"]):
        every = read(path, features=words)
        assert len(every.feature_names) == GENES + len(GUIDES)
        assert every.quality["features_left_out"] == 0


def test_an_unknown_kind_is_refused_with_those_that_are_there(tmp_path):
    path = with_guides(tmp_path / "cells.h5ad")
    with pytest.raises(
        UserError,
        match=r"var\['feature_types'\] has no features of the kind 'Peaks'; data.features can be some of: "
        "Gene Expression, CRISPR Guide Capture, or all",
    ):
        read(path, features=["Gene Expression", "Peaks"])
    screen(counts()).write_h5ad(tmp_path / "plain.h5ad")
    with pytest.raises(UserError, match=r"var has none of the columns feature_types, .* leave data.features out"):
        read(tmp_path / "plain.h5ad", features="Gene Expression")
    assert len(read(tmp_path / "plain.h5ad", features="all").feature_names) == GENES


def test_where_no_kind_is_known_to_be_gene_expression_all_are_read_and_that_is_said(tmp_path):
    """As in CELLxGENE's files, whose feature_type is a biotype."""
    path = with_guides(tmp_path / "cells.h5ad", column="feature_type", kinds=("protein_coding", "lncRNA"))
    notes = inspect_file(PerturbseqData(path=str(path))).notes
    assert any(
        note.startswith(
            "var['feature_type'] calls no feature gene expression, so that all are read: protein_coding (60), lncRNA"
        )
        for note in notes
    )
    assert len(read(path).feature_names) == GENES + len(GUIDES)
    assert len(read(path, features="protein_coding").feature_names) == GENES


def test_a_guide_named_like_a_gene_is_no_repeated_gene(tmp_path):
    path = with_guides(tmp_path / "cells.h5ad")
    data = anndata.read_h5ad(path)
    data.var_names = [*data.var_names[:-1], "G3"]
    data.write_h5ad(path)
    assert read(path).feature_names[3] == "G3"
    with pytest.raises(UserError, match=r"1 gene names occur more than once, first 'G3'.*var_names_make_unique"):
        read(path, features="all")
    data.var_names_make_unique()
    data.write_h5ad(path)
    assert read(path, features="all").feature_names[-1] == "G3-1"


def test_what_inspection_prints_as_use_it_reads_the_same_features(tmp_path, capsys):
    path = with_guides(tmp_path / "cells.h5ad")
    options = ["--features", "Gene Expression", "--features", "CRISPR Guide Capture", "--layer", "X"]
    assert cli.main(["data", "inspect", str(path), *options]) == 0
    said = capsys.readouterr().out
    assert "120 cells × 64 genes" in said
    assert "--set data.layer=X --set 'data.features=[Gene Expression, CRISPR Guide Capture]'" in said
    assert cli.main(["data", "inspect", str(path), "--features", "Peaks"]) == 2
    assert "has no features of the kind 'Peaks'" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ names from a column


def with_symbols(path, symbols):
    data = screen(counts(), [f"ENSG{k:011d}" for k in range(GENES)])
    data.var["gene_name"] = pd.Series(symbols, index=data.var_names, dtype=object)
    data.write_h5ad(path)
    return path


def test_a_symbol_of_two_genes_is_kept_by_the_first_as_anndata_would(tmp_path):
    symbols = [f"S{k}" for k in range(GENES)]
    symbols[51] = symbols[50]
    path = with_symbols(tmp_path / "cells.h5ad", symbols)
    data = read(path, gene_names="gene_name")
    theirs = anndata.read_h5ad(path)
    theirs.var_names = theirs.var["gene_name"].astype(str)
    theirs.var_names_make_unique()
    assert data.feature_names == tuple(theirs.var_names)
    assert data.feature_names[50:52] == ("S50", "S50-1")
    assert data.quality["gene_names_repeated"] == 1
    np.testing.assert_allclose(data.frames.numpy(), np.log1p(per_cell(counts())), rtol=1e-5)
    said = "1 name in var['gene_name'] stands for more than one feature, such as S50; the first keeps it, the next is"
    assert said in notes(data)
    told = inspect_file(PerturbseqData(path=str(path), gene_names="gene_name")).notes
    assert any(note.startswith(said) for note in told)
    assert not any("make_unique with" in note or "make them unique" in note for note in told)


def test_a_changed_name_never_meets_another(tmp_path):
    symbols = [f"S{k}" for k in range(GENES)]
    symbols[3:6] = ["A", "A-1", "A"]
    names = read(with_symbols(tmp_path / "cells.h5ad", symbols), gene_names="gene_name").feature_names
    assert names[3:5] == ("A", "A-1")
    assert len(set(names)) == GENES


@pytest.mark.parametrize("absent", [np.nan, None, "", " ", "nan", "NA"])
def test_features_without_a_symbol_keep_the_name_of_the_index(tmp_path, absent):
    symbols = [f"S{k}" for k in range(GENES)]
    symbols[10], symbols[20] = absent, absent
    data = read(with_symbols(tmp_path / "cells.h5ad", symbols), gene_names="gene_name")
    assert data.feature_names[9:11] == ("S9", "ENSG00000000010")
    assert data.feature_names[20] == "ENSG00000000020"
    assert (data.quality["gene_names_missing"], data.quality["gene_names_repeated"]) == (2, 0)
    said = "var['gene_name'] has no name for 2 features; that of the index is taken, such as ENSG00000000010"
    assert said in notes(data)


def test_a_gene_named_nan_is_a_gene(tmp_path):
    symbols = [f"S{k}" for k in range(GENES)]
    symbols[10] = "nan"
    data = read(with_symbols(tmp_path / "cells.h5ad", symbols), gene_names="gene_name")
    assert data.feature_names[10] == "nan"


def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    path = with_symbols(tmp_path / "cells.h5ad", [f"S{k}" for k in range(GENES)])
    with pytest.raises(
        UserError, match=re.escape("var has no column 'symbol'; data.gene_names can be one of: gene_name")
    ):
        CellFile(path, "symbol")
