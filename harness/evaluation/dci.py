"""Disentanglement, completeness and informativeness of learned latents (DCI)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.evaluation.factors import random_halves
from harness.evaluation.regression import Standard, r2
from harness.evaluation.scores import Array, as_matrix

#: Most rows that fit, and most that are scored: bounds the cost.
ROWS = 512
#: Trees for each factor, their depth, and the share of what is left that each takes away.
TREES, DEPTH, RATE = 40, 3, 0.2


def dci_scores(learned: Array, factors: Sequence[Array], *, seed: int) -> dict[str, float]:
    """DCI from the importances of gradient boosted trees.

    Each factor is predicted from all learned latents by 40 trees of depth 3, fitted on at most 512 rows of one half
    of the cells; their importances (share of the loss they took away) make the matrix of latents × factors. Of an angle
    cosine and sine are predicted, and the importances averaged, weighted by the variances.

    Parameters
    ----------
    learned
        (n, a) learned latents of both blocks, standardised here.
    factors
        One (n, c) array a true factor; an angle is the pair (cos, sin).
    seed
        Governs the halves and the trees.

    Returns
    -------
    dict with ``disentanglement`` and ``completeness``, as `disentanglement_and_completeness` has them, and

    informativeness
        1 less the normalised error on at most 512 rows of the other half, averaged over factors; the error is the
        root mean square relative to that of predicting the mean, as published, and counts at most 1.

    Raises
    ------
    NonFiniteError
        NaN or infinity in the latents.

    Notes
    -----
    Source: Eastwood & Williams 2018, which uses lasso and random forests.
    """
    learned = as_matrix(learned, "learned latents")
    fit, score = (half[:ROWS] for half in random_halves(len(learned), seed))
    scale = Standard(learned[fit])
    kept = np.flatnonzero(scale.kept)
    importances, errors = np.zeros((learned.shape[1], len(factors))), np.ones(len(factors))
    if len(kept):
        design, held_out = scale(learned[fit]), scale(learned[score])
        for k, factor in enumerate(factors):
            importances[kept, k], predicted = _boosted(design, factor[fit], held_out, seed)
            errors[k] = np.sqrt(1.0 - max(r2(factor[score], predicted), 0.0))
    disentanglement, completeness = disentanglement_and_completeness(importances)
    return {
        "disentanglement": disentanglement,
        "completeness": completeness,
        "informativeness": float(np.mean(1.0 - errors)),
    }


def disentanglement_and_completeness(importances: Array) -> tuple[float, float]:
    """How far each latent serves one factor, and how far each factor is served by one latent.

    Parameters
    ----------
    importances
        (latents, factors), not negative: how much each latent says of each factor.

    Returns
    -------
    disentanglement : 1 less the entropy, in units of its maximum, of each latent's importances over the factors,
        averaged over latents by their share of all importance.
    completeness : the same of each factor's importances over the latents, averaged over factors by their share.

    Both in [0, 1]; 0 where nothing is important. A single factor (or latent) leaves no entropy: 1.
    """
    return _concentration(importances), _concentration(importances.T)


def _concentration(importances: Array) -> float:
    """Weighted mean over rows of 1 − entropy / log(columns)."""
    total = importances.sum()
    if total == 0.0:
        return 0.0
    weights = importances.sum(axis=1)
    rows = importances[weights > 0] / weights[weights > 0, None]
    logs = np.log(np.where(rows > 0, rows, 1.0))
    most = np.log(importances.shape[1]) if importances.shape[1] > 1 else 1.0
    each = 1.0 + (rows * logs).sum(axis=1) / most
    return float(np.sum(each * weights[weights > 0]) / total)


def _boosted(design: Array, factor: Array, held_out: Array, seed: int) -> tuple[Array, Array]:
    """Importances (a,) of the features for one factor, and its prediction (m, c) for the rows held out."""
    from sklearn.ensemble import GradientBoostingRegressor

    importances, predicted = np.zeros(design.shape[1]), []
    for column in factor.T:
        trees = GradientBoostingRegressor(
            n_estimators=TREES, max_depth=DEPTH, learning_rate=RATE, random_state=seed % 2**32
        )
        trees.fit(design, column)
        importances += column.var() * trees.feature_importances_
        predicted.append(trees.predict(held_out))
    spread = float(factor.var(axis=0).sum())
    return importances / spread if spread > 0 else importances, np.stack(predicted, axis=1)
