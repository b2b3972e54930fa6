"""The linear-Gaussian process on the range of images: a fixed, strictly rising map for each latent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Squash:
    """Maps latent z to tanh((z - centre) / width) in (-1, 1).

    It is part of the mixing g, injective and the same for all environments; scores are taken against z itself.

    Attributes
    ----------
    centre, width : (d,)
    """

    centre: Floats
    width: Floats

    @classmethod
    def fitted(cls, latents: Floats, deviations: float) -> Squash:
        """From the spread of ``latents`` (k, d), pooled over the environments seen in training.

        ``deviations`` standard deviations of a latent reach tanh(1) = 0.76 of its image range: the more, the gentler
        the pictures change, and the closer to linear.
        """
        sd = latents.std(axis=0)
        return cls(latents.mean(axis=0), deviations * np.where(sd > 0, sd, 1.0))

    def to_image(self, latents: Floats) -> Floats:
        """(..., d) latents to (..., d) in (-1, 1)."""
        return np.asarray(np.tanh((latents - self.centre) / self.width), dtype=np.float64)

    def from_image(self, values: Floats) -> Floats:
        """The inverse; values at the very ends count as 0.9999."""
        return np.asarray(self.centre + self.width * np.arctanh(np.clip(values, -0.9999, 0.9999)), dtype=np.float64)
