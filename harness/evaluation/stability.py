"""Whether several fits of the same data find the same structure: edges and targets, latents renamed by their match.

No truth is needed: each fit is the truth of the other. The theorem leaves order, sign and scale of the latents free;
order and sign are taken from how two fits' latents correlate on the same cells, and weights are put in sds of their
latents, as for `harness.evaluation.graph`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.graph import TARGET, edges, graph_f1, in_sds, target_accuracy
from harness.evaluation.identifiability import match_latents
from harness.evaluation.scores import Array


@dataclass(frozen=True)
class Fit:
    """What one fit found.

    Attributes
    ----------
    latents : (n, d) responsive latents of cells that all fits share, in the same order.
    graph : (d, d), row k the weights into latent k; None where the model has none.
    targets : (p, d) in [0, 1], how surely each perturbation acts on each latent; None where the model has none.
    """

    latents: Array
    graph: Array | None = None
    targets: Array | None = None

    @property
    def spread(self) -> Array:
        """(d,) sd of the latents."""
        deviation: Array = self.latents.std(axis=0)
        return deviation


@dataclass(frozen=True)
class Stability:
    """How far fits agree: the mean over pairs of fits, and what a random renaming of latents would give."""

    value: float
    chance: float


@dataclass(frozen=True)
class Frequencies:
    """How often an edge, or a target, is there, latents named as in the fit that agrees best with all others.

    Attributes
    ----------
    named_by : place of that fit.
    edges : (d, d) share of fits with the edge; row k the edges into latent k. None without graphs.
    weights : (d, d) mean weight in sds, each fit's latents with the signs of that one's.
    same_sign : (d, d) share of the fits with an edge in which it has the sign of the mean weight; NaN without edge.
    targets : (p, d) share of fits in which the perturbation acts on the latent. None without targets.
    """

    named_by: int
    edges: Array | None
    weights: Array | None
    same_sign: Array | None
    targets: Array | None


#: Places of two fits, and the latent of the second that stands for each of the first.
Match = tuple[int, int, NDArray[np.int64]]


def matches(fits: Sequence[Fit]) -> list[Match]:
    """Latents of every two fits matched, as MCC matches them on one half of the cells.

    Raises
    ------
    NonFiniteError, ValueError
        As `harness.evaluation.identifiability.match_latents`.
    """
    return [
        (one, other, match_latents(fits[other].latents, fits[one].latents)[0])
        for one, other in combinations(range(len(fits)), 2)
    ]


def graph_stability(fits: Sequence[Fit], matched: Sequence[Match]) -> Stability | None:
    """Mean F1 of the edges of one fit against another's, over pairs.

    Chance is the expected F1 of the same pair under a random renaming of one's latents, which is that of two random
    graphs of their densities: 2 e e' / (d (d − 1) (e + e')) for e and e' edges. Two graphs without an edge agree, by
    chance too.

    Parameters
    ----------
    fits
        Of the same cells.
    matched
        As `matches` gives them.

    Returns
    -------
    None with fewer than two fits, where one has no graph, for a single latent, and where every weight is 0: a family
    without edges has learned none.
    """
    graphs = [fit.graph for fit in fits if fit.graph is not None]
    if not matched or len(graphs) < len(fits) or len(graphs[0]) < 2 or not any(graph.any() for graph in graphs):
        return None
    places = len(graphs[0]) * (len(graphs[0]) - 1)
    count = [int(edges(graph, fit.spread).sum()) for graph, fit in zip(graphs, fits, strict=True)]
    values, chances = [], []
    for one, other, match in matched:
        renamed = graphs[other], graphs[one], match.tolist()
        values.append(graph_f1(*renamed, learned_scale=fits[other].spread, true_scale=fits[one].spread))
        total = count[one] + count[other]
        chances.append(2 * count[one] * count[other] / (places * total) if total else 1.0)
    return Stability(float(np.mean(values)), float(np.mean(chances)))


def target_stability(fits: Sequence[Fit], matched: Sequence[Match]) -> Stability | None:
    """Share of perturbations whose set of targets is the same in two fits, mean over pairs.

    Chance is the expected share under a random renaming of one's latents: 1 / C(d, k) for a perturbation with k targets
    in both, 0 for one whose numbers of targets differ.

    Parameters
    ----------
    fits, matched
        As in `graph_stability`.

    Returns
    -------
    None with fewer than two fits, and where one has no targets.
    """
    targets = [fit.targets for fit in fits if fit.targets is not None]
    if not matched or len(targets) < len(fits) or len(targets[0]) == 0:
        return None
    latents = targets[0].shape[1]
    by_count = np.array([1 / math.comb(latents, k) for k in range(latents + 1)])
    count = [(one >= TARGET).sum(axis=1) for one in targets]
    values, chances = [], []
    for one, other, match in matched:
        values.append(target_accuracy(targets[other], targets[one] >= TARGET, match.tolist()))
        chances.append(float(np.where(count[one] == count[other], by_count[count[one]], 0.0).mean()))
    return Stability(float(np.mean(values)), float(np.mean(chances)))


def frequencies(fits: Sequence[Fit], agreement: NDArray[np.float64]) -> Frequencies:
    """Edges and targets over all fits, latents renamed to those of the fit that agrees best with the others.

    Parameters
    ----------
    fits
        Two or more.
    agreement
        (fits, fits) MCC between each two; the diagonal counts for nothing.
    """
    others = agreement - np.diag(np.diag(agreement))
    named_by = int(others.sum(axis=1).argmax())
    reference = fits[named_by]
    found, weights, targets = [], [], []
    for fit in fits:
        match, sign = match_latents(fit.latents, reference.latents)
        if fit.graph is not None:
            renamed = np.ix_(match, match)
            found.append(edges(fit.graph, fit.spread)[renamed])
            weights.append(in_sds(fit.graph, fit.spread)[renamed] * sign[:, None] * sign[None, :])
        if fit.targets is not None:
            targets.append(fit.targets[:, match] >= TARGET)
    share = np.mean(found, axis=0) if len(found) == len(fits) else None
    mean = np.mean(weights, axis=0) if share is not None else None
    return Frequencies(
        named_by,
        share,
        mean,
        None if mean is None else _same_sign(np.array(found), np.array(weights), mean),
        np.mean(targets, axis=0) if len(targets) == len(fits) else None,
    )


def _same_sign(found: NDArray[np.bool_], weights: Array, mean: Array) -> Array:
    """(d, d) share of the edges (fits, d, d) whose weight has the sign of the mean; NaN where there is no edge."""
    present = found.sum(axis=0)
    same = (found & (np.sign(weights) == np.sign(mean))).sum(axis=0)
    share: Array = np.where(present > 0, same / np.maximum(present, 1), np.nan)
    return share
