"""What each mini-batch of an epoch holds."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.errors import UserError


def epoch_batches(condition: Tensor, kind: str, size: int, generator: torch.Generator) -> list[Tensor]:
    """Mini-batches of one epoch, as positions among the training rows, each of two rows or more.

    Parameters
    ----------
    condition : (n,) int64
        Condition of each training row; 0 is control.
    kind
        ``shuffled``: every row once. ``balanced``: each condition as often as any other in every mini-batch, give or
        take one; an epoch is as long as a shuffled one, so that rows of large conditions wait for another epoch and
        those of small ones come more than once. ``by_condition``: perturbed rows of one condition only, in full
        mini-batches (a condition that does not fill one has one of its own), those of different conditions in random
        order; what is left over waits for another epoch.
    size
        Rows of a mini-batch.
    generator
        Source of the order.

    Raises
    ------
    UserError
        If no mini-batch can be made: no condition has two rows.
    """
    if kind == "balanced":
        order = _balanced(condition, generator)
    elif kind == "by_condition":
        return _of_one_condition(condition, size, generator)
    else:
        order = torch.randperm(len(condition), generator=generator)
    return _some([batch for batch in order.split(size) if len(batch) > 1])


def _balanced(condition: Tensor, generator: torch.Generator) -> Tensor:
    """Rounds of one row of each condition, in an order of their own; (n,) positions."""
    present = condition.unique()
    rounds = -(-len(condition) // len(present))
    drawn = torch.stack([_repeated(condition == which, rounds, generator) for which in present], dim=1)
    mixed = torch.rand(drawn.shape, generator=generator).argsort(dim=1)
    return drawn.gather(1, mixed).flatten()[: len(condition)]


def _repeated(here: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` rows of a condition, all of them before any comes again; a new order each time."""
    rows = torch.nonzero(here).flatten()
    passes = -(-count // len(rows))
    orders = torch.rand((passes, len(rows)), generator=generator).argsort(dim=1)
    return rows[orders].flatten()[:count]


def _of_one_condition(condition: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    perturbed = condition[condition > 0].unique()
    batches: list[Tensor] = []
    for which in perturbed if len(perturbed) else condition.unique():
        here = condition == which
        rows = _repeated(here, int(here.sum()), generator)
        full = [batch for batch in rows.split(size) if len(batch) == size]
        batches += full or ([rows] if len(rows) > 1 else [])
    return _some([batches[k] for k in torch.randperm(len(batches), generator=generator).tolist()])


def _some(batches: list[Tensor]) -> list[Tensor]:
    if not batches:
        raise UserError("there are too few training cells for a mini-batch of two; give more cells of a condition")
    return batches
