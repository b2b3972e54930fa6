"""What an expression matrix holds, seen from its values, and counts to log-normalised values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from harness.data.perturbseq import blocks
from harness.data.perturbseq.blocks import Block
from harness.data.perturbseq.grid import FEWEST_DISTINCT, on_grid, rounded, units
from harness.errors import UserError

Matrix = npt.NDArray[np.float32]
Holds = Literal["counts", "lognorm"]

#: Counts per cell after normalisation.
TARGET_SUM = 1e4
#: log(1 + 10^7): no log-normalised value of any usual target sum is larger.
LARGEST_LOG = 16.2


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
    present = values_in(sample)
    if not len(present):
        return None, "holds only zeros in the cells looked at"
    if present.min() < 0:
        return None, f"holds negative values (such as {present.min():.3g}), as scaled or corrected data do"
    if np.all(present == np.round(present)):
        return "counts", ""
    if present.max() <= LARGEST_LOG:
        coarse = rounded(present)
        if on_grid(np.expm1(sample), coarse) and not on_grid(sample, coarse):
            return "lognorm", ""
    return None, f"holds fractions up to {present.max():.4g} that are neither counts nor logs of scaled counts"


def never_scaled(sample: Matrix) -> bool:
    """Whether log-normalised values are logs of counts as they were, whose sums differ from cell to cell.

    One count then gives one in every cell. Scaled counts do so too in a cell whose sum happened to be the target.

    Parameters
    ----------
    sample : (cells, genes)
    """
    coarse = rounded(values_in(sample))
    linear = np.expm1(sample.astype(np.float64))
    unit, distinct = units(linear, coarse=coarse)
    says = (distinct >= FEWEST_DISTINCT) & np.isfinite(unit)
    whole = np.maximum(np.round(unit[says]), 1)
    if not says.any() or np.mean(np.abs(unit[says] - whole) < 0.005 * whole) < 0.95:
        return False
    sums = linear[says].sum(axis=1)
    return bool(np.ptp(sums) > 0.01 * sums.mean())


def values_in(sample: Matrix) -> Matrix:
    """Finite values other than zero, flat."""
    return sample[np.isfinite(sample) & (sample != 0)]


def log_normalise(counts: Block, target: float = TARGET_SUM) -> Block:
    """log(1 + counts per ``target``) of each cell, in float32; a cell without counts stays zero.

    Parameters
    ----------
    counts : (cells, genes), dense or sparse
    target
        Sum of each cell's counts after scaling.
    """
    total = blocks.row_sums(counts)
    scale = np.divide(target, total, out=np.zeros_like(total), where=total > 0)
    return blocks.log1p(blocks.scaled(counts, scale)).astype(np.float32)


def check_finite(block: Block, cells: Sequence[str], genes: Sequence[str], where: str) -> None:
    """Refuse NaN, infinite and negative values, naming the first.

    Raises
    ------
    UserError
        With the first such cell and gene.
    """
    values = blocks.entries(block)
    # one look where all is well: a NaN is not at least 0, and an infinite value is none below infinity
    if np.all((values >= 0) & (values < np.inf)):
        return
    for wrong, what, remedy in (
        (~np.isfinite(values), "NaN or an infinite value", "fill or drop it"),
        (values < 0, "a negative value", "give counts or log-normalised values, not scaled ones"),
    ):
        if wrong.any():
            cell, gene = blocks.place(block, int(np.argmax(wrong)))
            raise UserError(f"{where} holds {what} at cell {cells[cell]!r}, gene {genes[gene]!r}; {remedy}")
