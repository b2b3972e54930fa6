"""What an expression matrix holds, seen from its values, and counts to log-normalised values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from harness.errors import UserError

Matrix = npt.NDArray[np.float32]
Holds = Literal["counts", "lognorm"]

#: Counts per cell after normalisation.
TARGET_SUM = 1e4
#: log(1 + 10^7): no log-normalised value of any usual target sum is larger.
_LARGEST_LOG = 16.2


def what_holds(sample: Matrix) -> tuple[Holds | None, str]:
    """Whether a matrix holds counts or natural logs of one plus scaled counts.

    Whole numbers are counts. Within a cell of log-normalised counts, ``exp(x) - 1`` is a whole multiple of what
    one count gives, which no other usual transformation leaves so; where most cells show this, the values are
    log-normalised. Everything else is unclear.

    Parameters
    ----------
    sample : (cells, genes)

    Returns
    -------
    tuple
        ``counts``, ``lognorm`` or None; and, for None, why.
    """
    present = sample[np.isfinite(sample) & (sample != 0)]
    if not len(present):
        return None, "holds only zeros in the cells looked at"
    if present.min() < 0:
        return None, f"holds negative values (such as {present.min():.3g}), as scaled or corrected data do"
    if np.all(present == np.round(present)):
        return "counts", ""
    logged = present.max() <= _LARGEST_LOG and _on_grid(np.expm1(sample))
    if logged and not _on_grid(sample):
        return "lognorm", ""
    return None, f"holds fractions up to {present.max():.4g} that are neither counts nor logs of scaled counts"


def _on_grid(linear: Matrix) -> bool:
    """Whether most cells' values are whole multiples of one unit, the smallest step between them."""
    votes = []
    for cell in linear:
        values = np.sort(cell[np.isfinite(cell) & (cell > 0)])
        steps = np.diff(values, prepend=np.float32(0))
        steps = steps[steps > 1e-4 * values]  # smaller ones are equal values, rounded
        if not len(steps):
            continue
        # float32 keeps ratios below 100 well enough to tell a whole number
        ratio = values / steps.min()
        ratio = ratio[ratio < 100]
        if len(np.unique(np.round(ratio))) >= 3:
            votes.append(bool(np.all(np.abs(ratio - np.round(ratio)) < 0.01)))
    return bool(votes) and float(np.mean(votes)) > 0.5


def log_normalise(counts: Matrix) -> Matrix:
    """log(1 + counts per 10,000) of each cell; a cell without counts stays zero.

    Parameters
    ----------
    counts : (cells, genes)
    """
    total = counts.sum(axis=1, dtype=np.float64, keepdims=True)
    scale = np.divide(TARGET_SUM, total, out=np.zeros_like(total), where=total > 0)
    logs: Matrix = np.log1p(counts * scale).astype(np.float32)
    return logs


def check_finite(block: Matrix, cells: Sequence[str], genes: Sequence[str], where: str) -> None:
    """Refuse NaN, infinite and negative values, naming the first.

    Raises
    ------
    UserError
        With the first such cell and gene.
    """
    for wrong, what, remedy in (
        (~np.isfinite(block), "NaN or an infinite value", "fill or drop it"),
        (block < 0, "a negative value", "give counts or log-normalised values, not scaled ones"),
    ):
        if wrong.any():
            cell, gene = np.argwhere(wrong)[0]
            raise UserError(f"{where} holds {what} at cell {cells[cell]!r}, gene {genes[gene]!r}; {remedy}")
