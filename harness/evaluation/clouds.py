"""Cells of one side of a comparison, and the means over pairs of cells that distances of distributions are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.evaluation.regression import squared_distances
from harness.evaluation.scores import Array, Index

#: Bandwidths of the MMD: these factors times the median squared distance between true cells.
BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class PairMeans:
    """Over pairs of cells: the mean distance, and the mean of the Gaussian kernels, all bandwidths together."""

    distance: float
    kernel: float

    @classmethod
    def between(cls, squares: Array, median: float) -> PairMeans:
        """Over all pairs of one cell each of two sets, from their squared distances (n, m)."""
        return cls(float(np.sqrt(squares).mean()), float(_kernel(squares, median).mean()))

    @classmethod
    def within(cls, squares: Array, median: float, kin: int = 1) -> PairMeans:
        """Over pairs of cells of one set, (n, n), of different ``kin``; of all pairs where there is one kin only."""
        return cls(_mean_pair(np.sqrt(squares), kin), _mean_pair(_kernel(squares, median), kin))


class Cloud:
    """Cells, with what is asked of them again and again.

    Parameters
    ----------
    cells : (n, genes)
    squares : (n, n) squared distances between them, where they are known already.
    kin
        So many rows after each other were predicted from one control cell, of which they keep what its perturbation
        leaves alone: nearer to each other than cells are, they are no pair, or the energy distance of a perfect
        prediction would be above 0.
    """

    def __init__(self, cells: Array, squares: Array | None = None, kin: int = 1) -> None:
        self.cells = cells
        self.mean: Array = cells.mean(axis=0)
        self._inner = _Inner(cells, squares, kin)

    def __len__(self) -> int:
        return len(self.cells)

    def shifted(self, shift: Array) -> Cloud:
        """All cells moved by ``shift`` (genes,): they keep the distances between them, so that none is taken anew."""
        moved = Cloud(self.cells + shift)
        moved._inner = self._inner
        return moved

    @property
    def squares(self) -> Array:
        """Squared distances between the cells, (n, n)."""
        return self._inner.squares

    def within(self, genes: Index | None, median: float) -> PairMeans:
        """Means over pairs of the cells, by the distance over some genes (None: all)."""
        return self._inner.within(genes, median)


class _Inner:
    """Distances between cells that are moved together."""

    def __init__(self, cells: Array, squares: Array | None, kin: int) -> None:
        self._cells, self._kin = cells, kin
        self._known: dict[tuple[bytes, float], PairMeans] = {}
        if squares is not None:
            self.squares = squares

    @cached_property
    def squares(self) -> Array:
        return squared_distances(self._cells, self._cells)

    def within(self, genes: Index | None, median: float) -> PairMeans:
        key = (b"" if genes is None else genes.tobytes(), median)
        if key not in self._known:
            squares = self.squares if genes is None else distances_on(self._cells, self._cells, genes)
            self._known[key] = PairMeans.within(squares, median, self._kin)
        return self._known[key]


def distances_on(a: Array, b: Array, genes: Index | None) -> Array:
    """Squared Euclidean distances (n, m) of cells over some genes (None: all)."""
    return squared_distances(a, b) if genes is None else squared_distances(a[:, genes], b[:, genes])


def median_distance(within: Array, true: Array, control: Array) -> float:
    """Median squared distance between true cells; to control cells, then 1, where the true cells coincide.

    Parameters
    ----------
    within : (m, m) squared distances between the true cells.
    true, control : (m, genes), (k, genes)
    """
    least = 1e-12 * float(np.mean(true**2))  # not simply 0: identical cells far from the origin are a rounding apart
    off_diagonal = within[~np.eye(len(within), dtype=bool)]
    if off_diagonal.size and (median := float(np.median(off_diagonal))) > least:
        return median
    median = float(np.median(squared_distances(true, control)))
    return median if median > least else 1.0


def _kernel(squares: Array, median: float) -> Array:
    """Mean of the Gaussian kernels exp(-d^2 / (2 f median)) over the factors f of ``BANDWIDTHS``."""
    # each bandwidth is half the one after it: its kernel is that one's square
    kernel = np.exp(squares * (-0.5 / (BANDWIDTHS[-1] * median)))
    total = kernel.copy()
    for _ in BANDWIDTHS[1:]:
        kernel *= kernel
        total += kernel
    total /= len(BANDWIDTHS)
    return total


def _mean_pair(values: Array, kin: int) -> float:
    """Mean of (n, n) outside the blocks (kin, kin) on its diagonal; of all of it where it is one block."""
    n = len(values)
    if n == kin:
        return float(values.mean())
    families = values.reshape(n // kin, kin, n // kin, kin)
    return float((values.sum() - np.einsum("aiaj->", families)) / (n * (n - kin)))
