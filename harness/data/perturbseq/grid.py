"""What one count gives in a cell: the unit of which all its values are whole multiples.

Counts scaled by a factor of their cell lie on such a grid; no other usual transformation leaves them on it, so that it
proves what was done to them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

from harness.data.perturbseq import blocks
from harness.data.perturbseq.blocks import Block, Values

#: Values below so many units must be this near a whole multiple; and those below more, with the unit fitted to these.
_NEAR, _TOLERANCE = 100, 0.01
_FAR, _FAR_TOLERANCE = 2000, 0.1
#: The same for values that were rounded, of which the small ones alone are precise enough.
_COARSE_NEAR, _COARSE_TOLERANCE = 12, 0.06
#: Parts of the smallest step that may be what one count gives, in a cell where no gene has one count.
_DIVISORS = (2, 3, 4, 5, 6)
#: A cell with fewer different values says nothing on whether they lie on a grid.
FEWEST_DISTINCT = 3


def rounded(values: npt.NDArray[np.float32]) -> bool:
    """Whether all values were rounded, to float16 or to three decimals."""
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16).astype(np.float32)
    thousandths = values.astype(np.float64) * 1000
    precision = np.minimum(0.01 + 1e-7 * thousandths, 0.25)  # of float32
    return bool(np.all(halves == values) or np.all(np.abs(thousandths - np.round(thousandths)) < precision))


def on_grid(linear: Block, coarse: bool = False) -> bool:
    """Whether most cells' values are whole multiples of one unit; a cell of few different values has no say.

    Parameters
    ----------
    linear : (cells, genes)
    coarse
        Whether they were rounded before.
    """
    unit, distinct = units(linear, coarse=coarse)
    votes = np.isfinite(unit[distinct >= FEWEST_DISTINCT])
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
    unit, distinct = units(blocks.expm1(logs), _DIVISORS)
    return np.where(distinct > 0, unit, 0.0)


def units(linear: Block, divisors: Sequence[int] = (), *, coarse: bool = False) -> tuple[Values, npt.NDArray[np.int64]]:
    """The unit of which a cell's values are whole multiples, and over how many different multiples of it.

    It is the smallest step between them, zero among them, or a fraction of it; where they were rounded, the smallest
    value or a fraction of that; NaN where they are no whole multiples of any tried.

    Parameters
    ----------
    linear : (cells, genes)
    divisors
        Parts of the smallest step that are tried after it.
    coarse
        Whether they were rounded before, so that small values alone are looked at, and less strictly.

    Returns
    -------
    tuple
        (cells,) units, and (cells,) numbers of different multiples.
    """
    cells = linear.shape[0]
    rows, values = _sorted(linear)
    begins = np.diff(rows, prepend=-1) > 0
    if coarse:
        least = np.repeat(values[begins], np.diff(np.flatnonzero(np.r_[begins, True])))
        small = values < _COARSE_NEAR * least
        rows, values, begins = rows[small], values[small], begins[small]
    steps = np.diff(values, prepend=0.0)
    steps[begins] = values[begins]
    # smaller steps are equal values, rounded; of coarse values the least alone is precise enough to begin with
    real = begins if coarse else steps > 1e-4 * values
    step = np.full(cells, np.inf)
    np.minimum.at(step, rows[real], steps[real])
    unit, distinct = _fitted(rows, values, step, coarse)
    for divisor in divisors:
        open_ = np.isnan(unit) & (distinct > 0)
        if not open_.any():
            break
        of = open_[rows]
        again, more = _fitted(rows[of], values[of], step / divisor, coarse)
        unit, distinct = np.where(open_, again, unit), np.maximum(distinct, more)
    return unit, distinct


def _sorted(linear: Block) -> tuple[npt.NDArray[np.int64], Values]:
    """Positive values of all cells, each cell's ascending, and the cell of each."""
    block = sparse.csr_array(linear)
    rows, values = blocks.rows_of(block), block.data.astype(np.float64)
    used = np.isfinite(values) & (values > 0)
    rows, values = rows[used], values[used]
    order = np.lexsort((values, rows))
    return rows[order], values[order]


def _fitted(
    rows: npt.NDArray[np.int64], values: Values, unit: Values, coarse: bool
) -> tuple[Values, npt.NDArray[np.int64]]:
    """Units fitted by least squares to values that are whole multiples of them, NaN where they are not; see `units`.

    First come values below 100 units, then, with the better unit, those below 2,000: float32 keeps these ratios well
    enough to tell a whole number.
    """
    cells = len(unit)
    with np.errstate(over="ignore"):  # a step can be as small as rounding makes it
        ratio = values / unit[rows]
    near = ratio < _NEAR
    multiple = np.round(ratio[near])
    of = rows[near]
    tolerance = _COARSE_TOLERANCE if coarse else _TOLERANCE
    off = np.bincount(of[np.abs(ratio[near] - multiple) >= tolerance], minlength=cells) > 0
    new = (np.diff(multiple, prepend=-1) != 0) | (np.diff(of, prepend=-1) != 0)
    distinct = np.bincount(of[new], minlength=cells)
    weight = np.bincount(of, weights=multiple**2, minlength=cells)
    better = np.bincount(of, weights=values[near] * multiple, minlength=cells)
    better = np.divide(better, weight, out=np.full(cells, np.nan), where=~off & (weight > 0))
    if coarse:
        return better, distinct
    ratio = values / better[rows]
    wrong = (ratio < _FAR) & (np.abs(ratio - np.round(ratio)) >= _FAR_TOLERANCE)
    return np.where(np.bincount(rows[wrong], minlength=cells) > 0, np.nan, better), distinct
