"""Unseen conditions together: the mean of each metric over conditions, and its bootstrap interval."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from harness.evaluation.resampling import interval_of_correlations
from harness.evaluation.scores import Array, Scores

Interval = tuple[float, float]


def aggregate(per_condition: Mapping[str, Mapping[str, float]]) -> Scores:
    """Mean of each metric over conditions, every condition with the same weight.

    Parameters
    ----------
    per_condition
        condition -> metric -> value.

    Returns
    -------
    The means. A value that is not finite is left out of its mean and a warning names metric and condition; a metric
    without any finite value is absent.
    """
    means, warnings = {}, []
    for name, column in _columns(per_condition).items():
        finite = [value for value in column.values() if np.isfinite(value)]
        warnings += [
            f"{name} of {c} is {value} and left out of the mean"
            for c, value in column.items()
            if not np.isfinite(value)
        ]
        if finite:
            means[name] = float(np.mean(finite))
    return Scores(means, tuple(warnings))


def intervals(
    per_condition: Mapping[str, Mapping[str, float]],
    samples: Mapping[str, Mapping[str, Array]] | None = None,
    *,
    seed: int,
    only_sampled: Collection[str] = (),
) -> dict[str, Interval]:
    """Bootstrap 95 % interval of each metric's mean over the conditions that have a finite value of it.

    Parameters
    ----------
    per_condition
        condition -> metric -> value.
    samples
        condition -> correlation -> its value in each bootstrap sample of the measured cells (SAMPLES,), where cells and
        controls are to be drawn anew with the conditions; see `resampling`.
    only_sampled
        Names that have no interval without such samples.
    seed
        Governs the resampling, which is the same for every metric and every row of a table.

    Returns
    -------
    metric -> (low, high); a metric of fewer than two conditions is absent.
    """
    sizes: dict[int, dict[str, list[float]]] = {}
    found: dict[str, Interval] = {}
    for name, column in _columns(per_condition).items():
        finite = {c: value for c, value in column.items() if np.isfinite(value)}
        drawn = [of[name] for c, of in (samples or {}).items() if c in finite and name in of]
        if len(drawn) == len(finite) >= 2:
            found[name] = interval_of_correlations(np.array(list(finite.values())), np.stack(drawn), seed)
        elif name not in only_sampled:
            sizes.setdefault(len(finite), {})[name] = list(finite.values())
    for size, columns in sizes.items():
        if size < 2:
            continue
        ends = _bootstrap(np.array(list(columns.values())).T, seed, 0.95, 2000)
        found |= {name: (float(low), float(high)) for name, low, high in zip(columns, *ends, strict=True)}
    return found


def bootstrap_interval(
    values: Sequence[float], *, seed: int, level: float = 0.95, resamples: int = 2000
) -> Interval | None:
    """Percentile bootstrap interval of the mean over conditions.

    Parameters
    ----------
    values
        One value a condition.
    seed
        Governs the resampling.
    level
        Coverage aimed at. With fewer than about ten conditions the interval is too short.
    resamples
        Number of bootstrap samples.

    Returns
    -------
    (low, high), or None for fewer than two conditions, where nothing can be said.
    """
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) < 2:
        return None
    low, high = _bootstrap(sample[:, None], seed, level, resamples)
    return float(low[0]), float(high[0])


def _bootstrap(values: Array, seed: int, level: float, resamples: int) -> tuple[Array, Array]:
    """Ends of the interval of each column of (conditions, metrics) values."""
    n = len(values)
    draws = np.random.default_rng([seed, 2]).integers(n, size=(resamples, n))
    # how often each condition was drawn, as weights: one product serves all metrics
    counts = np.bincount((draws + n * np.arange(resamples)[:, None]).ravel(), minlength=n * resamples)
    centre = values[0]  # equal values then have an interval of exactly no length
    means = centre + counts.reshape(resamples, n) @ (values - centre) / n
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def _columns(per_condition: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """metric -> condition -> value."""
    names = dict.fromkeys(name for values in per_condition.values() for name in values)
    return {name: {c: v[name] for c, v in per_condition.items() if name in v} for name in names}
