"""The second stage of training: unmixing and mechanisms fitted again to posterior moments, from many starts.

The first stage's objective is hard in W, C and the mechanisms alone: they may stick in a local optimum that the encoder
then serves. Given the posteriors, their part of the objective depends on second moments only
(`harness.models.moments`), so that it can be minimised from many random orthogonal starts in seconds. The lowest loss
is kept; truth plays no part.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from harness.models import LatentModel
from harness.models.causal_vae import CausalVAE
from harness.models.moments import Moments, latent_correlations, moments_of
from harness.models.posterior import UnmixedPosterior
from harness.models.refit import Candidates, Fitted, random_starts, refit

#: Rows encoded at a time.
CHUNK = 2048
#: All causal orders are tried up to this many; beyond it, exchanges of neighbours.
MOST_ORDERS = 24
#: Rounds of exchanges at most.
MOST_ROUNDS = 5
#: Best candidates that are fitted to convergence.
FINALISTS = 8
#: Losses that differ by less are equal, in nats a frame: about what Adam leaves.
EQUAL = 1e-3


@dataclass(frozen=True)
class SecondStage:
    """What the second stage found.

    Attributes
    ----------
    before, after : moment loss of the first stage's solution and of the one kept, nats a frame.
    equal : restarts that ended at the lowest loss.
    agreement : mean MCC between these; None where there is only one.
    """

    before: float
    after: float
    equal: int
    agreement: float | None


def applies_to(model: LatentModel) -> bool:
    """Whether a model's objective depends on its posteriors through moments: unmixed, and linear in the past."""
    return (
        isinstance(model, CausalVAE)
        and isinstance(model.posterior, UnmixedPosterior)
        and model.mechanisms.lagged != "nonlinear"
    )


@torch.no_grad()
def posterior_moments(model: CausalVAE, prepared: Tensor, index: Tensor, u: Tensor, condition: Tensor) -> Moments:
    """Moments of a model's posteriors over some rows.

    Parameters
    ----------
    prepared : frames as training keeps them
    index : (k, T) rows of ``prepared``
    u : (k, p)
    condition : (k,) which rows share their u
    """
    model.eval()
    contexts = []
    for which in condition.unique():
        rows = torch.nonzero(condition == which).flatten()
        for part in rows.split(CHUNK):
            contexts += model.contexts(prepared[index[part]], u[part[0]])
    return moments_of(contexts)


def second_stage(
    model: CausalVAE, moments: Moments, *, restarts: int, steps: int, generator: torch.Generator
) -> SecondStage:
    """Fit W, C and mechanisms of ``model`` again and leave the best in it.

    Parameters
    ----------
    model
        One that the stage `applies_to`.
    moments
        Of its posteriors on training cells.
    restarts
        Random orthogonal starts, beside the present solution.
    steps
        Of Adam, for the starts and again for the finalists.
    generator
        On the CPU.
    """
    present = candidate_of(model)
    fit = partial(refit, moments=moments, sparsity=model.sparsity)
    before = fit(present, steps=0).loss.item()
    started = random_starts(present.families[0], moments, restarts, generator).joined(present)
    tried = fit(started, steps=steps)
    finalists = tried.candidates.chosen(tried.loss.argsort()[:FINALISTS].tolist())
    if model.options.order_is_open:
        finalists = finalists.joined(_best_order(fit, finalists, steps))
    final = fit(finalists, steps=steps, annealed=True)
    # the present solution stays in as it is, so that few steps never end above where they began
    every = final.joined(fit(present, steps=0, annealed=True))
    _install(model, every.candidates, every.best)
    equal = torch.nonzero(final.loss - every.loss.min() < EQUAL).flatten().tolist()
    return SecondStage(before, every.loss.min().item(), len(equal), _agreement(moments, final.candidates.chosen(equal)))


def _best_order(fit: Callable[..., Fitted], ranked: Candidates, steps: int) -> Candidates:
    """The best candidate in its best causal order, found by loss."""
    places = range(ranked.families[0].responsive)
    if math.factorial(len(places)) <= MOST_ORDERS:
        orders = ranked.chosen(range(min(2, len(ranked)))).reordered(list(itertools.permutations(places)))
        found = fit(orders, steps=steps // 2, annealed=True)
        return found.candidates.chosen([found.best])
    exchanges = [[*places[:k], k + 1, k, *places[k + 2 :]] for k in places[:-1]]
    best = fit(ranked.chosen([0]), steps=steps // 2, annealed=True)
    for _ in range(MOST_ROUNDS):
        found = fit(best.candidates.reordered(exchanges), steps=steps // 2, annealed=True)
        if found.loss.min() > best.loss.min() - EQUAL:
            break
        best = Fitted(found.candidates.chosen([found.best]), found.loss[found.best : found.best + 1])
    return best.candidates


def _agreement(moments: Moments, candidates: Candidates) -> float | None:
    """Mean MCC between the latents of some candidates, each pair once; None for a single one."""
    maps = torch.cat([candidates.unmixing, candidates.across], dim=2)
    pairs = list(itertools.combinations(range(len(candidates)), 2))
    if not pairs:
        return None
    found = latent_correlations(moments, maps[[a for a, _ in pairs]], maps[[b for _, b in pairs]]).numpy()
    return float(np.mean([one[linear_sum_assignment(-one)].mean() for one in found]))


def candidate_of(model: CausalVAE) -> Candidates:
    """What the model holds, on the CPU, as one candidate.

    Raises
    ------
    ValueError
        Where the second stage does not apply to the model.
    """
    if not isinstance(model.posterior, UnmixedPosterior):
        raise ValueError("posterior: noise has no unmixing to fit again; use posterior: unmixed")
    unmixing, across = model.posterior.unmixing.detach().cpu(), model.posterior.from_invariant.detach().cpu()
    return Candidates(unmixing[None], across[None], [copy.deepcopy(model.mechanisms).cpu()])


@torch.no_grad()
def _install(model: CausalVAE, candidates: Candidates, which: int) -> None:
    assert isinstance(model.posterior, UnmixedPosterior), "candidate_of has refused others"
    model.posterior.unmixing.copy_(candidates.unmixing[which])
    model.posterior.from_invariant.copy_(candidates.across[which])
    model.mechanisms.load_state_dict(candidates.families[which].state_dict())
