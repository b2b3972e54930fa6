"""Mechanism families: what perturbations may change, and so what can be identified. One class each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.models.mechanisms.base import MechanismFamily
from harness.models.mechanisms.free import DiagonalMechanisms, FreeMechanisms, GroupSparseMechanisms
from harness.models.mechanisms.targeted import KnownTargets, LearnedTargets

__all__ = [
    "DiagonalMechanisms",
    "FamilyOptions",
    "FreeMechanisms",
    "GroupSparseMechanisms",
    "KnownTargets",
    "LearnedTargets",
    "MechanismFamily",
    "build_family",
]

_FREE = {"free": FreeMechanisms, "diagonal": DiagonalMechanisms, "group_sparse": GroupSparseMechanisms}


@dataclass(frozen=True)
class FamilyOptions:
    """A family as the study file names it.

    Attributes
    ----------
    mechanisms : ``free``, ``diagonal``, ``group_sparse`` or ``targeted``.
    targets : for ``targeted``: ``known``, ``known_unordered`` or ``learned``.
    targets_per_perturbation : for learned targets.
    intervention : for ``targeted``: ``cut`` or ``soft``.
    lagged : form of the lagged part.
    """

    mechanisms: str
    targets: str = "known"
    targets_per_perturbation: int = 1
    intervention: str = "cut"
    lagged: str = "none"

    @property
    def order_is_open(self) -> bool:
        """Whether the family depends on the causal order, and the order is not given with the targets."""
        return self.mechanisms == "targeted" and self.targets != "known"


def build_family(
    options: FamilyOptions, *, perturbations: int, responsive: int, invariant: int, known: Tensor | None
) -> MechanismFamily:
    """The mechanism family a study file names, its parameters drawn from torch's global generator.

    Parameters
    ----------
    perturbations, responsive, invariant
        p, d_v, d_i.
    known : (p, d_true) bool
        Targets the data know, or None; d_true <= d_v.

    Raises
    ------
    ValueError
        Where targets must be known and are not, or are more than there are latents.
    """
    sizes = (perturbations, responsive, invariant)
    if options.mechanisms in _FREE:
        return _FREE[options.mechanisms](*sizes, options.lagged)
    if options.mechanisms != "targeted":
        raise ValueError(f"mechanisms {options.mechanisms!r} is unknown; known are {', '.join(_FREE)}, targeted")
    if options.targets == "learned":
        return LearnedTargets(*sizes, options.lagged, options.intervention, options.targets_per_perturbation)
    if known is None:
        raise ValueError(
            f"targets: {options.targets} needs known targets, which these data do not have; use targets: learned"
        )
    width = known.shape[1]
    if width > responsive:
        raise ValueError(
            f"targets: {options.targets} needs a responsive latent for each of the {width} targets, not {responsive}"
        )
    padded = torch.zeros(perturbations, responsive, dtype=torch.bool)
    padded[:, :width] = known
    if options.order_is_open:
        # shuffled: the index would be the order of the data's own generator
        padded = padded[:, torch.randperm(responsive)]
    return KnownTargets(padded, invariant, options.lagged, options.intervention)
