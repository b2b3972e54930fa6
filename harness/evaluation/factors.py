"""True latents as factors to be predicted, and the halves on which scores are fitted and taken."""

from __future__ import annotations

import numpy as np

from harness.evaluation.scores import Array, Index, Mask

Halves = tuple[Index, Index]


def random_halves(rows: int, seed: int) -> Halves:
    """Two disjoint random halves of ``rows`` rows: the first fits, the second, one longer if odd, is scored."""
    order = np.random.default_rng([seed, 0]).permutation(rows)
    return order[: rows // 2], order[rows // 2 :]


def cos_sin(angle: Array) -> Array:
    """Angles (n,) in radians as points (n, 2) of the unit circle."""
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def factors_of(true: Array, circular: Mask) -> list[Array]:
    """One (n, 1) array a column of ``true`` (n, d); (cos, sin), (n, 2), for a column that is an angle."""
    return [cos_sin(true[:, k]) if circular[k] else true[:, k : k + 1] for k in range(true.shape[1])]


def joined(responsive: Array, invariant: Array) -> Array:
    """Both learned blocks side by side, (n, a + b); once only where both are the same latents.

    A model without blocks gives all its latents as both.
    """
    same = responsive.shape == invariant.shape and np.array_equal(responsive, invariant)
    return responsive if same else np.concatenate([responsive, invariant], axis=1)
