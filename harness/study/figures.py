"""The study's heat map: one panel a model, a shared colour scale, every cell written out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from harness.study.canvas import EMPTY, MUTED, STYLE, ink_on, new_figure, panel, sequential, write
from harness.study.records import MODEL, AxisValue, Records
from harness.study.tables import (
    IDENTIFIABILITY,
    MCC,
    NOT_ABOVE_UNTRAINED,
    NOT_BETTER_THAN_BASELINE,
    VALIDATION,
    Column,
    Score,
    axis_text,
    axis_title,
    cell_mark,
    decimals_for,
    model_text,
    ood_columns,
    score_text,
)

# Inches. Cells keep their size however many there are, so that their text always fits.
CELL_WIDTH, CELL_HEIGHT = 1.22, 0.82
MARGIN, LEFT, RIGHT, TOP, BOTTOM = 0.25, 0.85, 0.85, 0.72, 0.58
GAP_ACROSS, GAP_DOWN, TITLE_LINE, NOTE_LINE = 0.3, 0.5, 0.28, 0.18
NARROWEST = 4.9


@dataclass(frozen=True)
class Panel:
    """One grid of cells: its records, title, a line under it, and the axis and values along each side."""

    title: str
    under: str
    records: Records
    down: str | None
    across: str | None
    down_values: tuple[AxisValue, ...]
    across_values: tuple[AxisValue, ...]

    def cell(self, row: AxisValue, column: AxisValue) -> Records:
        """Records of one cell."""
        return _along(_along(self.records, self.down, row), self.across, column)


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
    side by side and further axes below each other. With one axis or none, models are the rows of one panel.

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
    """Panels as rows (further axes) of columns (models)."""
    if len(records.axes) < 2:
        across = records.axes[0] if records.axes else None
        values = _values(records, across)
        return [[Panel("", "", records, MODEL, across, records.models, values)]]
    down, across = records.axes[:2]
    if down == "latent_dim":
        down, across = across, down
    facets = records.axes[2:]
    rows = []
    for setting in itertools.product(*(_values(records, axis) for axis in facets)):
        chosen = records
        for axis, value in zip(facets, setting, strict=True):
            chosen = chosen.on(axis, value)
        if not len(chosen):
            continue
        where = ", ".join(f"{axis_title(axis)} {axis_text(value)}" for axis, value in zip(facets, setting, strict=True))
        rows.append([_model_panel(chosen.where(model=m), m, where, down, across) for m in chosen.models])
    return rows


def _model_panel(records: Records, model: str, where: str, down: str, across: str) -> Panel:
    lacking = "".join(
        f"no {axis_title(axis)} in this model" for axis in (down, across) if not records.axis_values(axis)
    )
    under = " · ".join(filter(None, (where, lacking)))
    return Panel(model_text(model), under, records, down, across, _values(records, down), _values(records, across))


def _values(records: Records, axis: str | None) -> tuple[AxisValue, ...]:
    """Values along an axis; a model without it has one row or column."""
    if axis is None:
        return (None,)
    return (*records.axis_values(axis), *((None,) if len(records.on(axis, None)) else ()))


def _along(records: Records, axis: str | None, value: AxisValue) -> Records:
    return records if axis is None else records.on(axis, value)


def _draw(rows: Sequence[Sequence[Panel]], records: Records, column: Column, title: str) -> Figure:
    widths = [max(len(p.across_values) for p in stack) * CELL_WIDTH for stack in _columns(rows)]
    heights = [max(len(p.down_values) for p in row) * CELL_HEIGHT for row in rows]
    left = LEFT + (0.4 if len(records.axes) < 2 else 0.0)
    over = _title_height(rows)
    notes = _footnotes(rows, column)
    foot = BOTTOM + NOTE_LINE * len(notes) - (0.15 if not records.axes else 0.0)
    grid_width = sum(widths) + GAP_ACROSS * (len(widths) - 1)
    grid_height = sum(heights) + (GAP_DOWN + over) * (len(rows) - 1)
    height = TOP + over + grid_height + foot
    figure = new_figure(max(left + grid_width + RIGHT, NARROWEST), height)
    scale = _scale(rows, column)
    y = height - TOP - over
    for row, tall in zip(rows, heights, strict=True):
        x = left
        for one, wide in zip(row, widths, strict=False):
            high = len(one.down_values) * CELL_HEIGHT
            axes = panel(figure, x, y - high, len(one.across_values) * CELL_WIDTH, high)
            _fill(axes, one, column, scale, labelled=one is row[0] or one.down_values != row[0].down_values)
            lift = 6 + 12 * any(other.under for other in row)
            axes.annotate(one.title, (0, 0), (0, lift), textcoords="offset points", fontsize=10, weight="bold")
            axes.annotate(one.under, (0, 0), (0, 6), textcoords="offset points", fontsize=8, color=MUTED)
            x += wide + GAP_ACROSS
        y -= tall + GAP_DOWN + over
    _colour_bar(figure, panel(figure, left + grid_width + 0.2, foot, 0.12, grid_height), scale, column)
    _words(figure, records, column, title, notes)
    return figure


def _title_height(rows: Sequence[Sequence[Panel]]) -> float:
    panels = [one for row in rows for one in row]
    lines = any(one.title for one in panels) + 0.65 * any(one.under for one in panels)
    return max(TITLE_LINE * lines, 0.18)  # room for the colour bar's heading in any case


def _columns(rows: Sequence[Sequence[Panel]]) -> list[list[Panel]]:
    widest = max(len(row) for row in rows)
    return [[row[index] for row in rows if index < len(row)] for index in range(widest)]


def _scale(rows: Sequence[Sequence[Panel]], column: Column) -> ScalarMappable:
    """One colour scale for all panels; it spans scores and what they are compared with, and ends at 1 for an MCC."""
    cells = [p.cell(a, b) for row in rows for p in row for a in p.down_values for b in p.across_values]
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
    cells = [p.cell(a, b) for row in rows for p in row for a in p.down_values for b in p.across_values]
    marks = {cell_mark(cell, cell, column) for cell in cells}
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
    seeds = "seeds " + ", ".join(map(str, records.seeds))
    seeds = seeds if len(records.seeds) <= 10 else f"{len(records.seeds)} seeds"
    under = f"mean ± half-width of the 95 % interval over {seeds}; {better}"
    figure.text(across, 1 - 0.48 / height, under, fontsize=7.5, color=MUTED, va="center")
    for line, note in enumerate(footnotes):
        figure.text(across, (0.14 + NOTE_LINE * line) / height, note, fontsize=7, color=MUTED, va="center")
