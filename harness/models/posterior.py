"""The two posteriors: over features that are unmixed on the side of the prior, and over exogenous noise as published.

Both write what they infer as affine functions of independent standard normals, ε_i shared by a trajectory and ε_t of
each frame, so that a posterior covariance between the blocks is there for the asking:

    z_i = m_i + F_i ε_i,    h_t = m_t + G_t ε_i + F_t ε_t,    F lower triangular.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from harness.models.scm import Mechanism, from_past, solve

#: Log-variance an untrained posterior starts with: small beside the prior's, so that latents carry signal at once.
_START = -3.0


class Invariant(NamedTuple):
    """Posterior of z_i: ``mean`` (n, d_i) and ``factor`` (n, d_i, d_i), lower triangular."""

    mean: Tensor
    factor: Tensor


class Features(NamedTuple):
    """Posterior of h_v, or of exogenous noise ñ_v, in one frame.

    Attributes
    ----------
    mean : (n, d_v)
    across : (n, d_v, d_i) on the normals of z_i
    factor : (n, d_v, d_v), lower triangular, on normals of its own
    """

    mean: Tensor
    across: Tensor
    factor: Tensor

    def at(self, shared: Tensor, own: Tensor) -> Tensor:
        """Value (n, d_v) at normals of z_i (n, d_i) and of the frame (n, d_v)."""
        return self.mean + apply(self.across, shared) + apply(self.factor, own)


class Frame(NamedTuple):
    """All that the exogenous noise of one frame depends on.

    Attributes
    ----------
    features : posterior of the frame's responsive part
    invariant : posterior of z_i
    mechanism : of the frame
    past : features one frame earlier; None in a first frame
    normals : (n, d_i) ε_i, the normals z_i was drawn with
    before : (n, d_v) z_v one frame earlier, at which a nonlinear past is taken; None in a first frame
    """

    features: Features
    invariant: Invariant
    mechanism: Mechanism
    past: Features | None
    normals: Tensor
    before: Tensor | None


class Noise(NamedTuple):
    """Exogenous noise under the posterior, less its prior mean: ``mean`` (n, d_v) and ``variance`` (n, d_v)."""

    mean: Tensor
    variance: Tensor


class Posterior(nn.Module, ABC):
    """From an encoder's output to posteriors, and from these to latents and exogenous noise.

    Attributes
    ----------
    width : size of the encoder's output
    """

    width: int

    @abstractmethod
    def forward(self, encoded: Tensor, u: Tensor) -> tuple[Features, Invariant]:
        """Posteriors of m frames from the encoder's output (m, width) and u (m, p)."""

    @abstractmethod
    def latents(self, features: Tensor, invariant: Tensor, mechanism: Mechanism, before: Tensor | None) -> Tensor:
        """z_v (n, d_v) from a value of what the posterior is over, z_i and z_v one frame earlier."""

    @abstractmethod
    def read(self, features: Tensor, latents: Tensor) -> Tensor:
        """Which of the two (n, d_v) the decoder reads."""

    @abstractmethod
    def features_of(self, latents: Tensor, invariant: Tensor) -> Tensor:
        """What the decoder reads (n, d_v), from z_v and z_i."""

    @abstractmethod
    def noise(self, frame: Frame) -> Noise:
        """Moments of the exogenous noise under the posterior."""

    def log_volume(self) -> Tensor:
        """log|det| of the map from what the posterior is over to latents, z_i and u given (scalar)."""
        return torch.zeros(())


class UnmixedPosterior(Posterior):
    """q(z_i | x) q(h_v | z_i, x), without u; the decoder reads h, and z_v = W h_v + C z_i is on the prior's side.

    Unmixing so costs no reconstruction. With ``covariance: full`` the posterior covariance is free: a decoder whose
    Jacobian has no orthogonal columns has correlated posteriors, and a diagonal one bends the latents towards
    orthogonality to be paid less (measured on a harder mixing: MCC 0.91-0.94 diagonal, 0.96-0.97 full).

    Parameters
    ----------
    d_v, d_i
        Sizes of the blocks.
    covariance
        ``full`` or ``diagonal``.
    """

    below: Tensor

    def __init__(self, d_v: int, d_i: int, covariance: str) -> None:
        super().__init__()
        size = d_v + d_i
        self.d_v, self.d_i = d_v, d_i
        self.full = covariance == "full"
        self.width = 2 * size + (size * (size - 1) // 2 if self.full else 0)
        self.register_buffer("below", torch.tril_indices(size, size, -1), persistent=False)
        self.unmixing = nn.Parameter(torch.eye(d_v))
        self.from_invariant = nn.Parameter(torch.zeros(d_v, d_i))

    def forward(self, encoded: Tensor, u: Tensor) -> tuple[Features, Invariant]:
        size, d_i = self.d_v + self.d_i, self.d_i
        mean, deviation = encoded[:, :size], (0.5 * (encoded[:, size : 2 * size] + _START)).exp()
        factor = torch.diag_embed(deviation)
        if self.full:
            rows, columns = self.below
            across = torch.zeros_like(factor)
            across[:, rows, columns] = encoded[:, 2 * size :] * deviation[:, rows]
            factor = factor + across
        invariant = Invariant(mean[:, :d_i], factor[:, :d_i, :d_i])
        return Features(mean[:, d_i:], factor[:, d_i:, :d_i], factor[:, d_i:, d_i:]), invariant

    def latents(self, features: Tensor, invariant: Tensor, mechanism: Mechanism, before: Tensor | None) -> Tensor:
        return features @ self.unmixing.T + invariant @ self.from_invariant.T

    def read(self, features: Tensor, latents: Tensor) -> Tensor:
        return features

    def features_of(self, latents: Tensor, invariant: Tensor) -> Tensor:
        rotated = latents - invariant @ self.from_invariant.T
        return torch.linalg.solve(self.unmixing, rotated.T).T

    def noise(self, frame: Frame) -> Noise:
        """n = A(W h + C z_i) − B(W h' + C z_i) − L_vi z_i − μ, linear in the normals: exact moments.

        Under a nonlinear transition z_i and z_v one frame earlier are samples; what is left of h is averaged exactly.
        """
        features, invariant, mechanism, past, normals, before = frame
        own = mechanism.system @ self.unmixing
        from_i = mechanism.system @ self.from_invariant - mechanism.graph_invariant
        mean = apply(own, features.mean) - mechanism.mean
        if not mechanism.is_linear:
            mean = (
                mean + apply(own @ features.across + from_i @ invariant.factor, normals) + apply(from_i, invariant.mean)
            )
            mean = mean if before is None else mean - from_past(mechanism, before)
            return Noise(mean, (own @ features.factor).square().sum(2))
        shared, variance = own @ features.across, (own @ features.factor).square().sum(2)
        if past is not None:
            lagged = mechanism.lagged @ self.unmixing
            from_i = from_i - mechanism.lagged @ self.from_invariant
            mean = mean - apply(lagged, past.mean)
            shared = shared - lagged @ past.across
            variance = variance + (lagged @ past.factor).square().sum(2)
        shared = shared + from_i @ invariant.factor
        return Noise(mean + apply(from_i, invariant.mean), variance + shared.square().sum(2))

    def log_volume(self) -> Tensor:
        return torch.linalg.slogdet(self.unmixing).logabsdet


class NoisePosterior(Posterior):
    """q(ñ_v | x, u) q(z_i | x) over exogenous noise, as published; the decoder reads z_v.

    Prior and posterior are the same affine map of the noise, so that KL_v is KL(N(μ', σ'²) ‖ N(0, diag β_v)) exactly
    (our reconstruction).

    Parameters
    ----------
    d_v, d_i
        Sizes of the blocks.
    perturbations
        p, the length of u.
    width
        Size of the encoder's output.
    """

    def __init__(self, d_v: int, d_i: int, perturbations: int, width: int) -> None:
        super().__init__()
        self.d_v, self.d_i, self.width = d_v, d_i, width
        self.responsive_head = nn.Linear(width + perturbations, 2 * d_v)
        self.invariant_head = nn.Linear(width, 2 * d_i)

    def forward(self, encoded: Tensor, u: Tensor) -> tuple[Features, Invariant]:
        active = leaky_relu(encoded, 0.2)
        mean_v, factor_v = _diagonal(self.responsive_head(torch.cat([active, u], dim=1)))
        mean_i, factor_i = _diagonal(self.invariant_head(active))
        across = mean_v.new_zeros(len(mean_v), self.d_v, self.d_i)
        return Features(mean_v, across, factor_v), Invariant(mean_i, factor_i)

    def latents(self, features: Tensor, invariant: Tensor, mechanism: Mechanism, before: Tensor | None) -> Tensor:
        return solve(mechanism, features + mechanism.mean, invariant, before)

    def read(self, features: Tensor, latents: Tensor) -> Tensor:
        return latents

    def features_of(self, latents: Tensor, invariant: Tensor) -> Tensor:
        return latents

    def noise(self, frame: Frame) -> Noise:
        features = frame.features
        return Noise(features.mean, features.factor.square().sum(2))


def apply(matrices: Tensor, vectors: Tensor) -> Tensor:
    """(n, a, b) applied to (n, b)."""
    return torch.einsum("nab,nb->na", matrices, vectors)


def log_determinant(factor: Tensor) -> Tensor:
    """log|det| of lower-triangular factors with a positive diagonal (n, d, d), (n,)."""
    return factor.diagonal(dim1=1, dim2=2).log().sum(1)


def _diagonal(parameters: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_variance = parameters.chunk(2, dim=1)
    return mean, torch.diag_embed((0.5 * (log_variance + _START)).exp())
