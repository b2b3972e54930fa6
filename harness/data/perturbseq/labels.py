"""Which perturbation each cell carries: the public files' columns and conventions, read into one canonical form.

==================  ===============  =================  ==================  ==========
convention          column           control            single              pair
==================  ===============  =================  ==================  ==========
PerturBench         condition        control            KLF1                SET+KLF1
GEARS               condition        ctrl               KLF1+ctrl           SET+KLF1
scPerturb           perturbation     control            KLF1                SET_KLF1
CPA, discrepancy    guide_ids        (empty)            KLF1                SET,KLF1
==================  ===============  =================  ==================  ==========

Pairs may be joined by other marks too, where there is evidence for it, see `pair_marks`. Labels may name guides instead
(``LCK_1``, ``NTg4``); the study file's rule says how, see `guides`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from harness.data.perturbseq.column_reading import MISSING, Labels, LeftOut, read_column
from harness.data.perturbseq.conditions import canonical, members_of
from harness.data.perturbseq.control_words import CONTROL
from harness.data.perturbseq.label_columns import COLUMNS, best_of, candidates
from harness.data_spec import PerturbseqData

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "CONTROL", "MISSING", "Labels", "LeftOut", "canonical", "members_of", "read_labels"]


def read_labels(obs: pd.DataFrame, where: str, spec: PerturbseqData, genes: Collection[str] = ()) -> Labels:
    """Find the perturbation column and read it.

    Parameters
    ----------
    obs
        One row a cell.
    where
        Name of the data, for error messages.
    spec
        The study file's ``data``: its word on column, control labels, marks of pairs and guides; default: detected.
    genes
        Names of the file's genes, which tell a column of genes from one of treatments, and names from guides.

    Raises
    ------
    UserError
        If there is no such column, several differ and none is more likely, there is no control cell, a label has two
        readings, or the rule does not fit the labels.
    """
    known = frozenset(genes)
    names = candidates(obs, where, spec.column, known)
    return best_of(names, lambda name: read_column(obs, where, name, spec, known), where, known)
