"""What a supervised model learns to say of each frame."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.data.batch import Truth


def regression_targets(truth: Truth) -> tuple[Tensor, Tensor]:
    """True latents as columns without a seam: an angle is its cosine and its sine, side by side.

    Parameters
    ----------
    truth
        Of m frames.

    Returns
    -------
    (m, a) of the responsive and (m, b) of the invariant latents, in their order, in the truth's units.
    """
    return (
        _columns(truth.responsive, truth.responsive_names, truth.periodic),
        _columns(truth.invariant, truth.invariant_names, truth.periodic),
    )


def _columns(latents: Tensor, names: tuple[str, ...], periodic: tuple[str, ...]) -> Tensor:
    parts = []
    for name, column in zip(names, latents.T, strict=True):
        parts += [column.cos(), column.sin()] if name in periodic else [column]
    return torch.stack(parts, dim=1) if parts else latents  # no latent at all: (m, 0)
