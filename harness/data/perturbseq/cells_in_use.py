"""Which cells of a file a study uses, in an order that is theirs and not the file's.

Everything that is drawn from cells, down to the mini-batches of training, is drawn by their place. Cells are therefore
put into the order of a hash of their names first: the same cells in a file of another order then give the same results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from harness.data.perturbseq.labels import CONTROL
from harness.data.perturbseq.replay import cell_names
from harness.data.perturbseq.splits import FEWEST_CONTROLS, Rows
from harness.data_spec import PerturbseqData
from harness.errors import UserError
from harness.words import counted, first

if TYPE_CHECKING:
    import pandas as pd

#: Key of the hash, so that no version of a library that hashes by default changes an order.
_HASH_KEY = "harness cells v1"
#: What stands for a missing value.
MISSING = "(missing)"
_MOST_NAMED = 10


@dataclass(frozen=True)
class CellsInUse:
    """Cells of a file, by the rows that trajectories end in.

    Attributes
    ----------
    rows : (n,) rows of the file (of simulated trajectories: numbers of trajectories), in the order of the names' hash.
    conditions : canonical condition of each.
    names : of each, no two alike.
    strata : names of the strata; empty where there are none.
    stratum : (n,) number of each cell's stratum; None where there are none.
    left_out : why cells are not used -> how many.
    """

    rows: Rows
    conditions: tuple[str, ...]
    names: npt.NDArray[np.object_]
    strata: tuple[str, ...]
    stratum: Rows | None
    left_out: dict[str, int]


def cells_in_use(
    spec: PerturbseqData, obs: pd.DataFrame, conditions: npt.NDArray[np.object_], where: str
) -> CellsInUse:
    """The cells that the labels and the study file's ``where`` and ``strata`` leave.

    Parameters
    ----------
    spec
        The study file's ``data``.
    obs
        One row a cell, or of simulated data a trajectory.
    conditions : (cells,) canonical condition of each; empty for a cell whose label names none.
    where
        Name of the data, for error messages.

    Raises
    ------
    UserError
        If a column is not there, holds no such value, or no cell is left.
    """
    names = cell_names(obs.index)
    rows = in_order_of_names(names)
    rows = rows[conditions[rows] != ""]
    left_out: dict[str, int] = {}
    if spec.where is not None:
        wanted = _selected(spec.where, obs, where)
        left_out["not in data.where"] = int(np.sum(~wanted))
        rows = rows[wanted[rows]]
        if not len(rows):
            raise UserError(f"{where}: no cell has all the values of data.where; ask for fewer at once")
    strata: tuple[str, ...] = ()
    stratum = None
    if spec.strata is not None:
        rows, strata, stratum = _stratified(spec.strata, obs, conditions, rows, left_out, where)
    return CellsInUse(
        rows=rows,
        conditions=tuple(conditions[rows].tolist()),
        names=names[rows],
        strata=strata,
        stratum=stratum,
        left_out=left_out,
    )


def in_order_of_names(names: npt.NDArray[np.object_]) -> Rows:
    """All rows in the order of a hash of their names."""
    import pandas as pd

    order: Rows = np.argsort(pd.util.hash_array(names, hash_key=_HASH_KEY), kind="stable")
    return order


def _selected(wanted: Mapping[str, Sequence[object]], obs: pd.DataFrame, where: str) -> npt.NDArray[np.bool_]:
    """Which cells have one of the wanted values in each column, (cells,)."""
    chosen = np.ones(len(obs), dtype=bool)
    for column, values in wanted.items():
        held = values_of(obs, column, "data.where", where)
        asked = [_word(value) for value in values]
        unknown = [value for value in asked if value not in set(held)]
        if unknown:
            there = first(sorted(set(held)), _MOST_NAMED)
            raise UserError(
                f"{where}: data.where asks for {unknown[0]!r} in obs[{column!r}], which no cell has; there are {there}"
            )
        chosen &= np.isin(held, asked)
    return chosen


def values_of(obs: pd.DataFrame, column: str, key: str, where: str) -> npt.NDArray[np.object_]:
    """What a column says of each cell, as text; a whole number reads the same however it is stored.

    Raises
    ------
    UserError
        If there is no such column.
    """
    if column not in obs.columns:
        listed = first([str(name) for name in obs.columns], _MOST_NAMED) or "none at all"
        raise UserError(f"{where}: {key} names obs[{column!r}], and there is no such column; there are {listed}")
    codes, distinct = obs[column].factorize(use_na_sentinel=False)
    words = np.array([_word(value) for value in distinct.tolist()], dtype=object)
    return words[codes]


def _word(value: object) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return MISSING
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _stratified(
    column: str,
    obs: pd.DataFrame,
    conditions: npt.NDArray[np.object_],
    rows: Rows,
    left_out: dict[str, int],
    where: str,
) -> tuple[Rows, tuple[str, ...], Rows]:
    """Rows of the strata that have control cells enough, the names of these strata, and the number of each row's."""
    held = values_of(obs, column, "data.strata", where)[rows]
    controls = Counter(held[conditions[rows] == CONTROL].tolist())
    cells = Counter(held.tolist())
    strata = tuple(sorted(name for name in cells if controls[name] >= FEWEST_CONTROLS and name != MISSING))
    if not strata:
        raise UserError(
            f"{where}: data.strata is {column}, but no value of obs[{column!r}] has {FEWEST_CONTROLS} control cells, "
            f"which each stratum needs for training, validation and test; there are {first(sorted(cells), _MOST_NAMED)}"
        )
    for name in sorted(set(cells) - set(strata)):
        why = f"of stratum {name}, which has {counted(controls[name], 'control cell')}"
        left_out[why] = cells[name]
    kept = np.isin(held, strata)
    number = {name: k for k, name in enumerate(strata)}
    return rows[kept], strata, np.array([number[name] for name in held[kept]], dtype=np.int64)
