"""Each perturbation changes the rows of its targets alone: sparse change, and the cut rows of condition (iv)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from harness.models.mechanisms.base import LEAST_VARIANCE, MechanismFamily
from harness.models.scm import Mechanism

#: Temperature of the soft assignment at the start and at the end of annealing.
HOT, COLD = 1.0, 0.1
#: Spread of an assignment's logits at the start.
_START = 0.1
#: Share of training after which a learned assignment is hard.
HARD_FROM = 0.6


class _Targeted(MechanismFamily):
    """Rows of targets change, other rows are shared with control.

    A target's row gets a new noise mean and variance and, with ``intervention: cut``, loses its incoming edges, the
    lagged ones included; with ``soft`` its edges change freely instead. ``sparsity`` weighs the L1 norm of the graph
    and of what perturbations change.

    Parameters
    ----------
    perturbations, responsive, invariant
        p, d_v, d_i.
    lagged
        See `MechanismFamily`.
    intervention
        ``cut`` or ``soft``.
    """

    def __init__(
        self, perturbations: int, responsive: int, invariant: int, lagged: str = "none", intervention: str = "cut"
    ) -> None:
        super().__init__(responsive, invariant, lagged)
        if intervention not in ("cut", "soft"):
            raise ValueError(f"intervention {intervention!r} is unknown; known are cut, soft")
        self.intervention = intervention
        p, d_v = perturbations, responsive
        self.mean_change = nn.Parameter(torch.zeros(p, d_v))
        self.raw_variance_change = nn.Parameter(torch.zeros(p, d_v))
        if intervention == "soft":
            self.graph_change = nn.Parameter(torch.zeros(p, d_v, d_v))
            self.graph_invariant_change = nn.Parameter(torch.zeros(p, d_v, invariant))
            if lagged != "none":
                self.before_change = nn.Parameter(torch.zeros(p, *self.before.shape))
            if lagged == "nonlinear":
                self.bent_change = nn.Parameter(torch.zeros(p, *self.bent.shape))

    @abstractmethod
    def assignment(self) -> Tensor:
        """(p, d_v) in [0, 1]: how far each perturbation acts on each latent."""

    def forward(self, u: Tensor) -> Mechanism:
        """Mechanisms under ``u`` (n, p)."""
        targets = self.assignment()
        mean = self.mean + u @ (self.mean_change * targets)
        raw_variance = self.raw_variance + u @ (self.raw_variance_change * targets)
        bent, bends = self._bent_of_control()
        rows = [self.masked_graph, self.graph_invariant, self._lagged_of_control(), bent]
        if self.intervention == "cut":
            kept = (1.0 - (u @ targets).clamp(max=1.0)).unsqueeze(-1)
            rows = [row * kept for row in rows]
        else:
            rows = [row + change for row, change in zip(rows, self._soft_changes(u, targets), strict=True)]
        graph, graph_invariant, lagged, bent = rows
        variance = softplus(raw_variance) + LEAST_VARIANCE
        return Mechanism(graph, graph_invariant, lagged, mean, variance, bent, bends)

    def _soft_changes(self, u: Tensor, targets: Tensor) -> list[Tensor]:
        """Changes of L_vv, L_vi, B and D under u, each (n, d_v, ...)."""

        def of(change: Tensor) -> Tensor:
            return torch.einsum("np,pv,pvw->nvw", u, targets, change)

        lagged = torch.zeros_like(self.graph).expand(len(u), -1, -1)
        if self.lagged == "diagonal":
            lagged = torch.diag_embed(u @ (self.before_change * targets))
        elif self.lagged != "none":
            lagged = of(self.before_change)
        bent = self._bent_of_control()[0].new_zeros(len(u), 1, 1)
        if self.lagged == "nonlinear":
            bent = of(self.bent_change)
        return [of(self.graph_change) * self.below, of(self.graph_invariant_change), lagged, bent]

    def penalty(self) -> Tensor:
        """L1 norm of the graph and of what perturbations change (scalar)."""
        targets = self.assignment()
        total = self._graph_l1() + (self.mean_change * targets).abs().sum()
        total = total + (self.raw_variance_change * targets).abs().sum()
        if self.intervention == "soft":
            changes = self._soft_changes(torch.eye(len(targets)).to(targets), targets)
            total = total + torch.stack([change.abs().sum() for change in changes]).sum()
        return total

    def target_scores(self) -> Tensor:
        return self.assignment().detach()


class KnownTargets(_Targeted):
    """Targets given, an oracle: a target's label tells perturbations of one latent from those of another, and its
    column tells the latent's place in the causal order.

    Parameters
    ----------
    targets : (p, d_v) bool
        Responsive latents each perturbation acts on, columns in causal order. Where the order is not to be given away,
        columns are shuffled, and the second stage searches orders by loss.
    invariant, lagged, intervention
        See `_Targeted`.
    """

    targets: Tensor

    def __init__(self, targets: Tensor, invariant: int, lagged: str = "none", intervention: str = "cut") -> None:
        super().__init__(targets.shape[0], targets.shape[1], invariant, lagged, intervention)
        self.register_buffer("targets", targets.float())

    @torch.no_grad()
    def permute(self, order: Sequence[int]) -> None:
        super().permute(order)
        self.targets.copy_(self.targets[:, list(order)])

    def assignment(self) -> Tensor:
        return self.targets


class LearnedTargets(_Targeted):
    """Targets learned as a soft assignment, annealed until each perturbation acts on its strongest targets alone.

    Each of ``count`` draws a perturbation makes is a softmax over latents at a temperature that falls geometrically
    from 1 to 0.1 over the first 60 % of training; a latent is acted on if any draw names it. Afterwards draws are hard.

    Parameters
    ----------
    perturbations, responsive, invariant, lagged, intervention
        See `_Targeted`.
    count
        Targets a perturbation has, at most.
    """

    temperature: Tensor

    def __init__(
        self,
        perturbations: int,
        responsive: int,
        invariant: int,
        lagged: str = "none",
        intervention: str = "cut",
        count: int = 1,
    ) -> None:
        super().__init__(perturbations, responsive, invariant, lagged, intervention)
        if not 1 <= count <= responsive:
            raise ValueError(f"targets_per_perturbation is {count}, but there are {responsive} responsive latents")
        self.logits = nn.Parameter(_START * torch.randn(count, perturbations, responsive))
        # 0 stands for a hard assignment; a buffer, so that a checkpoint resumes at the temperature it was saved at
        self.register_buffer("temperature", torch.tensor(HOT))

    def _permuted(self, name: str, value: Tensor, places: list[int]) -> Tensor:
        return value[..., places] if name == "logits" else super()._permuted(name, value, places)

    @torch.no_grad()
    def restart(self, generator: torch.Generator) -> None:
        super().restart(generator)
        self.temperature.fill_(HOT)
        self.logits.copy_(_START * torch.randn(self.logits.shape, generator=generator))

    @property
    def settled(self) -> bool:
        return bool(self.temperature == 0)

    def anneal(self, progress: float) -> None:
        if self.settled:
            return  # a hard assignment stays so until it is started afresh
        cooled = HOT * (COLD / HOT) ** (progress / HARD_FROM)
        self.temperature.fill_(cooled if progress < HARD_FROM else 0.0)

    def assignment(self) -> Tensor:
        soft = torch.softmax(self.logits / self.temperature.clamp_min(COLD), dim=2)
        hard = torch.zeros_like(soft).scatter(2, soft.argmax(2, keepdim=True), 1.0)
        drawn = torch.where(self.temperature > 0, soft, hard)
        return 1.0 - torch.prod(1.0 - drawn, dim=0)
