"""From latents to noiseless frames: rotations and leaky layers, a fold where asked for, a linear lift."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.data.seeding import generator


@dataclass(frozen=True)
class Fold:
    """Folds some rotated coordinates about a centre, h ↦ |h − c|, so that both their sides look the same.

    Attributes
    ----------
    rotation : (d, d) orthogonal.
    centre : (k,) of the first k rotated coordinates, which are folded.
    """

    rotation: Tensor
    centre: Tensor

    def __call__(self, hidden: Tensor) -> Tensor:
        """(m, d) to (m, d)."""
        rotated = hidden @ self.rotation
        k = len(self.centre)
        return torch.cat([(rotated[:, :k] - self.centre).abs(), rotated[:, k:]], dim=1)


@dataclass(frozen=True)
class Mixing:
    """A drawn mixing, with the constants of the sample it was drawn for; differentiable almost everywhere.

    Attributes
    ----------
    location, scale : (d,) mean and sd of the latents over the sample.
    rotations : (d, d) orthogonal, one before each leaky layer.
    slope : negative slope of the leaky layers.
    fold : what makes the mixing non-injective; None where it is injective.
    lift : (features, d) orthonormal columns.
    """

    location: Tensor
    scale: Tensor
    rotations: tuple[Tensor, ...]
    slope: float
    fold: Fold | None
    lift: Tensor

    def __call__(self, latents: Tensor) -> Tensor:
        """Latents (m, d) to noiseless frames (m, features), each feature of about unit variance."""
        hidden = self.before_fold(latents)
        if self.fold is not None:
            hidden = self.fold(hidden)
        features, d = self.lift.shape
        return hidden @ self.lift.T * (features / d) ** 0.5

    def before_fold(self, latents: Tensor) -> Tensor:
        """Standardised latents after the leaky layers, (m, d): the injective part without the lift."""
        hidden = (latents - self.location) / self.scale
        for rotation in self.rotations:
            hidden = torch.nn.functional.leaky_relu(hidden @ rotation, self.slope)
        return hidden


def draw_mixing(
    latents: Tensor, *, features: int, layers: int, slope: float, injective: bool = True, seed: int
) -> Mixing:
    """Draw a mixing for a sample of latents.

    Parameters
    ----------
    latents : (m, d)
        The sample; its means and sds standardise.
    features
        Observed dimensions, at least d.
    layers, slope
        Leaky layers and their negative slope; a slope of 1, or no layer, is a linear mixing.
    injective
        If not, a third of d (rounded, at least one) of the coordinates, after one more random rotation, are folded
        about their sample mean: what the leaky layers give (without a layer, the standardised latents) keeps its
        distance to that centre and loses the side, while all other coordinates are kept.
    seed
        The data seed.
    """
    random = generator(seed, "mixing")
    d = latents.shape[1]
    rotations = tuple(_orthonormal(d, d, random) for _ in range(layers))
    lift = _orthonormal(features, d, random)  # orthonormal columns: injective
    mixing = Mixing(latents.mean(0), latents.std(0), rotations, slope, None, lift)
    if injective:
        return mixing
    rotation = _orthonormal(d, d, generator(seed, "fold"))
    centre = (mixing.before_fold(latents) @ rotation).mean(0)[: max(1, round(d / 3))]
    return Mixing(mixing.location, mixing.scale, rotations, slope, Fold(rotation, centre), lift)


def _orthonormal(rows: int, columns: int, random: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(rows, columns, generator=random)).Q
