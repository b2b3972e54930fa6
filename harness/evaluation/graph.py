"""How well a learned graph and learned targets agree with the true ones, learned latents renamed by their MCC match.

The theorem leaves the scale of a latent free, and with it that of its raw weights. Where the sds of the latents are
given, weights are therefore first put in their units, w_kl · sd_l / sd_k: the change of latent k, in sds, that one sd
of latent l brings. The published threshold for the learned graph, |w| >= 0.25, is on raw weights; applied to weights
in sds it is our reading, and it asks the same of both graphs however their latents happen to be scaled. Where every
latent has unit variance the two readings agree.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.evaluation.scores import Array, Mask, as_matrix

#: Published for the learned graph (Jiang et al. 2026, arXiv 2605.19343).
EDGE = 0.25
#: A learned target is a score of at least this.
TARGET = 0.5


def graph_f1(
    learned: ArrayLike,
    true: ArrayLike,
    assignment: Sequence[int],
    *,
    threshold: float = EDGE,
    learned_scale: ArrayLike | None = None,
    true_scale: ArrayLike | None = None,
) -> float:
    """F1 of the directed edges among responsive latents, learned latents renamed by their MCC match.

    Parameters
    ----------
    learned, true
        (a, a) and (d, d) weights, row k the weights into latent k; or (e, a, a) and (e, d, d) over environments,
        where an edge is present if it is in any of them.
    assignment
        d indices into the learned latents, −1 for none (``IdentifiabilityScores.assignment``). Edges of a true
        latent without match are missed; edges among learned latents without match are not counted.
    threshold
        An edge is |weight| >= threshold.
    learned_scale, true_scale
        (a,) and (d,) sd of the latents. Where given, weights are first put in those units (see this module's head).

    Returns
    -------
    F1 in [0, 1]; 1 where neither graph has an edge, 0 where only one of them has.

    Raises
    ------
    ValueError
        Shapes or assignment that do not fit.
    """
    true_edges = edges(true, true_scale, threshold)
    found = _renamed(edges(learned, learned_scale, threshold), len(true_edges), assignment)
    hits = int((found & true_edges).sum())
    total = int(found.sum()) + int(true_edges.sum())
    return 2.0 * hits / total if total else 1.0


def graph_shd(
    learned: ArrayLike,
    true: ArrayLike,
    assignment: Sequence[int],
    *,
    threshold: float = EDGE,
    learned_scale: ArrayLike | None = None,
    true_scale: ArrayLike | None = None,
) -> int:
    """Structural Hamming distance: pairs of latents whose edge is missing, extra or reversed, each counted once.

    Parameters
    ----------
    learned, true, assignment, threshold, learned_scale, true_scale
        As in ``graph_f1``.

    Returns
    -------
    Between 0 and d (d − 1) / 2.

    Raises
    ------
    ValueError
        As ``graph_f1``.

    Notes
    -----
    Tsamardinos, Brown & Aliferis 2006, on directed graphs. A latent's weight on itself is no edge.
    """
    true_edges = edges(true, true_scale, threshold)
    found = _renamed(edges(learned, learned_scale, threshold), len(true_edges), assignment)
    differs = found != true_edges
    return int(np.triu(differs | differs.T, k=1).sum())


def target_accuracy(learned: ArrayLike, true: ArrayLike, assignment: Sequence[int]) -> float:
    """Share of perturbations whose learned set of targets is exactly the true one.

    Parameters
    ----------
    learned
        (p, a) bool, or scores in [0, 1] of which one of at least 0.5 is a target.
    true
        (p, d) bool, the responsive latents each perturbation acts on.
    assignment
        d indices into the learned latents, −1 for none. A perturbation whose true target has no match, or with a
        learned target that matches no true latent, counts as wrong.

    Raises
    ------
    NonFiniteError
        NaN or infinity among the scores.
    ValueError
        Shapes or assignment that do not fit, no perturbation, or scores outside [0, 1].
    """
    scores, wanted = as_matrix(learned, "learned targets"), np.asarray(true, dtype=bool)
    if wanted.ndim != 2 or len(wanted) != len(scores) or len(wanted) == 0:
        raise ValueError(
            f"learned and true targets of shape {scores.shape} and {wanted.shape} name no same perturbations"
        )
    if ((scores < -1e-6) | (scores > 1 + 1e-6)).any():
        raise ValueError(f"target scores lie in [0, 1], found {scores.min():.4g} to {scores.max():.4g}")
    found = scores >= TARGET
    match = _match(assignment, wanted.shape[1], scores.shape[1])
    renamed = found[:, match[match >= 0]]
    astray = np.delete(found, match[match >= 0], axis=1).any(axis=1) | wanted[:, match < 0].any(axis=1)
    right = (renamed == wanted[:, match >= 0]).all(axis=1) & ~astray
    return float(right.mean())


def _renamed(learned: Mask, true_latents: int, assignment: Sequence[int]) -> Mask:
    """Learned edges among the matches of the true latents, (d, d); none at a latent without match."""
    match = _match(assignment, true_latents, len(learned))
    matched = match >= 0
    if not matched.any():
        return np.zeros((true_latents, true_latents), dtype=bool)
    found: Mask = learned[np.ix_(match, match)] & matched[:, None] & matched[None, :]
    return found


def _match(assignment: Sequence[int], true_latents: int, learned_latents: int) -> NDArray[np.int64]:
    match = np.asarray(assignment, dtype=np.int64)
    if len(match) != true_latents or (len(match) and match.max() >= learned_latents):
        raise ValueError(f"assignment {tuple(match)} does not map {true_latents} onto {learned_latents} latents")
    return match


def in_sds(weights: ArrayLike, scale: ArrayLike | None) -> Array:
    """Weights (..., d, d) in sds of their latents: the change of latent k, in sds, that one sd of latent l brings.

    Parameters
    ----------
    weights
        Row k the weights into latent k.
    scale
        (d,) sd of the latents, or None to leave weights as they are. Nothing acts on a latent that does not vary.
    """
    array = np.asarray(weights, dtype=np.float64)
    if scale is None:
        return array
    spread = np.asarray(scale, dtype=np.float64)
    scaled: Array = array * spread[None, :] / np.where(spread > 0, spread, np.inf)[:, None]
    return scaled


def edges(weights: ArrayLike, scale: ArrayLike | None, threshold: float = EDGE) -> Mask:
    """(d, d) bool: |weight|, in sds where there is a ``scale``, largest over environments, at or above the threshold.

    Raises
    ------
    ValueError
        If the weights are no graph.
    """
    array = np.abs(np.asarray(weights, dtype=np.float64))
    if array.ndim == 3:
        array = array.max(axis=0)
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise ValueError(f"a graph must be (d, d) or (environments, d, d), got shape {np.shape(weights)}")
    found: Mask = in_sds(array, scale) >= threshold
    return found
