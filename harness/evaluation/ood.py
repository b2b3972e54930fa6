"""How well a predicted condition agrees with the cells measured under it: the out-of-distribution metrics.

Every metric compares (n, features) predicted cells with (m, features) true cells of one condition; a model, a
baseline and the floor (one half of the true cells as the prediction of the other) pass through the same code.
Unseen conditions are summarised by the mean over conditions and its bootstrap interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from harness.evaluation.regression import squared_distances
from harness.evaluation.scores import Array, Scores, as_matrix

#: Bandwidths of the MMD: these factors times the median squared distance between true cells.
BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
#: Random halvings of the true cells behind a floor.
HALVINGS = 5
#: Fewest true cells that can be halved: two a half, for the distances within it.
FEWEST_TO_HALVE = 4


@dataclass(frozen=True)
class _Case:
    """One prediction against one truth, with what several metrics share."""

    predicted: Array
    true: Array
    control_mean: Array
    within_predicted: Array  # squared distances (n, n)
    between: Array  # (n, m)
    within_true: Array  # (m, m)
    median: float
    seed: int

    @property
    def predicted_mean(self) -> Array:
        mean: Array = self.predicted.mean(axis=0)
        return mean

    @property
    def true_mean(self) -> Array:
        mean: Array = self.true.mean(axis=0)
        return mean


#: A value, and why it had to be settled by convention ("" where it is simply defined).
_Result = tuple[float, str]


@dataclass(frozen=True)
class Metric:
    """A metric of the registry.

    Attributes
    ----------
    name : as in ``ood/<split>/<name>``.
    direction : which way is better.
    best : the value of a perfect prediction.
    doc : definition, conventions and source.
    """

    name: str
    direction: Literal["minimize", "maximize"]
    best: float
    doc: str
    compute: Callable[[_Case], _Result]

    @property
    def floor_name(self) -> str:
        """Name of its split-half score: ``_floor`` where less is better, ``_ceiling`` where more is."""
        return f"{self.name}_{'floor' if self.direction == 'minimize' else 'ceiling'}"


def score_condition(predicted: ArrayLike, true: ArrayLike, control: ArrayLike, *, seed: int) -> Scores:
    """Every metric of ``METRICS`` for one condition.

    Parameters
    ----------
    predicted
        (n, features) predicted cells; one row is a point mass, a prediction without variance.
    true
        (m, features) cells measured under the condition.
    control
        (k, features) control cells; changes are taken from their mean.
    seed
        Governs the random pairing of ``rmse_relative``.

    Returns
    -------
    Scores named as in ``METRICS``, always finite. Where one is undefined (a correlation with a constant change) it
    is 0 and a warning names it.

    Raises
    ------
    NonFiniteError
        NaN or infinity in an array, which it names.
    ValueError
        An empty array, or numbers of features that disagree.
    """
    return Reference(true, control, seed=seed).score(predicted)


class Reference:
    """The true cells of one condition, ready to score several predictions against.

    Parameters
    ----------
    true, control, seed
        As in ``score_condition``.
    """

    def __init__(self, true: ArrayLike, control: ArrayLike, *, seed: int) -> None:
        self.true = _cells(true, "true cells")
        control_cells = _cells(control, "control cells")
        _same_features(self.true, control_cells, "control cells")
        self.control_mean: Array = control_cells.mean(axis=0)
        self.seed = seed
        self.within = squared_distances(self.true, self.true)
        self.median = _median_distance(self.within, self.true, control_cells)

    def score(self, predicted: ArrayLike, *, within: Array | None = None) -> Scores:
        """Every metric for one prediction; see ``score_condition``.

        ``within`` holds the (n, n) squared distances between predicted cells where they are known already: cells
        shifted together keep theirs, which spares the baselines the dearest product.
        """
        cells = _cells(predicted, "predicted cells")
        _same_features(self.true, cells, "predicted cells")
        within, between = squared_distances(cells, cells), squared_distances(cells, self.true)
        return _score(_Case(cells, self.true, self.control_mean, within, between, self.within, self.median, self.seed))

    def floor(self) -> Scores:
        """What a perfect model would score: one random half of the true cells as prediction of the other.

        Returns
        -------
        The mean over ``HALVINGS`` random halvings, under ``Metric.floor_name``; empty, with a warning, below four
        cells. Halves are smaller than the whole, so that noise of the mean makes the floor slightly pessimistic.
        """
        if len(self.true) < FEWEST_TO_HALVE:
            return Scores({}, (f"{len(self.true)} true cells cannot be halved: no floor",))
        rng = np.random.default_rng([self.seed, 1])
        rounds = [_score(self._halved(rng.permutation(len(self.true)))).values for _ in range(HALVINGS)]
        return Scores({m.floor_name: float(np.mean([r[m.name] for r in rounds])) for m in METRICS.values()})

    def _halved(self, order: np.ndarray) -> _Case:
        a, b = order[: len(order) // 2], order[len(order) // 2 :]
        return _Case(
            predicted=self.true[a],
            true=self.true[b],
            control_mean=self.control_mean,
            within_predicted=self.within[np.ix_(a, a)],
            between=self.within[np.ix_(a, b)],
            within_true=self.within[np.ix_(b, b)],
            median=self.median,
            seed=self.seed,
        )


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
    names = list(dict.fromkeys(name for values in per_condition.values() for name in values))
    means, warnings = {}, []
    for name in names:
        column = {c: v[name] for c, v in per_condition.items() if name in v}
        finite = [value for value in column.values() if np.isfinite(value)]
        warnings += [
            f"{name} of {c} is {value} and left out of the mean"
            for c, value in column.items()
            if not np.isfinite(value)
        ]
        if finite:
            means[name] = float(np.mean(finite))
    return Scores(means, tuple(warnings))


def bootstrap_interval(
    values: Sequence[float], *, seed: int, level: float = 0.95, resamples: int = 2000
) -> tuple[float, float] | None:
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
    draws = np.random.default_rng([seed, 2]).integers(len(sample), size=(resamples, len(sample)))
    low, high = np.quantile(sample[draws].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


# --------------------------------------------------------------------------------------------- the metrics


def _rmse_relative(case: _Case) -> _Result:
    """sqrt(mean((predicted − true)²) / mean(true²)), cells against cells (the published RMSE).

    Cells of both sides are paired at random (min(n, m) pairs). A prediction without variance between cells scores
    better than one with the right variance: read it beside ``energy_distance``. If all true values are 0, it is
    not divided.
    """
    rng = np.random.default_rng([case.seed, 0])
    pairs = min(len(case.predicted), len(case.true))
    predicted = case.predicted[rng.permutation(len(case.predicted))[:pairs]]
    true = case.true[rng.permutation(len(case.true))[:pairs]]
    return _relative(float(np.mean((predicted - true) ** 2)), true)


def _rmse_relative_mean(case: _Case) -> _Result:
    """The same with the mean of the predicted cells in place of each: condition mean against cells."""
    return _relative(float(np.mean((case.predicted_mean - case.true) ** 2)), case.true)


def _relative(squared_error: float, true: Array) -> _Result:
    size = float(np.mean(true**2))
    if size == 0.0:
        return float(np.sqrt(squared_error)), "all true values are 0, so that it is not divided by them"
    return float(np.sqrt(squared_error / size)), ""


def _rmse(case: _Case) -> _Result:
    """Root mean squared difference of the two means over features (bulk), in units of the data."""
    return float(np.sqrt(np.mean((case.predicted_mean - case.true_mean) ** 2))), ""


def _l2(case: _Case) -> _Result:
    """Euclidean distance of the two means: ``rmse`` times the root of the number of features."""
    return float(np.linalg.norm(case.predicted_mean - case.true_mean)), ""


def _r2(case: _Case) -> _Result:
    """1 − SSE / SST over features, of the predicted mean for the true mean; not clipped."""
    return _determination(case.true_mean, case.predicted_mean, "true")


def _r2_published(case: _Case) -> _Result:
    """max(0, R²) with the *prediction* as truth, as in the reference code of the published tables."""
    value, why = _determination(case.predicted_mean, case.true_mean, "predicted")
    return max(0.0, value), why


def _determination(truth: Array, predicted: Array, side: str) -> _Result:
    if _is_flat(truth, float(np.abs(truth).max(initial=0.0))):
        return 0.0, f"the {side} mean is the same in every feature"
    return 1.0 - float(((truth - predicted) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()), ""


def _pearson_delta(case: _Case) -> _Result:
    """Pearson correlation over features of predicted and true mean change from control.

    0, with a warning, where one of the changes is constant: predicting no change earns no correlation.
    """
    scale = float(np.abs(case.control_mean).max(initial=0.0))
    predicted, true = case.predicted_mean - case.control_mean, case.true_mean - case.control_mean
    for change, side in ((predicted, "predicted"), (true, "true")):
        if _is_flat(change, scale):
            return 0.0, f"the {side} change is the same in every feature"
    return float(np.corrcoef(predicted, true)[0, 1]), ""


def _is_flat(vector: Array, scale: float) -> bool:
    """Whether the spread over features is rounding noise of numbers as large as ``scale``."""
    return float(vector.std()) <= 1e-9 * max(scale, float(np.abs(vector).max(initial=0.0)))


def _mmd(case: _Case) -> _Result:
    """Squared maximum mean discrepancy, unbiased (can be slightly negative), mean of five Gaussian kernels.

    Kernels exp(−d² / (2 s)), s = 2^k times the median squared distance between *true* cells, k = −2 … 2: the same
    kernels for every prediction of a condition.
    """
    total = 0.0
    for factor in BANDWIDTHS:
        rate = -0.5 / (factor * case.median)
        within = _mean_pair(np.exp(rate * case.within_predicted)) + _mean_pair(np.exp(rate * case.within_true))
        total += within - 2.0 * float(np.exp(rate * case.between).mean())
    return total / len(BANDWIDTHS), ""


def _energy_distance(case: _Case) -> _Result:
    """2 E‖X − Y‖ − E‖X − X'‖ − E‖Y − Y'‖, Euclidean, unbiased (can be slightly negative), no root taken.

    Székely & Rizzo 2013. Its square root, with biased means, is what ``scipy.stats.energy_distance`` gives.
    """
    within = _mean_pair(np.sqrt(case.within_predicted)) + _mean_pair(np.sqrt(case.within_true))
    return 2.0 * float(np.sqrt(case.between).mean()) - within, ""


def _mean_pair(values: Array) -> float:
    """Mean over pairs of different cells; of a single cell with itself, which is then a point mass."""
    n = len(values)
    if n == 1:
        return float(values[0, 0])
    return float((values.sum() - np.trace(values)) / (n * (n - 1)))


_TABLE: tuple[tuple[str, Literal["minimize", "maximize"], float, Callable[[_Case], _Result]], ...] = (
    ("rmse_relative", "minimize", 0.0, _rmse_relative),
    ("rmse_relative_mean", "minimize", 0.0, _rmse_relative_mean),
    ("rmse", "minimize", 0.0, _rmse),
    ("l2", "minimize", 0.0, _l2),
    ("r2", "maximize", 1.0, _r2),
    ("r2_published", "maximize", 1.0, _r2_published),
    ("pearson_delta", "maximize", 1.0, _pearson_delta),
    ("mmd", "minimize", 0.0, _mmd),
    ("energy_distance", "minimize", 0.0, _energy_distance),
)
#: Every metric by name, in the order of a table.
METRICS: dict[str, Metric] = {
    name: Metric(name, direction, best, compute.__doc__ or "", compute) for name, direction, best, compute in _TABLE
}


def _score(case: _Case) -> Scores:
    values, warnings = {}, []
    for metric in METRICS.values():
        values[metric.name], why = metric.compute(case)
        if why:
            warnings.append(f"{metric.name} is {values[metric.name]:.4g} by convention: {why}")
    return Scores(values, tuple(warnings))


def _median_distance(within: Array, true: Array, control: Array) -> float:
    """Median squared distance between true cells; to control cells, then 1, where the true cells coincide."""
    off_diagonal = within[~np.eye(len(within), dtype=bool)]
    for squares in (off_diagonal, squared_distances(true, control)):
        # Not simply > 0: identical cells far from the origin are a rounding error apart.
        if squares.size and (median := float(np.median(squares))) > 1e-12 * float(np.mean(true**2)):
            return median
    return 1.0


def _cells(values: ArrayLike, name: str) -> Array:
    cells = as_matrix(values, name)
    if cells.size == 0:
        raise ValueError(f"{name} are empty: shape {cells.shape}")
    return cells


def _same_features(true: Array, other: Array, name: str) -> None:
    if other.shape[1] != true.shape[1]:
        raise ValueError(f"{name} have {other.shape[1]} features, true cells {true.shape[1]}")
