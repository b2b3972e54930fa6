"""Which genes truly change: Welch's t test of each gene, and Benjamini and Hochberg's correction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from harness.evaluation.measured import Moments
from harness.evaluation.scores import Array, Index, Mask

#: False discovery rate below which a gene counts as differentially expressed.
FALSE_DISCOVERY_RATE = 0.05


@dataclass(frozen=True)
class Differential:
    """What a test says of each gene.

    Attributes
    ----------
    score : (genes,) Welch's t; 0 for a gene that is constant and the same on both sides.
    adjusted : (genes,) p values corrected over genes after Benjamini and Hochberg 1995.
    """

    score: Array
    adjusted: Array

    @property
    def changed(self) -> Mask:
        """(genes,) whether a gene is differentially expressed."""
        mask: Mask = self.adjusted < FALSE_DISCOVERY_RATE
        return mask

    def top(self, most: int) -> Index:
        """The (at most ``most``) genes with the largest \\|t\\|, rising by their place among all genes."""
        order: Index = np.sort(np.argsort(-np.abs(self.score), kind="stable")[:most])
        return order


def welch(condition: Moments, control: Moments) -> Differential:
    """Two-sided Welch t test of every gene, condition against control, as scanpy's ``rank_genes_groups`` (``t-test``).

    Parameters
    ----------
    condition, control
        Of the same genes.

    Returns
    -------
    Differential
        With a single cell on either side there is no test: no gene is differentially expressed, and ``score`` is the
        change of the mean.
    """
    change = condition.mean - control.mean
    if min(condition.count, control.count) < 2:
        return Differential(change, np.ones_like(change))
    a, b = condition.variance / condition.count, control.variance / control.count
    with np.errstate(divide="ignore", invalid="ignore"):
        score = change / np.sqrt(a + b)
        freedom = (a + b) ** 2 / (a**2 / (condition.count - 1) + b**2 / (control.count - 1))
    score = np.where(np.isnan(score), 0.0, score)  # constant on both sides, and the same
    p = np.where(np.isinf(score), 0.0, 2.0 * stdtr(np.where(np.isnan(freedom), 1.0, freedom), -np.abs(score)))
    return Differential(score, benjamini_hochberg(p))


def benjamini_hochberg(p: Array) -> Array:
    """p values (genes,) corrected over all of them: the smallest false discovery rate at which each is rejected."""
    falling = np.argsort(-p, kind="stable")
    ranks = np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[falling] = np.minimum.accumulate(np.minimum(p[falling] * len(p) / ranks, 1.0))
    return adjusted
