"""A study's tables as text: for the terminal, as Markdown, and as complete CSV."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from harness.helps import words
from harness.study.records import AxisValue, Records
from harness.study.statistics import Estimate
from harness.study.tables import HELPS, Row, Table, axis_text

HEADING_WIDTH = 9
#: Width of the column of helps where a table has to be narrow.
HELPS_WIDTH = 16


def terminal(
    headings: Sequence[str], layouts: Sequence[Sequence[Table]], lines: Sequence[str], *, width: int, colour: bool
) -> str:
    """Everything for a terminal.

    Parameters
    ----------
    headings
        Lines above the tables.
    layouts
        The tables, arranged in one way or another, preferred first; the first that fits the width is written, and
        before an arrangement is given up, it is tried with narrower scores and helps.
    lines
        Footnotes.
    width
        Columns of the terminal. Footnotes are wrapped to it; a table that does not fit is written at its own width,
        since a score cut off is worse than a line wrapped.
    colour
        Write ANSI colours.
    """
    drawn = _fitting(layouts, width)
    widest = max((_natural_width(table) for table, _ in drawn), default=0)
    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=max(width, widest),
        force_terminal=colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
        highlight=False,
    )
    for heading in headings:
        console.print(Text(textwrap.fill(heading, width), style="bold"))
    for table, caption in drawn:
        console.print()
        console.print(table)
        if caption:
            console.print(Text(textwrap.fill(caption, width), style="dim"))
    console.print()
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()))
        style = "bold red" if line.startswith("ORACLE") else "dim"
        console.print(Text(textwrap.fill(line, width, subsequent_indent=indent + "  "), style=style))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _fitting(layouts: Sequence[Sequence[Table]], width: int) -> list[tuple[RichTable, str]]:
    """The first arrangement that fits, each table with its caption; where none does, the last one."""
    drawn: list[tuple[RichTable, str]] = []
    for layout in layouts:
        for compact in (False, True):
            drawn = [(_rich(table, compact=compact), table.caption) for table in layout]
            if all(_natural_width(table) <= width for table, _ in drawn):
                return drawn
    return drawn


def _natural_width(table: RichTable) -> int:
    """Columns of a terminal a table needs."""
    console = Console(file=io.StringIO(), width=1000)
    return Measurement.get(console, console.options, table).maximum


def _rich(table: Table, *, compact: bool) -> RichTable:
    drawn = RichTable(
        title=Text(table.title, style="bold"),
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=compact,
    )
    for index, head in enumerate(table.heads):
        drawn.add_column(_broken(head), justify="left" if index == 0 else "right", no_wrap=True)
    for column in table.columns:
        drawn.add_column(_broken(column.title), justify="right", no_wrap=True)
    before: Row | None = None
    for row in table.rows:
        if before is not None and _block(before) != _block(row):
            drawn.add_section()
        repeats = before is not None and not row.baseline and row.labels[0] == before.labels[0]
        style = "dim" if row.baseline else ""
        name = Text("" if repeats else row.labels[0], style=style or "bold")
        texts = [text.replace(" ± ", "±") if compact else text for text in table.texts(row)]
        scores = (_score(text, score.mark, style) for text, score in zip(texts, row.scores, strict=True))
        labels = _labels(table, row, compact=compact)[1:]
        drawn.add_row(name, *(Text(label, style=style) for label in labels), *scores)
        before = row
    return drawn


def _labels(table: Table, row: Row, *, compact: bool) -> list[str]:
    """A row's labels; where the table has to be narrow, helps over several lines."""
    return [
        textwrap.fill(label, HELPS_WIDTH) if compact and head == HELPS else label
        for head, label in zip(table.heads, row.labels, strict=True)
    ]


def _block(row: Row) -> str:
    """What stands between two rules: a model's rows, or all baselines."""
    return "" if row.baseline else row.labels[0]


def _score(text: str, mark: str, style: str) -> Text:
    drawn = Text(text, style=style)
    if mark:
        drawn.stylize("yellow")
    return drawn


def _broken(title: str) -> str:
    """A heading over several lines, so that it is no wider than the scores under it."""
    return textwrap.fill(title, HEADING_WIDTH, break_long_words=False)


def markdown(heading: str, made: Sequence[Table], lines: Sequence[str]) -> str:
    """The tables and footnotes as GitHub Markdown."""
    parts = [f"# {_plain(heading)}"]
    for table in made:
        titles = [*table.heads, *(column.title for column in table.columns)]
        rule = ["---" if index == 0 else "---:" for index in range(len(titles))]
        body = [[*row.labels, *table.texts(row)] for row in table.rows]
        rows = (f"| {' | '.join(map(_plain, cells))} |" for cells in (titles, rule, *body))
        parts += [f"## {_plain(table.title)}", "\n".join(rows)]
        parts += [_plain(table.caption)] if table.caption else []
    items = (f"{'  ' if line.startswith('  ') else ''}- {_plain(line.strip())}" for line in lines)
    return "\n\n".join([*parts, "\n".join(items)]) + "\n"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    for sign in ("\\", "|", "<", "`", "*", "_"):
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")


def table_csv(records: Records) -> str:
    """Every metric of every cell and baseline: mean, ends of the 95 % interval, number of values.

    One row a cell and metric, floats in full precision; ``low`` and ``high`` are empty where one value gives no
    interval. Cells without a finished trial have one row with an empty metric.
    """
    head = ["kind", "name", "cell", *records.axes, "helps", "metric", "mean", "low", "high", "n", "finished", "planned"]
    rows: list[list[object]] = []
    for cell in records.cells.values():
        first, counts = next(iter(cell)), [len(cell.finished), len(cell)]
        labels = ["model", first.model, first.cell, *_axes(first.axes, records), words(cell.helps)]
        found = [[*labels, metric, *_numbers(cell.estimate(metric)), *counts] for metric in cell.metrics]
        rows += found or [[*labels, "", *_numbers(None), *counts]]
    for group in records.finished.by_data.values():
        labels = _axes(next(iter(group)).data_axes, records)
        keys = dict.fromkeys(key for record in group for key in record.baselines)
        for _, name, metric in (key.split("/", 2) for key in keys):
            value = group.baseline(name, metric)
            rows.append(["baseline", name, "", *labels, "", metric, *_numbers(value), "", ""])
    return _csv(head, rows)


def trials_csv(records: Records) -> str:
    """Every trial and metric, unaveraged; a trial without metrics has one row that says how it ended.

    Helps are those of the trial's own scores; a baseline has none.
    """
    head = ["trial_id", "cell", "model", "seed", "helps", "state", "metric", "value", "reason"]
    rows: list[list[object]] = []
    for record in records:
        labels, helps = [record.trial_id, record.cell, record.model, record.seed], words(record.helps)
        rows += [[*labels, helps, record.state, name, repr(value), ""] for name, value in record.metrics.items()]
        rows += [[*labels, "", record.state, name, repr(value), ""] for name, value in record.baselines.items()]
        if not (record.metrics or record.baselines) or record.failure:
            rows.append([*labels, helps, record.state, "", "", record.failure or ""])
    return _csv(head, rows)


def _axes(axes: Mapping[str, AxisValue], records: Records) -> list[object]:
    return [axis_text(axes[axis]) if axis in axes else "" for axis in records.axes]


def _numbers(value: Estimate | None) -> list[object]:
    if value is None:
        return ["", "", "", 0]
    return [*("" if number is None else repr(number) for number in (value.mean, value.low, value.high)), value.n]


def _csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return buffer.getvalue()
