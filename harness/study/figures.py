"""The study's heat map: one panel a model, a shared colour scale, every cell written out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, NullLocator

from harness.study.canvas import EMPTY, MUTED, STYLE, ink_on, new_figure, panel, sequential, write
from harness.study.columns import IDENTIFIABILITY, MCC, VALIDATION, Column, ood_columns
from harness.study.figure_helps import figure_helps
from harness.study.records import MODEL, AxisValue, Record, Records
from harness.study.tables import (
    NOT_ABOVE_UNTRAINED,
    NOT_BETTER_THAN_BASELINE,
    Score,
    axis_text,
    axis_title,
    cell_mark,
    decimals_for,
    model_text,
    score_text,
)

# Inches. Cells keep their size however many there are, so that their text always fits.
CELL_WIDTH, CELL_HEIGHT = 1.22, 0.82
MARGIN, LEFT, RIGHT, TOP, BOTTOM = 0.25, 0.85, 0.85, 0.72, 0.58
GAP_ACROSS, GAP_DOWN, TITLE_LINE, NOTE_LINE = 0.3, 0.5, 0.28, 0.18
NARROWEST, LETTER = 4.9, 0.085
#: Values of an axis above which cells become dots, and the size of a panel of dots.
MOST_VALUES = 12
SCATTER, GAP_SCATTER = (3.0, 2.4), 0.7


@dataclass(frozen=True)
class Panel:
    """One grid of cells, or ``scattered`` dots: records, title, a line under it, and axis and values of each side."""

    title: str
    under: str
    records: Records
    down: str | None
    across: str | None
    down_values: tuple[AxisValue, ...]
    across_values: tuple[AxisValue, ...]
    scattered: bool = False

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches."""
        if self.scattered:
            return SCATTER
        return len(self.across_values) * CELL_WIDTH, len(self.down_values) * CELL_HEIGHT

    def cell(self, row: AxisValue, column: AxisValue) -> Records:
        """Records of one cell."""
        return _along(_along(self.records, self.down, row), self.across, column)


def is_scattered(records: Records) -> bool:
    """Whether a model's cells are no grid that could be written out: too many values, or most of it empty."""
    for model in records.models:
        its = records.where(model=model)
        sizes = [len(its.axis_values(axis)) for axis in its.axes]
        cells = len(its.group(lambda record: record.cell))
        if max(sizes, default=1) > MOST_VALUES or math.prod(sizes) > 2 * cells:
            return True
    return False


def headline(records: Records) -> Column | None:
    """The metric the heat map shows: MCC; without truth relative RMSE on the first OOD split; else validation loss.

    None where no finished record has any of them.
    """
    candidates = [next(column for column in IDENTIFIABILITY if column.metric == MCC)]
    candidates += [replace(ood_columns(split)[0], title=f"relative RMSE ({split})") for split in records.splits]
    return next((column for column in (*candidates, VALIDATION) if records.estimate(column.metric)), None)


def heatmap(records: Records, out: Path, *, title: str = "") -> Path | None:
    """Draw the heat map of a study.

    The first two axes of the grid span a panel (``latent_dim`` lies across where it is one of them), models stand
    side by side and further axes below each other. With one axis or none, models are the rows of one panel. Where
    cells form no grid that could be written out, as in a search, each point is a dot.

    Parameters
    ----------
    records
        All records; failed and missing trials leave a grey cell that says so.
    out
        PNG file to write.
    title
        The study's name.

    Returns
    -------
    Path or None
        ``out``, or None where nothing is finished yet.
    """
    column = headline(records)
    if column is None:
        return None
    with rc_context(STYLE):
        return write(_draw(_panels(records), records, column, title), out)


def _panels(records: Records) -> list[list[Panel]]:
    """Panels as rows (further axes) of columns (models), each over its model's own axes."""
    axes = {model: records.where(model=model).axes for model in records.models}
    if len(records.axes) < 2 and len(set(axes.values())) == 1:
        across = records.axes[0] if records.axes else None
        sides = records.models, _values(records, across)
        return [[Panel("", "", records, MODEL, across, *sides, is_scattered(records))]]
    scattered = is_scattered(records)
    stacks = [_stack(records.where(model=model), model, records.axes, scattered) for model in records.models]
    return [[one for one in row if one is not None] for row in itertools.zip_longest(*stacks)]


def _stack(records: Records, model: str, every_axis: Sequence[str], scattered: bool) -> list[Panel]:
    """A model's panels, one for each setting of its axes after the second."""
    first, facets = records.axes[:2], records.axes[2:]
    down, across = (None, None, *first)[-2:]
    if down == "latent_dim":
        down, across = across, down
    if scattered:
        facets = ()  # a search hardly ever meets the same value twice: all its points share one panel
    lacking = [axis for axis in every_axis if axis not in records.axes and not axis.startswith("models.")]
    panels = []
    for setting in itertools.product(*(records.axis_values(axis) for axis in facets)):
        chosen = records
        for axis, value in zip(facets, setting, strict=True):
            chosen = chosen.on(axis, value)
        if not len(chosen):
            continue
        under = [f"{axis_title(axis)} {axis_text(value)}" for axis, value in zip(facets, setting, strict=True)]
        under += [f"no {axis_title(axis)} in this model" for axis in lacking]
        sides = _values(chosen, down), _values(chosen, across)
        panels.append(Panel(model_text(model), " · ".join(under), chosen, down, across, *sides, scattered))
    return panels


def _values(records: Records, axis: str | None) -> tuple[AxisValue, ...]:
    return (None,) if axis is None else records.axis_values(axis)


def _along(records: Records, axis: str | None, value: AxisValue) -> Records:
    return records if axis is None else records.on(axis, value)


def _draw(rows: Sequence[Sequence[Panel]], records: Records, column: Column, title: str) -> Figure:
    widths = [max(p.size[0] for p in stack) for stack in _columns(rows)]
    heights = [max(p.size[1] for p in row) for row in rows]
    left = _left(rows)
    over = _title_height(rows)
    gap = GAP_SCATTER if rows[0][0].scattered else GAP_ACROSS
    grid_width = sum(widths) + gap * (len(widths) - 1)
    grid_height = sum(heights) + (GAP_DOWN + over) * (len(rows) - 1)
    width = max(left + grid_width + RIGHT, NARROWEST)
    notes = [*_footnotes(rows, column), *figure_helps(records, width - 2 * MARGIN)]
    foot = BOTTOM + NOTE_LINE * len(notes) - (0.15 if not records.axes else 0.0)
    height = TOP + over + grid_height + foot
    figure = new_figure(width, height)
    scale = _scale(rows, column)
    y = height - TOP - over
    for row, tall in zip(rows, heights, strict=True):
        x = left
        for one, wide in zip(row, widths, strict=False):
            axes = panel(figure, x, y - one.size[1], *one.size)
            labelled = one is row[0] or one.down_values != row[0].down_values
            (_scatter if one.scattered else _fill)(axes, one, column, scale, labelled=labelled)
            lift = 6 + 12 * any(other.under for other in row)
            axes.annotate(one.title, (0, 1), (0, lift), "axes fraction", "offset points", fontsize=10, weight="bold")
            axes.annotate(one.under, (0, 1), (0, 6), "axes fraction", "offset points", fontsize=8, color=MUTED)
            x += wide + gap
        y -= tall + GAP_DOWN + over
    _colour_bar(figure, panel(figure, left + grid_width + 0.2, foot, 0.12, grid_height), scale, column)
    _words(figure, records, column, title, notes)
    return figure


def _left(rows: Sequence[Sequence[Panel]]) -> float:
    """Room for the words beside the first column, where they are models' names."""
    names = [model_text(str(value)) for row in rows if row[0].down == MODEL for value in row[0].down_values]
    return max([LEFT, *(MARGIN + LETTER * len(name) for name in names)])


def _title_height(rows: Sequence[Sequence[Panel]]) -> float:
    panels = [one for row in rows for one in row]
    lines = any(one.title for one in panels) + 0.65 * any(one.under for one in panels)
    return max(TITLE_LINE * lines, 0.18)  # room for the colour bar's heading in any case


def _columns(rows: Sequence[Sequence[Panel]]) -> list[list[Panel]]:
    widest = max(len(row) for row in rows)
    return [[row[index] for row in rows if index < len(row)] for index in range(widest)]


def _cells(rows: Sequence[Sequence[Panel]]) -> list[Records]:
    return [cell for row in rows for one in row for cell in one.records.group(lambda record: record.cell).values()]


def _scale(rows: Sequence[Sequence[Panel]], column: Column) -> ScalarMappable:
    """One colour scale for all panels; it spans scores and what they are compared with, and ends at 1 for an MCC."""
    cells = _cells(rows)
    found = [cell.estimate(name) for cell in cells for name in (column.metric, column.untrained)]
    found += [cell.baseline(name, column.metric) for cell in cells for name in cell.baseline_names]
    means = [value.mean for value in found if value is not None]
    low, high = min(means), max(means)
    if column.metric == MCC:
        low, high = min(math.floor(low * 10) / 10, 0.9), 1.0
    elif low == high:
        low, high = low - 0.5, high + 0.5
    return ScalarMappable(Normalize(low, high), sequential(reverse=column.direction == "lower"))


def _fill(axes: Axes, one: Panel, column: Column, scale: ScalarMappable, *, labelled: bool) -> None:
    across, down = len(one.across_values), len(one.down_values)
    axes.set_xlim(0, across)
    axes.set_ylim(down, 0)
    axes.set_frame_on(False)
    axes.tick_params(length=0, pad=3)
    decimals = column.decimals if column.decimals is not None else _decimals(one, column)
    for i, row in enumerate(one.down_values):
        for j, value in enumerate(one.across_values):
            _cell(axes, (i, j), one.cell(row, value), column, decimals=decimals, scale=scale)
    _label(axes, one, labelled=labelled and one.down_values != (None,))


def _scatter(axes: Axes, one: Panel, column: Column, scale: ScalarMappable, *, labelled: bool) -> None:
    points = [cell for cell in _cells([[one]]) if cell.estimate(column.metric)]
    means = [value.mean for cell in points if (value := cell.estimate(column.metric))]
    across, down = _place(axes, "x", one.across, one.across_values), _place(axes, "y", one.down, one.down_values)
    firsts = [next(iter(cell)) for cell in points]
    axes.scatter(
        [across[_coordinate(record, one.across)] for record in firsts],
        [down[_coordinate(record, one.down)] for record in firsts],
        c=scale.to_rgba(np.array(means)),
        s=46,
        edgecolors="white",
        linewidths=0.8,
        zorder=2,
    )
    axes.grid(color=EMPTY, zorder=0)
    axes.set_xlabel(axis_title(one.across) if one.across else "", labelpad=3)
    axes.set_ylabel(axis_title(one.down) if one.down and one.down != MODEL and labelled else "", labelpad=6)
    axes.tick_params(length=0, pad=3, labelsize=7.5)


def _coordinate(record: Record, axis: str | None) -> AxisValue:
    if axis is None:
        return None
    return record.model if axis == MODEL else record.axes[axis]


def _place(
    axes: Axes, side: Literal["x", "y"], axis: str | None, values: Sequence[AxisValue]
) -> dict[AxisValue, float]:
    """Where each value of an axis lies: numbers at their own place (logarithmic over wide ranges), words in order."""
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(values) > 1:
        if min(numbers) > 0 and max(numbers) / min(numbers) > 50:
            (axes.set_xscale if side == "x" else axes.set_yscale)("log")
            along = axes.xaxis if side == "x" else axes.yaxis
            along.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            along.set_minor_locator(NullLocator())
        return dict(zip(values, numbers, strict=True))
    names = ["" if axis is None else model_text(str(v)) if axis == MODEL else axis_text(v) for v in values]
    places = [float(index) for index in range(len(values))]
    (axes.set_xticks if side == "x" else axes.set_yticks)(places, names)
    (axes.set_xlim if side == "x" else axes.set_ylim)(-0.5, len(values) - 0.5)
    return dict(zip(values, places, strict=True))


def _label(axes: Axes, one: Panel, *, labelled: bool) -> None:
    across, down = len(one.across_values), len(one.down_values)
    axes.set_xticks([j + 0.5 for j in range(across)], [axis_text(v) if one.across else "" for v in one.across_values])
    if one.across:
        axes.set_xlabel(axis_title(one.across), labelpad=3)
    names = [model_text(str(v)) if one.down == MODEL else axis_text(v) for v in one.down_values]
    axes.set_yticks([i + 0.5 for i in range(down)], names if labelled else [""] * down)
    if labelled and one.down not in (MODEL, None):
        axes.set_ylabel(axis_title(str(one.down)), labelpad=6)


def _decimals(one: Panel, column: Column) -> int:
    found = (one.cell(a, b).estimate(column.metric) for a in one.down_values for b in one.across_values)
    return decimals_for(abs(value.mean) for value in found if value is not None)


def _cell(
    axes: Axes, corner: tuple[int, int], cell: Records, column: Column, *, decimals: int, scale: ScalarMappable
) -> None:
    i, j = corner
    value = cell.estimate(column.metric)
    colour = EMPTY if value is None else scale.to_rgba(value.mean)  # type: ignore[arg-type]
    axes.add_patch(Rectangle((j, i), 1, 1, facecolor=colour, edgecolor="white", linewidth=2.0))
    middle = j + 0.5
    if value is None:
        axes.text(middle, i + 0.5, _why_empty(cell), ha="center", va="center", fontsize=8, color=MUTED)
        return
    ink = ink_on(colour)
    reference = cell_reference(cell, column)
    text = score_text(Score(value, cell_mark(cell, cell, column)), decimals)
    count = f"n = {value.n}" + ("" if value.n == len(cell) else f" of {len(cell)}")
    size = 10 if len(text) <= 13 else 8.6
    axes.text(middle, i + 0.33, text, ha="center", va="center", fontsize=size, fontweight="bold", color=ink)
    if reference is not None:
        under = f"{reference[0]} {reference[1]:.{decimals}f}"
        axes.text(middle, i + 0.61, under, ha="center", va="center", fontsize=7, color=ink)
    axes.text(middle, i + 0.81, count, ha="center", va="center", fontsize=6.2, color=ink)


def cell_reference(cell: Records, column: Column) -> tuple[str, float] | None:
    """What a cell's score is compared with: the untrained encoder, or the best baseline on the same data."""
    untrained = cell.estimate(column.untrained)
    if untrained is not None:
        return "untrained", untrained.mean
    means = {name: cell.baseline(name, column.metric) for name in cell.baseline_names}
    found = {name.replace("_", " "): value.mean for name, value in means.items() if value is not None}
    if not found:
        return None
    best = (max if column.direction == "higher" else min)(found, key=lambda name: found[name])
    return best, found[best]


def _why_empty(cell: Records) -> str:
    if not len(cell):
        return "not in the study"
    states = [record.state for record in cell]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def _colour_bar(figure: Figure, axes: Axes, scale: ScalarMappable, column: Column) -> None:
    bar = figure.colorbar(scale, cax=axes)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=7.5, pad=3)
    bar.ax.set_title("better ↑", fontsize=7, color=MUTED, pad=5)
    if column.direction == "lower":
        bar.ax.invert_yaxis()


def _footnotes(rows: Sequence[Sequence[Panel]], column: Column) -> list[str]:
    if any(one.scattered for row in rows for one in row):
        return []
    marks = {cell_mark(cell, cell, column) for cell in _cells(rows)}
    words = {
        NOT_ABOVE_UNTRAINED: "not above the 95 % interval of the untrained encoder",
        NOT_BETTER_THAN_BASELINE: "not better than the best baseline on the same data",
    }
    return [f"{mark} {text}" for mark, text in words.items() if mark in marks]


def _words(figure: Figure, records: Records, column: Column, title: str, footnotes: Sequence[str]) -> None:
    width, height = figure.get_size_inches()
    across = MARGIN / width
    better = {"higher": "higher is better", "lower": "lower is better"}[column.direction or "higher"]
    name = f"{column.title} · {title}" if title else column.title
    figure.text(across, 1 - 0.26 / height, name, fontsize=12, fontweight="bold", va="center")
    seeds = ", ".join(map(str, records.seeds)) if len(records.seeds) <= 10 else f"{len(records.seeds)} of them"
    under = f"mean ± half-width of the 95 % interval over seeds {seeds}; {better}"
    if len(records.seeds) == 1:
        under = f"one seed, {seeds}: no interval; {better}"
    figure.text(across, 1 - 0.48 / height, under, fontsize=7.5, color=MUTED, va="center")
    for line, note in enumerate(reversed(footnotes)):
        figure.text(across, (0.14 + NOTE_LINE * line) / height, note, fontsize=7, color=MUTED, va="center")
