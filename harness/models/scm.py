"""The structural layer: the map between exogenous noise and responsive latents, given mechanisms.

    z_v := L_vi(u) z_i + B(u) z_v(before) + D(u) tanh(V z_v(before)) + L_vv(u) z_v + n_v
    n_v ~ N(μ_v(u), diag β_v(u))

with L_vv strictly lower triangular (arXiv 2605.19343 and 2605.25581). The papers leave the form of
the mechanism networks open; bias-free linear maps of u plus a control baseline are our reconstruction, so that the
members of a pair add up, and so is the term in tanh.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Mechanism(NamedTuple):
    """Mechanisms of n cells.

    Attributes
    ----------
    graph : (n, d_v, d_v) L_vv, strictly lower triangular
    graph_invariant : (n, d_v, d_i) L_vi
    lagged : (n, d_v, d_v) B
    mean, variance : (n, d_v) of the exogenous noise
    bent, bends : (n, d_v, k) D and (k, d_v) V of a nonlinear transition; k = 0 where there is none
    """

    graph: Tensor
    graph_invariant: Tensor
    lagged: Tensor
    mean: Tensor
    variance: Tensor
    bent: Tensor
    bends: Tensor

    @property
    def is_linear(self) -> bool:
        """Whether latents are a linear function of the past."""
        return self.bends.shape[0] == 0

    @property
    def system(self) -> Tensor:
        """A(u) = I − L_vv(u), (n, d_v, d_v) unit lower triangular."""
        return torch.eye(self.graph.shape[-1], dtype=self.graph.dtype, device=self.graph.device) - self.graph


def from_past(mechanism: Mechanism, before: Tensor) -> Tensor:
    """What the past (n, d_v) contributes: B z + D tanh(V z), (n, d_v)."""
    driven = torch.einsum("nvw,nw->nv", mechanism.lagged, before)
    if mechanism.is_linear:
        return driven
    return driven + torch.einsum("nvk,nk->nv", mechanism.bent, torch.tanh(before @ mechanism.bends.T))


def solve(mechanism: Mechanism, noise: Tensor, invariant: Tensor, before: Tensor | None = None) -> Tensor:
    """Latents from exogenous noise: z_v = A⁻¹(n_v + L_vi z_i + what the past contributes), by a triangular solve.

    Parameters
    ----------
    noise : (n, d_v), its mean included
    invariant : (n, d_i)
    before : (n, d_v) latents one step earlier; None where there is none

    Returns
    -------
    (n, d_v)
    """
    driven = noise + torch.einsum("nvi,ni->nv", mechanism.graph_invariant, invariant)
    if before is not None:
        driven = driven + from_past(mechanism, before)
    solved: Tensor = torch.linalg.solve_triangular(
        mechanism.system, driven.unsqueeze(-1), upper=False, unitriangular=True
    )
    return solved.squeeze(-1)


def noise_of(mechanism: Mechanism, latents: Tensor, invariant: Tensor, before: Tensor | None = None) -> Tensor:
    """Exogenous noise from latents, the inverse of `solve`; its mean included."""
    noise = torch.einsum("nvw,nw->nv", mechanism.system, latents)
    noise = noise - torch.einsum("nvi,ni->nv", mechanism.graph_invariant, invariant)
    return noise if before is None else noise - from_past(mechanism, before)
