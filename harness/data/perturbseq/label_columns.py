"""Which column of obs says what was done to a cell: of several the one whose names are genes of the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from harness.data.perturbseq.column_reading import Labels
from harness.data.perturbseq.control_words import control_word
from harness.data.perturbseq.controls import NoControlCells
from harness.data.perturbseq.label_texts import listed, tidy
from harness.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

#: Columns looked for, in this order.
COLUMNS = ("condition", "perturbation", "guide_ids")
#: Labels of a column that are looked at to see whether it may be the one.
_MOST_LABELS = 5000


def candidates(obs: pd.DataFrame, where: str, column: str | None, genes: Set[str]) -> list[str]:
    """The user's column, else those of `COLUMNS` that are there.

    Raises
    ------
    UserError
        If there is none; the one that holds words for control, or genes, is named.
    """
    present = [str(name) for name in obs.columns]
    listed_all = ", ".join(present) or "none at all"
    if column is not None:
        if column not in present:
            raise UserError(f"{where}: there is no column obs[{column!r}]; data.column can be one of: {listed_all}")
        return [column]
    known = [name for name in COLUMNS if name in present]
    if not known:
        likely = _most_likely(obs, genes)
        remedy = f"{likely}, whose labels look like perturbations (all columns: {listed_all})" if likely else ""
        raise UserError(
            f"{where}: no obs column names the perturbation (looked for {', '.join(COLUMNS)}); "
            f"set data.column to {remedy or f'one of: {listed_all}'}"
        )
    return known


def best_of(names: Sequence[str], read: Callable[[str], Labels], where: str, genes: Set[str]) -> Labels:
    """The column with most genes of the file, read; the first where all that can be read say the same.

    Raises
    ------
    UserError
        If none can be read, or those that can differ and none has most genes.
    """
    found: list[Labels] = []
    refusals: list[UserError] = []
    for name in names:
        try:
            found.append(read(name))
        except UserError as refusal:
            refusals.append(refusal)
    if not found:
        raise next((refusal for refusal in refusals if not isinstance(refusal, NoControlCells)), refusals[0])
    others = [labels for labels in found if not np.array_equal(labels.conditions, found[0].conditions)]
    if not others:
        return found[0]
    members = {labels.column: len(genes & set(labels.perturbed)) for labels in found}
    best = max(found, key=lambda labels: members[labels.column])
    rivals = [
        labels
        for labels in found
        if members[labels.column] == members[best.column] and not np.array_equal(labels.conditions, best.conditions)
    ]
    if rivals:
        columns = [labels.column for labels in found if any(labels is one for one in (best, *rivals))]
        named = " and ".join(f"obs[{name!r}]" for name in columns)
        raise UserError(
            f"{where}: {named} may each name the perturbation, and differ; put under data: in the study file   column: "
            f"{'   or   column: '.join(columns)}"
        )
    notes = [_not_taken(labels, best, members) for labels in found if labels is not best]
    return replace(best, notes=(*(note for note in notes if note), *best.notes))


def _not_taken(other: Labels, best: Labels, members: dict[str, int]) -> str:
    """How to take a column that was not taken; empty where it says the same."""
    differs = int(np.sum(other.conditions != best.conditions))
    if not differs:
        return ""
    return (
        f"obs[{best.column!r}] is taken for the perturbation, of whose names {members[best.column]:,} are genes of the "
        f"file; obs[{other.column!r}], of whose names {members[other.column]:,} are and which differs from it in "
        f"{differs:,} cells, is not: to take it put under data: in the study file   column: {other.column}   "
        f"(here: --column {other.column})"
    )


def _most_likely(obs: pd.DataFrame, genes: Set[str]) -> str | None:
    """The column with most names of genes, or with words for control; None where no column has any."""
    scores = {str(name): _score(obs[name], genes) for name in obs.columns}
    best = max(scores, key=lambda name: scores[name], default=None)
    return best if best is not None and max(scores[best]) else None


def _score(column: pd.Series[str], genes: Set[str]) -> tuple[int, int]:
    """How many names in a column are genes, and how many labels mean control."""
    labels = [tidy(label) for label in column.unique()[:_MOST_LABELS] if isinstance(label, str)]
    names = {part for label in labels for part in (*(listed(label) or ()), *_names_in(label))}
    return len(genes & names), sum(control_word(name) is not None for name in names)


def _names_in(label: str) -> list[str]:
    """A label, its parts at any mark, and those without the number of a guide."""
    parts = [label, *(part.strip() for part in re.split(r"[|;&+,/:_]", label))]
    return [*parts, *(re.sub(r"[-_.](?:sg|g)?\d+$", "", part) for part in parts)]
