"""How far a correlation of changes would have differed, had other cells been measured.

The mean over conditions of a correlation with the true change has two sources of chance beside the choice of
conditions: the cells of each condition, and the control cells that the true change is taken from, which all conditions
share. A bootstrap over conditions alone sees neither, so that on a screen without effects its interval leaves out 0
whenever the shared control cells happen to lie in the direction of a prediction. Here both are drawn anew, with the
conditions, in each sample.

What a drawn mean does to a correlation is taken to first order. A correlation taken anew would be that with a change
that holds the noise of the measured cells twice: lower than what was measured, and less spread than it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm, t

from harness.evaluation.measured import Measured
from harness.evaluation.scores import Array, Index

#: Bootstrap samples.
SAMPLES = 1000
#: The quantile at which Student's t stands in for a normal: the end of a 95 % interval.
_END = 0.975
#: Correlations are held this far from 1, where Fisher's z is infinite.
_NEAR_ONE = 1e-6


class MeanNoise:
    """What the mean over all cells would have differed by in each bootstrap sample of them.

    Cells are drawn with replacement from those of ``measured.cells``; where these are some of all, the differences are
    as much smaller as the mean over all is surer. Of few cells the spread is known badly, and the differences are
    larger by as much as a quantile of Student's t is above that of a normal.

    Parameters
    ----------
    measured
        Two cells or more.
    seed
        Governs the samples.
    """

    def __init__(self, measured: Measured, seed: int | Sequence[int]) -> None:
        self._cells = measured.cells - measured.cells.mean(axis=0)
        count, all_cells = len(measured.cells), measured.moments.count
        often = np.random.default_rng(seed).multinomial(count, np.full(count, 1.0 / count), size=SAMPLES)
        few = np.sqrt(count / (count - 1)) * t.ppf(_END, count - 1) / norm.ppf(_END)
        self._share: Array = (often - 1) * (few * np.sqrt(count / all_cells) / count)

    def along(self, direction: Array, genes: Index | None = None) -> Array:
        """The differences in one direction (genes,), each sample's: (SAMPLES,)."""
        cells = self._cells if genes is None else self._cells[:, genes]
        found: Array = self._share @ (cells @ direction)
        return found


def correlation_samples(
    predicted: Array,
    true: Array,
    of_true: Sequence[tuple[float, MeanNoise]],
    genes: Index | None = None,
    of_predicted: Sequence[tuple[float, MeanNoise]] = (),
) -> Array:
    """Correlation of a predicted with the true change in each bootstrap sample of the measured cells.

    Parameters
    ----------
    predicted, true : (genes,)
        Changes, on all genes.
    of_true, of_predicted
        The noise of each mean that the change is made of, with its sign.
    genes
        The genes that are correlated; None: all.

    Returns
    -------
    (SAMPLES,), the correlation and what the noise adds to it to first order; 0 where one of the changes is flat.
    """
    if genes is not None:
        predicted, true = predicted[genes], true[genes]
    one, other = predicted - predicted.mean(), true - true.mean()
    lengths = float(np.linalg.norm(one)), float(np.linalg.norm(other))
    if min(lengths) == 0.0:
        return np.zeros(SAMPLES)
    one, other = one / lengths[0], other / lengths[1]
    correlation = float(one @ other)
    samples = np.full(SAMPLES, correlation)
    # derivatives of the correlation by either change
    for noise, direction in (
        (of_true, (one - correlation * other) / lengths[1]),
        (of_predicted, (other - correlation * one) / lengths[0]),
    ):
        for sign, of in noise:
            samples += sign * of.along(direction, genes)
    return samples


def interval_of_correlations(values: Array, samples: Array, seed: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean correlation over conditions, over conditions, their cells and the control cells.

    Parameters
    ----------
    values : (conditions,) as measured.
    samples : (conditions, SAMPLES)
    seed
        Governs the resampling of conditions, the same for every metric and every row of a table.
    level
        Coverage aimed at.

    Returns
    -------
    Its ends, within [-1, 1]: differences from the measured mean are added to its Fisher z, to first order.
    """
    mean = float(np.clip(values.mean(), _NEAR_ONE - 1, 1 - _NEAR_ONE))
    apart = (resampled_means(samples, seed) - values.mean()) / (1.0 - mean**2)
    low, high = np.tanh(np.arctanh(mean) + np.quantile(apart, [(1 - level) / 2, (1 + level) / 2]))
    return float(low), float(high)


def resampled_means(samples: Array, seed: int) -> Array:
    """Mean over conditions drawn with replacement, (SAMPLES,), from each condition's samples (conditions, SAMPLES)."""
    count = len(samples)
    drawn = np.random.default_rng([seed, 2]).integers(count, size=(count, samples.shape[1]))
    means: Array = np.take_along_axis(samples, drawn, axis=0).mean(axis=0)
    return means
