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
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from harness.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

CONTROL = "control"
#: Columns looked for, in this order; the first one with control cells is taken.
COLUMNS = ("condition", "perturbation", "guide_ids")
#: Labels of control cells, in any case; an empty label is control in ``guide_ids`` only.
CONTROL_WORDS = frozenset({"control", "ctrl", "non-targeting"})

Grammar = Literal["plus", "comma", "underscore"]
#: How a pair is written, by grammar.
PAIR_FORMS: dict[Grammar, str] = {"plus": "A+B", "comma": "A,B", "underscore": "A_B"}


@dataclass(frozen=True)
class Labels:
    """What each cell carries.

    Attributes
    ----------
    column : obs column the labels came from.
    grammar : how pairs are written there: ``A+B``, ``A,B`` or ``A_B``.
    control : the column's own label(s) for control cells.
    conditions : (cells,) canonical condition of each cell.
    """

    column: str
    grammar: Grammar
    control: tuple[str, ...]
    conditions: npt.NDArray[np.object_]


def canonical(members: Iterable[str]) -> str:
    """The canonical condition of a set of perturbed genes: ``control``, ``A``, ``A+B``, ..."""
    return "+".join(sorted(set(members))) or CONTROL


def members_of(condition: str) -> tuple[str, ...]:
    """The perturbed genes of a canonical condition; none for control."""
    return () if condition == CONTROL else tuple(condition.split("+"))


def read_labels(obs: pd.DataFrame, where: str, column: str | None = None, control: str | None = None) -> Labels:
    """Find the perturbation column and read it.

    Parameters
    ----------
    obs
        One row a cell.
    where
        Name of the data, for error messages.
    column, control
        The user's word on column and control label; default: detected.

    Raises
    ------
    UserError
        If there is no such column, no control cell, a cell without a label, or a label with two readings.
    """
    name = find_column(obs, where, column, control)
    values = _texts(obs[name], where, name)
    distinct = tuple(dict.fromkeys(values))
    controls = tuple(label for label in distinct if _is_control(label, name, control))
    if not controls:
        raise UserError(_no_control(distinct, where, name, control))
    grammar = find_grammar(distinct, name)
    counts = _gene_counts(obs, values, where) if grammar == "underscore" else {}
    table = parse_labels(distinct, grammar, controls, counts, f"{where}: obs[{name!r}]")
    conditions = np.array([table[label] for label in values], dtype=object)
    return Labels(name, grammar, controls, conditions)


def find_column(obs: pd.DataFrame, where: str, column: str | None, control: str | None) -> str:
    """The column that says which perturbation a cell carries.

    The user's own, else the first of `COLUMNS` with control cells, else the first that exists.
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
        if any(isinstance(label, str) and _is_control(label, name, control) for label in obs[name].unique()):
            return name
    return known[0]


def find_grammar(labels: Iterable[str], column: str) -> Grammar:
    """How pairs are written: with ``+`` or ``,`` where one occurs, else with ``_`` (whose pairs need evidence)."""
    text = list(labels)
    if any("+" in label for label in text):
        return "plus"
    if column == "guide_ids" or any("," in label for label in text):
        return "comma"
    return "underscore"


def parse_labels(
    labels: Iterable[str], grammar: Grammar, control: Iterable[str], gene_counts: Mapping[str, int], where: str
) -> dict[str, str]:
    """Read distinct labels into canonical conditions.

    Parameters
    ----------
    labels
        Distinct labels.
    grammar
        How pairs are written.
    control
        The labels that mean control, alone or as a member (``KLF1+ctrl``).
    gene_counts
        Number of perturbed genes of a label where the file says so (scPerturb's ``nperts``); used with
        ``underscore`` only, where ``A_B`` may as well be one gene's name.
    where
        Name of the column, for error messages.
    """
    controls = set(control)
    named = [label for label in labels if label not in controls]
    if grammar == "underscore":
        split = _split_underscores(named, gene_counts, controls, where)
    else:
        mark = "+" if grammar == "plus" else ","
        split = {label: tuple(part.strip() for part in label.split(mark)) for label in named}
    table = dict.fromkeys(controls, CONTROL)
    for label, parts in split.items():
        genes = [part for part in parts if part not in controls and part.lower() not in CONTROL_WORDS]
        if any(not gene for gene in genes):
            raise UserError(
                f"{where}: label {label!r} names an empty gene; write a pair as two names, "
                "or set data.control if this is the control label"
            )
        if not genes and not controls.issuperset(parts):
            raise UserError(
                f"{where}: label {label!r} too reads as control, beside {', '.join(map(repr, sorted(controls)))}; "
                "remove the cells of one of them"
            )
        table[label] = canonical(genes)
    return table


def _split_underscores(
    labels: list[str], gene_counts: Mapping[str, int], controls: set[str], where: str
) -> dict[str, tuple[str, ...]]:
    """Members of each label where ``_`` joins a pair but may be part of a name.

    A stated number of genes decides. Without one, both halves being labels of their own proves a pair, and one
    proven pair shows that the file writes pairs so.
    """
    single = {label for label in labels if gene_counts.get(label, 1) == 1} | controls
    split: dict[str, tuple[str, ...]] = {}
    unclear: list[str] = []
    for label in labels:
        count = gene_counts.get(label)
        if count == 0:
            raise UserError(f"{where}: {label!r} has nperts 0 but is no known control label; set data.control to it")
        if count == 1 or "_" not in label:
            split[label] = (label,)
        elif count is not None:
            split[label] = _only_reading(label, _partitions(label, count), single, where)
        elif any(set(halves) <= single for halves in _partitions(label, 2)):
            split[label] = _only_reading(label, _partitions(label, 2), single, where)
        else:
            unclear.append(label)
    pairs_proven = any(len(parts) > 1 for parts in split.values())
    for label in unclear:
        halves = _partitions(label, 2)
        if pairs_proven and len(halves) == 1:
            split[label] = halves[0]
        elif pairs_proven or any(set(parts) & single for parts in halves):
            raise UserError(
                f"{where}: {label!r} may be one gene or a pair; give the number of genes in obs['nperts'], "
                "or write pairs as A+B"
            )
        else:
            split[label] = (label,)
    return split


def _partitions(label: str, count: int) -> list[tuple[str, ...]]:
    """All ways to cut ``label`` at underscores into ``count`` names."""
    tokens = label.split("_")
    ways = []
    for cuts in combinations(range(1, len(tokens)), count - 1):
        edges = (0, *cuts, len(tokens))
        ways.append(tuple("_".join(tokens[a:b]) for a, b in pairwise(edges)))
    return ways


def _only_reading(label: str, ways: list[tuple[str, ...]], single: set[str], where: str) -> tuple[str, ...]:
    """The one way to cut the label, or the one whose names all occur alone in the file."""
    fitting = ways if len(ways) == 1 else [way for way in ways if set(way) <= single]
    if len(fitting) != 1:
        readings = " or ".join(" and ".join(way) for way in (fitting or ways)[:3]) or "nothing"
        raise UserError(f"{where}: {label!r} can be read as {readings}; write pairs as A+B to make it clear")
    return fitting[0]


def _is_control(label: str, column: str, control: str | None) -> bool:
    if control is not None:
        return label == control
    return label.strip().lower() in CONTROL_WORDS or (column == "guide_ids" and not label.strip())


def _no_control(labels: tuple[str, ...], where: str, column: str, control: str | None) -> str:
    sought = repr(control) if control is not None else ", ".join(sorted(CONTROL_WORDS))
    seen = ", ".join(repr(label) for label in labels[:5])
    return (
        f"{where}: no control cells in obs[{column!r}] (looked for {sought}; labels begin {seen}); "
        "set data.control to the label of control cells, or data.column to the column of perturbations"
    )


def _texts(column: pd.Series[str], where: str, name: str) -> list[str]:
    """Labels as text; refuses missing ones and numbers."""
    missing = int(column.isna().sum())
    if missing:
        raise UserError(
            f"{where}: {missing} of {len(column)} cells have no label in obs[{name!r}]; "
            "remove these cells or label them (control cells too need a label)"
        )
    values = list(column)
    odd = next((value for value in values if not isinstance(value, str)), None)
    if odd is not None:
        raise UserError(
            f"{where}: obs[{name!r}] holds {type(odd).__name__} values such as {odd}, not names of perturbations; "
            "set data.column to a column of names"
        )
    return values


def _gene_counts(obs: pd.DataFrame, values: list[str], where: str) -> dict[str, int]:
    """Number of perturbed genes of each label, where ``obs['nperts']`` says so (scPerturb)."""
    if "nperts" not in obs.columns:
        return {}
    counts: dict[str, int] = {}
    for label, given in zip(values, obs["nperts"], strict=True):
        try:
            count = int(given)
        except (TypeError, ValueError):  # missing: this cell says nothing
            continue
        if counts.setdefault(label, count) != count:
            raise UserError(
                f"{where}: obs['nperts'] gives {label!r} both {counts[label]} and {count} genes; correct the column"
            )
    return counts
