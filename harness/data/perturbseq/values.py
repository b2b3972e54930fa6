"""What an expression matrix holds, seen from its values, and counts to log-normalised values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

from harness.data.perturbseq import blocks
from harness.data.perturbseq.blocks import Block, Values
from harness.errors import UserError

Matrix = npt.NDArray[np.float32]
Holds = Literal["counts", "lognorm"]

#: Counts per cell after normalisation.
TARGET_SUM = 1e4
#: log(1 + 10^7): no log-normalised value of any usual target sum is larger.
_LARGEST_LOG = 16.2
#: Values below so many units must be this near a whole multiple; and those below more, with the unit fitted to these.
_NEAR, _TOLERANCE = 100, 0.01
_FAR, _FAR_TOLERANCE = 2000, 0.1
#: Parts of the smallest step that may be what one count gives, in a cell where no gene has one count.
_DIVISORS = (2, 3, 4, 5, 6)
#: A cell with fewer different values says nothing on whether they lie on a grid.
_FEWEST_DISTINCT = 3


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
    present = _present(sample)
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


def contradiction(said: Holds, sample: Matrix) -> str:
    """Why a matrix cannot hold what is said of it; empty where it can.

    Negative values, which it cannot hold either way, are left to `check_finite`, which says where they are. Whole
    numbers can be logs as long as they are small.

    Parameters
    ----------
    said
        The user's word.
    sample : (cells, genes)
    """
    present = _present(sample)
    if not len(present) or present.min() < 0:
        return ""
    broken = present[present != np.round(present)]
    if said == "counts" and len(broken):
        return f"holds fractions such as {broken[0]:.4g}, and counts are whole"
    if said == "lognorm" and not len(broken) and present.max() > _LARGEST_LOG:
        return f"holds whole numbers up to {present.max():.4g}, which are counts"
    return ""


def _present(sample: Matrix) -> Matrix:
    return sample[np.isfinite(sample) & (sample != 0)]


def _on_grid(linear: Block) -> bool:
    """Whether most cells' values are whole multiples of one unit; a cell of few different values has no say."""
    unit, distinct = _units(linear)
    votes = np.isfinite(unit[distinct >= _FEWEST_DISTINCT])
    return bool(len(votes)) and float(np.mean(votes)) > 0.5


def counted_in(logs: Block) -> Values:
    """What one count gives in each cell of log-normalised values, in expm1 of them.

    Parameters
    ----------
    logs : (cells, genes)

    Returns
    -------
    ndarray
        (cells,) float64: the unit of which all values are whole multiples; NaN where there is none, 0 for a cell
        without counts.
    """
    unit, distinct = _units(blocks.expm1(logs), _DIVISORS)
    return np.where(distinct > 0, unit, 0.0)


def _units(linear: Block, divisors: Sequence[int] = ()) -> tuple[Values, npt.NDArray[np.int64]]:
    """The unit of which a cell's values are whole multiples, and over how many different multiples of it.

    It is the smallest step between them, zero among them, or a fraction of it; NaN where they are no whole multiples
    of any tried.

    Parameters
    ----------
    linear : (cells, genes)
    divisors
        Parts of the smallest step that are tried after it.

    Returns
    -------
    tuple
        (cells,) units, and (cells,) numbers of different multiples.
    """
    cells = linear.shape[0]
    block = sparse.csr_array(linear)
    rows, values = blocks.rows_of(block), block.data.astype(np.float64)
    used = np.isfinite(values) & (values > 0)
    rows, values = rows[used], values[used]
    order = np.lexsort((values, rows))
    rows, values = rows[order], values[order]
    steps = np.diff(values, prepend=0.0)
    begins = np.diff(rows, prepend=-1) > 0
    steps[begins] = values[begins]
    real = steps > 1e-4 * values  # smaller ones are equal values, rounded
    step = np.full(cells, np.inf)
    np.minimum.at(step, rows[real], steps[real])
    unit, distinct = _fitted(rows, values, step)
    for divisor in divisors:
        open_ = np.isnan(unit) & (distinct > 0)
        if not open_.any():
            break
        of = open_[rows]
        again, more = _fitted(rows[of], values[of], step / divisor)
        unit, distinct = np.where(open_, again, unit), np.maximum(distinct, more)
    return unit, distinct


def _fitted(rows: npt.NDArray[np.int64], values: Values, unit: Values) -> tuple[Values, npt.NDArray[np.int64]]:
    """Units fitted by least squares to values that are whole multiples of them, NaN where they are not; see `_units`.

    First come values below 100 units, then, with the better unit, those below 2,000: float32 keeps these ratios well
    enough to tell a whole number.
    """
    cells = len(unit)
    ratio = values / unit[rows]
    near = ratio < _NEAR
    multiple = np.round(ratio[near])
    of = rows[near]
    off = np.bincount(of[np.abs(ratio[near] - multiple) >= _TOLERANCE], minlength=cells) > 0
    new = (np.diff(multiple, prepend=-1) != 0) | (np.diff(of, prepend=-1) != 0)
    distinct = np.bincount(of[new], minlength=cells)
    weight = np.bincount(of, weights=multiple**2, minlength=cells)
    better = np.bincount(of, weights=values[near] * multiple, minlength=cells)
    better = np.divide(better, weight, out=np.full(cells, np.nan), where=~off & (weight > 0))
    ratio = values / better[rows]
    wrong = (ratio < _FAR) & (np.abs(ratio - np.round(ratio)) >= _FAR_TOLERANCE)
    return np.where(np.bincount(rows[wrong], minlength=cells) > 0, np.nan, better), distinct


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
