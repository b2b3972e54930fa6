"""What PerturbedVAE and CITE-VAE share: posteriors over a structural layer, and the evidence bound of a trajectory.

Two posteriors are available (after Jiang et al. 2026, arXiv 2605.19343):

``noise``    as published: q(ñ_v | x, u) q(z_i | x) over exogenous noise. Prior and posterior are the same affine map of
             the noise, so KL_v = KL( N(μ', σ'²) ‖ N(0, diag β_v) ) exactly (our reconstruction); the decoder reads z.
``unmixed``  q(h | x) without u; the decoder reads h, and the rotation lives on the prior's side, z_v = W h_v + C h_i,
             so that unmixing costs no reconstruction. KL_v is closed-form, with −log|det W|.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harness.models.base import LatentModel, Loss, Networks
from harness.models.gaussian import Gaussian, kl_to_centred, mmd, negative_log_likelihood
from harness.models.mechanisms import FamilyOptions, build_family
from harness.models.moments import Context
from harness.models.scm import Mechanism, from_past, solve

#: Log-variance an untrained posterior starts with: small beside the prior's, so that latents carry signal at once.
_START = -3.0


class Encoded(NamedTuple):
    """Posteriors of m frames: ``responsive`` (noise ñ_v or features h_v) and ``invariant`` z_i."""

    responsive: Gaussian
    invariant: Gaussian


class CausalVAE(LatentModel):
    """A latent causal model: encoder, posterior, structural layer, decoder.

    Parameters
    ----------
    shape, networks
        See `LatentModel`.
    d_v, d_i
        Sizes of the responsive and the invariant block.
    perturbations
        p, the length of u.
    family
        The mechanism family.
    targets : (p, d_true) bool
        Targets the data know, or None; d_true <= d_v.
    posterior
        ``unmixed`` or ``noise``.
    kl_responsive, kl_invariant
        λ_v, λ_i.
    alignment, alignment_kind
        α, and ``mean`` (pair by pair) or ``mmd`` (between distributions).
    paired
        Whether the first frame is a control to align with; without, only the last frame is used.
    sparsity
        Weight of the L1 penalty on graph and perturbation effects.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        networks: Networks,
        *,
        d_v: int,
        d_i: int,
        perturbations: int,
        family: FamilyOptions,
        targets: Tensor | None,
        posterior: str,
        kl_responsive: float,
        kl_invariant: float,
        alignment: float,
        alignment_kind: str,
        paired: bool,
        sparsity: float,
    ) -> None:
        reads_u = posterior == "noise"
        features = networks.hidden if reads_u else 2 * (d_v + d_i)
        super().__init__(shape, networks, latent_dim=d_v + d_i, features=features)
        self.d_v, self.d_i = d_v, d_i
        self.kl_responsive, self.kl_invariant = kl_responsive, kl_invariant
        self.alignment, self.alignment_kind = alignment, alignment_kind
        self.paired, self.sparsity = paired, sparsity
        self.options = family
        self.mechanisms = build_family(
            family, perturbations=perturbations, responsive=d_v, invariant=d_i, known=targets
        )
        if reads_u:
            self.responsive_head = nn.Linear(features + perturbations, 2 * d_v)
            self.invariant_head = nn.Linear(features, 2 * d_i)
        else:
            self.unmixing = nn.Parameter(torch.eye(d_v))
            self.from_invariant = nn.Parameter(torch.zeros(d_v, d_i))
        self.reads_u = reads_u

    def mechanism_parameters(self) -> list[nn.Parameter]:
        own = list(self.mechanisms.parameters())
        return own if self.reads_u else [*own, self.unmixing, self.from_invariant]

    def learned_graph(self) -> Tensor:
        return self.mechanisms.masked_graph.detach()

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        self.mechanisms.anneal(epoch / epochs)

    # -- posterior ------------------------------------------------------------------------------------

    def infer(self, x: Tensor, u: Tensor) -> Encoded:
        """Posteriors of single frames x (m, ...) under u (m, p)."""
        features = self.encoder(self.transform.inputs(x))
        if self.reads_u:
            features = torch.nn.functional.leaky_relu(features, 0.2)
            v = _gaussian(self.responsive_head(torch.cat([features, u], dim=1)))
            return Encoded(v, _gaussian(self.invariant_head(features)))
        mean, log_variance = features.chunk(2, dim=1)
        split = [self.d_v, self.d_i]
        (mean_v, mean_i), (log_v, log_i) = mean.split(split, dim=1), log_variance.split(split, dim=1)
        return Encoded(Gaussian(mean_v, log_v + _START), Gaussian(mean_i, log_i + _START))

    def latents_of(self, features: Tensor, invariant: Tensor, mechanism: Mechanism, before: Tensor | None) -> Tensor:
        """z_v from what the posterior is over: unmixed features, or exogenous noise through the structural layer."""
        if self.reads_u:
            return solve(mechanism, features + mechanism.mean, invariant, before)
        return features @ self.unmixing.T + invariant @ self.from_invariant.T

    def decode_latents(self, latents: Tensor, invariant: Tensor) -> Tensor:
        """Decoder's output (transformed units) for z_v (n, d_v) and z_i (n, d_i)."""
        if not self.reads_u:
            rotated = latents - invariant @ self.from_invariant.T
            latents = torch.linalg.solve(self.unmixing, rotated.T).T
        out: Tensor = self.decoder(torch.cat([latents, invariant], dim=1))
        return out

    @abstractmethod
    def contexts(self, frames: Tensor, u: Tensor) -> list[Context]:
        """Posteriors of trajectories (n, T, ...) that share one u (p,), as the second stage reads them."""

    # -- objective ------------------------------------------------------------------------------------

    def trajectory_bound(
        self,
        x: Tensor,
        posteriors: Sequence[Gaussian],
        invariant: Gaussian,
        mechanisms: Sequence[Mechanism],
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Terms of the negative evidence bound of n trajectories.

        Parameters
        ----------
        x : (n, T, ...) transformed frames
        posteriors
            Of each time's responsive part.
        invariant
            Posterior of z_i, shared by all times.
        mechanisms
            Of each time.

        Returns
        -------
        reconstruction, kl_responsive : (n,), summed over time
        kl_invariant : (n,)
        """
        z_i = invariant.sample(generator)
        n = len(z_i)
        reconstruction, kl = z_i.new_zeros(n), z_i.new_zeros(n)
        before: Tensor | None = None
        previous: Gaussian | None = None
        for time, (posterior, mechanism) in enumerate(zip(posteriors, mechanisms, strict=True)):
            sample = posterior.sample(generator)
            if self.reads_u:
                before = self.latents_of(sample, z_i, mechanism, before)
                decoded = self.decoder(torch.cat([before, z_i], dim=1))
                kl = kl + kl_to_centred(posterior, mechanism.variance).sum(1)
            else:
                decoded = self.decoder(torch.cat([sample, z_i], dim=1))
                if mechanism.is_linear:
                    kl = kl + self.unmixed_kl(posterior, invariant, mechanism, previous)
                    previous = posterior
                else:
                    kl = kl + self._sampled_kl(posterior, z_i, mechanism, before)
                    before = self.latents_of(sample, z_i, mechanism, None)
            reconstruction = reconstruction + negative_log_likelihood(x[:, time], decoded, self.likelihood_variance)
        kl_invariant = kl_to_centred(invariant, torch.ones_like(invariant.mean)).sum(1)
        return reconstruction, kl, kl_invariant

    def unmixed_kl(
        self, posterior: Gaussian, invariant: Gaussian, mechanism: Mechanism, before: Gaussian | None
    ) -> Tensor:
        """E_q KL( q(h_v | x) ‖ p(h_v | z_i, before, u) ) in closed form, (n,).

        The exogenous noise n = A(W h + C z_i) − B(W h' + C z_i) − L_vi z_i − μ is linear in the independent Gaussians
        h, h' (one step earlier) and z_i, so that E n² is its squared mean plus its variance; W's volume enters as
        −log|det W|.
        """
        system, mixing, across = mechanism.system, self.unmixing, self.from_invariant
        own = system @ mixing
        from_i = system @ across - mechanism.graph_invariant
        mean = _apply(own, posterior.mean) - mechanism.mean
        spread = _apply(own.square(), posterior.variance)
        if before is not None:
            past = mechanism.lagged @ mixing
            from_i = from_i - mechanism.lagged @ across
            mean = mean - _apply(past, before.mean)
            spread = spread + _apply(past.square(), before.variance)
        mean = mean + _apply(from_i, invariant.mean)
        spread = spread + _apply(from_i.square(), invariant.variance)
        return self._kl_of_noise(mean, spread, posterior, mechanism)

    def _sampled_kl(self, posterior: Gaussian, z_i: Tensor, mechanism: Mechanism, before: Tensor | None) -> Tensor:
        """`unmixed_kl` where the past enters nonlinearly: z_i and the past are samples, h is averaged exactly, (n,)."""
        own = mechanism.system @ self.unmixing
        mean = _apply(own, posterior.mean) - mechanism.mean
        mean = mean + _apply(mechanism.system @ self.from_invariant - mechanism.graph_invariant, z_i)
        if before is not None:
            mean = mean - from_past(mechanism, before)
        return self._kl_of_noise(mean, _apply(own.square(), posterior.variance), posterior, mechanism)

    def _kl_of_noise(self, mean: Tensor, spread: Tensor, posterior: Gaussian, mechanism: Mechanism) -> Tensor:
        """KL_v (n,) from mean and variance of the exogenous noise under q, its own mean taken off."""
        cross = mechanism.variance.log() + (mean.square() + spread) / mechanism.variance
        entropy = 1.0 + posterior.log_variance
        return 0.5 * (cross - entropy).sum(1) - torch.linalg.slogdet(self.unmixing).logabsdet

    def assemble(
        self, terms: tuple[Tensor, Tensor, Tensor], aligned: Sequence[Tensor], frames: int, kl_weight: float
    ) -> Loss:
        """Total objective from the bound's terms and the invariant means to be aligned.

        Parameters
        ----------
        terms
            As `trajectory_bound` gives them.
        aligned
            Invariant means (n, d_i) of each frame that should agree; fewer than two align nothing.
        frames
            Frames a trajectory, by which the bound is divided, so that its unit is nats a frame.
        kl_weight
            Warm-up factor.
        """
        reconstruction, kl_v, kl_i = (term.mean() / frames for term in terms)
        bound = reconstruction + kl_weight * (self.kl_responsive * kl_v + self.kl_invariant * kl_i)
        alignment = self._misalignment(aligned)
        penalty = self.mechanisms.penalty()
        total = bound + self.alignment * alignment + self.sparsity * penalty
        full = reconstruction + self.kl_responsive * kl_v + self.kl_invariant * kl_i
        named = {
            "reconstruction": reconstruction,
            "kl_responsive": kl_v,
            "kl_invariant": kl_i,
            "alignment": alignment,
            "sparsity_penalty": penalty,
            "bound": full,
        }
        return Loss(total, {name: value.detach() for name, value in named.items()})

    def _misalignment(self, aligned: Sequence[Tensor]) -> Tensor:
        if len(aligned) < 2:
            return torch.zeros((), device=self.mechanisms.graph.device)
        if self.alignment_kind == "mmd":
            return torch.stack([mmd(aligned[0], other) for other in aligned[1:]]).mean()
        means = torch.stack(list(aligned))
        # the mean of ‖a − b‖² over pairs of frames is 2/(T − 1) times the sum of squares around their mean
        return (means - means.mean(0)).square().sum((0, 2)).mean() * 2.0 / (len(aligned) - 1)

    # -- shared by predictions ---------------------------------------------------------------------------

    def to_frames(self, latents: Tensor, invariant: Tensor) -> Tensor:
        """Frames in the data's units for z_v and z_i."""
        return self.transform.restore(self.decode_latents(latents, invariant))

    def draw_latents(
        self, mechanism: Mechanism, invariant: Tensor, before: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """z_v (n, d_v) from the prior under ``mechanism``."""
        noise = torch.randn(mechanism.mean.shape, generator=generator, device=mechanism.mean.device)
        return solve(mechanism, mechanism.mean + mechanism.variance.sqrt() * noise, invariant, before)


def _apply(matrices: Tensor, vectors: Tensor) -> Tensor:
    """(n, a, b) applied to (n, b)."""
    return torch.einsum("nab,nb->na", matrices, vectors)


def _gaussian(parameters: Tensor) -> Gaussian:
    mean, log_variance = parameters.chunk(2, dim=1)
    return Gaussian(mean, log_variance + _START)
