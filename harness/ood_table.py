"""``ood.csv``: every OOD score of a trial, condition by condition, with the intervals of their means."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.evaluation.prediction import OodResult
from harness.evaluation.registry import GENE_SETS, METRICS, on_set, split_half_name
from harness.evaluation.score_table import FLOOR, MODEL, Table
from harness.files import write_when_room

#: The table's file in a trial's folder.
OOD_TABLE = "ood.csv"
#: Columns before those of the metrics.
HEAD = ("split", "row", "genes", "condition", "embedding")
#: The metric that is taken only where a further package is installed.
OPTIONAL = "wasserstein"
#: What stands in the column of the condition for scores of all conditions together.
MEAN, LOW, HIGH = "(mean)", "(low)", "(high)"
#: What stands in the column of the gene set for all genes.
ALL_GENES = "all"


def write_ood(path: Path, results: Mapping[str, OodResult]) -> None:
    """Write the table of a trial's OOD scores.

    A line holds every metric of one row (``model``, a baseline, or ``floor`` for split halves) on one gene set under
    one condition; ``(mean)`` is the mean over conditions, ``(low)`` and ``(high)`` are the ends of its bootstrap 95 %
    interval, which ``pearson_delta`` has on no set of genes that were chosen by their change. A score that is not there
    leaves its field empty; ``wasserstein``, which needs a package, has no column where no row has it. ``embedding``
    says what the linear baseline predicts a condition from.

    Parameters
    ----------
    path
        The file.
    results
        split -> scores.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    metrics = [name for name in METRICS if name != OPTIONAL or any(map(_has_optional, results.values()))]
    writer.writerow([*HEAD, *metrics])
    for split, result in results.items():
        for row, table in (*result.per_condition.items(), (FLOOR, _floors(result))):
            writer.writerows([split, row, *line] for line in _lines(result, row, table, metrics))
    write_when_room(path, buffer.getvalue().encode())


def _has_optional(result: OodResult) -> bool:
    """Whether any condition of a split has the optional metric, on any gene set."""
    tables = (*result.per_condition.values(), result.floor_per_condition)
    return any(name.startswith(OPTIONAL) for table in tables for scores in table.values() for name in scores)


def _lines(result: OodResult, row: str, table: Table, metrics: Sequence[str]) -> Iterator[list[str]]:
    """Gene set, condition, embedding and scores of one row."""
    means = {MODEL: result.metrics, FLOOR: _plain(result.floors)}.get(row) or result.baselines.get(row, {})
    ends = result.intervals.get(row, {})
    if row == FLOOR:
        ends = {name: ends[floor] for name, floor in _floor_names().items() if floor in ends}
    together = {
        MEAN: means,
        LOW: {name: low for name, (low, _) in ends.items()},
        HIGH: {name: high for name, (_, high) in ends.items()},
    }
    for genes in ("", *GENE_SETS):
        names = [on_set(metric, genes) for metric in metrics]
        for condition, values in {**together, **table}.items():
            if not any(name in values for name in names):
                continue
            embedding = result.embeddings.get(condition, "") if row == "linear" else ""
            scores = [f"{values[name]:.6g}" if name in values else "" for name in names]
            yield [genes or ALL_GENES, condition, embedding, *scores]


def _floors(result: OodResult) -> Table:
    return {condition: _plain(values) for condition, values in result.floor_per_condition.items()}


def _plain(floors: Mapping[str, float]) -> dict[str, float]:
    """Split-half scores by the names of the metrics they belong to."""
    return {name: floors[floor] for name, floor in _floor_names().items() if floor in floors}


def _floor_names() -> dict[str, str]:
    """Metric on a gene set -> name of its split-half score."""
    return {name: split_half_name(name) for name in (on_set(m, genes) for m in METRICS for genes in ("", *GENE_SETS))}
