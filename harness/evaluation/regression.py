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
    squares: Array = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2.0 * (a @ b.T)
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


def standardise(fit: Array, score: Array) -> tuple[Array, Array]:
    """Both arrays, less columns constant over ``fit``, in units of the mean and sd of ``fit``."""
    keep = ~is_constant(fit)
    fit, score = fit[:, keep], score[:, keep]
    mean, spread = fit.mean(axis=0), fit.std(axis=0)
    return (fit - mean) / spread, (score - mean) / spread


def linear_r2(fit_x: Array, fit_y: Sequence[Array], score_x: Array, score_y: Sequence[Array]) -> list[float]:
    """R² of each factor from ordinary least squares with an intercept (minimum norm if under-determined).

    Parameters
    ----------
    fit_x, score_x
        (n, p) and (m, p) features.
    fit_y, score_y
        One (n, c) and (m, c) array a factor.

    Returns
    -------
    One R² a factor, taken on the ``score`` rows, not clipped; 0 where every feature is constant.
    """
    design, held_out = standardise(fit_x, score_x)
    if design.shape[1] == 0:
        return [0.0] * len(fit_y)
    scores = []
    for fit, score in zip(fit_y, score_y, strict=True):
        centre = fit.mean(axis=0)
        weights = np.linalg.lstsq(design, fit - centre, rcond=None)[0]
        scores.append(r2(score, held_out @ weights + centre))
    return scores


def kernel_r2(fit_x: Array, fit_y: Sequence[Array], score_x: Array, score_y: Sequence[Array]) -> list[float]:
    """R² of each factor from kernel ridge regression with an RBF kernel.

    Features and factors are standardised on the ``fit`` rows; α and γ are chosen for each factor by the mean
    R² of a 3-fold search over ``ALPHAS`` and ``GAMMAS`` within the ``fit`` rows, as in the published protocol.
    All factors share the factorisations, so the cost hardly depends on their number.

    Parameters
    ----------
    fit_x, score_x
        (n, p) and (m, p) features, rows in random order.
    fit_y, score_y
        One (n, c) and (m, c) array a factor.

    Returns
    -------
    One R² a factor, taken on the ``score`` rows, not clipped; 0 where every feature is constant.
    """
    design, held_out = standardise(fit_x, score_x)
    if design.shape[1] == 0:
        return [0.0] * len(fit_y)
    # A factor constant over the fit rows loses its columns here; r2 then compares with an empty prediction.
    pairs = [standardise(fit, score) for fit, score in zip(fit_y, score_y, strict=True)]
    targets = [fit for fit, _ in pairs]
    distances = squared_distances(design, design)
    cross = squared_distances(held_out, design)
    chosen = _search(distances, targets)
    scores = []
    for (alpha, gamma), (fit, score) in zip(chosen, pairs, strict=True):
        prediction = np.exp(-gamma * cross) @ _solve(np.exp(-gamma * distances), alpha, fit)
        scores.append(r2(score, prediction))
    return scores


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
