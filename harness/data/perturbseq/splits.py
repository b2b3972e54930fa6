"""Which cells train, validate and test: singles train, doubles are predicted.

``singles_to_doubles``: control and single perturbations train, except for a share of each that validates and a share
that tests; every double is held out, scored by how many of its members were seen as singles. With one-hot
perturbations nothing is known about an unseen member, so such doubles are excluded by name.

The published protocol holds out 96 cells of each of 14 large singles. Here every condition gives the same share, which
needs no list of genes, works for small files, and also gives held-out control cells to predict from.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.data.perturbseq.labels import CONTROL, members_of
from harness.data.seeding import derive
from harness.errors import UserError

Rows = npt.NDArray[np.int64]

#: Share of each trained condition's cells that only tests, for files.
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Assignment:
    """Splits of the cells.

    Attributes
    ----------
    perturbations : trained singles, sorted.
    conditions : control, the trained singles, then the predicted doubles.
    splits : name -> sorted rows: ``train``, ``validation``, ``test`` and the OOD splits.
    ood : names of the OOD splits that have conditions, e.g. ``double_seen2``.
    excluded : condition -> why its cells are in no split.
    seen : for each excluded double, how many of its members were seen.
    """

    perturbations: tuple[str, ...]
    conditions: tuple[str, ...]
    splits: dict[str, Rows]
    ood: tuple[str, ...]
    excluded: dict[str, str]
    seen: dict[str, int]


def singles_to_doubles(
    conditions: Sequence[str], seed: int, *, validation: float, test: float, min_cells: int, where: str
) -> Assignment:
    """Split cells; see the module.

    Parameters
    ----------
    conditions
        Canonical condition of each cell.
    seed
        The data seed.
    validation
        Share of the cells that do not test which only validates.
    test
        Share of control's and each single's cells that only tests.
    min_cells
        A condition with fewer cells is refused.
    where
        Name of the data, for error messages.

    Raises
    ------
    UserError
        If there is no single perturbation, too few cells of a condition, or fewer than three control cells.
    """
    counts = Counter(conditions)
    singles = tuple(sorted(name for name in counts if len(members_of(name)) == 1))
    if not singles:
        raise UserError(f"{where}: no single perturbation to train on; singles_to_doubles needs some")
    doubles, excluded, seen = _sort_out(sorted(counts), set(singles))
    _refuse_small({name: counts[name] for name in (CONTROL, *singles, *doubles)}, min_cells, where)

    of = np.asarray(conditions, dtype=object)
    parts: dict[str, list[Rows]] = {"train": [], "validation": [], "test": []}
    for name in (CONTROL, *singles):
        order = np.random.default_rng(derive(seed, "split", name)).permutation(np.flatnonzero(of == name))
        tests, validates = _sizes(len(order), test, validation)
        parts["test"].append(order[:tests])
        parts["validation"].append(order[tests : tests + validates])
        parts["train"].append(order[tests + validates :])
    for name, split in doubles.items():
        parts.setdefault(split, []).append(np.flatnonzero(of == name))
    return Assignment(
        perturbations=singles,
        conditions=(CONTROL, *singles, *doubles),
        splits={name: np.sort(np.concatenate(rows)).astype(np.int64) for name, rows in parts.items()},
        ood=tuple(sorted(set(doubles.values()), reverse=True)),
        excluded=excluded,
        seen=seen,
    )


def _sort_out(names: list[str], singles: set[str]) -> tuple[dict[str, str], dict[str, str], dict[str, int]]:
    """Doubles -> their OOD split; conditions that cannot be predicted -> why; and how many members those have seen."""
    doubles: dict[str, str] = {}
    excluded: dict[str, str] = {}
    seen: dict[str, int] = {}
    for name in names:
        members = members_of(name)
        if len(members) < 2:
            continue
        unseen = [gene for gene in members if gene not in singles]
        if len(members) > 2:
            excluded[name] = f"{len(members)} genes perturbed together; only pairs are predicted"
        elif unseen:
            seen[name] = 2 - len(unseen)
            excluded[name] = (
                f"double_seen{seen[name]}: {' and '.join(unseen)} not seen as a single, "
                "and one-hot perturbations say nothing about an unseen gene"
            )
        else:
            doubles[name] = "double_seen2"
    return doubles, excluded, seen


def _refuse_small(counts: dict[str, int], min_cells: int, where: str) -> None:
    small = {name: count for name, count in counts.items() if count < min_cells}
    if small:
        name, count = min(small.items(), key=lambda item: item[1])
        raise UserError(
            f"{where}: {len(small)} conditions have fewer than {min_cells} cells (least: {name} with {count}); "
            "lower data.min_cells or give more cells of them"
        )
    if counts[CONTROL] < 3:
        raise UserError(
            f"{where}: {counts[CONTROL]} control cells, but training, validation and test each need one; "
            "give more control cells"
        )


def _sizes(cells: int, test: float, validation: float) -> tuple[int, int]:
    """How many of a condition's cells test and validate; two cells give one to train and one to test."""
    tests = min(max(1, round(test * cells)), cells - 1)
    rest = cells - tests
    validates = min(max(1, math.floor(validation * rest + 0.5)), rest - 1)
    return tests, validates
