"""Cells measured under one condition: mean and variance of all of them, and some of them drawn for what costs more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from harness.evaluation.scores import Array, as_matrix


@dataclass(frozen=True)
class Moments:
    """Mean and variance (divided by n - 1; 0 for a single cell) of each gene, (genes,), over ``count`` cells."""

    mean: Array
    variance: Array
    count: int

    @classmethod
    def of(cls, cells: Array) -> Moments:
        """Moments of (n, genes) cells."""
        return cls.over([cells])

    @classmethod
    def over(cls, blocks: Iterable[Array]) -> Moments:
        """Moments of blocks of cells, each (n, genes), n > 0; no more than one is held at a time."""
        count, mean, squares = 0, None, None
        for block in blocks:
            own = block.mean(axis=0)
            spread = ((block - own) ** 2).sum(axis=0)
            if mean is None or squares is None:
                count, mean, squares = len(block), own, spread
                continue
            # the update of Chan, Golub and LeVeque 1979, which loses no digits far from the origin
            total, apart = count + len(block), own - mean
            squares = squares + spread + apart**2 * (count * len(block) / total)
            mean = mean + apart * (len(block) / total)
            count = total
        if mean is None or squares is None:
            raise ValueError("there are no cells to take moments of")
        return cls(mean, squares / max(count - 1, 1), count)

    @property
    def spread(self) -> Array:
        """Variance divided by n, (genes,)."""
        spread: Array = self.variance * ((self.count - 1) / self.count)
        return spread


@dataclass(frozen=True)
class Measured:
    """Cells measured under one condition.

    Attributes
    ----------
    cells : (m, genes) those that distances between cells are taken over, drawn at random from all.
    moments : of all of them.
    """

    cells: Array
    moments: Moments

    @classmethod
    def of(cls, cells: ArrayLike, name: str, most: int | None = None, seed: int | Sequence[int] = 0) -> Measured:
        """All cells (n, genes), of which at most ``most`` are drawn.

        Raises
        ------
        NonFiniteError
            NaN or infinity in the cells, which ``name`` names.
        ValueError
            If there are no cells.
        """
        array = as_matrix(cells, name)
        if array.size == 0:
            raise ValueError(f"{name} are empty: shape {array.shape}")
        chosen = array
        if most is not None and len(array) > most:
            chosen = array[np.sort(np.random.default_rng(seed).choice(len(array), most, replace=False))]
        return cls(chosen, Moments.of(array))
