"""Time courses of destructive assays: no cell is seen twice, so that rows are put together from cells.

A row of a condition holds one of its cells at each time, all of the row's split: where the condition has no cells of
its own at the first time, before the perturbation was there, control cells stand in. Which cells stand beside each
other is drawn at random, or found by optimal transport between each time and the next, a mini-batch at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.utils.extmath import randomized_svd

from harness.data.perturbseq.labels import CONTROL
from harness.data.perturbseq.splits import Assignment, Rows, places
from harness.data.perturbseq.time_points import TimePoints
from harness.data.seeding import derive
from harness.data.transport import COMPONENTS, partners_of

Matrix = npt.NDArray[np.float32]

#: Rows matched at once; the cost of an exact match grows with the third power of their number.
TRANSPORT_BATCH = 512
#: Most training cells the components are found on.
_FITTED_CELLS = 20_000
#: Splits of which held-out times are not seen.
_BLIND = ("train", "validation")


def course_rows(
    assignment: Assignment, conditions: Sequence[str], times: TimePoints, seed: int, strata: Rows | None = None
) -> tuple[Rows, dict[str, Rows]]:
    """Rows of a time course, paired at random.

    A condition has as many rows in a split as cells at that time after the first at which it has most; cells of other
    times are repeated as evenly as may be. Held-out times do not count, and in training and validation a row repeats
    its last seen cell in their place. A condition without a cell in a split at some time has no row there.

    Parameters
    ----------
    assignment
        Splits of the cells.
    conditions
        Canonical condition of each cell.
    times
        Of each cell.
    seed
        The data seed.
    strata
        Number of the stratum of each cell, where there are some: a row is then of one stratum.

    Returns
    -------
    table : (n, T) cells of each row.
    splits : name -> rows.
    """
    of = np.asarray(conditions, dtype=object)
    seen = len(times.points) - assignment.held_out
    parts: list[Rows] = []
    splits: dict[str, Rows] = {}
    count = 0
    for split, cells in assignment.splits.items():
        home = "test" if split in assignment.ood else split
        starts = assignment.splits[home]
        starts = starts[(of[starts] == CONTROL) & (times.of_cell[starts] == 0)]
        begins = count
        used = seen if split in _BLIND else len(times.points)
        where = places(of[cells], None if strata is None else strata[cells])
        order = {name: k for k, name in enumerate(assignment.conditions)}
        for name, stratum in sorted((one for one in where if one[0] in order), key=lambda one: (order[one[0]], one[1])):
            own = cells[where[name, stratum]]
            columns = [own[times.of_cell[own] == k] for k in range(used)]
            if not len(columns[0]):
                columns[0] = starts if strata is None else starts[strata[starts] == stratum]
            if min(map(len, columns)) == 0:
                continue
            purpose = (split, name) if strata is None else (split, name, f"stratum {stratum}")
            parts.append(_together(columns, len(times.points), derive(seed, "time course", *purpose)))
            count += len(parts[-1])
        splits[split] = np.arange(begins, count)
    return np.concatenate(parts), splits


def _together(columns: list[Rows], times: int, seed: int) -> Rows:
    """(n, times) rows from the cells of each time, each time in an order of its own."""
    random = np.random.default_rng(seed)
    # the first time may be borrowed from control, whose many cells are no reason to repeat all others
    rows = max(map(len, columns[1:]))
    table = np.stack([np.resize(random.permutation(cells), rows) for cells in columns], axis=1)
    return np.concatenate([table, np.repeat(table[:, -1:], times - len(columns), axis=1)], axis=1)


def transported(
    index: Rows,
    splits: dict[str, Rows],
    conditions: Sequence[str],
    low: Matrix,
    seen: int,
    strata: Rows | None = None,
) -> Rows:
    """The same cells at each time, but each beside the one it can be reached from at least cost.

    Parameters
    ----------
    index : (n, T) cells of each row, paired at random.
    splits
        Name -> rows.
    conditions
        Of each row.
    low : (cells, components) where cells lie.
    seen
        Times that rows of training and validation have cells of.
    strata
        Number of the stratum of each row, where there are some.

    Returns
    -------
    (n, T); within a split and condition each column holds the cells it held, in another order. The last one stays.

    Notes
    -----
    `partners_of` within mini-batches (as in minibatch OT, Fatras et al. 2020), of rows that were drawn at random.
    """
    of = np.asarray(conditions, dtype=object)
    result = index.copy()
    for split, rows in splits.items():
        last = (seen if split in _BLIND else index.shape[1]) - 1
        for where in places(of[rows], None if strata is None else strata[rows]).values():
            here = rows[where]
            for batch in np.array_split(here, -(-len(here) // TRANSPORT_BATCH)):
                for time in range(last, 0, -1):
                    before, after = result[batch, time - 1], result[batch, time]
                    result[batch, time - 1] = before[partners_of(low[after], low[before])]
    return result


def components(values: Matrix, training: Rows, seed: int) -> Matrix:
    """Where cells lie for transport, (cells, components): principal components of training cells alone.

    Parameters
    ----------
    values : (cells, genes)
    training : positions of the cells that training sees.
    seed
        The data seed.
    """
    if len(training) > _FITTED_CELLS:
        random = np.random.default_rng(derive(seed, "cells of transport"))
        training = np.sort(random.choice(training, _FITTED_CELLS, replace=False))
    fitted = values[training]
    count = min(COMPONENTS, *fitted.shape)
    _, _, basis = randomized_svd(fitted - fitted.mean(0), count, random_state=derive(seed, "transport") % 2**32)
    low: Matrix = (values @ basis.T).astype(np.float32)
    return low
