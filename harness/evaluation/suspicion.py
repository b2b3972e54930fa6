"""Scores that no prediction has by being good: agreement above that of halves of the true cells, negative distances."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.evaluation.aggregate import Interval
from harness.evaluation.ood import CORRELATION
from harness.evaluation.registry import split_half_name
from harness.evaluation.resampling import resampled_means
from harness.evaluation.score_table import FLOOR, ScoreTable
from harness.evaluation.scores import Array

_DISTANCE = "energy_distance"
#: Share of bootstrap samples on the other side that is still clear.
_CLEAR = 0.025


def suspicions(
    table: ScoreTable, means: Mapping[str, Mapping[str, float]], ends: Mapping[str, Mapping[str, Interval]], seed: int
) -> list[str]:
    """One sentence for each row whose changes agree better than halves of the true cells do, or that is too near.

    Parameters
    ----------
    table
        Scores by condition, with their bootstrap samples.
    means, ends
        Row -> metric -> mean over conditions, and its interval.
    seed
        Governs the resampling of conditions.
    """
    said = []
    for row in (row for row in table.tables if row != FLOOR):
        limit = _limit_passed(table, row, seed)
        if limit is not None:
            said.append(
                f"{row}: {CORRELATION} {means[row][CORRELATION]:.2f} lies clearly above {limit:.2f}, what the true "
                "means themselves would have, by how far halves of the true cells agree; look for cells or batches "
                "that prediction and truth share before you believe it"
            )
        low, high = ends.get(row, {}).get(_DISTANCE, (0.0, 0.0))
        if high < 0.0:
            said.append(
                f"{row}: {_DISTANCE} {means[row][_DISTANCE]:.3g} [{low:.3g}, {high:.3g}] lies clearly below 0: the "
                "prediction is nearer to the true cells than cells of one law are to each other, as happens where it "
                "starts from few control cells; give more of them, or do not compare distances"
            )
    return said


def _limit_passed(table: ScoreTable, row: str, seed: int) -> float | None:
    """The limit that a row's mean correlation exceeds in nearly all bootstrap samples; None where it does not."""
    ceiling = split_half_name(CORRELATION)
    both = [
        (own[CORRELATION], halves[ceiling], table.samples[row][c][CORRELATION], table.samples[FLOOR][c][ceiling])
        for c, own in table.tables[row].items()
        if CORRELATION in table.samples[row][c] and ceiling in (halves := table.tables[FLOOR].get(c, {}))
    ]
    if len(both) < 2:
        return None
    own, half = (float(np.mean([one[k] for one in both])) for k in (0, 1))
    limit = float(_of_true_means(half))
    if own <= limit:
        return None
    own_samples, half_samples = (resampled_means(np.stack([one[k] for one in both]), seed) for k in (2, 3))
    gaps = own_samples - _of_true_means(half_samples)
    return limit if np.quantile(gaps, _CLEAR) > 0.0 else None


def _of_true_means(halves: Array | float) -> Array:
    """Correlation of the true means with those of all measured cells, from that between halves of the cells.

    A mean over all cells has the reliability 2r / (1 + r) (Spearman and Brown 1910), and correlates with what is
    measured without error by its root. Noise of control cells, which halving leaves as it is, makes the limit larger
    than it need be, never smaller.
    """
    r = np.maximum(halves, 0.0)
    limit: Array = np.sqrt(2 * r / (1 + r))
    return limit
