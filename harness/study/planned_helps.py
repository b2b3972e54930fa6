"""The helps that the cells of a study will have, before anything has run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.helps import Help, footnotes, helps_of, united, words
from harness.study.explain import SpecError
from harness.study.plan import PlannedTrial, Point, point_for
from harness.study.spec import AxisSpec, StudySpec
from harness.words import counted

#: Cells that are named where several have the same helps; the rest are counted.
MOST_CELLS = 3


def example(study: StudySpec, point: Point) -> PlannedTrial:
    """A trial from the middle of a searched cell's space.

    Raises
    ------
    SpecError
        Where the middles of its axes are impossible together.
    """
    setting = {**point.setting, **{key: _middle(axis) for key, axis in point.space.items()}}
    return point_for(study, setting).trials[0]


def planned_helps(study: StudySpec, point: Point) -> tuple[Help, ...] | None:
    """Helps of a cell; of a searched one those of its example, None where it has none."""
    try:
        trial = example(study, point) if point.space else point.trials[0]
    except SpecError:
        return None
    return helps_of(trial.spec, selected=study.selected_by_truth(trial.spec.data))


def help_words(study: StudySpec, point: Point) -> str:
    """Helps of a cell, to follow its name."""
    found = planned_helps(study, point)
    if found is None:
        return "helps are known once the search has proposed a setting"
    of_one = " of one from the middle of its space" if point.space else ""
    return f"helps{of_one}: {words(found)}"


def help_lines(study: StudySpec, points: Iterable[Point]) -> list[str]:
    """Cells by their helps, then what each help is."""
    points = tuple(points)
    cells: dict[str, list[str]] = {}
    for point in points:
        cells.setdefault(help_words(study, point), []).append(point.cell)
    lines = [f"{said} ({_named(names)})" for said, names in cells.items()]
    return [*lines, *(f"  {line}" for line in footnotes(helps_of_all(study, points)))]


def helps_of_all(study: StudySpec, points: Iterable[Point]) -> tuple[Help, ...]:
    """The helps of some cells, each once."""
    return united(one for point in points for one in planned_helps(study, point) or ())


def _named(names: list[str]) -> str:
    rest = len(names) - MOST_CELLS
    return ", ".join(names[:MOST_CELLS]) + (f" and {counted(rest, 'more cell')}" if rest > 0 else "")


def _middle(axis: AxisSpec) -> Any:
    if axis.choices is not None:
        return axis.choices[0]
    low, high = axis.low or 0, axis.high or 0
    middle = (low * high) ** 0.5 if axis.log else (low + high) / 2
    return round(middle) if axis.is_integer else middle
