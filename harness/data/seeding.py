"""Random streams derived from (seed, purpose), so that no stream depends on the order of another's draws."""

from __future__ import annotations

import hashlib
import json

import torch


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose.

    Parameters
    ----------
    seed
        The user's seed.
    purpose
        Words and numbers naming the stream, e.g. ``("batches", epoch)``.
    """
    text = json.dumps([seed, *purpose])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for one purpose; see `derive`."""
    return torch.Generator(device=device).manual_seed(derive(seed, *purpose))


def drawn(rows: torch.Tensor, most: int, seed: int, *purpose: str | int) -> torch.Tensor:
    """At most ``most`` of the rows (n,), drawn at random from all of them for one purpose; in their order.

    Rows of a file lie in an order that means something (one batch after the other), so that the first ones are never
    a sample of all.
    """
    if len(rows) <= most:
        return rows
    return rows[torch.randperm(len(rows), generator=generator(seed, *purpose))[:most].sort().values]
