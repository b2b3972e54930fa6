"""What a study's tables say, apart from how they look: rows, columns, marks and footnotes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness.helps import NO_HELP, words
from harness.study.columns import DETAILS, IDENTIFIABILITY, OF_IMAGES, VALIDATION, Column, ood_columns
from harness.study.records import AxisValue, Record, Records
from harness.study.statistics import Direction, Estimate, above_untrained, better

MISSING = "-"
NOT_ABOVE_UNTRAINED = "†"
NOT_BETTER_THAN_BASELINE = "‡"
WARNED = "*"
#: Name of the row of split-half scores.
FLOOR = "floor"
#: Head of the column that names each row's helps.
HELPS = "helps"

#: How model kinds are written in prose.
PRETTY = {
    "perturbed_vae": "PerturbedVAE",
    "cite_vae": "CITE-VAE",
    "beta_vae": "β-VAE",
    "discrepancy_vae": "Discrepancy-VAE",
    "supervised": "Supervised (oracle)",
}


@dataclass(frozen=True)
class Score:
    """A table cell: an estimate (None: there is none) and a mark that a footnote explains."""

    estimate: Estimate | None
    mark: str = ""


@dataclass(frozen=True)
class Row:
    """A model's setting, or a baseline; ``labels`` stand under the table's ``heads``."""

    labels: tuple[str, ...]
    scores: tuple[Score, ...]
    baseline: bool = False


@dataclass(frozen=True)
class Table:
    """A titled table: ``heads`` name the label columns, ``columns`` the scores; ``ends``: ``mean [low, high]``.

    ``caption`` is a sentence under the table, on what all its models have in common.
    """

    title: str
    heads: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    ends: bool = False
    caption: str = ""

    @property
    def marks(self) -> set[str]:
        """Marks in use, which need a footnote."""
        marks = {score.mark for row in self.rows for score in row.scores}
        return (marks | {WARNED for row in self.rows if row.labels[-1].endswith(WARNED)}) - {""}

    def texts(self, row: Row) -> list[str]:
        """The row's scores as text, each ``mean ± half-width``."""
        return [self._text(row, index) for index in range(len(self.columns))]

    def _text(self, row: Row, index: int) -> str:
        if row.baseline and not self.columns[index].metric.startswith("ood/"):
            return ""  # a baseline has no latents: nothing is missing
        return (ends_text if self.ends else score_text)(row.scores[index], self._decimals(index))

    def _decimals(self, index: int) -> int:
        fixed = self.columns[index].decimals
        if fixed is not None:
            return fixed
        estimates = (row.scores[index].estimate for row in self.rows)
        return decimals_for(abs(value.mean) for value in estimates if value is not None)


def decimals_for(values: Iterable[float]) -> int:
    """Digits after the point that show three significant ones of the largest value (two below 1), 0 to 5."""
    largest = max(values, default=0.0)
    if largest == 0:
        return 2
    return min(5, max(0, (2 if largest >= 1 else 1) - math.floor(math.log10(largest))))


def score_text(score: Score, decimals: int) -> str:
    """``0.87 ± 0.03†``; ``0.87`` alone for one seed; ``-`` for none."""
    value = score.estimate
    if value is None:
        return MISSING
    spread = "" if value.half_width is None else f" ± {value.half_width:.{decimals}f}"
    mean = round(value.mean, decimals) + 0.0  # + 0.0: what rounds to zero must not read as -0.00
    return f"{mean:.{decimals}f}{spread}{score.mark}"


def ends_text(score: Score, decimals: int) -> str:
    """``0.45 [0.41, 0.48]``; ``-`` for none."""
    value = score.estimate
    if value is None or value.low is None or value.high is None:
        return MISSING
    mean, low, high = (
        f"{round(number, decimals) + 0.0:.{decimals}f}" for number in (value.mean, value.low, value.high)
    )
    return f"{mean} [{low}, {high}]"


def axis_text(value: AxisValue) -> str:
    """An axis value as a user would write it in YAML."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def model_text(model: str) -> str:
    """A model's label with its kind as it is written in prose."""
    kind, space, rest = model.partition(" ")
    return PRETTY.get(kind, kind) + space + rest


def trial_text(record: Record) -> str:
    """A trial's cell and seed in prose."""
    return f"{model_text(record.cell)} · seed {record.seed}"


def axis_title(axis: str) -> str:
    """An axis as a heading: dots and underscores open to a space, so that headings wrap."""
    return axis.removeprefix("models.").replace("_", " ").replace(".", " ")


def short_title(axis: str) -> str:
    """An axis where it is clear that it is one of the study's: without the part it belongs to."""
    return axis_title(axis.removeprefix("data.").removeprefix("process."))


def tables(records: Records, *, combined: bool = True, detailed: bool = False) -> list[Table]:
    """Every table of a study, those without a score left out.

    Parameters
    ----------
    records
        All of the study's records, unfinished ones included.
    combined
        Put identifiability and OOD scores side by side where there is a single OOD split.
    detailed
        With the graph's, the targets' and the restarts' scores too.

    Returns
    -------
    list of Table
        At least one; without any score, a table that lists the cells with the validation loss.
    """
    have = {column.metric for column in _known_columns(records) if records.estimate(column.metric)}
    scores = IDENTIFIABILITY + (DETAILS if detailed else ())
    identifiability = tuple(column for column in scores if column.metric in have)
    splits = {split: tuple(c for c in ood_columns(split) if c.metric in have) for split in records.splits}
    splits = {split: columns for split, columns in splits.items() if columns}
    if combined and identifiability and len(splits) == 1:
        ((split, columns),) = splits.items()
        return [
            table_of(records, f"Identifiability, and prediction of {split_title(split)}", identifiability + columns)
        ]
    made = [table_of(records, "Identifiability", identifiability)] if identifiability else []
    made += [table_of(records, f"Prediction of {split_title(split)}", columns) for split, columns in splits.items()]
    return made or [table_of(records, "Validation", (VALIDATION,))]


def latent_tables(records: Records) -> list[Table]:
    """Tables of what is known of single latents: R² of each, the ceiling, and the scores of all latents together.

    Parameters
    ----------
    records
        All of the study's records, unfinished ones included.

    Returns
    -------
    list of Table
        Only tables with a score; none where latents have no names worth a column.
    """
    have = [metric for metric in records.metrics if records.estimate(metric)]
    kinds: tuple[tuple[str, str, Direction | None], ...] = (
        ("factor", "R² of each latent, from the learned block of its kind", "higher"),
        ("ceiling", "Ceiling: R² of what an encoder that is told the truth says of each latent", None),
    )
    made = []
    for group, title, direction in kinds:
        names = dict.fromkeys(m.split("/")[2] for m in have if re.fullmatch(f"identifiability/{group}/[^/]+/r2", m))
        columns = [Column(f"identifiability/{group}/{name}/r2", axis_title(name), direction) for name in names]
        made.append((title, tuple(columns)))
    made.append(("All learned latents together", tuple(column for column in OF_IMAGES if column.metric in have)))
    return [table_of(_with_any(records, columns), title, columns) for title, columns in made if columns]


def _with_any(records: Records, columns: Sequence[Column]) -> Records:
    """Records of those cells that have one of the scores, or none finished yet."""
    metrics = {column.metric for column in columns}
    return Records(
        record
        for cell in records.cells.values()
        if metrics & set(cell.metrics) or not len(cell.finished)
        for record in cell
    )


def without(made: Sequence[Table], metric: str) -> list[Table]:
    """The tables without the column of one metric; a table that holds nothing else keeps it.

    Parameters
    ----------
    made
        The tables.
    metric
        Flat MLflow name.
    """
    cut = []
    for table in made:
        kept = [index for index, column in enumerate(table.columns) if column.metric != metric]
        if not kept:
            cut.append(table)
            continue
        rows = (replace(row, scores=tuple(row.scores[index] for index in kept)) for row in table.rows)
        cut.append(replace(table, columns=tuple(table.columns[index] for index in kept), rows=tuple(rows)))
    return cut


def _known_columns(records: Records) -> list[Column]:
    return [*IDENTIFIABILITY, *DETAILS, *(column for split in records.splits for column in ood_columns(split))]


def split_title(split: str) -> str:
    """What a split is called in a table's title."""
    return f"unseen perturbations ({split})"


def table_of(records: Records, title: str, columns: tuple[Column, ...]) -> Table:
    """The table of these scores: a row for each cell; where one is of prediction, the baselines and the floor below."""
    heads = ("model", *(axis_title(axis) for axis in records.axes), "seeds")
    rows = [_row(cell, records, columns) for cell in records.cells.values()]
    if any(column.metric.startswith("ood/") for column in columns):
        rows += _baseline_rows(records, columns)
    made = Table(title, heads, columns, tuple(rows))
    return with_helps(made, [words(cell.helps) for cell in records.cells.values()], at=-1)


def with_helps(table: Table, named: Sequence[str], *, at: int) -> Table:
    """The table with the helps of its rows: in a sentence where all models have the same, else in a column.

    Parameters
    ----------
    table
        The table; its first rows are the models'.
    named
        Helps of each model's row, as `harness.helps.words` names them.
    at
        Place of the column among the label columns, before which it is put.
    """
    if not named:
        return table
    if len(set(named)) == 1:
        return replace(table, caption=_caption(named[0]))
    each = [*named, *[""] * (len(table.rows) - len(named))]
    rows = (
        replace(row, labels=(*row.labels[:at], its, *row.labels[at:]))
        for row, its in zip(table.rows, each, strict=True)
    )
    return replace(table, heads=(*table.heads[:at], HELPS, *table.heads[at:]), rows=tuple(rows))


def _caption(named: str) -> str:
    if named == NO_HELP:
        return "No model here has a help that a user with her own cells lacks."
    return f"Every model here has helps that a user with her own cells lacks: {named}."


def _row(cell: Records, records: Records, columns: Sequence[Column]) -> Row:
    first = next(iter(cell))
    done = cell.finished
    seeds = str(len(done)) if len(done) == len(cell) else f"{len(done)}/{len(cell)}"
    seeds += WARNED if any(record.warnings for record in done) else ""
    peers = records.by_data[tuple(first.data_axes.items())]
    scores = tuple(Score(cell.estimate(column.metric), cell_mark(cell, peers, column)) for column in columns)
    return Row((model_text(first.model), *(axis_text(first.axes.get(axis)) for axis in records.axes), seeds), scores)


def cell_mark(cell: Records, peers: Records, column: Column) -> str:
    """The mark a cell's score carries: not above its untrained encoder, or not better than the best baseline.

    Parameters
    ----------
    cell
        Records of one point.
    peers
        Records on the same data, whose baselines it is compared with.
    column
        The score; without a direction there is nothing to compare.
    """
    value = cell.estimate(column.metric)
    if value is None or column.direction is None:
        return ""
    untrained = cell.estimate(column.untrained)
    if untrained is not None and not above_untrained(value, untrained, column.direction):
        return NOT_ABOVE_UNTRAINED
    rivals = [peers.baseline(name, column.metric) for name in peers.baseline_names]
    beaten = all(rival is None or better(value.mean, rival.mean, column.direction) for rival in rivals)
    return "" if beaten else NOT_BETTER_THAN_BASELINE


def _baseline_rows(records: Records, columns: Sequence[Column]) -> list[Row]:
    rows = []
    for group in records.finished.by_data.values():
        axes = baseline_axes(group, records)
        made = [
            (name.replace("_", " "), [group.baseline(name, c.metric) for c in columns]) for name in group.baseline_names
        ]
        made.append((FLOOR, [group.floor(column.metric) for column in columns]))
        for name, values in made:
            if any(values):
                rows.append(Row((name, *axes, ""), tuple(map(Score, values)), baseline=True))
    return rows


def baseline_axes(group: Records, records: Records) -> tuple[str, ...]:
    """A baseline's labels under the axes: it has those of its data alone."""
    shared = next(iter(group)).data_axes
    return tuple(axis_text(shared[axis]) if axis in shared else "" for axis in records.axes)
