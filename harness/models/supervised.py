"""A supervised regressor from frames to their true latents: an oracle, the ceiling for models that see no truth."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.models.base import LatentModel, Latents, Loss, Networks

#: Why it predicts nothing.
NO_DECODER = "a supervised model has no decoder and predicts no cells"


class Supervised(LatentModel):
    """The encoder that the latent models have, trained by squared error on the true latents of the training frames.

    What it cannot say of a latent is not in the frames, or not within reach of such an encoder from so many frames;
    no model that sees no truth can be expected to say more. It has no decoder and predicts no cells.

    Parameters
    ----------
    shape, networks
        See `LatentModel`; the likelihood's variance has no part here.
    columns
        Columns to be learned of responsive and of invariant latents; an angle has two, cosine and sine.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, shape: tuple[int, ...], networks: Networks, *, columns: tuple[int, int]) -> None:
        super().__init__(shape, networks, latent_dim=1, features=sum(columns))
        self.decoder = nn.Identity()  # nothing is decoded: without weights, nothing is trained or kept of it either
        self.columns = columns
        self.register_buffer("centre", torch.zeros(sum(columns)))
        self.register_buffer("spread", torch.ones(sum(columns)))

    def fit_targets(self, truth: Tensor) -> None:
        """Take the units in which errors count from the training frames.

        Parameters
        ----------
        truth : (m, a + b) columns of the true latents of the training frames
        """
        spread = truth.std(0)
        self.centre.copy_(truth.mean(0))
        self.spread.copy_(torch.where(spread > 1e-6, spread, 1.0))

    def loss(
        self,
        frames: Tensor,
        u: Tensor,
        kl_weight: float,
        generator: torch.Generator | None,
        truth: Tensor | None = None,
    ) -> Loss:
        """Mean squared error over all frames and columns, each in units of its variance over the training frames.

        Parameters
        ----------
        frames : (n, T, ...) prepared frames, each an example of its own
        truth : (n, T, a + b) columns of their true latents

        u, kl_weight and generator have no part in it; 1 is the error of a constant.
        """
        if truth is None:
            raise ValueError("a supervised model learns from true latents, and was given none")
        wanted = (truth.flatten(0, 1) - self.centre) / self.spread
        error = (self._read(frames.flatten(0, 1)) - wanted).square().mean()
        return Loss(error, {"bound": error.detach()})

    def encode(self, frames: Tensor, u: Tensor) -> Latents:
        """What it says of the last frame's latents, (n, a) and (n, b), in the truth's units."""
        found = self._read(frames[:, -1]) * self.spread + self.centre
        return Latents(*found.split(list(self.columns), dim=1))

    def predict_outputs(self, control: Tensor, u: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        raise NotImplementedError(NO_DECODER)

    def reconstruct_outputs(
        self, control: Tensor, kept: torch.Generator | None = None, rest: torch.Generator | None = None
    ) -> Tensor:
        raise NotImplementedError(NO_DECODER)

    def _read(self, x: Tensor) -> Tensor:
        """Standardised columns (m, a + b) of prepared frames (m, ...)."""
        read: Tensor = self.encoder(self.transform.inputs(x))
        return read
