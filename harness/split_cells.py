"""Cells of a split as arrays, one condition at a time: what is scored may be larger than memory holds in float64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from harness.data.batch import PerturbationData

Array = NDArray[np.float64]


class SplitCells(Mapping[str, Array]):
    """Last frames of a split's rows by condition, flattened, float64; made anew each time they are asked for.

    Parameters
    ----------
    data, split
        Which rows.
    most
        Most cells of a condition, the first.
    seen
        Frames of a row that may be used, the first; None: all.
    """

    def __init__(self, data: PerturbationData, split: str, most: int, seen: int | None = None) -> None:
        self._data, self._seen = data, seen
        self._rows: dict[str, Tensor] = {name: rows[:most] for name, rows in data.by_condition(split).items()}

    def __getitem__(self, condition: str) -> Array:
        data = self._data
        frames = data.frames[data.index[self._rows[condition], : self._seen][:, -1]]
        cells: Array = data.as_float(frames).flatten(1).double().numpy()
        return cells

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)
