"""Which perturbation each cell carries: the public files' columns and grammars, read into one canonical form.

==================  ===============  =================  ==================  ==========
convention          column           control            single              pair
==================  ===============  =================  ==================  ==========
PerturBench         condition        control            KLF1                SET+KLF1
GEARS               condition        ctrl               KLF1+ctrl           SET+KLF1
scPerturb           perturbation     control            KLF1                SET_KLF1
CPA, discrepancy    guide_ids        (empty)            KLF1                SET,KLF1
==================  ===============  =================  ==================  ==========

The canonical form is ``control``, ``A``, or ``A+B`` with the members sorted: the order of a pair does not matter.
Labels may name guides instead (``LCK_1``, ``NTg4``); the study file's rule says how, see `guides`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from harness.data.perturbseq.grammars import PAIR_FORMS, Grammar, find_grammar, members_of_labels
from harness.data.perturbseq.guides import CONTROL, CONTROL_WORDS, Guides, by_gene
from harness.data_spec import PerturbseqData
from harness.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CONTROL", "CONTROL_WORDS", "PAIR_FORMS", "Grammar", "Labels", "canonical", "members_of", "read_labels"]

#: Columns looked for, in this order; the first one with control cells is taken.
COLUMNS = ("condition", "perturbation", "guide_ids")


@dataclass(frozen=True)
class Labels:
    """What each cell carries.

    Attributes
    ----------
    column : obs column the labels came from.
    grammar : how pairs are written there: ``A+B``, ``A,B`` or ``A_B``.
    control : the column's own label(s) for control cells.
    conditions : (cells,) canonical condition of each cell.
    guides : the guides merged into each gene, and into control, where labels name guides.
    """

    column: str
    grammar: Grammar
    control: tuple[str, ...]
    conditions: npt.NDArray[np.object_]
    guides: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def perturbed(self) -> tuple[str, ...]:
        """Names of all perturbed genes, sorted."""
        return tuple(sorted({gene for name in set(self.conditions) for gene in members_of(name)}))


def canonical(members: Iterable[str]) -> str:
    """The canonical condition of a set of perturbed genes: ``control``, ``A``, ``A+B``, ..."""
    return "+".join(sorted(set(members))) or CONTROL


def members_of(condition: str) -> tuple[str, ...]:
    """The perturbed genes of a canonical condition; none for control."""
    return () if condition == CONTROL else tuple(condition.split("+"))


def read_labels(obs: pd.DataFrame, where: str, spec: PerturbseqData) -> Labels:
    """Find the perturbation column and read it.

    Parameters
    ----------
    obs
        One row a cell.
    where
        Name of the data, for error messages.
    spec
        The study file's ``data``: its word on column, control labels and guides; default: detected.

    Raises
    ------
    UserError
        If there is no such column, no control cell, a cell without a label, a label with two readings, or the rule
        does not fit the labels.
    """
    guides = None if spec.guides is None else Guides(spec.guides)
    control = spec.control

    def is_control(label: str, of: str) -> bool:
        return _is_control(label, of, control) or (guides is not None and guides.is_control(label))

    name = find_column(obs, where, spec.column, is_control)
    codes, distinct = _texts(obs[name], where, name)
    controls = tuple(label for label in distinct if is_control(label, name))
    if not controls and guides is None:
        raise UserError(_no_control(distinct, where, name, control))
    grammar = find_grammar(distinct, name)
    counts = _gene_counts(obs, codes, distinct, where) if grammar == "underscore" else {}
    place = f"{where}: obs[{name!r}]"
    # non-targeting guides are read with the other guides, so that a rule too wide shows
    words = [label for label in controls if guides is None or not guides.is_control(label)]
    table = members_of_labels(distinct, grammar, words, counts, place, guides)
    genes = {} if guides is None else guides.genes((part for parts in table.values() for part in parts), place)
    merged = [canonical({genes.get(part, part) for part in table[label]} - {CONTROL}) for label in distinct]
    controls = tuple(label for label, condition in zip(distinct, merged, strict=True) if condition == CONTROL)
    if not controls:
        raise UserError(_no_control(distinct, where, name, control))
    conditions = np.array(merged, dtype=object)[codes]
    return Labels(name, grammar, controls, conditions, by_gene(genes))


def find_column(obs: pd.DataFrame, where: str, column: str | None, is_control: Callable[[str, str], bool]) -> str:
    """The column that says which perturbation a cell carries.

    The user's own, else the first of `COLUMNS` with control cells, else the first that exists.

    Parameters
    ----------
    obs
        One row a cell.
    where
        Name of the data, for error messages.
    column
        The user's word.
    is_control
        Whether a label, of a column, is one of control cells.
    """
    present = [str(name) for name in obs.columns]
    listed = ", ".join(present) or "none at all"
    if column is not None:
        if column not in present:
            raise UserError(f"{where}: there is no column obs[{column!r}]; data.column can be one of: {listed}")
        return column
    known = [name for name in COLUMNS if name in present]
    if not known:
        raise UserError(
            f"{where}: no obs column names the perturbation (looked for {', '.join(COLUMNS)}); "
            f"set data.column to one of: {listed}"
        )
    for name in known:
        if any(isinstance(label, str) and is_control(label, name) for label in obs[name].unique()):
            return name
    return known[0]


def _is_control(label: str, column: str, control: Sequence[str]) -> bool:
    if control:
        return label in control
    return label.strip().lower() in CONTROL_WORDS or (column == "guide_ids" and not label.strip())


def _no_control(labels: tuple[str, ...], where: str, column: str, control: Sequence[str]) -> str:
    sought = ", ".join(map(repr, control) if control else sorted(CONTROL_WORDS))
    seen = ", ".join(repr(label) for label in labels[:5])
    return (
        f"{where}: no control cells in obs[{column!r}] (looked for {sought}; labels begin {seen}); "
        "set data.control to the label of control cells, or data.column to the column of perturbations"
    )


def _texts(column: pd.Series[str], where: str, name: str) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Which of the distinct labels each cell has, and those in the order they occur; refuses missing ones and numbers.

    Labels are looked at once each: a column may have a million cells and a hundred labels.
    """
    import pandas as pd

    codes, found = pd.factorize(column, use_na_sentinel=True)
    missing = int(np.sum(codes < 0))
    if missing:
        raise UserError(
            f"{where}: {missing} of {len(column)} cells have no label in obs[{name!r}]; "
            "remove these cells or label them (control cells too need a label)"
        )
    distinct = tuple(found)
    odd = next((value for value in distinct if not isinstance(value, str)), None)
    if odd is not None:
        raise UserError(
            f"{where}: obs[{name!r}] holds {type(odd).__name__} values such as {odd}, not names of perturbations; "
            "set data.column to a column of names"
        )
    return codes.astype(np.int64), distinct


def _gene_counts(
    obs: pd.DataFrame, codes: npt.NDArray[np.int64], distinct: tuple[str, ...], where: str
) -> dict[str, int]:
    """Number of perturbed genes of each label, where ``obs['nperts']`` says so (scPerturb)."""
    if "nperts" not in obs.columns:
        return {}
    import pandas as pd

    given = pd.DataFrame({"label": codes, "count": pd.to_numeric(obs["nperts"], errors="coerce").to_numpy(float)})
    given = given.dropna()  # a cell without a number says nothing
    stated = given.groupby("label")["count"].agg(["min", "max"]).astype(int)
    for label, least, most in stated.itertuples():
        if least != most:
            raise UserError(
                f"{where}: obs['nperts'] gives {distinct[label]!r} both {least} and {most} genes; correct the column"
            )
    return {distinct[label]: int(count) for label, count in stated["min"].items()}
