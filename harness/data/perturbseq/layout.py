"""Which cells of a file make which rows, before its matrix is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.data.digest import file_digest
from harness.data.partners import draw_controls
from harness.data.perturbseq.labels import CONTROL, Labels
from harness.data.perturbseq.reader import CellFile
from harness.data.perturbseq.replay import cell_names, replayed
from harness.data.perturbseq.splits import TEST_SHARE, Assignment, Rows, Shares, assign, places
from harness.data.perturbseq.time_course import course_rows
from harness.data.perturbseq.time_points import TimePoints, read_times
from harness.data_spec import PerturbseqData
from harness.errors import UserError
from harness.split_spec import ReplaySplit


@dataclass(frozen=True)
class Layout:
    """Rows of a file.

    Attributes
    ----------
    splits : name -> rows of ``index``.
    assignment : which cells are in which split (of simulated trajectories: by their last cell), as positions among
        those whose labels are not left out.
    index : (n, T) cells of each row, positions in ``cells``.
    conditions : canonical condition of each row.
    cells : rows of the file that are in use, ascending.
    training : those among them that training sees, rows of the file, ascending.
    names : split -> condition -> names of the cells that are its own, from which it can be replayed.
    file : SHA-256 of the file, where it names cells more than once.
    times : of the cells, in a time course.
    """

    splits: dict[str, Rows]
    assignment: Assignment
    index: Rows
    conditions: list[str]
    cells: Rows
    training: Rows
    names: dict[str, dict[str, tuple[str, ...]]]
    file: str | None
    times: TimePoints | None


def lay_out(spec: PerturbseqData, file: CellFile, labels: Labels, where: str, known: frozenset[str] | None) -> Layout:
    """Split the cells and put them into rows.

    Parameters
    ----------
    spec
        The study file's ``data``.
    file
        Open; of it only what says something of the cells is read.
    labels
        Conditions of its cells.
    where
        Name of the data, for error messages.
    known
        Genes that have a vector; None where perturbations are one-hot.

    Raises
    ------
    UserError
        As the splits, the times and the replayed split say.
    """
    assert isinstance(spec.seed, int)
    used = labels.used
    times = None if spec.path is None else read_times(file.obs.iloc[used], where, spec.time, labels.column)
    if times is not None and spec.pairs == "none":
        raise UserError(
            f"{where}: obs[{times.column!r}] makes these cells a time course, whose rows need their earlier times; "
            "leave data.pairs out, or set data.time: none"
        )
    if times is None and spec.time_pairs != "random":
        raise UserError(f"{where}: data.time_pairs is {spec.time_pairs}, but the cells have no times; leave it out")
    if spec.path is None:
        trajectories = _trajectories(file)
        test = spec.test_cells / (spec.cells + spec.test_cells)
    else:
        trajectories = used[:, None]
        test = TEST_SHARE
    last = trajectories[:, -1]
    conditions: list[str] = labels.conditions[last].tolist()
    names = cell_names(file.obs.index)[last]
    digest = None if file.obs.index.is_unique else file_digest(file.path)
    if isinstance(spec.split, ReplaySplit):
        assignment = replayed(Path(spec.split.path), names.tolist(), conditions, where, known, times, digest)
    else:
        shares = Shares(spec.validation, test, spec.min_cells.least)
        assignment = assign(spec.split, conditions, spec.seed, shares, where, known=known, times=times)
    if times is None:
        table, splits, of = _snapshots(spec, trajectories, conditions, assignment)
    else:
        table, splits, of = course_rows(assignment, conditions, times, spec.seed)
        table = used[table]
    cells, index = np.unique(table, return_inverse=True)
    seen = table.shape[1] - assignment.held_out
    return Layout(
        splits=splits,
        assignment=assignment,
        index=index.reshape(table.shape).astype(np.int64),
        conditions=of,
        cells=cells,
        training=np.unique(table[splits["train"], :seen]),
        names=_by_condition(assignment, conditions, names),
        file=digest,
        times=times,
    )


def _snapshots(
    spec: PerturbseqData, table: Rows, conditions: list[str], assignment: Assignment
) -> tuple[Rows, dict[str, Rows], list[str]]:
    """Rows of cells seen once, or of simulated trajectories; each row is one cell of the assignment."""
    assert isinstance(spec.seed, int)
    rows = np.sort(np.concatenate(list(assignment.splits.values())))
    if spec.pairs != "true":
        seen = table[:, -1]
        is_control = np.asarray(conditions, dtype=object) == CONTROL
        own = spec.pairs == "none"
        first = np.arange(len(seen)) if own else draw_controls(is_control, assignment.splits, assignment.ood, spec.seed)
        table = np.stack([seen[first], seen], axis=1)
    splits = {name: np.searchsorted(rows, members) for name, members in assignment.splits.items()}
    return table[rows], splits, [conditions[row] for row in rows]


def _trajectories(file: CellFile) -> Rows:
    """(n, T) observations of each simulated cell, in order of time."""
    order = np.lexsort((file.obs["time"], file.obs["trajectory"]))
    return order.reshape(file.obs["trajectory"].nunique(), -1)


def _by_condition(
    assignment: Assignment, conditions: list[str], names: npt.NDArray[np.object_]
) -> dict[str, dict[str, tuple[str, ...]]]:
    of = np.asarray(conditions, dtype=object)
    found = {}
    for split, cells in assignment.splits.items():
        own = places(of[cells])
        found[split] = {name: tuple(names[cells[own[name]]].tolist()) for name in assignment.conditions if name in own}
    return found
