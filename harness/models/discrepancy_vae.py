"""Discrepancy-VAE (Zhang et al., NeurIPS 2023, arXiv 2307.06250): the published predecessor, as a reference.

Equations are the paper's, and sizes, weights and schedules those of its published code; [R] marks what is ours.
Row vectors, with G strictly upper triangular:

    noise ε ~ q(ε | x), x a control cell        z = (ε + s(u)) (I − G)⁻¹        x̂ = g(z)
    s(u) = Σ_{p in u} strength_p · softmax(τ · c(e_p))

so that a perturbation shifts the noise of a softly chosen latent, and the shifts of a pair add up. Training minimises

    squared error of x̂ under u = 0  +  α MMD²( x̂ under u, perturbed cells )  +  β KL( q(ε | x) ‖ N(0, I) )  +  λ ‖G‖₁

In training only control cells pass through the encoder, which never sees u; perturbed cells enter through the
discrepancy alone, and pairs are not needed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from harness.models.base import LatentModel, Latents, Loss, Networks
from harness.models.gaussian import Gaussian, kl_to_centred

#: Gaussian kernels of the discrepancy; the widths double from σ/32 on.
KERNELS = 10
#: Share of the epochs at the start of which the temperature and α stay at their least (published: 5 of 100).
_HELD = 0.05
#: Share of the epochs after which α stays at its largest (published: 50 of 100).
_MATCHED = 0.5
#: Standard deviation of the weights an mlp starts with, and of the edges of G (published).
_WEIGHT_SD, _EDGE_SD = 0.02, 0.1
#: Least posterior variance, so that its logarithm stays finite.
_LEAST_VARIANCE = 1e-6


class DiscrepancyVAE(LatentModel):
    """Soft interventions as additive shifts of exogenous noise, fitted to unpaired cells by their discrepancy.

    All its latents are responsive: there is no invariant block, and `encode` gives all latents as both, the most
    generous reading. Of a longer trajectory it sees the first and the last frame. As published, all its parameters
    learn at one rate.

    With an mlp, encoder and decoder are plain (no linear skip). Errors and discrepancy are taken on transformed inputs,
    which are the data themselves unless standardised or reduced. [R]: the decoder ends linearly, where the published
    one, made for counts, ends in a leaky ReLU.

    Parameters
    ----------
    shape, networks, latent_dim
        See `LatentModel`. Squared errors are averaged over features and divided by twice the likelihood's variance;
        the published objective is that of a variance of 0.5.
    perturbations
        p, the length of u.
    kl, kl_start
        β at the end of training, and the share of the epochs before it starts to rise from 0.
    discrepancy, discrepancy_over
        α once it has risen; and whether cells are compared ``perturbation`` by perturbation or all those of a ``batch``
        together, which cannot tell one perturbation from another. Each batch of the published code holds cells of one
        perturbation (``train.batches: by_condition``): with shuffled batches a perturbation has but a cell or two of
        each, and the biased estimate then rewards generated cells that are all alike.
    bandwidth
        σ of the kernels, see `mmd`.
    temperature
        Factor τ on the logits of the targets at the end of training; it starts at 1.
    prediction_temperature
        τ where cells are predicted or encoded; None: that which training ended with.
    sparsity
        λ.
    """

    temperature: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        networks: Networks,
        *,
        latent_dim: int,
        perturbations: int,
        kl: float,
        kl_start: float,
        discrepancy: float,
        discrepancy_over: str,
        bandwidth: float,
        temperature: float,
        prediction_temperature: float | None,
        sparsity: float,
    ) -> None:
        super().__init__(shape, networks, latent_dim=latent_dim, features=2 * latent_dim)
        hidden, seen = networks.hidden, self.transform.input_shape
        if not self.sees_images:
            flat = math.prod(seen)
            self.encoder = nn.Sequential(nn.Flatten(), _plain(flat, hidden, 2 * latent_dim, networks.layers))
            self.decoder = nn.Sequential(_plain(latent_dim, hidden, flat, networks.layers), nn.Unflatten(1, seen))
        self.edges = nn.Parameter(_EDGE_SD * torch.randn(latent_dim, latent_dim))
        self.targeting = nn.Sequential(
            nn.Linear(perturbations, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, latent_dim)
        )
        self.strength = nn.Parameter(torch.ones(perturbations))
        self.kl, self.kl_start, self.kl_share = kl, kl_start, 1.0
        self.discrepancy, self.discrepancy_over, self.discrepancy_share = discrepancy, discrepancy_over, 1.0
        self.bandwidth, self.sparsity, self.last_temperature = bandwidth, sparsity, temperature
        self.prediction_temperature = prediction_temperature
        self.register_buffer("temperature", torch.ones(()))  # kept with the weights, which mean nothing without it

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Temperature, α and β of the epoch: the published schedule, stretched to the length of training."""
        self.temperature.fill_(1.0 + (self.last_temperature - 1.0) * ramp(epoch, epochs, _HELD, 1.0))
        self.discrepancy_share = ramp(epoch, epochs, _HELD, _MATCHED)
        self.kl_share = ramp(epoch, epochs, self.kl_start, 1.0)

    # -- structure ------------------------------------------------------------------------------------

    @property
    def graph(self) -> Tensor:
        """Gᵀ, (d, d) strictly lower triangular: row k holds the weights into latent k."""
        return self.edges.triu(1).T

    def learned_graph(self) -> Tensor:
        return self.graph.detach()

    def targets(self) -> Tensor:
        """Softly chosen targets of each perturbation, (p, d); rows sum to 1.

        At the temperature of the epoch while the model trains, else at ``prediction_temperature``.
        """
        logits = self.targeting(torch.eye(len(self.strength), dtype=self.strength.dtype, device=self.strength.device))
        asked = self.prediction_temperature
        temperature = self.temperature if self.training or asked is None else asked
        return torch.softmax(temperature * logits, dim=1)

    def shifts(self, u: Tensor) -> Tensor:
        """s(u), (n, d), for u (n, p): the shifts of all members of a combination, added."""
        return u @ (self.strength[:, None] * self.targets())

    def infer(self, x: Tensor) -> Gaussian:
        """Posterior of the exogenous noise of prepared frames (n, ...), as trained on controls."""
        mean, raw = self.encoder(self.transform.inputs(x)).to(self.edges.dtype).chunk(2, dim=1)
        return Gaussian(mean, (softplus(raw) + _LEAST_VARIANCE).log())

    def solve(self, noise: Tensor) -> Tensor:
        """Latents (n, d) from exogenous noise, its shift included, (n, d): z = ε (I − G)⁻¹."""
        system = torch.eye(len(self.edges), dtype=noise.dtype, device=noise.device) - self.graph
        solved: Tensor = torch.linalg.solve_triangular(system, noise.T, upper=False, unitriangular=True)
        return solved.T

    # -- objective ------------------------------------------------------------------------------------

    def loss(self, frames: Tensor, u: Tensor, kl_weight: float, generator: torch.Generator | None) -> Loss:
        x, perturbed = frames[:, 0], u.any(dim=1)
        posterior = self.infer(x)
        noise = posterior.sample(generator)
        errors = self.decoder(self.solve(noise)) - self.transform.inputs(x)
        reconstruction = errors.square().mean() / (2.0 * self.likelihood_variance)
        kl = kl_to_centred(posterior, torch.ones_like(posterior.mean)).sum(1).mean()
        discrepancy = self._discrepancy(noise[perturbed], u[perturbed], frames[perturbed, -1])
        penalty = self.graph.abs().sum()
        total = reconstruction + self.discrepancy * self.discrepancy_share * discrepancy
        total = total + kl_weight * self.kl * self.kl_share * kl + self.sparsity * penalty
        terms = {
            "reconstruction": reconstruction,
            "kl": kl,
            "discrepancy": discrepancy,
            "sparsity_penalty": penalty,
            # what the published code keeps the weights of least: squared error, discrepancy, KL and |G|, each once
            "unweighted": reconstruction * (2.0 * self.likelihood_variance) + discrepancy + kl + penalty,
            # at the weights training ends with, so that epochs can be compared
            "bound": reconstruction + self.discrepancy * discrepancy + self.kl * kl,
        }
        return Loss(total, {name: value.detach() for name, value in terms.items()})

    def _discrepancy(self, noise: Tensor, u: Tensor, real: Tensor) -> Tensor:
        """MMD² of cells generated from controls' noise (m, d) under u (m, p) to real prepared cells (m, ...)."""
        if len(noise) == 0:
            return noise.sum()
        generated = self.decoder(self.solve(noise + self.shifts(u)))
        group = torch.zeros(len(u), dtype=torch.int64, device=u.device)
        if self.discrepancy_over == "perturbation":
            group = torch.unique(u, dim=0, return_inverse=True)[1]
        return mmd(generated, self.transform.inputs(real), group, self.bandwidth)

    # -- use ------------------------------------------------------------------------------------------

    def encode(self, frames: Tensor, u: Tensor) -> Latents:
        """z = (ε + s(u)) (I − G)⁻¹ of the last frame, as both blocks; ε is the encoder's mean, which does not know u.

        [R]: the paper encodes control cells only. An encoder that inverted the decoder on perturbed cells too would
        find their shift by itself, and it would count twice here. Trained on controls it does not: of the shift in
        cells the model itself generated it found 13 to 46 % (four truths of tiny and published sizes, β of 2 and 0.01),
        and z with s(u) decoded closer to the cell than z without, each time.
        """
        latents = self.solve(self.infer(frames[:, -1]).mean + self.shifts(u))
        return Latents(latents, latents)

    def predict_outputs(self, control: Tensor, u: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        noise = self.infer(control).sample(generator)
        decoded: Tensor = self.decoder(self.solve(noise + self.shifts(u)))
        return decoded

    def reconstruct_outputs(
        self, control: Tensor, kept: torch.Generator | None = None, rest: torch.Generator | None = None
    ) -> Tensor:
        decoded: Tensor = self.decoder(self.solve(self.infer(control).sample(kept)))
        return decoded


def ramp(epoch: int, epochs: int, start: float, stop: float) -> float:
    """Linear rise from 0 to 1 over a stretch of the training.

    Parameters
    ----------
    epoch, epochs
        The present epoch, from 1, and all.
    start, stop
        Shares of the epochs: up to ``start`` it is 0; the last epoch before ``stop`` is the first at 1.
    """
    index, first, last = epoch - 1, start * epochs, stop * epochs - 1
    if last <= first:  # the stretch lies within an epoch
        return float(index > first)
    return min(1.0, max(0.0, (index - first) / (last - first)))


def mmd(x: Tensor, y: Tensor, group: Tensor, bandwidth: float) -> Tensor:
    """Squared maximum mean discrepancy (biased) of two samples, group by group, averaged over cells.

    The kernel is Σ_k exp(−‖a − b‖² / w_k) with widths w_k = σ/32 · 2^k, k = 0 … 9: a sum, not a mean, as published.

    Parameters
    ----------
    x, y : (m, ...) samples, m >= 1; cell i of both belongs to ``group[i]``
    group : (m,) int64, numbers from 0 on, none left out
    bandwidth
        σ, in the squared unit of x; published: 1000.
    """
    with torch.autocast(x.device.type, enabled=False):  # distances are differences of squares: half precision is noise
        x, y = x.flatten(1).float(), y.flatten(1).float()
        member = torch.nn.functional.one_hot(group).T.float()
        size = member.sum(1, keepdim=True)
        contrast = _kernel(x, x, bandwidth) + _kernel(y, y, bandwidth) - 2.0 * _kernel(x, y, bandwidth)
        each = ((member / size) @ contrast * (member / size)).sum(1)
        return (each * size.squeeze(1)).sum() / len(group)


def _kernel(x: Tensor, y: Tensor, bandwidth: float) -> Tensor:
    """Sum of the kernels between all rows, (m, m)."""
    squares = x.square().sum(1)[:, None] + y.square().sum(1)
    distance = (squares - 2.0 * x @ y.T).clamp_min(0.0)
    kernels = [torch.exp(distance * (-32.0 / (bandwidth * 2.0**k))) for k in range(KERNELS)]
    return torch.stack(kernels).sum(0)


def _plain(inputs: int, hidden: int, outputs: int, layers: int) -> nn.Sequential:
    """A multilayer perceptron with ``layers`` hidden layers, started as published."""
    widths = [inputs, *[hidden] * layers, outputs]
    linear = [nn.Linear(before, after) for before, after in zip(widths[:-1], widths[1:], strict=True)]
    for one in linear:
        nn.init.normal_(one.weight, std=_WEIGHT_SD)
        nn.init.zeros_(one.bias)
    blocks: list[nn.Module] = [linear[0]]
    for one in linear[1:]:
        blocks += [nn.LeakyReLU(0.2), one]
    return nn.Sequential(*blocks)
