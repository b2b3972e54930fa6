"""The figure of a prediction: MCC over its axis, what was predicted, and the margins of the theorem's conditions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from harness.study.axes import kind_of_label
from harness.study.axis_scale import Scale, scale_of
from harness.study.canvas import BLUE, FAINT, INK, MUTED, ORANGE, STYLE, new_figure, panel, write
from harness.study.columns import MCC
from harness.study.expectation import CONTROLS
from harness.study.figure_helps import figure_helps
from harness.study.records import MODEL, AxisValue, Records
from harness.study.statistics import Estimate, estimate
from harness.study.tables import axis_text, model_text, short_title
from harness.study.verdicts import IDENTIFIED, Verdict

#: Hues that stay apart under every common colour-vision deficiency (Okabe and Ito), and a sign each for print in grey.
HUES = (BLUE, ORANGE, "#009e73", "#cc79a7", "#b8860b", "#56b4e9", INK)
SIGNS = ("o", "s", "D", "^", "v", "P", "X")
PREDICTED = "#e3f1ea"
#: Conditions whose margins are shown, in the theorem's order, then the one it hides.
CONDITIONS = ("mixing", "environment_sufficiency", "alignment", "intervention_sufficiency", "rotation")
#: A margin varies over the axis if it moves by more than this share of its largest value.
MOVES = 0.2
#: Inches.
WIDE, NARROW, TALL, LOW = 4.6, 2.9, 2.5, 0.72
LEFT, RIGHT, TOP, GAP_ACROSS, GAP_DOWN, FOOT, LEGEND_LINE = 0.62, 0.2, 0.6, 0.28, 0.3, 0.45, 0.175
#: Height of a line of helps under the title.
HELPS_LINE = 0.16
#: Most small multiples side by side, and most that are drawn at all.
ACROSS, MOST_PANELS = 3, 9
#: Room that a sign takes beside another at one value, and a letter of the legend.
SIGN, LETTER = 0.16, 0.055

Setting = tuple[tuple[str, AxisValue], ...]
Margin = tuple[str, str]  # condition and side, true or learned


@dataclass(frozen=True)
class _Series:
    """A model's verdicts in one panel, and how it is drawn."""

    model: str
    verdicts: tuple[Verdict, ...]
    hue: str
    sign: str
    shift: float


def axis_figure(records: Records, judged: Sequence[Verdict], out: Path, *, title: str = "") -> Path | None:
    """Draw MCC over the axis of a study's prediction, one line a model.

    Numbers lie at their own place (in the logarithm where they span decades), words side by side. Filled signs are
    predicted to identify, open ones not; where all models but the controls share a prediction its region is shaded.
    Below stand the margins of those conditions that vary over the axis, of the truth and of each fitted model.
    Further axes of the grid make small multiples.

    Parameters
    ----------
    records
        All records of the study.
    judged
        Verdicts on its cells.
    out
        PNG file to write.
    title
        The study's name.

    Returns
    -------
    Path or None
        ``out``, or None where nothing is measured yet, or where cells are too many for panels, as in a search.
    """
    panels = _panels(judged)
    if not any(one.score for one in judged) or len(panels) > MOST_PANELS:
        return None
    with rc_context(STYLE):
        return write(_draw(records, judged, panels, title), out)


def _panels(judged: Sequence[Verdict]) -> dict[Setting, list[Verdict]]:
    """Verdicts by the setting of the further axes; a model without such an axis is in each panel it fits.

    An axis of one model's own would put that model alone into a panel, so a model belongs wherever the panel's
    setting and its own do not contradict each other.
    """
    settings = list(dict.fromkeys(_setting(one) for one in judged))
    full = [one for one in settings if not any(set(one) < set(other) for other in settings)]
    return {one: [v for v in judged if set(_setting(v)) <= set(one)] for one in full}


def _setting(one: Verdict) -> Setting:
    return tuple(one.setting.items())


# ---------------------------------------------------------------------------------------------- layout


def _draw(records: Records, judged: Sequence[Verdict], panels: Mapping[Setting, list[Verdict]], title: str) -> Figure:
    axis, scale = judged[0].axis, scale_of(list(dict.fromkeys(one.value for one in judged)))
    shown = _varying_margins(records, judged)
    conditions = [name for name in CONDITIONS if any(margin[0] == name for margin in shown)]
    models = list(dict.fromkeys(one.model for one in judged))
    styles = {model: (HUES[i % len(HUES)], SIGNS[i % len(SIGNS)]) for i, model in enumerate(models)}
    entries = _legend(judged, styles, conditions)
    across = min(len(panels), ACROSS)
    signs = 0.0 if scale.is_numeric else SIGN * len(models) * len(scale.values)
    wide = max(WIDE if across == 1 else NARROW, signs)
    block = TALL + len(conditions) * (LOW + GAP_DOWN)
    columns = _legend_columns(entries, LEFT + across * wide)
    legend_height = LEGEND_LINE * math.ceil(len(entries) / columns) + 0.1
    rows = math.ceil(len(panels) / across)
    width = LEFT + across * wide + (across - 1) * GAP_ACROSS + RIGHT
    helps = figure_helps(records, width - 0.4)
    top = TOP + HELPS_LINE * len(helps) + (0.2 if any(panels) else 0.0)
    height = top + rows * block + (rows - 1) * (GAP_DOWN + 0.75) + FOOT + legend_height
    figure = new_figure(width, height)
    low = _lowest(judged)
    stacks = []
    for number, (setting, verdicts) in enumerate(panels.items()):
        row, column = divmod(number, across)
        left = LEFT + column * (wide + GAP_ACROSS)
        upper = height - top - row * (block + GAP_DOWN + 0.75)
        scores = panel(figure, left, upper - TALL, wide, TALL)
        series = _series(verdicts, styles, scale)
        _scores(scores, series, records, scale, low, labelled=column == 0)
        scores.set_title(_words(setting), fontsize=8.5, color=MUTED, loc="left", pad=5)
        stack = [scores]
        for place, condition in enumerate(conditions, start=1):
            below = panel(figure, left, upper - TALL - place * (LOW + GAP_DOWN), wide, LOW)
            _margins(below, condition, series, records, scale, shown)
            below.set_title(f"margin of {condition.replace('_', ' ')}", fontsize=7.5, color=MUTED, loc="left", pad=3)
            stack.append(below)
        _frame(stack, axis, scale, is_first=column == 0)
        stacks.append(stack)
    for beside in zip(*(stack[1:] for stack in stacks), strict=True):  # one scale a condition: only the first has ticks
        limits = [axes.get_ylim() for axes in beside]
        for axes in beside:
            axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    _words_around(figure, records, title, helps, entries, columns)
    return figure


def _words(setting: Setting) -> str:
    return " · ".join(f"{short_title(axis)} {axis_text(value)}" for axis, value in setting)


def _words_around(
    figure: Figure,
    records: Records,
    title: str,
    helps: Sequence[str],
    entries: Sequence[Line2D | Patch],
    columns: int,
) -> None:
    width, height = figure.get_size_inches()
    name = f"MCC · {title}" if title else "MCC"
    figure.text(0.2 / width, 1 - 0.25 / height, name, fontsize=11, fontweight="bold", va="center")
    seeds = len({record.seed for record in records.finished})
    under = f"mean and 95 % interval over {seeds} seeds" if seeds > 1 else "one seed, no interval"
    for line, words in enumerate([under, *helps]):
        below = 1 - (0.45 + HELPS_LINE * line) / height
        figure.text(0.2 / width, below, words, fontsize=7.5, color=MUTED, va="center")
    figure.legend(
        handles=list(entries),
        loc="lower left",
        bbox_to_anchor=(0.15 / width, 0.04 / height),
        ncols=columns,
        fontsize=7.2,
        frameon=False,
        handlelength=2.2,
        columnspacing=1.4,
        labelspacing=0.35,
    )


def _legend(
    judged: Sequence[Verdict], styles: Mapping[str, tuple[str, str]], conditions: Sequence[str]
) -> list[Line2D | Patch]:
    """What signs, lines and grounds mean, only those that are drawn."""
    entries: list[Line2D | Patch] = [
        Line2D([], [], color=hue, marker=sign, markersize=5, label=model_text(model))
        for model, (hue, sign) in styles.items()
    ]
    sign: dict[str, Any] = {"color": "none", "marker": "o", "markeredgecolor": MUTED, "markersize": 5}
    if {one.predicted for one in judged} >= {True, False}:
        entries.append(Line2D([], [], **sign, markerfacecolor=MUTED, label="filled: predicted to identify"))
        entries.append(Line2D([], [], **sign, markerfacecolor="white", label="open: predicted not to"))
    if any(_shared(judged, value) for value in {one.value for one in judged}):
        entries.append(Patch(facecolor=PREDICTED, label="region predicted to identify"))
    if any(one.agreement == "disagree" for one in judged):
        ring: dict[str, Any] = {**sign, "markeredgecolor": INK, "markersize": 9, "markerfacecolor": "none"}
        entries.append(Line2D([], [], **ring, label="ringed: prediction and measurement disagree"))
    if any(one.untrained for one in judged):
        entries.append(Line2D([], [], color=MUTED, linewidth=1.2, linestyle="--", label="untrained encoder"))
    entries.append(Line2D([], [], color=MUTED, linewidth=1.2, linestyle=":", label="shuffled null"))
    if conditions:
        entries.append(Line2D([], [], color=INK, linewidth=1.2, label="margin in the truth; coloured: learned"))
    return entries


def _legend_columns(entries: Sequence[Line2D | Patch], width: float) -> int:
    """Most columns, up to three, that a width in inches has room for; they are filled one after another."""
    lengths = [len(str(entry.get_label())) for entry in entries]
    for columns in (3, 2):
        parts = np.array_split(lengths, columns)
        if len(lengths) >= columns and sum(0.5 + LETTER * part.max() for part in parts) <= width:
            return columns
    return 1


def _frame(stack: Sequence[Axes], axis: str, scale: Scale, *, is_first: bool) -> None:
    """Ticks, limits and grid that the panels of one stack share."""
    for axes in stack:
        axes.set_xlim(*scale.limits)
        axes.set_xticks(scale.places, [])
        axes.tick_params(length=0, pad=3, labelsize=7.5)
        axes.grid(axis="y", color=FAINT, linewidth=0.6, zorder=0)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        if not is_first:
            axes.set_yticklabels([])
    names = [model_text(str(value)) if axis == MODEL else axis_text(value) for value in scale.values]
    tilted = len(names) > 1 and sum(map(len, names)) > 48
    turned: dict[str, Any] = {"rotation": 18, "ha": "right"} if tilted else {}
    stack[-1].set_xticks(scale.places, names, **turned)
    stack[-1].set_xlabel("" if axis == MODEL else short_title(axis), labelpad=3, fontsize=8.5)


# ---------------------------------------------------------------------------------------------- scores


def _series(verdicts: Sequence[Verdict], styles: Mapping[str, tuple[str, str]], scale: Scale) -> list[_Series]:
    """Each model's verdicts, set a little apart so that intervals at one value do not cover each other."""
    models = list(dict.fromkeys(one.model for one in verdicts))
    step = scale.nearest * min(0.12, 0.6 / len(models))
    if verdicts[0].axis == MODEL:
        step = 0.0
    return [
        _Series(
            model,
            tuple(one for one in verdicts if one.model == model),
            *styles[model],
            shift=step * (number - (len(models) - 1) / 2),
        )
        for number, model in enumerate(models)
    ]


def _scores(
    axes: Axes, series: Sequence[_Series], records: Records, scale: Scale, low: float, *, labelled: bool
) -> None:
    every = [one for its in series for one in its.verdicts]
    for value, (begin, end) in scale.spans().items():
        if _shared(every, value):
            axes.axvspan(begin, end, color=PREDICTED, linewidth=0, zorder=0)
    axes.axhline(IDENTIFIED, color=INK, linewidth=0.7, zorder=1)
    beside: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    if labelled:
        axes.annotate(f"{IDENTIFIED:g}", (0, IDENTIFIED), (-3, 0), **beside, ha="right", va="center", fontsize=7)
    _level(axes, every, records, f"{MCC}_untrained", scale, "--")
    _level(axes, every, records, f"{MCC}_shuffled", scale, ":")
    for its in series:
        _line(axes, its, scale)
    axes.set_ylim(low, 1.02)
    axes.set_yticks([tick / 10 for tick in range(round(low * 10), 11) if round(low * 10) > 4 or tick % 2 == 0])


def _line(axes: Axes, its: _Series, scale: Scale) -> None:
    """One model: its signs, intervals and, between numbers, the line that joins them."""
    seen = [(scale.place(one.value) + its.shift, one, one.score) for one in its.verdicts if one.score is not None]
    if scale.is_numeric:
        axes.plot([x for x, _, _ in seen], [y.mean for _, _, y in seen], color=its.hue, linewidth=1.3, zorder=3)
    for x, one, score in seen:
        if score.low is not None and score.high is not None:
            axes.plot([x, x], [score.low, score.high], color=its.hue, linewidth=1.6, alpha=0.75, zorder=3)
        inside = "white" if one.predicted is False else its.hue
        axes.plot(x, score.mean, its.sign, color=its.hue, markerfacecolor=inside, markersize=5, zorder=4)
        if one.agreement == "disagree":
            ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": INK, "markeredgewidth": 0.9}
            axes.plot(x, score.mean, "o", markersize=10, zorder=5, **ring)


def _shared(verdicts: Iterable[Verdict], value: AxisValue) -> bool:
    """Whether every model but the controls is predicted to identify at a value."""
    asked = [v for v in verdicts if v.value == value and (v.axis == MODEL or kind_of_label(v.model) not in CONTROLS)]
    return bool(asked) and all(one.predicted for one in asked)


def _level(
    axes: Axes, verdicts: Sequence[Verdict], records: Records, metric: str, scale: Scale, linestyle: str
) -> None:
    """A level that belongs to the size of the latent space: at each value the mean over models, with its interval."""
    found: list[tuple[tuple[float, float], Estimate]] = []
    for value, span in scale.spans().items():
        here = {one.cell for one in verdicts if one.value == value}
        seeds = records.filter(lambda record, here=here: record.cell in here).group(lambda record: record.seed)  # type: ignore[misc]
        means = (its.estimate(metric) for its in seeds.values())  # models of one seed share their data
        level = estimate(one.mean for one in means if one is not None)
        if level is not None:
            found.append((span, level))
    across = [x for span, _ in found for x in span]
    heights = [level.mean for _, level in found for _ in range(2)]
    axes.plot(across, heights, color=MUTED, linewidth=1.1, linestyle=linestyle, zorder=2)
    for (begin, end), level in found:
        if level.low is not None and level.high is not None:
            axes.fill_between([begin, end], level.low, level.high, color=MUTED, alpha=0.16, linewidth=0, zorder=1)


def _lowest(judged: Sequence[Verdict]) -> float:
    """Where the MCC axis begins: at 0, so that the shuffled null is seen."""
    ends = [one.score.low for one in judged if one.score is not None and one.score.low is not None]
    return min(0.0, math.floor(min(ends, default=0.0) * 10) / 10)


# --------------------------------------------------------------------------------------------- margins


def _metric(margin: Margin) -> str:
    return f"conditions/{margin[0]}/margin_{margin[1]}"


def _varying_margins(records: Records, judged: Sequence[Verdict]) -> list[Margin]:
    """Margins whose mean moves over the axis, in any model and setting."""
    varying = []
    for margin in ((name, side) for name in CONDITIONS for side in ("true", "learned")):
        lines: dict[tuple[str, Setting], list[float]] = {}
        for one in judged:
            value = records.where(cell=one.cell).estimate(_metric(margin))
            if value is not None:
                lines.setdefault((one.model, _setting(one)), []).append(value.mean)
        if any(max(means) - min(means) > MOVES * max(map(abs, means)) for means in lines.values()):
            varying.append(margin)
    return varying


def _margins(
    axes: Axes,
    condition: str,
    series: Sequence[_Series],
    records: Records,
    scale: Scale,
    shown: Sequence[Margin],
) -> None:
    """Margins of one condition: the truth's in black, each fitted model's in its own colour."""
    tops, lows = [0.0], [0.0]

    def line(margin: Margin, verdicts: Iterable[Verdict], shift: float, **style: Any) -> None:
        pairs = [(scale.place(one.value), records.where(cell=one.cell).estimate(_metric(margin))) for one in verdicts]
        seen = [(x + shift, value) for x, value in pairs if value is not None]
        join: dict[str, Any] = style if scale.is_numeric else {**style, "linestyle": "none"}
        axes.plot([x for x, _ in seen], [value.mean for _, value in seen], markersize=3.2, linewidth=1.1, **join)
        for x, value in seen:
            if value.low is not None and value.high is not None:
                axes.plot([x, x], [value.low, value.high], color=style["color"], linewidth=1.0, alpha=0.6)
                tops.append(value.high)
                lows.append(value.low)
            tops.append(value.mean)
            lows.append(value.mean)

    if (condition, "true") in shown and series:
        of_truth = next((its for its in series if kind_of_label(its.model) not in CONTROLS), series[0])
        line((condition, "true"), of_truth.verdicts, 0.0, color=INK, marker=".")
    if (condition, "learned") in shown:
        for its in series:
            line((condition, "learned"), its.verdicts, its.shift, color=its.hue, marker=its.sign, linestyle="--")
    top = max(tops) or 1.0
    axes.set_ylim(min(-0.06 * top, *lows), 1.12 * top)
    axes.locator_params(axis="y", nbins=3)
