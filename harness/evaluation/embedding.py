"""Perturbations as vectors, for baselines that carry what training conditions show over to others.

Three kinds, the first that is there being used: the vectors the data give, the loadings of the perturbed genes, and
one-hot vectors, which say nothing of a perturbation that was never seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from harness.evaluation.scores import Array

#: Most principal components of the training conditions whose loadings embed genes (Ahlmann-Eltze et al. 2025: 10).
COMPONENTS = 10
#: Fewest training conditions with an embedding that a regression on it is fitted to.
FEWEST = 3
GIVEN, LOADINGS, ONE_HOT = "given vectors", "gene loadings", "one-hot"


class Embedding:
    """Vectors of perturbations; a combination is the sum of its members, control is 0.

    Parameters
    ----------
    kind
        ``GIVEN``, ``LOADINGS`` or ``ONE_HOT``.
    vectors
        perturbation -> (f,).
    """

    def __init__(self, kind: str, vectors: Mapping[str, Array]) -> None:
        self.kind = kind
        self._vectors = vectors

    def missing(self, condition: str) -> list[str]:
        """Members of a condition without a vector."""
        return [member for member in condition.split("+") if member not in self._vectors]

    def __call__(self, condition: str) -> Array | None:
        """Vector (f,) of a condition; None where a member has none."""
        if self.missing(condition):
            return None
        total: Array = np.sum([self._vectors[member] for member in condition.split("+")], axis=0)
        return total


def one_hot(conditions: Sequence[str]) -> Embedding:
    """One column for each member of the conditions, hence two-hot vectors of pairs."""
    members = sorted({member for condition in conditions for member in condition.split("+")})
    return Embedding(ONE_HOT, dict(zip(members, np.eye(len(members)), strict=True)))


def gene_loadings(means: Array, features: Sequence[str]) -> Embedding:
    """Each measured gene as its coordinates on the principal components of the training conditions.

    As Ahlmann-Eltze et al. 2025 embed the perturbed gene: genes that rise and fall together over training conditions
    are close.

    Parameters
    ----------
    means
        (conditions, genes) mean of the training cells of each condition, control among them.
    features
        Names of the genes.
    """
    _, sizes, axes = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    kept = min(COMPONENTS, len(means) - 1)
    coordinates = (sizes[:kept, None] * axes[:kept]).T
    return Embedding(LOADINGS, dict(zip(features, coordinates, strict=True)))
