"""The part of the objective that the second stage minimises: posteriors enter it by their second moments alone.

With the `unmixed` posterior the KL term of the responsive block is that of the exogenous noise

    n = A(u)(W h + C z_i) − B(u)(W h' + C z_i) − L_vi(u) z_i − μ(u) = M(u) s,    s = (h, h', z_i, 1),

where h' are the features one frame earlier. Averaged over the frames of one context (one u; the control frame apart),

    KL_v = ½ Σ_k [ log β_k + (M S Mᵀ)_kk / β_k ] − log|det W| − entropy of q,    S = E_q[s sᵀ],

so that W, C and the mechanisms can be fitted to all cells at once, from many starts, for the price of a few small
matrix products. It is exactly the term `CausalVAE.responsive_kl` averages over cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from harness.models.posterior import Features, Invariant
from harness.models.scm import Mechanism


class Moments(NamedTuple):
    """Posterior moments of c contexts.

    Attributes
    ----------
    u : (c, p) perturbation of each context
    weight : (c,) share of all frames
    second : (c, s, s) E_q[s sᵀ], s = 2 d_v + d_i + 1: (h, h', z_i, 1); h' is 0 in a first frame
    past : (c,) 1 where there is a frame before, 0 in a first frame
    frames : number of frames behind them
    """

    u: Tensor
    weight: Tensor
    second: Tensor
    past: Tensor
    frames: int


class Context(NamedTuple):
    """Posteriors of the n frames of one context.

    Attributes
    ----------
    u : (p,) perturbation
    features : posterior of h
    past : posterior of h one frame earlier; None in a first frame
    invariant : posterior of z_i
    """

    u: Tensor
    features: Features
    past: Features | None
    invariant: Invariant


def moments_of(contexts: Sequence[Context]) -> Moments:
    """Moments of some contexts, on the CPU in double precision; those under the same mechanisms are one."""
    gathered: dict[tuple[object, ...], list[Context]] = {}
    for context in contexts:
        gathered.setdefault((*context.u.tolist(), context.past is None), []).append(context)
    u, weight, second, past = [], [], [], []
    for same in gathered.values():
        counts = torch.tensor([len(context.features.mean) for context in same], dtype=torch.float64)
        shares = counts / counts.sum()
        u.append(same[0].u.double().cpu())
        weight.append(counts.sum())
        past.append(float(same[0].past is not None))
        second.append((shares[:, None, None] * torch.stack([_second(context) for context in same])).sum(0))
    counts = torch.stack(weight)
    had = torch.tensor(past, dtype=torch.float64)
    return Moments(torch.stack(u), counts / counts.sum(), torch.stack(second), had, int(counts.sum()))


def _second(context: Context) -> Tensor:
    """E_q[s sᵀ] averaged over the frames of a context, (s, s)."""
    h, past, z_i = context.features, context.past, context.invariant
    n, d_v = h.mean.shape
    d_i = z_i.mean.shape[1]
    # rows: h, h', z_i; columns: normals of z_i, of h, of h'
    spread = h.mean.new_zeros(n, 2 * d_v + d_i, d_i + 2 * d_v)
    spread[:, :d_v, :d_i], spread[:, :d_v, d_i : d_i + d_v] = h.across, h.factor
    spread[:, 2 * d_v :, :d_i] = z_i.factor
    if past is not None:
        spread[:, d_v : 2 * d_v, :d_i], spread[:, d_v : 2 * d_v, d_i + d_v :] = past.across, past.factor
    before = torch.zeros_like(h.mean) if past is None else past.mean
    s = torch.cat([h.mean, before, z_i.mean, torch.ones_like(h.mean[:, :1])], dim=1).double()
    spread = spread.double()
    covariance = torch.einsum("nab,ncb->ac", spread, spread) / n
    second = s.T @ s / n
    second[:-1, :-1] += covariance
    return second.cpu()


def noise_map(mechanism: Mechanism, unmixing: Tensor, across: Tensor) -> Tensor:
    """M(u), (c, d_v, s), from mechanisms of c contexts, W (d_v, d_v) and C (d_v, d_i)."""
    system, lagged = mechanism.system, mechanism.lagged
    from_i = system @ across - lagged @ across - mechanism.graph_invariant
    return torch.cat([system @ unmixing, -lagged @ unmixing, from_i, -mechanism.mean.unsqueeze(2)], dim=2)


def moment_loss(moments: Moments, mechanism: Mechanism, unmixing: Tensor, across: Tensor) -> Tensor:
    """KL_v up to the entropy of q, in nats a frame (scalar).

    Parameters
    ----------
    moments
        Of c contexts.
    mechanism
        Of the same contexts; linear in the past.
    unmixing, across
        W (d_v, d_v) and C (d_v, d_i).
    """
    # in a first frame nothing is carried over, of z_i through C neither
    mechanism = mechanism._replace(lagged=mechanism.lagged * moments.past[:, None, None])
    noise = noise_map(mechanism, unmixing, across)
    squares = torch.einsum("cvs,cst,cvt->cv", noise, moments.second, noise)
    each = 0.5 * (mechanism.variance.log() + squares / mechanism.variance).sum(1)
    return (moments.weight * each).sum() - torch.linalg.slogdet(unmixing).logabsdet


def whitened(moments: Moments, responsive: int) -> tuple[Tensor, Moments]:
    """P (d_v, d_v) that makes the features P h uncorrelated with unit variance over all frames, and their moments."""
    pooled = pooled_moments(moments)
    mean = pooled[:responsive, -1]
    covariance = pooled[:responsive, :responsive] - torch.outer(mean, mean)
    whitener = torch.linalg.inv(torch.linalg.cholesky(covariance))
    rest = torch.eye(pooled.shape[0] - 2 * responsive, dtype=pooled.dtype, device=pooled.device)
    change = torch.block_diag(whitener, whitener, rest)
    return whitener, moments._replace(second=change @ moments.second @ change.T)


def pooled_moments(moments: Moments) -> Tensor:
    """E[s sᵀ] over all frames, (s, s)."""
    return (moments.weight[:, None, None] * moments.second).sum(0)


def latent_correlations(moments: Moments, first: Tensor, second: Tensor) -> Tensor:
    """|Correlation| over all frames between two sets of latents that are linear in (h, z_i).

    Parameters
    ----------
    first, second : (..., a, d_v + d_i) and (..., b, d_v + d_i)
        Rows [W | C] of the latents.

    Returns
    -------
    (..., a, b)
    """
    across = first @ _covariance(moments, first.shape[-1]) @ second.transpose(-1, -2)
    ours, theirs = latent_deviations(moments, first), latent_deviations(moments, second)
    return (across / (ours.unsqueeze(-1) * theirs.unsqueeze(-2))).abs()


def latent_deviations(moments: Moments, maps: Tensor) -> Tensor:
    """Sd over all frames of latents with rows [W | C] (..., a, d_v + d_i), (..., a)."""
    return torch.einsum("...as,st,...at->...a", maps, _covariance(moments, maps.shape[-1]), maps).sqrt()


def _covariance(moments: Moments, latents: int) -> Tensor:
    """Of (h, z_i) over all frames, (d_v + d_i, d_v + d_i)."""
    size = moments.second.shape[1]
    d_v = size - 1 - latents
    kept = [*range(d_v), *range(2 * d_v, size - 1)]
    pooled = pooled_moments(moments)
    mean = pooled[kept, -1]
    return pooled[kept][:, kept] - torch.outer(mean, mean)
