"""CITRIS's scores: what each group of learned latents says of each true factor, on the diagonal and off it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from harness.evaluation.factors import random_halves
from harness.evaluation.regression import KernelRidge, r2
from harness.evaluation.scores import Array, Index, as_matrix, is_constant

#: Most rows in the fitting and in the scoring half: each group has a regression, whose cost grows with their cube.
KERNEL_ROWS = 256
#: Bins, of equal count, in which a learned latent predicts a factor by its mean.
BINS = 16


def citris_scores(learned: Array, factors: Sequence[Array], *, seed: int) -> dict[str, float]:
    """R² and Spearman correlation from each group of learned latents to each true factor, summed up.

    CITRIS learns which latents stand for which factor; our models do not, so that groups are formed here: each learned
    latent belongs to the factor that it predicts best on the fitting half (the mean of the factor in 16 bins of equal
    count of the latent; largest R²). From each group each factor is then predicted by kernel ridge regression, fitted
    on at most 256 rows of that half and scored on at most 256 of the other: a matrix of groups × factors.

    Parameters
    ----------
    learned
        (n, a) learned latents of both blocks.
    factors
        One (n, c) array a true factor; an angle is the pair (cos, sin).
    seed
        Governs the halves.

    Returns
    -------
    dict with

    r2_diagonal, spearman_diagonal
        Mean over factors of what their own group says of them; 1 is perfect. A factor without a group counts 0.
    r2_off_diagonal, spearman_off_diagonal
        The largest entry off the diagonal: the most that a wrong group says of a factor; 0 is perfect only where the
        factors are independent.
    r2_off_diagonal_mean, spearman_off_diagonal_mean
        Each group's largest entry off the diagonal, averaged over groups, as the published code has it.

    Spearman's correlation is between predicted and true values, of an angle the mean of those of cosine and sine, the
    predicted point brought to length one. R² is not clipped on the diagonal; an entry off it counts at least 0.

    Raises
    ------
    NonFiniteError
        NaN or infinity in the latents.

    Notes
    -----
    Source: Lippe et al. 2022 (CITRIS) and its code, which predicts by a small network in place of kernel ridge.
    """
    learned = as_matrix(learned, "learned latents")
    halves = random_halves(len(learned), seed)
    groups = assigned(learned[halves[0]], [factor[halves[0]] for factor in factors])
    correlations, explained = _matrices(learned, factors, groups, halves[0][:KERNEL_ROWS], halves[1][:KERNEL_ROWS])
    return _summed_up(explained, "r2") | _summed_up(correlations, "spearman")


def assigned(learned: Array, factors: Sequence[Array]) -> list[int]:
    """The factor that each learned latent predicts best in these rows; −1 for one that is constant.

    Parameters
    ----------
    learned
        (n, a).
    factors
        One (n, c) array a factor.
    """
    found = []
    flat = is_constant(learned)
    for j in range(learned.shape[1]):
        found.append(-1 if flat[j] else int(np.argmax([_binned_r2(learned[:, j], factor) for factor in factors])))
    return found


def _binned_r2(latent: Array, factor: Array) -> float:
    """R² of a factor (n, c) from its means in bins of equal count of one latent (n,)."""
    bins = np.argsort(np.argsort(latent, kind="stable"), kind="stable") * BINS // len(latent)
    predicted = np.zeros_like(factor)
    for k in range(BINS):
        member = bins == k
        if member.any():
            predicted[member] = factor[member].mean(axis=0)
    return r2(factor, predicted)


def _matrices(
    learned: Array, factors: Sequence[Array], groups: list[int], fit: Index, score: Index
) -> tuple[Array, Array]:
    """Spearman correlation and R² of each factor (columns) from each group (rows); 0 for an empty group."""
    correlations, explained = np.zeros((2, len(factors), len(factors)))
    fitted, scored = ([factor[rows] for factor in factors] for rows in (fit, score))
    for row in range(len(factors)):
        members = [j for j, group in enumerate(groups) if group == row]
        if not members:
            continue
        regression = KernelRidge(learned[fit][:, members], fitted)
        held_out = learned[score][:, members]
        explained[row] = regression.r2(held_out, scored)
        correlations[row] = [
            _spearman(predicted, true) for predicted, true in zip(regression.predict(held_out), scored, strict=True)
        ]
    return correlations, explained


def _spearman(predicted: Array, true: Array) -> float:
    """Mean rank correlation of the columns (n, c); 0 where either is constant."""
    if predicted.shape[1] > 1:
        predicted = predicted / np.maximum(np.linalg.norm(predicted, axis=1, keepdims=True), 1e-12)
    flat = is_constant(predicted) | is_constant(true)
    ranks = rankdata(predicted, axis=0), rankdata(true, axis=0)
    each = [0.0 if flat[k] else np.corrcoef(ranks[0][:, k], ranks[1][:, k])[0, 1] for k in range(true.shape[1])]
    return float(np.mean(each))


def _summed_up(matrix: Array, name: str) -> dict[str, float]:
    away = np.maximum(np.where(np.eye(len(matrix), dtype=bool), 0.0, matrix), 0.0)
    return {
        f"{name}_diagonal": float(np.mean(np.diag(matrix))),
        f"{name}_off_diagonal": float(away.max()),
        f"{name}_off_diagonal_mean": float(away.max(axis=1).mean()),
    }
