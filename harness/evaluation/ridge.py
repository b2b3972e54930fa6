"""Ridge regression of changes in expression on vectors of perturbations, its penalty by leave-one-out."""

from __future__ import annotations

import numpy as np

from harness.evaluation.scores import Array

#: Penalties tried, in units of the mean squared singular value of the vectors.
PENALTIES = tuple(float(p) for p in np.logspace(-4, 4, 17))


class Ridge:
    """The change of every gene as a linear function of a perturbation's vector.

    The penalty, one for all genes, has the least squared error summed over training conditions, each predicted from
    the others (in closed form); of those that are level the smallest. Where conditions share nothing, as one-hot
    vectors of single perturbations, all are level, and the fit all but repeats the training changes.

    Parameters
    ----------
    vectors : (conditions, f)
    changes : (conditions, genes)
    intercept
        Fit an unpenalised change common to all conditions.
    """

    def __init__(self, vectors: Array, changes: Array, *, intercept: bool) -> None:
        n = len(vectors)
        self._centre = vectors.mean(axis=0) if intercept else np.zeros(vectors.shape[1])
        self._constant = changes.mean(axis=0) if intercept else np.zeros(changes.shape[1])
        left, sizes, right = np.linalg.svd(vectors - self._centre, full_matrices=False)
        centred = changes - self._constant
        projected = left.T @ centred
        unit = float(np.mean(sizes**2)) or 1.0
        errors = []
        for penalty in PENALTIES:
            shrunk = sizes**2 / (sizes**2 + penalty * unit)
            leverage = (left**2) @ shrunk + (1.0 / n if intercept else 0.0)
            residuals = centred - left @ (shrunk[:, None] * projected)
            # what nothing else informs has leverage 1 only at no penalty at all
            errors.append(float(((residuals / np.maximum(1.0 - leverage, 1e-12)[:, None]) ** 2).sum()))
        least = min(errors)
        chosen = next(p for p, error in zip(PENALTIES, errors, strict=True) if error <= least * (1.0 + 1e-6))
        self.penalty = chosen * unit
        self.errors = dict(zip(PENALTIES, errors, strict=True))
        self._weights: Array = right.T @ ((sizes / (sizes**2 + self.penalty))[:, None] * projected)

    def __call__(self, vector: Array) -> Array:
        """Change (genes,) predicted for a vector (f,)."""
        change: Array = (vector - self._centre) @ self._weights + self._constant
        return change
