"""Tables of prediction for where there is room: gene sets, genes and ranks; and what the means rest on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from harness.evaluation.registry import MAIN
from harness.study.columns import OOD, OOD_DETAILS, Column, ood_columns
from harness.study.records import Records
from harness.study.statistics import Estimate
from harness.study.tables import Row, Score, Table, baseline_axes, split_title, table_of


def ood_tables(records: Records) -> list[Table]:
    """For each split its table of gene sets, genes and ranks, and that of means with their intervals.

    Parameters
    ----------
    records
        All of the study's records, unfinished ones included.

    Returns
    -------
    list of Table
        For each split those with a score. The second kind has the bootstrap interval over conditions of each main
        metric, its ends averaged over seeds.
    """
    made = []
    for split in records.splits:
        columns = tuple(c for c in ood_columns(split, OOD_DETAILS) if records.estimate(c.metric))
        if columns:
            made.append(table_of(records, f"Prediction of {split_title(split)}: genes and ranks", columns))
        main = [column for column in OOD if column.metric in MAIN]
        columns = tuple(c for c in ood_columns(split, main) if records.estimate(f"{c.metric}_low"))
        if columns:
            title = f"Prediction of {split_title(split)}: means over conditions with bootstrap 95 % intervals"
            made.append(_over_conditions(records, title, columns))
    return made


def _over_conditions(records: Records, title: str, columns: tuple[Column, ...]) -> Table:
    """Rows as in the other tables, their scores with the ends of the intervals over conditions."""
    table = table_of(records, title, columns)
    rows = [
        replace(row, scores=tuple(_with_ends(cell.estimate, column.metric) for column in columns))
        for row, cell in zip(table.rows, records.cells.values(), strict=False)
    ]
    groups = records.finished.by_data.values()
    known = [(group, name) for group in groups for name in group.baseline_names]
    for group, name in known:
        scores = tuple(_with_ends(partial(group.baseline, name), column.metric) for column in columns)
        empty = [""] * (len(table.heads) - 1 - len(records.axes))
        rows.append(Row((name.replace("_", " "), *baseline_axes(group, records), *empty), scores, baseline=True))
    return replace(table, rows=tuple(rows), ends=True)


def _with_ends(estimate_of: Callable[[str], Estimate | None], metric: str) -> Score:
    mean, low, high = (estimate_of(name) for name in (metric, f"{metric}_low", f"{metric}_high"))
    if mean is None or low is None or high is None:
        return Score(None)
    return Score(Estimate(mean.mean, low.mean, high.mean, mean.n))
