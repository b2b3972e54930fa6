"""Cells of counts among log-normalised cells, or the reverse, found in all cells as their blocks pass by."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from harness.data.perturbseq import blocks
from harness.data.perturbseq.blocks import Block
from harness.data.perturbseq.remedies import quoted
from harness.data.perturbseq.values import Holds
from harness.words import first

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

#: Values of an obs column, and names of cells, that are named; the rest is counted.
_MOST_NAMED = 6


class CellKinds:
    """Which cells hold whole numbers alone, and which hold fractions.

    Within a log-normalised cell two different values are never both whole numbers: exp(x) - 1 of them are whole
    multiples of one unit, and (e² - 1) / (e - 1), (e³ - 1) / (e² - 1) and so on are none. So a cell with two different
    values, all whole, holds counts, and a cell with a fraction does not. Cells of one value or none say nothing.

    Parameters
    ----------
    cells
        Number of cells of the file.
    held
        What most of them hold; None where it is unclear.
    """

    def __init__(self, cells: int, held: Holds | None) -> None:
        self.held = held
        self.whole = np.zeros(cells, dtype=bool)
        self.broken = np.zeros(cells, dtype=bool)

    def add(self, rows: Rows, block: Block) -> None:
        """Look at some cells, rows of the file."""
        whole, self.broken[rows] = blocks.whole_rows(block)
        if self.held != "counts":  # among counts a fraction is told enough, and every other cell is taken for counts
            whole[whole] = _of_several_values(block[whole])
        self.whole[rows] = whole

    def odd(self) -> Mask | None:
        """The cells that hold what most others do not, (cells,); None where all hold the same."""
        if not self.whole.any() or not self.broken.any():
            return None
        if self.held is None:
            return self.whole if self.whole.sum() <= self.broken.sum() else self.broken
        return self.whole if self.held == "lognorm" else self.broken

    def told(self, odd: Mask, obs: pd.DataFrame) -> tuple[str, str]:
        """What is wrong, and code that keeps the others alone of an AnnData ``a`` whose matrix is ``{x}``."""
        counts, logs = "whole numbers, as counts are", "fractions, as log-normalised values are"
        here, there = (counts, logs) if odd is self.whole else (logs, counts)
        seen = self.whole | self.broken
        told = f"holds in {int(odd.sum()):,} of {int(seen.sum()):,} cells {here}, and in the others {there}"
        found = best_column(obs, odd, seen)
        if found is None:
            named = first([repr(str(name)) for name in obs.index[odd]], _MOST_NAMED)
            mark = ">" if odd is self.whole else "=="
            return f"{told}; they are {named}", f"a[np.ravel(abs({{x}} - np.rint({{x}})).sum(axis=1)) {mark} 0]"
        column, values, inside, beside = found
        listed = first([repr(value) for value in values], _MOST_NAMED)
        told = f"{told}; {inside:,} of them, and {beside:,} others, have {listed} in obs[{column!r}]"
        texts = ", ".join(map(quoted, values))
        return told, f"a[~a.obs[{quoted(column)}].astype(str).isin([{texts}])]"


def best_column(obs: pd.DataFrame, odd: Mask, seen: Mask) -> tuple[str, list[str], int, int] | None:
    """The obs column whose values hold some cells best, and the others least.

    Parameters
    ----------
    obs : one row a cell.
    odd, seen : (cells,), the cells, and all those that they stand among.

    Returns
    -------
    tuple
        The column, its values that hold more of the cells than of others, how many of the cells have them, and how many
        others; None where no column holds at least half of what it should.
    """
    best, score = None, 0.5
    for name in obs.columns:
        codes, values = pd.factorize(obs[name])
        use = seen & (codes >= 0)
        inside = np.bincount(codes[use & odd], minlength=len(values))
        every = np.bincount(codes[use], minlength=len(values))
        chosen = inside > every / 2
        held, among = int(inside[chosen].sum()), int(every[chosen].sum())
        if held < 2 * chosen.sum() or not held:  # values that each name one cell say nothing
            continue
        reached = held / (int(odd.sum()) + among - held)
        if reached > score or (best is None and reached == score):
            best, score = (str(name), [str(value) for value in values[chosen]], held, among - held), reached
    return best


def _of_several_values(block: Block) -> Mask:
    """Rows with more than one value other than zero; none is empty."""
    found = np.zeros(block.shape[0], dtype=bool)
    if not len(found):
        return found
    if not sparse.issparse(block):
        return np.asarray(block.max(axis=1) > np.where(block == 0, np.inf, block).min(axis=1))
    least = np.minimum.reduceat(np.where(block.data == 0, np.inf, block.data), block.indptr[:-1])
    return np.asarray(np.maximum.reduceat(block.data, block.indptr[:-1]) > least)
