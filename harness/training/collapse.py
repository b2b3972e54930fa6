"""Latents that say nothing of a cell, named."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from harness.models import Latents
from harness.words import first

#: A latent dimension is active when its posterior mean varies more than this over cells (Burda et al. 2016).
ACTIVE_VARIANCE = 0.01
#: A block whose posterior is nearer its prior than this, in nats a cell, hardly tells cells of one condition apart.
LEAST_KL = 0.1
#: Latents that are named.
_MOST_NAMED = 10


def inactive(means: Tensor) -> list[int]:
    """Columns of posterior means (n, d) that are not active, counted from 0; all of them for a single cell."""
    if len(means) < 2 or means.shape[1] == 0:
        return list(range(means.shape[1]))
    return torch.nonzero(means.var(0) <= ACTIVE_VARIANCE).flatten().tolist()


def collapse_warnings(latents: Latents, metrics: Mapping[str, float]) -> list[str]:
    """One sentence for each block that has collapsed, wholly or in part.

    Parameters
    ----------
    latents
        Posterior means of validation cells.
    metrics
        Of the last validation; of a model with two blocks, their ``validation/kl_<block>`` in nats a cell.
    """
    found = []
    for block, means in zip(("responsive", "invariant"), latents, strict=True):
        idle = inactive(means)
        kl = metrics.get(f"validation/kl_{block}")
        if len(idle) == means.shape[1]:
            found.append(f"the {block} block collapsed: no latent is active on validation cells")
        elif idle:
            names = first([str(k + 1) for k in idle], _MOST_NAMED)
            found.append(
                f"{len(idle)} of {means.shape[1]} latents of the {block} block collapsed: {names} are not active on "
                "validation cells"
            )
        elif kl is not None and kl < LEAST_KL:
            found.append(
                f"the {block} block is close to its prior ({kl:.2g} nats a cell): it hardly tells cells of one "
                "condition apart"
            )
    return found
