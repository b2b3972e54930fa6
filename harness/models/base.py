"""What every latent model offers to training and evaluation."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harness.models.conv import ConvDecoder, ConvEncoder
from harness.models.glimpse import GlimpseEncoder
from harness.models.likelihood import Gaussian, Likelihood, NegativeBinomial
from harness.models.networks import InputTransform, LinearPlusMLP
from harness.models.resnet import ResNetDecoder, ResNetEncoder

#: Encoder and decoder of images, by the word a study file has for them.
IMAGE_NETWORKS: dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module]]] = {
    "conv": (ConvEncoder, ConvDecoder),
    "glimpse": (GlimpseEncoder, ConvDecoder),
    "resnet18": (ResNetEncoder, ResNetDecoder),
}


class Loss(NamedTuple):
    """A batch's objective and what it is made of.

    Attributes
    ----------
    total : scalar to minimise
    terms : name -> scalar, detached; ``reconstruction``, ``kl_responsive``, ... in nats a cell
    """

    total: Tensor
    terms: dict[str, Tensor]


class Latents(NamedTuple):
    """Posterior means of n cells: ``responsive`` (n, d_v) and ``invariant`` (n, d_i)."""

    responsive: Tensor
    invariant: Tensor


@dataclass(frozen=True)
class Networks:
    """Encoder, decoder and what they see.

    Attributes
    ----------
    hidden, layers
        Units of a hidden layer (or channels of the first convolution), and hidden layers.
    network
        ``mlp``, ``conv``, ``glimpse``, ``resnet18`` or ``auto`` (conv for images that are not reduced by a PCA).
    input_pca, input_whiten
        Principal components kept of an input, or None; whether each is scaled to unit variance.
    likelihood_variance
        Fixed variance of the Gaussian likelihood, on transformed inputs.
    likelihood
        ``mse`` (Gaussian on transformed inputs) or ``nb`` (negative-binomial counts).
    input_standardise
        Whether features are centred and scaled where there is no PCA.
    """

    hidden: int
    layers: int
    network: str
    input_pca: int | None
    input_whiten: bool
    likelihood_variance: float
    likelihood: str = "mse"
    input_standardise: bool = True


class LatentModel(nn.Module, ABC):
    """Base of all models: inputs, networks, and the four things asked of a model.

    Frames come *prepared* (see `InputTransform.prepare`), except where a docstring says otherwise.

    Parameters
    ----------
    shape
        Shape of one frame.
    networks
        Encoder, decoder and what they see.
    latent_dim
        Size of the decoder's input.
    features
        Size of the encoder's output.
    """

    def __init__(self, shape: tuple[int, ...], networks: Networks, *, latent_dim: int, features: int) -> None:
        super().__init__()
        self.likelihood_variance = networks.likelihood_variance
        self.likelihood: Likelihood
        if networks.likelihood == "nb":
            self.likelihood = NegativeBinomial(shape[0])
        else:
            self.likelihood = Gaussian(networks.likelihood_variance)
        self.transform = InputTransform(
            shape,
            networks.input_pca,
            networks.input_whiten,
            standardise=networks.input_standardise,
            counts=self.likelihood.counts,
        )
        seen = self.transform.input_shape
        kind, hidden, layers = networks.network, networks.hidden, networks.layers
        if kind in IMAGE_NETWORKS and len(seen) != 3:
            raise ValueError(f"network: {kind} needs images, but a frame has shape {tuple(shape)}; use network: mlp")
        if kind == "auto" and len(seen) == 3:
            kind = "conv"
        self.encoder: nn.Module
        self.decoder: nn.Module
        self.sees_images = kind in IMAGE_NETWORKS
        if self.sees_images:
            encoder, decoder = IMAGE_NETWORKS[kind]
            self.encoder, self.decoder = encoder(seen, hidden, features), decoder(latent_dim, hidden, seen)
        else:
            given = self.likelihood.output_shape(self.transform)
            self.encoder = nn.Sequential(nn.Flatten(), LinearPlusMLP(math.prod(seen), hidden, features, layers))
            self.decoder = nn.Sequential(
                LinearPlusMLP(latent_dim, hidden, math.prod(given), layers), nn.Unflatten(1, given)
            )

    def mechanism_parameters(self) -> list[nn.Parameter]:
        """Parameters of the structural layer, which learn at a rate of their own."""
        return []

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Schedules that follow the epoch; called before each, also when training resumes.

        What a schedule sets and a loss or a prediction reads belongs in a buffer, so that it is kept with the weights.

        Parameters
        ----------
        epoch
            The epoch that begins, from 1.
        epochs
            Epochs training is planned for.
        """

    @property
    def settled(self) -> bool:
        """Whether the weights are of the final model: nothing is annealed any more."""
        return True

    @abstractmethod
    def loss(self, frames: Tensor, u: Tensor, kl_weight: float, generator: torch.Generator | None) -> Loss:
        """Objective of a batch.

        Parameters
        ----------
        frames : (n, T, ...) trajectories of prepared frames, the control frame first
        u : (n, p) perturbations
        kl_weight
            Warm-up factor in [0, 1] on all KL terms.
        generator
            Source of the reparametrisation noise; None uses posterior means.
        """

    @abstractmethod
    def encode(self, frames: Tensor, u: Tensor) -> Latents:
        """Posterior means of the last frame's latents; arguments as in `loss`."""

    @abstractmethod
    def predict_outputs(self, control: Tensor, u: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        """The decoder's output (n, *outputs) of cells under ``u`` that began as ``control``; arguments of `predict`."""

    @abstractmethod
    def reconstruct_outputs(
        self, control: Tensor, kept: torch.Generator | None = None, rest: torch.Generator | None = None
    ) -> Tensor:
        """The decoder's output (n, *outputs) of prepared control frames (n, ...), at their posterior means or a draw.

        Parameters
        ----------
        control : (n, ...)
        kept
            Draws what predictions keep of a control cell, z_i or all of it, as `predict_outputs` does before anything
            else; None for the mean.
        rest
            Draws the other latents; None for their mean.
        """

    def predict(self, control: Tensor, u: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        """Cells under ``u`` that began as ``control``, ``steps`` frames later.

        Parameters
        ----------
        control : (n, ...) prepared control frames
        u : (n, p) perturbations, seen or unseen combinations

        Returns
        -------
        (n, *shape) in the units of float frames; the likelihood's mean, without observation noise.
        """
        return self.likelihood.mean(self.transform, self.predict_outputs(control, u, steps, generator))

    def learned_graph(self) -> Tensor | None:
        """Learned control graph L_vv, (d_v, d_v), or None where the model has none."""
        return None

    def predict_latents(self, control: Tensor, u: Tensor, steps: int, generator: torch.Generator) -> Latents | None:
        """Latents of the cells that `predict` gives, drawn with them; None where a model predicts none.

        Parameters are those of `predict`.
        """
        return None
