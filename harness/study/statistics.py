"""A mean over seeds with its uncertainty, and the one comparison the tables make with it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, reduce
from operator import add
from typing import Literal

from scipy import stats

Direction = Literal["higher", "lower"]

#: Coverage of every interval in every table and figure.
COVERAGE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its 95 % t-interval.

    Attributes
    ----------
    mean : arithmetic mean of the finite values.
    low, high : ends of the interval; None where fewer than two values give no spread to measure.
    n : finite values averaged.
    not_finite : values that were NaN or infinite and are in no mean.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    not_finite: int = 0

    @property
    def half_width(self) -> float | None:
        """Half the interval's length; None where there is no interval."""
        return None if self.high is None else self.high - self.mean


def estimate(values: Iterable[float]) -> Estimate | None:
    """Mean and two-sided 95 % interval of Student's t with n - 1 degrees of freedom.

    The seeds are taken as independent draws: ``mean ± t(0.975, n - 1) · sd / √n`` with the sample sd.

    Parameters
    ----------
    values
        One number a seed, in any unit.

    Returns
    -------
    Estimate or None
        None without a finite value; no interval (``low`` and ``high`` None) with one.
    """
    given = list(map(float, values))
    finite = [value for value in given if math.isfinite(value)]
    count, dropped = len(finite), len(given) - len(finite)
    if count == 0:
        return None
    if count == 1 or min(finite) == max(finite):
        # Equal values are returned as they are: their floating-point mean may differ in the last digit.
        end = None if count == 1 else finite[0]
        return Estimate(finite[0], end, end, count, dropped)
    # in plain Python: a report has a hundred thousand means over a few seeds, for which arrays take ten times as long
    mean = _sum(finite) / count
    spread = math.sqrt(_sum((value - mean) * (value - mean) for value in finite) / (count - 1))
    half = _quantile(count - 1) * spread / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half, count, dropped)


def _sum(values: Iterable[float]) -> float:
    """The sum, term by term: the built-in one rounds otherwise in later versions of Python."""
    return reduce(add, values, 0.0)


@cache
def _quantile(freedom: int) -> float:
    """Student's t at the upper end of the interval; kept, since it takes longer than all the rest."""
    return float(stats.t.ppf(0.5 + COVERAGE / 2, freedom))


def above_untrained(score: Estimate, untrained: Estimate, direction: Direction = "higher") -> bool:
    """Whether a score is better than the untrained encoder's interval.

    True exactly if the score's mean lies beyond the better end of the untrained encoder's 95 % interval over
    the same seeds: above ``untrained.high`` where higher is better, below ``untrained.low`` where lower is.
    With one seed the untrained score has no interval, and its value stands for both ends. The score's own
    interval plays no part: the rule asks whether the untrained encoder explains the score, not whether two
    means differ significantly.
    """
    if direction == "higher":
        return score.mean > (untrained.mean if untrained.high is None else untrained.high)
    return score.mean < (untrained.mean if untrained.low is None else untrained.low)


def better(first: float, second: float, direction: Direction) -> bool:
    """Whether the first of two means is strictly the better one."""
    return first > second if direction == "higher" else first < second
