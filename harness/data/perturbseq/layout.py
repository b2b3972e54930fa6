"""Which cells of a file make which rows, before its matrix is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data.digest import file_digest
from harness.data.partners import draw_controls
from harness.data.perturbseq.cells_in_use import CellsInUse, cells_in_use
from harness.data.perturbseq.labels import CONTROL, Labels
from harness.data.perturbseq.reader import CellFile
from harness.data.perturbseq.replay import replayed
from harness.data.perturbseq.splits import (
    CONTROL_TEST_SHARE,
    TEST_SHARE,
    Assignment,
    Rows,
    Shares,
    assign,
    places,
)
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
    assignment : which cells are in which split (of simulated trajectories: by their last cell), as places in ``use``.
    index : (n, T) cells of each row, positions in ``cells``.
    conditions : canonical condition of each row.
    stratum : (n,) number of each row's stratum; None where cells have none.
    cells : rows of the file that rows hold, in the order of the hash of their names.
    training : positions in ``cells`` of those that training sees, ascending.
    names : split -> condition -> names of the cells that are its own, from which it can be replayed.
    file : SHA-256 of the file, where it names cells more than once.
    times : of the cells in use, in a time course.
    use : the cells in use.
    """

    splits: dict[str, Rows]
    assignment: Assignment
    index: Rows
    conditions: list[str]
    stratum: Rows | None
    cells: Rows
    training: Rows
    names: dict[str, dict[str, tuple[str, ...]]]
    file: str | None
    times: TimePoints | None
    use: CellsInUse


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
        As the cells in use, the splits, the times and the replayed split say.
    """
    assert isinstance(spec.seed, int)
    trajectories = _trajectories(file) if spec.path is None else np.arange(len(file.obs))[:, None]
    obs = file.obs.iloc[trajectories[:, -1]]
    use = cells_in_use(spec, obs, labels.conditions[trajectories[:, -1]], where)
    times = None
    if spec.path is not None:
        times = read_times(obs.iloc[use.rows], use.conditions, where, spec.time, labels.column)
    _refuse_misfits(spec, times, where)
    digest = None if file.obs.index.is_unique else file_digest(file.path)
    if isinstance(spec.split, ReplaySplit):
        path = Path(spec.split.path)
        assignment = replayed(path, use.names.tolist(), use.conditions, where, known, times, digest)
    else:
        shares = _shares(spec)
        assignment = assign(
            spec.split, use.conditions, spec.seed, shares, where, known=known, times=times, strata=use.stratum
        )
    steps = trajectories.shape[1]
    if times is None:
        table, splits, places_of = _snapshots(spec, steps, use, assignment)
    else:
        table, splits = course_rows(assignment, use.conditions, times, spec.seed, use.stratum)
        places_of = table[:, -1]
    frames, index = np.unique(table, return_inverse=True)
    index = index.reshape(table.shape).astype(np.int64)
    seen = table.shape[1] - assignment.held_out
    return Layout(
        splits=splits,
        assignment=assignment,
        index=index,
        conditions=[use.conditions[place] for place in places_of],
        stratum=None if use.stratum is None else use.stratum[places_of],
        cells=trajectories[use.rows].reshape(-1)[frames],
        training=np.unique(index[splits["train"], :seen]),
        names=_by_condition(assignment, use),
        file=digest,
        times=times,
        use=use,
    )


def _refuse_misfits(spec: PerturbseqData, times: TimePoints | None, where: str) -> None:
    """Refuse what a study file says of times and a file does not bear out."""
    if times is not None and spec.pairs == "none":
        raise UserError(
            f"{where}: obs[{times.column!r}] makes these cells a time course, whose rows need their earlier times; "
            "leave data.pairs out, or set data.time: none"
        )
    if times is None and spec.time_pairs != "random":
        raise UserError(f"{where}: data.time_pairs is {spec.time_pairs}, but the cells have no times; leave it out")


def _shares(spec: PerturbseqData) -> Shares:
    """What tests and validates of each condition: of simulated cells as many as the study file says."""
    if spec.path is not None:
        return Shares(spec.validation, TEST_SHARE, CONTROL_TEST_SHARE, spec.min_cells)
    test = spec.test_cells / (spec.cells + spec.test_cells)
    return Shares(spec.validation, test, test, spec.min_cells)


def _snapshots(
    spec: PerturbseqData, steps: int, use: CellsInUse, assignment: Assignment
) -> tuple[Rows, dict[str, Rows], Rows]:
    """Rows of cells seen once, or of simulated trajectories of ``steps`` frames; each is one cell of the assignment.

    Returns
    -------
    table : (n, T) frames: ``steps`` times the cell's place, plus the step.
    splits : name -> rows.
    places : (n,) place of each row's cell.
    """
    assert isinstance(spec.seed, int)
    rows = np.sort(np.concatenate(list(assignment.splits.values())))
    last = np.arange(len(use.rows)) * steps + steps - 1
    if spec.pairs == "true":
        table = rows[:, None] * steps + np.arange(steps)
    else:
        is_control = np.asarray(use.conditions, dtype=object) == CONTROL
        first = np.arange(len(last))
        if spec.pairs == "random":
            first = draw_controls(is_control, assignment.splits, assignment.ood, spec.seed, use.stratum)
        table = np.stack([last[first[rows]], last[rows]], axis=1)
    splits = {name: np.searchsorted(rows, members) for name, members in assignment.splits.items()}
    return table, splits, rows


def _trajectories(file: CellFile) -> Rows:
    """(n, T) observations of each simulated cell, in order of time."""
    order = np.lexsort((file.obs["time"], file.obs["trajectory"]))
    return order.reshape(file.obs["trajectory"].nunique(), -1)


def _by_condition(assignment: Assignment, use: CellsInUse) -> dict[str, dict[str, tuple[str, ...]]]:
    of = np.asarray(use.conditions, dtype=object)
    found = {}
    for split, cells in assignment.splits.items():
        own = {name: part for (name, _), part in places(of[cells]).items()}
        found[split] = {
            name: tuple(use.names[cells[own[name]]].tolist()) for name in assignment.conditions if name in own
        }
    return found
