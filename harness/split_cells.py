"""Cells of a split as they are scored, one condition at a time, since memory may not hold them all in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from harness.data.batch import PerturbationData
from harness.data.seeding import drawn
from harness.evaluation.measured import Measured, Moments

Array = NDArray[np.float64]

#: Numbers of a block of cells that is held at once.
_BLOCK = 8_000_000


class SplitCells(Mapping[str, Measured]):
    """Last frames of a split's rows by condition, flattened; made anew each time they are asked for.

    Parameters
    ----------
    data, split
        Which rows.
    most
        Most cells of a condition that are drawn; moments are over all.
    seed
        Governs which cells are drawn.
    seen
        Frames of a row that may be used, the first; None: all.
    stratum
        Number of the only stratum whose rows are used; None: all.
    """

    def __init__(
        self,
        data: PerturbationData,
        split: str,
        most: int,
        *,
        seed: int,
        seen: int | None = None,
        stratum: int | None = None,
    ) -> None:
        self._data, self._split, self._most, self._seed, self._seen = data, split, most, seed, seen
        self._rows: dict[str, Tensor] = data.by_condition(split, stratum)

    def __getitem__(self, condition: str) -> Measured:
        return Measured(self.drawn(condition), self.moments(condition))

    def drawn(self, condition: str) -> Array:
        """At most ``most`` cells of a condition, (n, features)."""
        return self._cells(drawn(self._rows[condition], self._most, self._seed, "cells", self._split, condition))

    def moments(self, condition: str) -> Moments:
        """Mean and variance over all cells of a condition."""
        rows = self._rows[condition]
        size = max(1, _BLOCK // self._data.frames[0].numel())
        return Moments.over(self._cells(part) for part in rows.split(size))

    def count(self, condition: str) -> int:
        """Number of cells of a condition; 0 where it has none."""
        return len(self._rows.get(condition, ()))

    def only(self, wanted: Callable[[str], bool]) -> SplitCells:
        """The same without the conditions that are not wanted."""
        less = copy.copy(self)
        less._rows = {name: rows for name, rows in self._rows.items() if wanted(name)}
        return less

    def _cells(self, rows: Tensor) -> Array:
        data = self._data
        frames = data.frames[data.index[rows, : self._seen][:, -1]]
        cells: Array = data.as_float(frames).flatten(1).double().numpy()
        return cells

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)
