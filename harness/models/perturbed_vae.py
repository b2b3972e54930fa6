"""PerturbedVAE (Jiang et al., ICML 2026, arXiv 2605.19343): one snapshot under u, paired with a control."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.models.base import Latents, Loss, Networks
from harness.models.causal_vae import CausalVAE
from harness.models.moments import Context
from harness.models.posterior import apply


class PerturbedVAE(CausalVAE):
    """Responsive and invariant latents of snapshots.

    The loss is reconstruction + λ_v KL_v + λ_i KL_i, for the perturbed and the control cell alike, + α times the
    misalignment of their invariant parts + sparsity. Of a longer trajectory it sees the first and the last frame.

    Parameters
    ----------
    shape, networks, options
        See `CausalVAE`; the family has no lagged part.
    """

    def __init__(self, shape: tuple[int, ...], networks: Networks, **options: Any) -> None:
        super().__init__(shape, networks, **options)

    def loss(self, frames: Tensor, u: Tensor, kl_weight: float, generator: torch.Generator | None) -> Loss:
        n = len(frames)
        if self.paired:
            x = torch.cat([frames[:, -1], frames[:, 0]])
            u = torch.cat([u, torch.zeros_like(u)])
        else:
            x = frames[:, -1]
        responsive, invariant = self.infer(x, u)
        terms = self.trajectory_bound(x.unsqueeze(1), [responsive], [invariant], [self.mechanisms(u)], generator)
        aligned = [invariant.mean[:n], invariant.mean[n:]] if self.paired else []
        return self.assemble(terms, aligned, 1, kl_weight)

    def contexts(self, frames: Tensor, u: Tensor) -> list[Context]:
        control = torch.zeros_like(u)
        seen = [(frames[:, -1], u), (frames[:, 0], control)] if self.paired else [(frames[:, -1], u)]
        found = []
        for x, under in seen:
            responsive, invariant = self.infer(x, under.expand(len(x), -1))
            found.append(Context(under, responsive, None, invariant))
        return found

    def encode(self, frames: Tensor, u: Tensor) -> Latents:
        responsive, invariant = self.infer(frames[:, -1], u)
        latents = self.posterior.latents(responsive.mean, invariant.mean, self.mechanisms(u), None)
        return Latents(latents, invariant.mean)

    def predict_latents(self, control: Tensor, u: Tensor, steps: int, generator: torch.Generator) -> Latents:
        _, invariant = self.infer(control, torch.zeros_like(u))
        normals = torch.randn(invariant.mean.shape, generator=generator, device=control.device)
        z_i = invariant.mean + apply(invariant.factor, normals)
        return Latents(self.draw_latents(self.mechanisms(u), z_i, None, generator), z_i)
