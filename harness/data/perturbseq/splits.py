"""Which cells train, validate and test, by the role of their condition.

A condition that trains gives a share of its cells to validation and a share to test; so does control. A condition that
validates, or is predicted, gives all of them. The roles come from one of the rules of `harness.split_spec`; under
``singles_to_doubles``, the default, every double is predicted. Where cells have strata, each is split by itself.

The published protocol holds out 96 cells of each of 14 large singles. Here every condition gives the same share, which
needs no list of genes and works for small files. Control gives a larger one: true changes are measured from its test
cells, predicted ones from its training cells, and each side's noise is part of every change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.data.perturbseq.labels import CONTROL, members_of
from harness.data.perturbseq.split_roles import Roles, roles_of
from harness.data.perturbseq.time_points import TimePoints
from harness.data.seeding import derive
from harness.errors import UserError
from harness.reading_spec import MinCells
from harness.split_spec import LeaveTimeOut, RuledSplit

Rows = npt.NDArray[np.int64]

#: Share of each trained condition's cells that only tests, for files.
TEST_SHARE = 0.2
#: The same of control cells. Of a sum of two effects the training controls' noise counts twice, so they are the more.
CONTROL_TEST_SHARE = 1 / 3
#: Fewest control cells: training, validation and test each need one.
FEWEST_CONTROLS = 3


@dataclass(frozen=True)
class Assignment:
    """Splits of the cells.

    Attributes
    ----------
    perturbations : genes perturbed in training, sorted.
    conditions : control, the trained singles, the trained doubles, then all others in use.
    splits : name -> sorted cells: ``train``, ``validation``, ``test`` and the OOD splits.
    ood : names of the OOD splits that have conditions, e.g. ``double_seen2``.
    excluded : condition -> why its cells are in no split.
    seen : for each excluded double, how many of its members were seen.
    held_out : of a time course, how many of its last times only test.
    """

    perturbations: tuple[str, ...]
    conditions: tuple[str, ...]
    splits: dict[str, Rows]
    ood: tuple[str, ...]
    excluded: dict[str, str]
    seen: dict[str, int]
    held_out: int = 0


@dataclass(frozen=True)
class Shares:
    """How the cells of a trained condition are shared out.

    Attributes
    ----------
    validation : share of the cells that do not test which only validates.
    test : share of each trained condition's cells that only tests.
    control : share of control cells that only tests.
    min_cells : what becomes of a condition with few cells (of a time course: at one time).
    """

    validation: float
    test: float
    control: float
    min_cells: MinCells


def assign(
    split: RuledSplit,
    conditions: Sequence[str],
    seed: int,
    shares: Shares,
    where: str,
    *,
    known: Set[str] | None = None,
    times: TimePoints | None = None,
    strata: Rows | None = None,
) -> Assignment:
    """Split cells.

    Parameters
    ----------
    split
        The rule.
    conditions
        Canonical condition of each cell.
    seed
        The data seed.
    shares
        What tests and validates of each trained condition.
    where
        Name of the data, for error messages.
    known
        Genes that have a vector; None where perturbations are one-hot.
    times
        Of each cell, in a time course.
    strata
        Number of the stratum of each cell, where there are some.

    Raises
    ------
    UserError
        If there is no single perturbation to train on, too few cells of a condition, fewer than three control cells,
        or nothing can be held out as asked.
    """
    groups = _grouped(conditions, times)
    names = sorted({name for name, _, _ in groups})
    left_out = _torn(groups, names, times, where)
    if shares.min_cells.drop:
        left_out |= _too_small(groups, shares.min_cells.least, times)
    roles = roles_of(split, names, seed, where, known=known, excluded=left_out)
    held_out = _last_times(split, times, where)
    _refuse_small(groups, roles, shares.min_cells.least, times, where)

    cells: dict[str, list[Rows]] = {"train": [], "validation": [], "test": []}
    for (name, time, stratum), members in _grouped(conditions, times, strata).items():
        if name in roles.validating:
            cells["validation"].append(members)
        elif name in roles.predicted:
            cells.setdefault(roles.predicted[name], []).append(members)
        elif name == CONTROL or name in roles.trained:
            if times is not None and time >= len(times.points) - held_out:
                cells["test"].append(members)
                continue
            purpose = [name] if times is None else [name, f"time {times.labels[time]}"]
            purpose += [] if strata is None else [f"stratum {stratum}"]
            order = np.random.default_rng(derive(seed, "split", *purpose)).permutation(members)
            tests, validates = _sizes(len(order), shares.control if name == CONTROL else shares.test, shares.validation)
            cells["test"].append(order[:tests])
            cells["validation"].append(order[tests : tests + validates])
            cells["train"].append(order[tests + validates :])
    splits = {name: np.sort(np.concatenate(parts)).astype(np.int64) for name, parts in cells.items()}
    return assembled(splits, roles, held_out)


def assembled(splits: dict[str, Rows], roles: Roles, held_out: int) -> Assignment:
    """An assignment, its conditions and perturbations in their order."""
    others = sorted((*roles.validating, *roles.predicted), key=_by_size)
    return Assignment(
        perturbations=tuple(sorted({gene for name in roles.trained for gene in members_of(name)})),
        conditions=(CONTROL, *sorted(roles.trained, key=_by_size), *others),
        splits=splits,
        ood=tuple(sorted(set(roles.predicted.values()), reverse=True)),
        excluded=roles.excluded,
        seen=roles.seen,
        held_out=held_out,
    )


def _by_size(name: str) -> tuple[int, str]:
    return len(members_of(name)), name


def places(names: npt.NDArray[np.object_], strata: Rows | None = None) -> dict[tuple[str, int], Rows]:
    """Positions, ascending, of each name in each stratum (0 where there are none)."""
    found = _grouped(names, None, strata) if len(names) else {}
    return {(name, stratum): part for (name, _, stratum), part in found.items()}


def _grouped(
    conditions: Sequence[str] | npt.NDArray[np.object_], times: TimePoints | None, strata: Rows | None = None
) -> dict[tuple[str, int, int], Rows]:
    """Cells, ascending, of each condition at each time in each stratum; 0 where there are no times or strata."""
    names, code = np.unique(np.asarray(conditions, dtype=np.str_), return_inverse=True)
    points = 1 if times is None else len(times.points)
    layers = 1 if strata is None else int(strata.max(initial=0)) + 1
    key = code.astype(np.int64) * points + (0 if times is None else times.of_cell)
    key = key * layers + (0 if strata is None else strata)
    present, start = np.unique(np.sort(key), return_index=True)
    parts = np.split(np.argsort(key, kind="stable"), start[1:])
    return {
        (str(names[k // layers // points]), int(k // layers % points), int(k % layers)): part
        for k, part in zip(present, parts, strict=True)
    }


def _torn(
    groups: dict[tuple[str, int, int], Rows], names: Sequence[str], times: TimePoints | None, where: str
) -> dict[str, str]:
    """Conditions that a time course lacks cells of at one of its times, the first apart -> why they are left out."""
    if times is None:
        return {}
    found = {}
    for name in names:
        absent = [k for k in range(1, len(times.points)) if (name, k, 0) not in groups]
        if name == CONTROL and (absent or (name, 0, 0) not in groups):
            time = times.labels[absent[0] if absent else 0]
            raise UserError(
                f"{where}: no control cells at time {time}, but a time course needs some at each; leave the cells of "
                "that time out of the file, or set data.time: none"
            )
        if absent:
            found[name] = f"no cells at time {' and '.join(times.labels[k] for k in absent)}"
    return found


def _last_times(split: RuledSplit, times: TimePoints | None, where: str) -> int:
    """How many of the last times are held out."""
    if not isinstance(split, LeaveTimeOut):
        return 0
    if times is None:
        raise UserError(
            f"{where}: data.split is leave_time_out, but the cells have no times; set data.time to the obs column "
            "that holds them"
        )
    return times.last(split.held_out, where)


def _too_small(groups: dict[tuple[str, int, int], Rows], least: int, times: TimePoints | None) -> dict[str, str]:
    """Perturbed conditions with fewer than ``least`` cells (in a time course at some time) -> why they are left out."""
    found = {}
    for (name, time, _), cells in groups.items():
        if name != CONTROL and len(cells) < least:
            at = "" if times is None else f" at time {times.labels[time]}"
            found[name] = f"{len(cells)} cells{at}, and data.min_cells asks for {least}"
    return found


def _refuse_small(
    groups: dict[tuple[str, int, int], Rows], roles: Roles, least: int, times: TimePoints | None, where: str
) -> None:
    used = {CONTROL, *roles.trained, *roles.validating, *roles.predicted}
    counts = {(name, time): len(cells) for (name, time, _), cells in groups.items() if name in used}
    small = {key: count for key, count in counts.items() if count < least}
    if small:
        (name, time), count = min(small.items(), key=lambda item: item[1])
        at = "" if times is None else f" at time {times.labels[time]}"
        is_control = any(of == CONTROL for of, _ in small)
        dropped = "give more control cells" if is_control else "leave them out with data.min_cells: {drop: true}"
        raise UserError(
            f"{where}: {len(small)} conditions have fewer than {least} cells (least: {name}{at} with {count}); "
            f"lower data.min_cells, or {dropped}"
        )
    fewest = min((count for (name, _), count in counts.items() if name == CONTROL), default=0)
    if fewest < FEWEST_CONTROLS:
        at = "" if times is None else " at one time"
        raise UserError(
            f"{where}: {fewest} control cells{at}, but training, validation and test each need one; "
            "give more control cells"
        )


def _sizes(cells: int, test: float, validation: float) -> tuple[int, int]:
    """How many of a condition's cells test and validate; two cells give one to train and one to test."""
    tests = min(max(1, round(test * cells)), cells - 1)
    rest = cells - tests
    validates = min(max(1, math.floor(validation * rest + 0.5)), rest - 1)
    return tests, validates
