"""Which features of a file are read, and what they are called.

A 10x matrix read whole has guides, antibodies or peaks beside the genes; only gene expression is read unless the study
says otherwise. Symbols from a column of var can be missing or repeated; each feature gets a name of its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata.utils import make_index_unique

from harness.data.perturbseq.remedies import study_line
from harness.errors import UserError
from harness.words import counted, first

#: Columns of var that tell kinds of features apart: 10x's, then others'.
KIND_COLUMNS = ("feature_types", "feature_type", "modality")
#: What gene expression is called, without case, spaces and marks.
_GENE_EXPRESSION = {"geneexpression", "expression", "gene", "genes", "gex", "rna", "mrna", "scrna", "transcriptome"}
#: Texts for a missing symbol. One alone may be a gene, as nan is in flies.
_NO_SYMBOL = {"nan", "none", "na", "<na>"}
#: A feature whose kind is missing.
_NO_KIND = "no kind"
#: Kinds and symbols that are named; the rest is counted.
_MOST_NAMED = 6


@dataclass(frozen=True)
class Features:
    """Features in use.

    Attributes
    ----------
    rows : rows of var, ascending; None where all are in use.
    names : of those, each different.
    notes : sentences on features that are left out and on names that were changed.
    numbers : the same in numbers.
    """

    rows: npt.NDArray[np.int64] | None
    names: tuple[str, ...]
    notes: tuple[str, ...]
    numbers: dict[str, float]


def means_gene_expression(kind: str) -> bool:
    """Whether a kind of features is gene expression: ``Gene Expression``, ``gene_expression``, ``rna``, ``GEX``."""
    return _plain(kind) in _GENE_EXPRESSION


def features_in_use(
    var: pd.DataFrame, wanted: Sequence[str], gene_names: str | None, path: Path, table: str = "var"
) -> Features:
    """Choose features by their kind, then name them.

    Parameters
    ----------
    var : one row a feature.
    wanted
        Kinds to read, in any case; ``all``: every one; empty: gene expression, or every one where none is known to be.
    gene_names
        Column of var with the names; default: its index.
    path, table
        The file, and the name of ``var`` in it, for messages.

    Raises
    ------
    UserError
        If there is no such kind or column, or the index of var names a feature twice.
    """
    try:
        used, said = _by_kind(var, wanted, table)
        chosen = var if used.all() else var[used]
        numbers = {"features_left_out": float(np.sum(~used))}
        rows = None if used.all() else np.flatnonzero(used)
        if gene_names is None:
            return Features(rows, _from_index(chosen.index, table), said, numbers)
        names, more, told = _from_column(chosen, gene_names, table)
    except UserError as refusal:
        raise UserError(f"{path}: {refusal}") from None
    return Features(rows, names, (*said, *more), numbers | told)


def _by_kind(var: pd.DataFrame, wanted: Sequence[str], table: str) -> tuple[npt.NDArray[np.bool_], tuple[str, ...]]:
    """Which features are read, and what is to be said of the others."""
    every = np.ones(len(var), dtype=bool)
    if any(_plain(kind) == "all" for kind in wanted):
        return every, ()
    column = _kind_column(var)
    if column is None:
        if wanted:
            raise UserError(
                f"{table} has none of the columns {', '.join(KIND_COLUMNS)}, so that all its features are one kind; "
                "leave data.features out"
            )
        return every, ()
    kinds = var[column].astype(object).where(var[column].notna(), _NO_KIND).map(str)
    counts = kinds.value_counts()
    listed = first([f"{kind} ({number:,})" for kind, number in counts.items()], _MOST_NAMED)
    if wanted:
        used = _asked_for(kinds, list(map(str, counts.index)), wanted, f"{table}[{column!r}]")
    else:
        used = kinds.map(means_gene_expression).to_numpy(dtype=bool)
        if not used.any():
            said = (
                f"{table}[{column!r}] calls no feature gene expression, so that all are read: {listed}; to read some "
                "alone name their kinds in data.features"
            )
            return every, (said,)
    if used.all():
        return every, ()
    left = kinds[~used].value_counts()
    named = first([f"{number:,} of {kind}" for kind, number in left.items()], _MOST_NAMED)
    return used, (
        f"{int(np.sum(~used)):,} of {len(var):,} features are left out by their kind in {table}[{column!r}], {named}; "
        f"to read them too {study_line('features', 'all')}",
    )


def _asked_for(kinds: pd.Series[str], known: list[str], wanted: Sequence[str], table: str) -> npt.NDArray[np.bool_]:
    unknown = [kind for kind in wanted if _plain(kind) not in set(map(_plain, known))]
    if unknown:
        raise UserError(
            f"{table} has no features of the kind {unknown[0]!r}; data.features can be some of: {', '.join(known)}, "
            "or all"
        )
    asked = set(map(_plain, wanted))
    return kinds.map(lambda kind: _plain(kind) in asked).to_numpy(dtype=bool)


def _kind_column(var: pd.DataFrame) -> str | None:
    """The first column of kinds that knows of gene expression, or else the first at all."""
    there = [name for name in KIND_COLUMNS if name in var.columns]
    knows = (name for name in there if any(means_gene_expression(str(kind)) for kind in var[name].unique()))
    return next(knows, there[0] if there else None)


def _from_index(index: pd.Index[str], table: str) -> tuple[str, ...]:
    repeated = index[index.duplicated()]
    if not len(repeated):
        return tuple(map(str, index))
    if table != "var":
        remedy = "r = adata.raw.to_adata(); r.var_names_make_unique(); adata.raw = r"
    else:
        remedy = "AnnData.var_names_make_unique"
    raise UserError(
        f"{table}: {len(set(repeated))} gene names occur more than once, first {repeated[0]!r}; make them unique with "
        f"{remedy}"
    )


def _from_column(
    var: pd.DataFrame, column: str, table: str
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, float]]:
    """Symbols; the index where one is missing; and ``NAME-1`` for the second of a name, as AnnData calls it."""
    if column not in var.columns:
        listed = ", ".join(map(str, var.columns)) or "none"
        raise UserError(f"{table} has no column {column!r}; data.gene_names can be one of: {listed}")
    symbols = var[column].astype(object)
    texts = symbols.map(str).str.strip()
    absent = symbols.isna() | (texts == "") | (texts.str.lower().isin(_NO_SYMBOL) & texts.duplicated(keep=False))
    filled = pd.Index(np.where(absent, var.index.map(str), texts), dtype=object)
    again = filled[filled.duplicated()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of names that end in -1 already, which are not taken twice
        names = make_index_unique(filled)
    said = []
    if absent.any():
        said.append(
            f"{table}[{column!r}] has no name for {counted(int(absent.sum()), 'feature')}; that of the index is taken, "
            f"such as {var.index[absent][0]}"
        )
    if len(again):
        stand = f"{counted(again.nunique(), 'name')} in {table}[{column!r}] stand{'' if again.nunique() > 1 else 's'}"
        said.append(
            f"{stand} for more than one feature, such as {again[0]}; the first keeps it, the next is called "
            f"{names[filled.duplicated()][0]}, as AnnData.var_names_make_unique calls it"
        )
    numbers = {"gene_names_missing": float(absent.sum()), "gene_names_repeated": float(len(again))}
    return tuple(map(str, names)), tuple(said), numbers


def _plain(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter.isalnum())
