"""The structural layer: mechanisms modulated by u, and the triangular map between exogenous noise and latents.

    z_v := L_vi(u) z_i + B(u) z_v(before) + L_vv(u) z_v + n_v,    n_v ~ N(μ_v(u), diag β_v(u))

with L_vv strictly lower triangular (arXiv 2605.19343 and 2605.25581). The papers leave the form of the mechanism
networks open; bias-free linear maps of u plus a control baseline are our reconstruction, so that the members of a pair
add up.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

#: softplus(_UNIT) = 1: mechanisms start at unit variance.
_UNIT = 0.5413248546129181
#: Least exogenous variance, so that a mechanism cannot become deterministic and its density infinite.
_LEAST_VARIANCE = 1e-4


class Mechanism(NamedTuple):
    """Mechanisms of n cells.

    Attributes
    ----------
    graph : (n, d_v, d_v) strictly lower triangular L_vv
    graph_invariant : (n, d_v, d_i) L_vi
    lagged : (n, d_v, d_v) B
    mean, variance : (n, d_v) of the exogenous noise
    """

    graph: Tensor
    graph_invariant: Tensor
    lagged: Tensor
    mean: Tensor
    variance: Tensor

    @property
    def system(self) -> Tensor:
        """A(u) = I − L_vv(u), (n, d_v, d_v) unit lower triangular."""
        return torch.eye(self.graph.shape[-1], dtype=self.graph.dtype, device=self.graph.device) - self.graph


def solve(mechanism: Mechanism, noise: Tensor, invariant: Tensor, before: Tensor | None = None) -> Tensor:
    """Latents from exogenous noise: z_v = A⁻¹(n_v + L_vi z_i + B z_v(before)), by a triangular solve.

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
        driven = driven + torch.einsum("nvw,nw->nv", mechanism.lagged, before)
    solved: Tensor = torch.linalg.solve_triangular(
        mechanism.system, driven.unsqueeze(-1), upper=False, unitriangular=True
    )
    return solved.squeeze(-1)


def noise_of(mechanism: Mechanism, latents: Tensor, invariant: Tensor, before: Tensor | None = None) -> Tensor:
    """Exogenous noise from latents, the inverse of `solve`; its mean included."""
    noise = torch.einsum("nvw,nw->nv", mechanism.system, latents)
    noise = noise - torch.einsum("nvi,ni->nv", mechanism.graph_invariant, invariant)
    if before is not None:
        noise = noise - torch.einsum("nvw,nw->nv", mechanism.lagged, before)
    return noise


class _ControlMechanism(nn.Module):
    """The mechanism of control cells, which both families change around: no edges, unit variance at the start."""

    below: Tensor

    def __init__(self, responsive: int, invariant: int, lagged: str) -> None:
        super().__init__()
        self.lagged = lagged
        self.register_buffer("below", torch.ones(responsive, responsive).tril(-1))
        self.graph = nn.Parameter(torch.zeros(responsive, responsive))
        self.graph_invariant = nn.Parameter(torch.zeros(responsive, invariant))
        self.mean = nn.Parameter(torch.zeros(responsive))
        self.raw_variance = nn.Parameter(torch.full((responsive,), _UNIT))

    @property
    def masked_graph(self) -> Tensor:
        """L_vv of control, (d_v, d_v) strictly lower triangular."""
        return self.graph * self.below


class FreeMechanisms(_ControlMechanism):
    """Mechanisms free in every environment, as published: linear, bias-free maps of u around control.

    As far as we know the theorem, this family alone does not identify the responsive latents; the study
    ``simulation.yaml`` measures it.

    Parameters
    ----------
    perturbations, responsive, invariant
        p, d_v, d_i.
    lagged
        ``none``, ``diagonal`` or ``dense``: form of B.
    """

    def __init__(self, perturbations: int, responsive: int, invariant: int, lagged: str = "none") -> None:
        super().__init__(responsive, invariant, lagged)
        p, d_v, d_i = perturbations, responsive, invariant
        self.graph_change = nn.Parameter(torch.zeros(p, d_v, d_v))
        self.graph_invariant_change = nn.Parameter(torch.zeros(p, d_v, d_i))
        self.mean_change = nn.Parameter(torch.zeros(p, d_v))
        self.raw_variance_change = nn.Parameter(torch.zeros(p, d_v))
        if lagged != "none":
            shape = (d_v,) if lagged == "diagonal" else (d_v, d_v)
            self.before = nn.Parameter(torch.zeros(shape))
            self.before_change = nn.Parameter(torch.zeros(p, *shape))

    def forward(self, u: Tensor) -> Mechanism:
        """Mechanisms under ``u`` (n, p)."""
        return Mechanism(
            graph=(self.graph + torch.einsum("np,pvw->nvw", u, self.graph_change)) * self.below,
            graph_invariant=self.graph_invariant + torch.einsum("np,pvi->nvi", u, self.graph_invariant_change),
            lagged=self._lagged(u),
            mean=self.mean + u @ self.mean_change,
            variance=softplus(self.raw_variance + u @ self.raw_variance_change) + _LEAST_VARIANCE,
        )

    def _lagged(self, u: Tensor) -> Tensor:
        if self.lagged == "none":
            return torch.zeros_like(self.graph).expand(len(u), -1, -1)
        if self.lagged == "diagonal":
            return torch.diag_embed(self.before + u @ self.before_change)
        return self.before + torch.einsum("np,pvw->nvw", u, self.before_change)

    def penalty(self) -> Tensor:
        """L1 norm of the graph and of everything perturbations change (scalar)."""
        total = self.masked_graph.abs().sum() + self.graph_invariant.abs().sum()
        total = total + (self.graph_change * self.below).abs().sum() + self.graph_invariant_change.abs().sum()
        total = total + self.mean_change.abs().sum() + self.raw_variance_change.abs().sum()
        if self.lagged != "none":
            total = total + self.before.abs().sum() + self.before_change.abs().sum()
        return total


class TargetedMechanisms(_ControlMechanism):
    """Each perturbation changes only its targets' rows: they are cut and get a new mean and variance.

    All other rows are shared with control. With known targets in a triangular model, a target's index also tells the
    causal order: an oracle.

    Parameters
    ----------
    targets : (p, d_v) bool
        Responsive latents each perturbation acts on.
    invariant
        d_i.
    lagged
        ``none``, ``diagonal`` or ``dense``: form of B.
    """

    targets: Tensor

    def __init__(self, targets: Tensor, invariant: int, lagged: str = "none") -> None:
        p, d_v = targets.shape
        super().__init__(d_v, invariant, lagged)
        self.register_buffer("targets", targets.float())
        self.mean_change = nn.Parameter(torch.zeros(p, d_v))
        self.raw_variance_change = nn.Parameter(torch.zeros(p, d_v))
        if lagged != "none":
            self.before = nn.Parameter(torch.zeros((d_v,) if lagged == "diagonal" else (d_v, d_v)))

    def forward(self, u: Tensor) -> Mechanism:
        """Mechanisms under ``u`` (n, p)."""
        kept = 1.0 - (u @ self.targets).clamp(max=1.0)
        row = kept.unsqueeze(-1)
        lagged = torch.zeros_like(self.graph)
        if self.lagged != "none":
            lagged = torch.diag(self.before) if self.lagged == "diagonal" else self.before
        return Mechanism(
            graph=self.masked_graph * row,
            graph_invariant=self.graph_invariant * row,
            lagged=lagged * row,
            mean=self.mean + u @ (self.mean_change * self.targets),
            variance=softplus(self.raw_variance + u @ (self.raw_variance_change * self.targets)) + _LEAST_VARIANCE,
        )

    def penalty(self) -> Tensor:
        """L1 norm of the graph and of what perturbations change (scalar)."""
        total = self.masked_graph.abs().sum() + self.graph_invariant.abs().sum()
        total = total + (self.mean_change * self.targets).abs().sum()
        total = total + (self.raw_variance_change * self.targets).abs().sum()
        return total + self.before.abs().sum() if self.lagged != "none" else total


Mechanisms = FreeMechanisms | TargetedMechanisms
