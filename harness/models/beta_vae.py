"""β-VAE without u: the control that must fail to identify."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.models.base import LatentModel, Latents, Loss, Networks
from harness.models.gaussian import Gaussian, kl_to_centred


class BetaVAE(LatentModel):
    """Independent standard-normal latents, no perturbations (Higgins et al. 2017).

    It has no responsive or invariant block: both are all latents, the most generous reading for a control. Its
    prediction for any perturbation is the reconstructed control cell.

    Parameters
    ----------
    shape, networks, latent_dim
        See `LatentModel`.
    kl
        β, weight of the KL term.
    """

    def __init__(self, shape: tuple[int, ...], networks: Networks, *, latent_dim: int, kl: float) -> None:
        super().__init__(shape, networks, latent_dim=latent_dim, features=2 * latent_dim)
        self.kl = kl

    def _infer(self, x: Tensor) -> Gaussian:
        mean, log_variance = self.encoder(self.transform.inputs(x)).chunk(2, dim=1)
        return Gaussian(mean, log_variance)

    def loss(self, frames: Tensor, u: Tensor, kl_weight: float, generator: torch.Generator | None) -> Loss:
        x = frames[:, -1]
        posterior = self._infer(x)
        decoded = self.decoder(posterior.sample(generator))
        reconstruction = self.likelihood.negative_log(self.transform, x, decoded).mean()
        kl = kl_to_centred(posterior, torch.ones_like(posterior.mean)).sum(1).mean()
        bound = (reconstruction + self.kl * kl).detach()
        terms = {"reconstruction": reconstruction.detach(), "kl": kl.detach(), "bound": bound}
        return Loss(reconstruction + kl_weight * self.kl * kl, terms)

    def encode(self, frames: Tensor, u: Tensor) -> Latents:
        mean = self._infer(frames[:, -1]).mean
        return Latents(mean, mean)

    def predict_outputs(self, control: Tensor, u: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        decoded: Tensor = self.decoder(self._infer(control).sample(generator))
        return decoded

    def reconstruct_outputs(
        self, control: Tensor, kept: torch.Generator | None = None, rest: torch.Generator | None = None
    ) -> Tensor:
        decoded: Tensor = self.decoder(self._infer(control).sample(kept))
        return decoded
