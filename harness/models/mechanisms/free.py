"""Mechanisms free in every environment, as published, and the two families that restrict them mildly."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from harness.models.mechanisms.base import LEAST_VARIANCE, MechanismFamily
from harness.models.scm import Mechanism


class FreeMechanisms(MechanismFamily):
    """Every environment has mechanisms of its own: bias-free linear maps of u around control, as published.

    As far as we know the theorem, this family alone does not identify the responsive latents: R Σ(u) Rᵀ has an LDL
    factorisation for any rotation R, which is a valid mechanism again. ``sparsity`` weighs the L1 norm of the graph and
    of everything perturbations change.

    Parameters
    ----------
    perturbations, responsive, invariant
        p, d_v, d_i.
    lagged
        See `MechanismFamily`; a nonlinear transition's D changes with u, its V is shared.
    """

    def __init__(self, perturbations: int, responsive: int, invariant: int, lagged: str = "none") -> None:
        super().__init__(responsive, invariant, lagged)
        p, d_v, d_i = perturbations, responsive, invariant
        self.graph_change = nn.Parameter(torch.zeros(p, d_v, d_v))
        self.graph_invariant_change = nn.Parameter(torch.zeros(p, d_v, d_i))
        self.mean_change = nn.Parameter(torch.zeros(p, d_v))
        self.raw_variance_change = nn.Parameter(torch.zeros(p, d_v))
        if lagged != "none":
            self.before_change = nn.Parameter(torch.zeros(p, *self.before.shape))
        if lagged == "nonlinear":
            self.bent_change = nn.Parameter(torch.zeros(p, *self.bent.shape))

    def forward(self, u: Tensor) -> Mechanism:
        """Mechanisms under ``u`` (n, p)."""
        lagged, (bent, bends) = self._lagged_of_control(), self._bent_of_control()
        lagged = lagged.expand(len(u), -1, -1)
        bent = bent.expand(len(u), -1, -1)
        if self.lagged == "diagonal":
            lagged = lagged + torch.diag_embed(u @ self.before_change)
        elif self.lagged != "none":
            lagged = lagged + _changed(u, self.before_change)
        if self.lagged == "nonlinear":
            bent = bent + _changed(u, self.bent_change)
        return Mechanism(
            graph=(self.graph + _changed(u, self.graph_change)) * self.below,
            graph_invariant=self.graph_invariant + _changed(u, self.graph_invariant_change),
            lagged=lagged,
            mean=self.mean + u @ self.mean_change,
            variance=softplus(self.raw_variance + u @ self.raw_variance_change) + LEAST_VARIANCE,
            bent=bent,
            bends=bends,
        )

    def changes(self) -> list[Tensor]:
        """Everything perturbations change, each (p, d_v, ...): one row a perturbation and latent."""
        found = [self.graph_change * self.below, self.graph_invariant_change, self.mean_change]
        found.append(self.raw_variance_change)
        if self.lagged != "none":
            found.append(self.before_change)
        if self.lagged == "nonlinear":
            found.append(self.bent_change)
        return found

    def penalty(self) -> Tensor:
        """L1 norm of the graph and of everything perturbations change (scalar)."""
        return self._graph_l1() + torch.stack([change.abs().sum() for change in self.changes()]).sum()


class DiagonalMechanisms(FreeMechanisms):
    """No edges among responsive latents, all else free in every environment: identifiable as in iVAE.

    Given u and z_i the responsive latents are independent (Khemakhem et al. 2020), so that enough environments identify
    them *where the truth has no edges among them either*. ``sparsity`` as in `FreeMechanisms`.
    """

    def __init__(self, perturbations: int, responsive: int, invariant: int, lagged: str = "none") -> None:
        super().__init__(perturbations, responsive, invariant, lagged)
        self.below.zero_()


class GroupSparseMechanisms(FreeMechanisms):
    """Free mechanisms under a penalty on whole row changes: which rows a perturbation changes is learned.

    ``sparsity`` weighs Σ over perturbations and rows of the Euclidean norm of all that a perturbation changes in a row
    (edges, lagged part, mean, variance): a group lasso, which sets whole changes to zero. The graph is not penalised,
    and nothing makes a changed row lose its edges. At ``sparsity: 0`` it is the free family.
    """

    def penalty(self) -> Tensor:
        """Sum of the norms of row changes (scalar)."""
        return self.row_changes().sum()

    def row_changes(self) -> Tensor:
        """(p, d_v) Euclidean norm of the change of each row under each perturbation."""
        parts = [change.reshape(*change.shape[:2], -1) for change in self.changes()]
        # a floor under the root: its slope is infinite at zero, where all changes start
        return (torch.cat(parts, dim=2).square().sum(2) + 1e-10).sqrt()


def _changed(u: Tensor, change: Tensor) -> Tensor:
    """(n, rows, columns) from u (n, p) and (p, rows, columns)."""
    return torch.einsum("np,pvw->nvw", u, change)
