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

    A snapshot screen is T = 2: a control cell, then the perturbed cell. Where the two are strangers, they share no
    invariant part, and each frame has one of its own.

    Parameters
    ----------
    shape, networks, options
        See `CausalVAE`.
    followed
        Whether the frames of a trajectory are one cell's.
    """

    def __init__(self, shape: tuple[int, ...], networks: Networks, *, followed: bool = True, **options: Any) -> None:
        super().__init__(shape, networks, **options)
        self.followed = followed

    def _infer_trajectory(self, frames: Tensor, u: Tensor) -> tuple[list[Features], list[Invariant], list[Tensor]]:
        """Posteriors of each time's responsive part and z_i, and each frame's own invariant mean.

        The posterior of a z_i that is shared averages the frames' means and factors.
        """
        n, times = frames.shape[:2]
        under = self._perturbations(u, times)
        features, invariant = self.infer(frames.transpose(0, 1).flatten(0, 1), torch.cat(under))
        responsive = [Features(*parts) for parts in zip(*(part.split(n) for part in features), strict=True)]
        means, factors = invariant.mean.split(n), invariant.factor.split(n)
        if self.followed:
            shared = [Invariant(torch.stack(means).mean(0), torch.stack(factors).mean(0))] * times
        else:
            shared = [Invariant(*parts) for parts in zip(means, factors, strict=True)]
        return responsive, shared, list(means)

    @staticmethod
    def _perturbations(u: Tensor, times: int) -> list[Tensor]:
        """u at each time: control at the first, ``u`` after it."""
        return [torch.zeros_like(u), *[u] * (times - 1)]

    def _mechanisms_over_time(self, u: Tensor, times: int) -> list[Mechanism]:
        start, after = self.mechanisms(torch.zeros_like(u)), self.mechanisms(u)
        return [start, *[after] * (times - 1)]

    def loss(self, frames: Tensor, u: Tensor, kl_weight: float, generator: torch.Generator | None) -> Loss:
        times = frames.shape[1]
        responsive, invariants, each = self._infer_trajectory(frames, u)
        mechanisms = self._mechanisms_over_time(u, times)
        terms = self.trajectory_bound(frames, responsive, invariants, mechanisms, generator)
        return self.assemble(terms, each, times, kl_weight)

    def contexts(self, frames: Tensor, u: Tensor) -> list[Context]:
        responsive, invariants, _ = self._infer_trajectory(frames, u.expand(len(frames), -1))
        found = [Context(torch.zeros_like(u), responsive[0], None, invariants[0])]
        for before, now, invariant in zip(responsive[:-1], responsive[1:], invariants[1:], strict=True):
            found.append(Context(u, now, before, invariant))
        return found

    def encode(self, frames: Tensor, u: Tensor) -> Latents:
        times = frames.shape[1]
        responsive, invariants, _ = self._infer_trajectory(frames, u)
        latents: Tensor | None = None
        parts = zip(responsive, invariants, self._mechanisms_over_time(u, times), strict=True)
        for posterior, invariant, mechanism in parts:
            latents = self.posterior.latents(posterior.mean, invariant.mean, mechanism, latents)
        assert latents is not None
        return Latents(latents, invariants[-1].mean)

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
