"""R² of a set of factors from a set of features: kernel ridge and least squares, fitted and scored apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from harness.evaluation.scores import Array, is_constant

#: The published search (CITRIS, Causal3DIdent): ridge weights and RBF widths.
ALPHAS: tuple[float, ...] = (1.0, 0.1, 0.01, 0.001)
GAMMAS: tuple[float, ...] = tuple(float(g) for g in np.logspace(-2, 2, 4))
FOLDS = 3


def squared_distances(a: Array, b: Array) -> Array:
    """Squared Euclidean distances by matrix products, (n, m), never below zero.

    Parameters
    ----------
    a, b
        (n, f) and (m, f).
    """
    centre = b.mean(axis=0)  # keeps the cancellation below small when the data lie far from the origin
    a, b = a - centre, b - centre
    squares: Array = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :]
    products = a @ b.T
    products *= 2.0
    squares -= products
    np.maximum(squares, 0.0, out=squares)
    return squares


def r2(truth: Array, predicted: Array) -> float:
    """1 − SSE / SST over all columns together, SST about each column's mean; 0 for a constant truth.

    Parameters
    ----------
    truth, predicted
        (n, columns). Several columns, such as (cos, sin) of one angle, share one score.
    """
    total = float(((truth - truth.mean(axis=0)) ** 2).sum())
    if total == 0.0:
        return 0.0
    return 1.0 - float(((truth - predicted) ** 2).sum()) / total


class Standard:
    """Puts columns into units of the mean and sd they had over some rows; columns constant there are left out.

    Parameters
    ----------
    rows
        (n, columns).
    """

    def __init__(self, rows: Array) -> None:
        self.kept = ~is_constant(rows)
        self._mean, self._spread = rows.mean(axis=0), rows.std(axis=0)

    def __call__(self, rows: Array) -> Array:
        """(m, columns) to (m, columns kept)."""
        scaled: Array = (rows[:, self.kept] - self._mean[self.kept]) / self._spread[self.kept]
        return scaled

    def restored(self, scaled: Array) -> Array:
        """(m, columns kept) to (m, columns); those left out take the value they had."""
        rows = np.tile(self._mean, (len(scaled), 1))
        rows[:, self.kept] += scaled * self._spread[self.kept]
        return rows


class LinearRegression:
    """Ordinary least squares with an intercept (minimum norm if under-determined), for several factors at once.

    Parameters
    ----------
    features
        (n, p).
    factors
        One (n, c) array a factor.
    """

    def __init__(self, features: Array, factors: Sequence[Array]) -> None:
        self._scale = Standard(features)
        self._centres = [factor.mean(axis=0) for factor in factors]
        design = self._scale(features)
        self._weights = [
            np.linalg.lstsq(design, factor - centre, rcond=None)[0] if design.shape[1] else None
            for factor, centre in zip(factors, self._centres, strict=True)
        ]

    def r2(self, features: Array, factors: Sequence[Array]) -> list[float]:
        """One R² a factor on other rows, not clipped; 0 where every feature was constant.

        Parameters
        ----------
        features
            (m, p).
        factors
            One (m, c) array a factor.
        """
        design = self._scale(features)
        return [
            0.0 if weights is None else r2(factor, design @ weights + centre)
            for factor, weights, centre in zip(factors, self._weights, self._centres, strict=True)
        ]


class KernelRidge:
    """Kernel ridge regression with an RBF kernel, for several factors at once.

    Features and factors are standardised on the rows given; α and γ are chosen for each factor by the mean R² of a
    3-fold search over ``ALPHAS`` and ``GAMMAS`` within them, as in the published protocol. All factors share the
    factorisations, so the cost hardly depends on their number.

    Parameters
    ----------
    features
        (n, p), rows in random order.
    factors
        One (n, c) array a factor.
    """

    def __init__(self, features: Array, factors: Sequence[Array]) -> None:
        self._scale = Standard(features)
        # A factor constant over these rows loses its columns here; r2 then compares with an empty prediction.
        self._scales = [Standard(factor) for factor in factors]
        self._design = self._scale(features)
        self._chosen: list[tuple[float, float]] = []
        self._weights: list[Array] = [np.empty(0)] * len(factors)
        if self._design.shape[1] == 0:
            return
        targets = [scale(factor) for scale, factor in zip(self._scales, factors, strict=True)]
        distances = squared_distances(self._design, self._design)
        self._chosen = _search(distances, targets)
        for alpha, gamma in dict.fromkeys(self._chosen):  # factors that agree share the factorisation
            members = [k for k, chosen in enumerate(self._chosen) if chosen == (alpha, gamma)]
            stacked = np.concatenate([targets[k] for k in members], axis=1)
            solved = _solve(np.exp(-gamma * distances), alpha, stacked)
            ends = np.cumsum([targets[k].shape[1] for k in members])
            for k, weights in zip(members, np.split(solved, ends[:-1], axis=1), strict=True):
                self._weights[k] = weights

    def predict(self, features: Array) -> list[Array]:
        """What is predicted of each factor on other rows (m, p): (m, c) a factor, its mean without any feature."""
        return [scale.restored(part) for scale, part in zip(self._scales, self._predicted(features), strict=True)]

    def r2(self, features: Array, factors: Sequence[Array]) -> list[float]:
        """One R² a factor on other rows, standardised, not clipped; 0 where every feature was constant.

        Parameters
        ----------
        features
            (m, p).
        factors
            One (m, c) array a factor.
        """
        if self._design.shape[1] == 0:
            return [0.0] * len(factors)
        predicted = self._predicted(features)
        return [r2(scale(true), part) for scale, true, part in zip(self._scales, factors, predicted, strict=True)]

    def _predicted(self, features: Array) -> list[Array]:
        """Standardised predictions, (m, columns kept) a factor."""
        found = [np.zeros((len(features), int(scale.kept.sum()))) for scale in self._scales]
        if self._design.shape[1] == 0:
            return found
        distances = squared_distances(self._scale(features), self._design)
        for gamma in {gamma for _, gamma in self._chosen}:
            kernel = np.exp(-gamma * distances)
            for k, chosen in enumerate(self._chosen):
                if chosen[1] == gamma:
                    found[k] = kernel @ self._weights[k]
        return found


def linear_r2(fit_x: Array, fit_y: Sequence[Array], score_x: Array, score_y: Sequence[Array]) -> list[float]:
    """R² of each factor from least squares, fitted on the ``fit`` rows and taken on the ``score`` rows.

    See `LinearRegression`.
    """
    return LinearRegression(fit_x, fit_y).r2(score_x, score_y)


def kernel_r2(fit_x: Array, fit_y: Sequence[Array], score_x: Array, score_y: Sequence[Array]) -> list[float]:
    """R² of each factor from kernel ridge regression, fitted on the ``fit`` rows and taken on the ``score`` rows.

    See `KernelRidge`.
    """
    return KernelRidge(fit_x, fit_y).r2(score_x, score_y)


def _solve(kernel: Array, alpha: float, targets: Array) -> Array:
    """(K + α I)⁻¹ y by Cholesky."""
    regularised = kernel.copy()
    regularised[np.diag_indices_from(regularised)] += alpha
    factor = cho_factor(regularised, lower=True, overwrite_a=True, check_finite=False)
    solution: Array = cho_solve(factor, targets, check_finite=False)
    return solution


def _search(distances: Array, targets: Sequence[Array]) -> list[tuple[float, float]]:
    """Best (α, γ) of each factor by the mean R² over contiguous folds."""
    n = len(distances)
    columns = np.cumsum([0] + [t.shape[1] for t in targets])
    stacked = np.concatenate(list(targets), axis=1)
    grid = [(alpha, gamma) for gamma in GAMMAS for alpha in ALPHAS]
    scores = np.zeros((len(grid), len(targets)))
    for fold in np.array_split(np.arange(n), FOLDS):
        rest = np.setdiff1d(np.arange(n), fold)
        within, across = distances[np.ix_(rest, rest)], distances[np.ix_(fold, rest)]
        for g, gamma in enumerate(GAMMAS):
            kernel, held_out = np.exp(-gamma * within), np.exp(-gamma * across)
            for a, alpha in enumerate(ALPHAS):
                prediction = held_out @ _solve(kernel, alpha, stacked[rest])
                for t in range(len(targets)):
                    part = slice(columns[t], columns[t + 1])
                    scores[g * len(ALPHAS) + a, t] += r2(stacked[fold, part], prediction[:, part])
    return [grid[int(np.argmax(scores[:, t]))] for t in range(len(targets))]
