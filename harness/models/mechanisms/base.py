"""What every mechanism family offers, and the control mechanism they all change around."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from harness.models.scm import Mechanism

#: softplus(_UNIT) = 1: mechanisms start at unit variance.
_UNIT = 0.5413248546129181
#: Least exogenous variance, so that a mechanism cannot become deterministic and its density infinite.
LEAST_VARIANCE = 1e-4
#: Hidden units of a nonlinear transition, for each responsive latent.
BENDS = 4
LAGGED = ("none", "diagonal", "dense", "nonlinear")


class MechanismFamily(nn.Module, ABC):
    """Mechanisms of the responsive latents as a function of u.

    A family says which parameters perturbations may change, and so decides what can be identified. All hold the control
    mechanism in the same parameters: ``graph`` (d_v, d_v), ``graph_invariant`` (d_v, d_i), ``mean`` and
    ``raw_variance`` (d_v,) and, for a lagged part, ``before`` and what `_transition` names. They start without edges
    and with unit variance.

    Parameters
    ----------
    responsive, invariant
        d_v, d_i.
    lagged
        Form of the lagged part: ``none``; ``diagonal`` or ``dense`` matrix B; ``nonlinear``: B dense plus
        D tanh(V z(before)).

    Attributes
    ----------
    below : (d_v, d_v), 1 where an edge (row: into, column: from) may be; latents stand in causal order.
    """

    below: Tensor

    def __init__(self, responsive: int, invariant: int, lagged: str = "none") -> None:
        super().__init__()
        if lagged not in LAGGED:
            raise ValueError(f"lagged {lagged!r} is unknown; known are {', '.join(LAGGED)}")
        self.responsive, self.invariant, self.lagged = responsive, invariant, lagged
        self.register_buffer("below", torch.ones(responsive, responsive).tril(-1))
        self.graph = nn.Parameter(torch.zeros(responsive, responsive))
        self.graph_invariant = nn.Parameter(torch.zeros(responsive, invariant))
        self.mean = nn.Parameter(torch.zeros(responsive))
        self.raw_variance = nn.Parameter(torch.full((responsive,), _UNIT))
        if lagged != "none":
            self.before = nn.Parameter(torch.zeros((responsive,) if lagged == "diagonal" else (responsive, responsive)))
        if lagged == "nonlinear":
            bends = BENDS * responsive
            self.bent = nn.Parameter(torch.zeros(responsive, bends))
            self.bends = nn.Parameter(torch.randn(bends, responsive) / responsive**0.5)

    @abstractmethod
    def forward(self, u: Tensor) -> Mechanism:
        """Mechanisms under ``u`` (n, p)."""

    @abstractmethod
    def penalty(self) -> Tensor:
        """What ``sparsity`` weighs (scalar); each family says what that is."""

    @property
    def masked_graph(self) -> Tensor:
        """L_vv of control, (d_v, d_v), strictly lower triangular: latents stand in causal order."""
        return self.graph * self.below

    def anneal(self, progress: float) -> None:
        """Follow training's progress in [0, 1], where a family has a temperature."""

    @property
    def settled(self) -> bool:
        """Whether annealing is over."""
        return True

    def target_scores(self) -> Tensor | None:
        """(p, d_v) in [0, 1], how surely each perturbation acts on each latent; None where a family has no targets."""
        return None

    @torch.no_grad()
    def permute(self, order: Sequence[int]) -> None:
        """Put latent ``order[k]`` at place k of the causal order; edges that would point backwards are dropped."""
        places = list(order)
        for name, value in self.named_parameters():
            value.copy_(self._permuted(name, value, places))

    def _permuted(self, name: str, value: Tensor, places: list[int]) -> Tensor:
        """One parameter, its latents in another order; families add what they add parameters for."""
        if name == "bends":
            return value[:, places]
        if name in ("graph", "graph_change"):
            value = value * self.below  # an edge dropped once does not come back when latents move again
        rows = 1 if name.endswith("_change") else 0  # what changes has perturbations in front
        square = name.startswith(("graph", "before")) and "invariant" not in name and value.ndim == rows + 2
        moved = value[:, places] if rows else value[places]
        return moved[..., places] if square else moved

    @torch.no_grad()
    def restart(self, generator: torch.Generator) -> None:
        """Forget what was learned: no edges, unit variance, nothing changed."""
        for name, value in self.named_parameters():
            value.fill_(_UNIT if name == "raw_variance" else 0.0)
        if self.lagged == "nonlinear":
            # not zero: D and V both zero would leave neither a slope
            self.bends.copy_(torch.randn(self.bends.shape, generator=generator) / self.responsive**0.5)

    # -- parts that families share ----------------------------------------------------------------------

    def _lagged_of_control(self) -> Tensor:
        """B of control, (d_v, d_v)."""
        if self.lagged == "none":
            return torch.zeros_like(self.graph)
        return torch.diag(self.before) if self.lagged == "diagonal" else self.before

    def _bent_of_control(self) -> tuple[Tensor, Tensor]:
        """D (d_v, k) and V (k, d_v) of a nonlinear transition; k = 0 where there is none."""
        if self.lagged == "nonlinear":
            return self.bent, self.bends
        return self.graph.new_zeros(self.responsive, 0), self.graph.new_zeros(0, self.responsive)

    def _graph_l1(self) -> Tensor:
        """L1 norm of control's graph and lagged part."""
        total = self.masked_graph.abs().sum() + self.graph_invariant.abs().sum()
        if self.lagged != "none":
            total = total + self.before.abs().sum()
        return total + self.bent.abs().sum() if self.lagged == "nonlinear" else total
