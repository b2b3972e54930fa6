"""What PerturbedVAE and CITE-VAE share: a posterior over a structural layer, and the evidence bound of a trajectory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from harness.models.base import LatentModel, Latents, Loss, Networks
from harness.models.gaussian import mmd
from harness.models.mechanisms import FamilyOptions, build_family
from harness.models.moments import Context
from harness.models.posterior import (
    Features,
    Frame,
    Invariant,
    NoisePosterior,
    UnmixedPosterior,
    apply,
    log_determinant,
)
from harness.models.scm import Mechanism, solve


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
    posterior, covariance
        ``unmixed`` with a ``full`` or ``diagonal`` covariance, or ``noise``; see `harness.models.posterior`.
    kl_responsive, kl_invariant
        λ_v, λ_i.
    alignment, alignment_kind
        α, and ``mean`` (pair by pair) or ``mmd`` (between distributions).
    paired
        Whether the first frame is a control to align with; without, only the last frame is used.
    sparsity
        Weight of the family's penalty.
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
        covariance: str,
        kl_responsive: float,
        kl_invariant: float,
        alignment: float,
        alignment_kind: str,
        paired: bool,
        sparsity: float,
    ) -> None:
        inferred: NoisePosterior | UnmixedPosterior
        if posterior == "noise":
            inferred = NoisePosterior(d_v, d_i, perturbations, networks.hidden)
        else:
            inferred = UnmixedPosterior(d_v, d_i, covariance)
        super().__init__(shape, networks, latent_dim=d_v + d_i, features=inferred.width)
        self.posterior = inferred
        self.d_v, self.d_i, self.perturbations = d_v, d_i, perturbations
        self.kl_responsive, self.kl_invariant = kl_responsive, kl_invariant
        self.alignment, self.alignment_kind = alignment, alignment_kind
        self.paired, self.sparsity = paired, sparsity
        self.options = family
        self.mechanisms = build_family(
            family, perturbations=perturbations, responsive=d_v, invariant=d_i, known=targets
        )

    def mechanism_parameters(self) -> list[torch.nn.Parameter]:
        unmixing = list(self.posterior.parameters()) if isinstance(self.posterior, UnmixedPosterior) else []
        return [*self.mechanisms.parameters(), *unmixing]

    def learned_graph(self) -> Tensor:
        return self.mechanisms.masked_graph.detach()

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        self.mechanisms.anneal(epoch / epochs)

    @property
    def settled(self) -> bool:
        return self.mechanisms.settled

    # -- posterior ------------------------------------------------------------------------------------

    def infer(self, x: Tensor, u: Tensor) -> tuple[Features, Invariant]:
        """Posteriors of single frames x (m, ...) under u (m, p)."""
        found: tuple[Features, Invariant] = self.posterior(self.encoder(self.transform.inputs(x)), u)
        return found

    @abstractmethod
    def contexts(self, frames: Tensor, u: Tensor) -> list[Context]:
        """Posteriors of trajectories (n, T, ...) that share one u (p,), as the second stage reads them."""

    def decode_latents(self, latents: Tensor, invariant: Tensor) -> Tensor:
        """Decoder's output for z_v (n, d_v) and z_i (n, d_i): transformed inputs, or what counts are made of."""
        return self._decode(self.posterior.features_of(latents, invariant), invariant)

    def _decode(self, read: Tensor, invariant: Tensor) -> Tensor:
        out: Tensor = self.decoder(torch.cat([read, invariant], dim=1))
        return out

    # -- objective ------------------------------------------------------------------------------------

    def trajectory_bound(
        self,
        x: Tensor,
        responsive: Sequence[Features],
        invariants: Sequence[Invariant],
        mechanisms: Sequence[Mechanism],
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Terms of the negative evidence bound of n trajectories.

        Parameters
        ----------
        x : (n, T, ...) prepared frames
        responsive
            Posterior of each time's responsive part.
        invariants
            Posterior of each time's z_i; the same object at times that share one.
        mechanisms
            Of each time.

        Returns
        -------
        reconstruction, kl_responsive : (n,), summed over time
        kl_invariant : (n,), summed over the posteriors
        """
        reconstruction, kl, kl_i = (x.new_zeros(len(x)) for _ in range(3))
        before: Tensor | None = None
        past: Features | None = None
        known: Invariant | None = None
        for time, (features, invariant, mechanism) in enumerate(zip(responsive, invariants, mechanisms, strict=True)):
            if invariant is not known:
                known, shared = invariant, _normals(invariant.mean, generator)
                z_i = invariant.mean + apply(invariant.factor, shared)
                spread = invariant.factor.square().sum((1, 2))
                kl_i = kl_i + 0.5 * (invariant.mean.square().sum(1) + spread - self.d_i)
                kl_i = kl_i - log_determinant(invariant.factor)
            value = features.at(shared, _normals(features.mean, generator))
            latents = self.posterior.latents(value, z_i, mechanism, before)
            decoded = self._decode(self.posterior.read(value, latents), z_i)
            kl = kl + self.responsive_kl(Frame(features, invariant, mechanism, past, shared, before))
            reconstruction = reconstruction + self.likelihood.negative_log(self.transform, x[:, time], decoded)
            before, past = latents, features
        return reconstruction, kl, kl_i

    def responsive_kl(self, frame: Frame) -> Tensor:
        """E_q KL( q(h_v | z_i, x) ‖ p(h_v | z_i, past, u) ), (n,)."""
        noise, prior = self.posterior.noise(frame), frame.mechanism.variance
        cross = prior.log() + (noise.mean.square() + noise.variance) / prior
        return 0.5 * (cross - 1.0).sum(1) - log_determinant(frame.features.factor) - self.posterior.log_volume()

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

    # -- predictions --------------------------------------------------------------------------------------

    @abstractmethod
    def predict_latents(self, control: Tensor, u: Tensor, steps: int, generator: torch.Generator) -> Latents:
        """z_v and z_i of the cells that `predict` gives."""

    def predict_outputs(self, control: Tensor, u: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        return self.decode_latents(*self.predict_latents(control, u, steps, generator))

    def reconstruct_outputs(
        self, control: Tensor, kept: torch.Generator | None = None, rest: torch.Generator | None = None
    ) -> Tensor:
        graph = self.mechanisms.graph
        under = torch.zeros(len(control), self.perturbations, dtype=graph.dtype, device=graph.device)
        features, invariant = self.infer(control, under)
        shared = _normals(invariant.mean, kept)
        z_i = invariant.mean + apply(invariant.factor, shared)
        value = features.at(shared, _normals(features.mean, rest))
        return self.decode_latents(self.posterior.latents(value, z_i, self.mechanisms(under), None), z_i)

    def to_frames(self, latents: Tensor, invariant: Tensor) -> Tensor:
        """Frames in the data's units for z_v and z_i, without observation noise."""
        return self.likelihood.mean(self.transform, self.decode_latents(latents, invariant))

    def draw_latents(
        self, mechanism: Mechanism, invariant: Tensor, before: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """z_v (n, d_v) from the prior under ``mechanism``."""
        noise = torch.randn(mechanism.mean.shape, generator=generator, device=mechanism.mean.device)
        return solve(mechanism, mechanism.mean + mechanism.variance.sqrt() * noise, invariant, before)


def _normals(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normals shaped as ``like``; zeros without a generator, which gives posterior means."""
    if generator is None:
        return torch.zeros_like(like)
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)
