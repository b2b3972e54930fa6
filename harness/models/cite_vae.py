"""CITE-VAE (Jiang et al., KDD 2026, arXiv 2605.25581): latents whose mechanisms act over time.

The paper states the ingredients; the equations are our reconstruction:

    z_{v,0} as a snapshot under control mechanisms
    z_{v,t} := B(u) z_{v,t−1} + L_vv(u) z_{v,t} + L_vi(u) z_i + n_{v,t}
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.models.base import Latents, Loss, Networks
from harness.models.causal_vae import CausalVAE
from harness.models.moments import Context
from harness.models.posterior import Features, Invariant, apply
from harness.models.scm import Mechanism


class CiteVAE(CausalVAE):
    """Responsive latents over T frames, with lagged and instantaneous edges, and an invariant part they share.

    A snapshot screen is T = 2: a control cell, then the perturbed cell.

    Parameters
    ----------
    shape, networks, options
        See `CausalVAE`.
    """

    def __init__(self, shape: tuple[int, ...], networks: Networks, **options: Any) -> None:
        super().__init__(shape, networks, **options)

    def _infer_trajectory(self, frames: Tensor, u: Tensor) -> tuple[list[Features], Invariant, list[Tensor]]:
        """Posteriors of each time's responsive part, of the shared z_i, and each frame's own invariant mean.

        The shared posterior of z_i averages the frames' means and factors.
        """
        n, times = frames.shape[:2]
        under = self._perturbations(u, times)
        features, invariant = self.infer(frames.transpose(0, 1).flatten(0, 1), torch.cat(under))
        responsive = [Features(*parts) for parts in zip(*(part.split(n) for part in features), strict=True)]
        each = list(invariant.mean.split(n))
        factor = torch.stack(invariant.factor.split(n)).mean(0)
        return responsive, Invariant(torch.stack(each).mean(0), factor), each

    @staticmethod
    def _perturbations(u: Tensor, times: int) -> list[Tensor]:
        """u at each time: control at the first, ``u`` after it."""
        return [torch.zeros_like(u), *[u] * (times - 1)]

    def _mechanisms_over_time(self, u: Tensor, times: int) -> list[Mechanism]:
        start, after = self.mechanisms(torch.zeros_like(u)), self.mechanisms(u)
        return [start, *[after] * (times - 1)]

    def loss(self, frames: Tensor, u: Tensor, kl_weight: float, generator: torch.Generator | None) -> Loss:
        times = frames.shape[1]
        responsive, invariant, each = self._infer_trajectory(frames, u)
        mechanisms = self._mechanisms_over_time(u, times)
        terms = self.trajectory_bound(frames, responsive, invariant, mechanisms, generator)
        return self.assemble(terms, each, times, kl_weight)

    def contexts(self, frames: Tensor, u: Tensor) -> list[Context]:
        responsive, invariant, _ = self._infer_trajectory(frames, u.expand(len(frames), -1))
        found = [Context(torch.zeros_like(u), responsive[0], None, invariant)]
        for before, now in zip(responsive[:-1], responsive[1:], strict=True):
            found.append(Context(u, now, before, invariant))
        return found

    def encode(self, frames: Tensor, u: Tensor) -> Latents:
        times = frames.shape[1]
        responsive, invariant, _ = self._infer_trajectory(frames, u)
        latents: Tensor | None = None
        for posterior, mechanism in zip(responsive, self._mechanisms_over_time(u, times), strict=True):
            latents = self.posterior.latents(posterior.mean, invariant.mean, mechanism, latents)
        assert latents is not None
        return Latents(latents, invariant.mean)

    def predict_latents(self, control: Tensor, u: Tensor, steps: int, generator: torch.Generator) -> Latents:
        start = torch.zeros_like(u)
        features, invariant = self.infer(control, start)
        shared = torch.randn(invariant.mean.shape, generator=generator, device=control.device)
        own = torch.randn(features.mean.shape, generator=generator, device=control.device)
        z_i = invariant.mean + apply(invariant.factor, shared)
        latents = self.posterior.latents(features.at(shared, own), z_i, self.mechanisms(start), None)
        mechanism = self.mechanisms(u)
        for _ in range(steps):
            latents = self.draw_latents(mechanism, z_i, latents, generator)
        return Latents(latents, z_i)
