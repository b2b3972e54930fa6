"""Times of the cells of a destructive assay: which column says them, and which number a label such as ``D2`` means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from harness.data.perturbseq.control_words import CONTROL
from harness.errors import UserError
from harness.words import first

if TYPE_CHECKING:
    import pandas as pd

#: Columns that are taken for times where none is named, in any case.
COLUMNS = ("time", "day", "timepoint", "time_point", "hours")
#: The word for a screen that is no time course, whatever its columns.
NO_TIME = "none"
#: A time in words: one number, with the same letters before and after it in all labels.
_LABEL = re.compile(r"([A-Za-z_ ]*)(\d+(?:\.\d+)?)([A-Za-z_ ]*)")
_MOST_NAMED = 10
#: Times that training needs: one to begin at, and one to go to.
_LEAST_SEEN = 2


@dataclass(frozen=True)
class TimePoints:
    """Times of cells.

    Attributes
    ----------
    column : obs column they came from.
    points : numbers, ascending, in the file's own unit.
    labels : each point as the file writes it.
    of_cell : (cells,) position of each cell's time in ``points``.
    """

    column: str
    points: tuple[float, ...]
    labels: tuple[str, ...]
    of_cell: npt.NDArray[np.int64]

    def last(self, asked: int | Sequence[str | float], where: str) -> int:
        """How many of the last times are asked for, by number or by name; two or more are left.

        A time between others cannot be held out. A model's bound on a trajectory sets each frame beside its prior given
        the frame before, and has no term for a time without a frame.

        Raises
        ------
        UserError
            If a name is unknown, the named times are not the last ones, or fewer than two would be left.
        """
        times = range(len(self.points))
        named = set(times[-asked:]) if isinstance(asked, int) else {self._place(name, where) for name in asked}
        held = self.labels[min(named) :]
        if len(named) < len(held):
            later = ", ".join(self.labels[k] for k in times[min(named) :] if k not in named)
            raise UserError(
                f"{where}: data.split.held_out names {held[0]} but not {later} after it: models go from each time to "
                "the next, and none can be trained across a time without cells; "
                + (
                    f"to predict {held[0]}, leave the cells of later times out of the file, or to predict {held[-1]}, "
                    f"give held_out: [{', '.join(held)}]"
                    if min(named) >= _LEAST_SEEN
                    else f"hold out the last of the times {', '.join(self.labels)}"
                )
            )
        if min(named) < _LEAST_SEEN:
            raise UserError(
                f"{where}: data.split.held_out leaves fewer than two of the times {', '.join(self.labels)} to train "
                "on; hold out fewer"
            )
        return len(named)

    def _place(self, name: str | float, where: str) -> int:
        if isinstance(name, str) and name in self.labels:
            return self.labels.index(name)
        number = _number(name)
        if number is None or number[1] not in self.points:
            raise UserError(
                f"{where}: data.split.held_out names time {name!r}, which no cell has; times are "
                f"{', '.join(self.labels)}"
            )
        return self.points.index(number[1])


def read_times(
    obs: pd.DataFrame, conditions: Sequence[str], where: str, column: str | None, taken: str
) -> TimePoints | None:
    """Times of all cells; None where the cells are a snapshot.

    A column that nobody named makes a time course only where it orders conditions, see `orders`: a day is more often
    that of a run, and a batch, than one of a course.

    Parameters
    ----------
    obs
        One row a cell.
    conditions
        Canonical condition of each cell.
    where
        Name of the data, for error messages.
    column
        The user's word on the column, or ``none``; None: the first of `COLUMNS`, in any case, that orders conditions.
    taken
        The column of perturbations, which is no time.

    Raises
    ------
    UserError
        If the column is not there, some cells have no time, or labels do not tell their numbers.
    """
    if column is not None:
        return _times(obs, where, _named(obs, where, column)) if column != NO_TIME else None
    for name in columns_of_times(obs, taken):
        try:
            found = _times(obs, where, name)
        except UserError:  # no times, or not of all cells: nobody said that it holds some
            continue
        if orders(conditions, found):
            return found
    return None


def orders(conditions: Sequence[str], times: TimePoints) -> bool:
    """Whether perturbations begin after the first time, as those of a course do.

    Most perturbed conditions have no cell at the first time, and each that has one then also has one at the last.
    """
    of = np.asarray(conditions, dtype=object)
    perturbed = set(of[of != CONTROL].tolist())
    first, last = (set(of[times.of_cell == k].tolist()) - {CONTROL} for k in (0, len(times.points) - 1))
    return 2 * len(first) < len(perturbed) and first <= last


def _times(obs: pd.DataFrame, where: str, name: str) -> TimePoints:
    """Times in one column."""
    values = obs[name]
    missing = int(values.isna().sum())
    if missing:
        raise UserError(
            f"{where}: {missing} of {len(values)} cells have no time in obs[{name!r}]; remove them, set data.time to "
            "another column, or set data.time: none if these cells are no time course"
        )
    distinct = list(dict.fromkeys(values.tolist()))
    numbers = _numbers(distinct, f"{where}: obs[{name!r}]")
    points = sorted(set(numbers.values()))
    if len(points) < 2:
        raise UserError(f"{where}: obs[{name!r}] holds one time only; set data.time: none, or name another column")
    place = {value: points.index(number) for value, number in numbers.items()}
    labels = {place[value]: str(value) for value in reversed(distinct)}
    return TimePoints(
        column=name,
        points=tuple(points),
        labels=tuple(labels[k] for k in range(len(points))),
        of_cell=values.map(place).to_numpy(dtype=np.int64),
    )


def _named(obs: pd.DataFrame, where: str, column: str) -> str:
    present = [str(name) for name in obs.columns]
    if column not in present:
        raise UserError(
            f"{where}: there is no column obs[{column!r}]; data.time can be none, or one of: "
            f"{', '.join(present) or 'none at all'}"
        )
    return column


def columns_of_times(obs: pd.DataFrame, taken: str) -> tuple[str, ...]:
    """Columns that are taken for times where none is named, the first before the second; see `read_times`."""
    lower = {name.lower(): name for name in reversed([str(name) for name in obs.columns]) if name != taken}
    return tuple(lower[name] for name in COLUMNS if name in lower)


def _numbers(distinct: Sequence[object], where: str) -> dict[object, float]:
    """The number of each label; all labels have the same words around it."""
    found = {value: _number(value) for value in distinct}
    unclear = [str(value) for value, number in found.items() if number is None]
    remedy = "write times as numbers, or as one number each such as D2, or set data.time: none for no time course"
    if unclear:
        raise UserError(f"{where} holds {unclear[0]!r}, which is not clear as a time; {remedy}")
    words = {number[0] for number in found.values() if number is not None}
    if len(words) > 1:
        shown = first([repr(str(value)) for value in distinct], _MOST_NAMED)
        raise UserError(f"{where} holds times in different words ({shown}); {remedy}")
    return {value: number[1] for value, number in found.items() if number is not None}


def _number(value: object) -> tuple[tuple[str, str], float] | None:
    """The words around a time's number, in lower case, and the number; None where there is not one."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float | np.integer | np.floating):
        return (("", ""), float(value)) if np.isfinite(value) else None
    match = _LABEL.fullmatch(str(value).strip())
    if match is None:
        return None
    before, number, after = match.groups()
    return (before.strip().lower(), after.strip().lower()), float(number)
