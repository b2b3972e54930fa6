"""What stands between a decoder's output and an observed cell: Gaussian on transformed inputs, or counts.

Frames come prepared (see `InputTransform.prepare`); decoder outputs are what a model's decoder gives, (n, *outputs).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from harness.models.gaussian import negative_log_likelihood
from harness.models.networks import COUNTS_PER, InputTransform

#: Range of the dispersions the negative binomial starts with, so that a gene hardly seen starts like the others.
_DISPERSIONS = (0.05, 5.0)
#: Added to mean counts, so that a gene no training cell has a count of keeps a finite logarithm.
_LEAST_COUNT = 1e-3


class Likelihood(nn.Module, ABC):
    """p(cell | decoder's output)."""

    @property
    @abstractmethod
    def counts(self) -> bool:
        """Whether it is one of counts, which needs each cell's library size."""

    @abstractmethod
    def output_shape(self, transform: InputTransform) -> tuple[int, ...]:
        """Shape of what the decoder must give of one cell."""

    @abstractmethod
    def negative_log(self, transform: InputTransform, prepared: Tensor, outputs: Tensor) -> Tensor:
        """−log p(cell | output), summed over features, (n,) nats."""

    @abstractmethod
    def mean(self, transform: InputTransform, outputs: Tensor) -> Tensor:
        """Cells (n, *shape) without observation noise, in the units of float frames."""

    @abstractmethod
    def draw(self, transform: InputTransform, outputs: Tensor, prepared: Tensor, generator: torch.Generator) -> Tensor:
        """Cells (n, *shape) with observation noise, in the units of float frames.

        Parameters
        ----------
        prepared : (n, ...) the cells they began as, of which counts take their library sizes
        """


class Gaussian(Likelihood):
    """N(output, variance) on transformed inputs, its variance fixed.

    Parameters
    ----------
    variance
        Of each transformed input.
    """

    counts = False

    def __init__(self, variance: float) -> None:
        super().__init__()
        self.variance = variance

    def output_shape(self, transform: InputTransform) -> tuple[int, ...]:
        return transform.input_shape

    def negative_log(self, transform: InputTransform, prepared: Tensor, outputs: Tensor) -> Tensor:
        return negative_log_likelihood(transform.inputs(prepared), outputs, self.variance)

    def mean(self, transform: InputTransform, outputs: Tensor) -> Tensor:
        return transform.restore(outputs)

    def draw(self, transform: InputTransform, outputs: Tensor, prepared: Tensor, generator: torch.Generator) -> Tensor:
        """Of inputs that are principal components, the noise lies in their span."""
        noise = torch.randn(outputs.shape, generator=generator, device=outputs.device)
        return transform.restore(outputs + self.variance**0.5 * noise)


class NegativeBinomial(Likelihood):
    """Counts k_g ~ NB(mean ℓ π_g, variance m + a_g m²), ℓ the cell's library size and π = softmax(output + baseline).

    The softmax has one class more than there are genes, all genes that are not among the features: a library size is
    that of the whole cell, and the shares of the genes kept need not add up to one. The baseline, the log of the
    training cells' mean shares, is fixed; the dispersions a_g are fitted with the model.

    Parameters
    ----------
    genes
        Number of features.
    """

    counts = True
    baseline: Tensor

    def __init__(self, genes: int) -> None:
        super().__init__()
        self.genes = genes
        self.log_dispersion = nn.Parameter(torch.zeros(genes))
        self.register_buffer("baseline", torch.zeros(genes + 1))

    @torch.no_grad()
    def fit(self, frames: Tensor, library: Tensor) -> None:
        """Baseline and first dispersions from training cells: the latter by moments over all of them.

        Parameters
        ----------
        frames : (m, genes) log-normalised
        library : (m,)
        """
        counts = counts_of(frames, library).double()
        total = library.double().sum()
        kept = counts.sum(0) + _LEAST_COUNT
        rest = (total - kept.sum()).clamp_min(_LEAST_COUNT)
        self.baseline.copy_((torch.cat([kept, rest[None]]) / total).log())
        mean = library.double()[:, None] * kept / total
        excess = ((counts - mean).square() - mean).sum(0) / mean.square().sum(0)
        self.log_dispersion.copy_(excess.clamp(*_DISPERSIONS).log())

    def output_shape(self, transform: InputTransform) -> tuple[int, ...]:
        return (self.genes + 1,)

    def shares(self, outputs: Tensor) -> Tensor:
        """π (n, genes), each gene's share of all counts of a cell."""
        return torch.softmax(outputs.float() + self.baseline, dim=1)[:, :-1]

    def negative_log(self, transform: InputTransform, prepared: Tensor, outputs: Tensor) -> Tensor:
        frames, library = transform.with_library(prepared)
        mean = library[:, None] * self.shares(outputs)
        return -log_negative_binomial(counts_of(frames, library), mean, self.log_dispersion.exp()).sum(1)

    def mean(self, transform: InputTransform, outputs: Tensor) -> Tensor:
        """log(1 + counts per 10,000) at the mean counts; above the mean of log-normalised cells, by Jensen."""
        return torch.log1p(COUNTS_PER * self.shares(outputs))

    def draw(self, transform: InputTransform, outputs: Tensor, prepared: Tensor, generator: torch.Generator) -> Tensor:
        _, library = transform.with_library(prepared)
        mean, dispersion = library[:, None] * self.shares(outputs), self.log_dispersion.exp()
        # torch draws gammas from its global generator only: it is set for the draw, and put back after it
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        with torch.random.fork_rng(devices=[] if mean.device.type == "cpu" else [mean.device]):
            torch.manual_seed(seed)
            rate = torch.distributions.Gamma(1.0 / dispersion.expand_as(mean), 1.0 / (dispersion * mean + 1e-12))
            counts = torch.poisson(rate.sample())
        return torch.log1p(counts * (COUNTS_PER / library[:, None]))


def counts_of(frames: Tensor, library: Tensor) -> Tensor:
    """Counts (n, genes) behind log-normalised frames (n, genes) of cells with library sizes (n,)."""
    return (torch.expm1(frames.float()) * (library[:, None] / COUNTS_PER)).round().clamp_min(0.0)


def log_negative_binomial(counts: Tensor, mean: Tensor, dispersion: Tensor) -> Tensor:
    """log NB(k; mean m, variance m + a m²), entry by entry.

    With r = 1/a:  log Γ(k + r) − log Γ(r) − log k! + r log(r / (r + m)) + k log(m / (r + m)).

    Parameters
    ----------
    counts : (...)
        k >= 0, whole.
    mean, dispersion : broadcastable to it
        m and a, both > 0.
    """
    mean = mean.clamp_min(1e-12)
    scaled = torch.log1p(dispersion * mean)  # log((r + m) / r)
    r = 1.0 / dispersion
    choose = torch.lgamma(counts + r) - torch.lgamma(r) - torch.lgamma(counts + 1.0)
    return choose - r * scaled + counts * (torch.log(dispersion * mean) - scaled)
