"""Fit W, C and mechanisms to posterior moments from many starts at once."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from harness.models.mechanisms import MechanismFamily
from harness.models.moments import Moments, moment_loss, whitened

#: Adam's rate at the start; it falls to zero as a cosine.
RATE = 0.03

#: Penalty (r,) on r candidates' W (r, d_v, d_v) and C (r, d_v, d_i).
Penalty = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Candidates:
    """r settings of W, C and a mechanism family.

    Attributes
    ----------
    unmixing : (r, d_v, d_v) W
    across : (r, d_v, d_i) C
    families : r families, which own their parameters
    """

    unmixing: Tensor
    across: Tensor
    families: list[MechanismFamily]

    def __len__(self) -> int:
        return len(self.families)

    def chosen(self, which: Sequence[int]) -> Candidates:
        """Some of them, in the order asked for."""
        rows = list(which)
        return Candidates(self.unmixing[rows], self.across[rows], [self.families[row] for row in rows])

    def reordered(self, orders: Sequence[Sequence[int]]) -> Candidates:
        """Each of them once for each causal order, whose latents move to the places named."""
        unmixing, across, families = [], [], []
        for number, family in enumerate(self.families):
            for order in map(list, orders):
                moved = copy.deepcopy(family)
                moved.permute(order)
                unmixing.append(self.unmixing[number][order])
                across.append(self.across[number][order])
                families.append(moved)
        return Candidates(torch.stack(unmixing), torch.stack(across), families)

    def joined(self, other: Candidates) -> Candidates:
        """These and the others."""
        return Candidates(
            torch.cat([self.unmixing.double(), other.unmixing.double()]),
            torch.cat([self.across.double(), other.across.double()]),
            self.families + other.families,
        )


@dataclass(frozen=True)
class Fitted:
    """Candidates after fitting, with their losses (r,) in nats a frame, sparsity counted and other penalties not."""

    candidates: Candidates
    loss: Tensor

    @property
    def best(self) -> int:
        """The candidate of lowest loss."""
        return int(self.loss.argmin())

    def joined(self, other: Fitted) -> Fitted:
        """These and the others."""
        return Fitted(self.candidates.joined(other.candidates), torch.cat([self.loss, other.loss]))


def refit(
    start: Candidates,
    moments: Moments,
    *,
    steps: int,
    rate: float = RATE,
    sparsity: float = 0.0,
    penalty: Penalty | None = None,
    annealed: bool = False,
) -> Fitted:
    """Minimise the moment loss of each candidate by Adam, in double precision.

    A family with a temperature is annealed over the steps.

    Parameters
    ----------
    start
        Where to start; left as it is.
    moments
        What to fit, on the CPU in double precision.
    steps
        Of Adam.
    sparsity
        Weight of the families' penalties.
    penalty
        Added to the loss while fitting, e.g. to keep candidates away from a solution.
    annealed
        Keep what a family anneals at its end, e.g. a learned assignment hard.

    Raises
    ------
    ValueError
        For a family with a nonlinear transition, whose loss is no function of moments.
    """
    template = copy.deepcopy(start.families[0]).double()
    if template.lagged == "nonlinear":
        raise ValueError("a nonlinear transition cannot be fitted to moments; use lagged: diagonal or dense")
    objective = _Objective(template, moments, sparsity)
    parameters, buffers = stack_module_state([copy.deepcopy(family).double() for family in start.families])
    buffers.pop("temperature", None)  # the template's own, which is annealed
    whitener, objective.moments = whitened(objective.moments, template.responsive)
    unmixing = torch.linalg.solve(whitener, start.unmixing.double(), left=False).requires_grad_()
    across = start.across.double().clone().requires_grad_()

    def one(own: dict[str, Tensor], fixed: dict[str, Tensor], w: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        state = {f"family.{name}": value for name, value in {**own, **fixed}.items()}
        return functional_call(objective, state, (w, c))

    every = vmap(one)
    optimizer = torch.optim.Adam([*parameters.values(), unmixing, across], lr=rate, betas=(0.9, 0.99))
    if annealed:
        template.anneal(1.0)
    for step in range(steps):
        if not annealed:
            template.anneal((step + 1) / steps)
        optimizer.param_groups[0]["lr"] = rate * 0.5 * (1.0 + math.cos(math.pi * step / steps))
        optimizer.zero_grad(set_to_none=True)
        loss, weighed = every(parameters, buffers, unmixing, across)
        total = (loss + weighed).sum()
        if penalty is not None:
            total = total + penalty(unmixing @ whitener, across).sum()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        loss = torch.stack(every(parameters, buffers, unmixing, across)).sum(0)
    families = []
    for number, family in enumerate(start.families):
        fitted = copy.deepcopy(family).double()
        fitted.anneal(1.0)
        with torch.no_grad():
            for name, value in fitted.named_parameters():
                value.copy_(parameters[name][number])
        families.append(fitted)
    loss = loss - torch.linalg.slogdet(whitener).logabsdet
    return Fitted(Candidates(unmixing.detach() @ whitener, across.detach(), families), loss)


def random_starts(family: MechanismFamily, moments: Moments, count: int, generator: torch.Generator) -> Candidates:
    """Random orthogonal rotations of whitened features, C = 0, and the family started afresh.

    Parameters
    ----------
    family
        Left as it is.
    moments
        What whitens the features.
    count
        Candidates.
    generator
        On the CPU.
    """
    d_v, d_i = family.responsive, family.invariant
    whitener, _ = whitened(moments, d_v)
    gaussian = torch.randn(count, d_v, d_v, generator=generator, dtype=torch.float64)
    rotations = torch.linalg.qr(gaussian).Q
    families = []
    for _ in range(count):
        fresh = copy.deepcopy(family)
        fresh.restart(generator)
        families.append(fresh)
    return Candidates(rotations @ whitener, torch.zeros(count, d_v, d_i, dtype=torch.float64), families)


class _Objective(nn.Module):
    """The moment loss of one candidate, and what its family's penalty weighs."""

    def __init__(self, family: MechanismFamily, moments: Moments, sparsity: float) -> None:
        super().__init__()
        self.family, self.moments, self.sparsity = family, moments, sparsity

    def forward(self, unmixing: Tensor, across: Tensor) -> tuple[Tensor, Tensor]:
        loss = moment_loss(self.moments, self.family(self.moments.u), unmixing, across)
        return loss, self.sparsity * self.family.penalty() if self.sparsity > 0 else torch.zeros_like(loss)
