"""From latents to counts: gene programs, library sizes and negative-binomial noise.

Latents set the activity of gene programs (sparse loadings); activities give each gene's share of a cell's counts:

    log ρ_g = b_g + Σ_k W_gk z_k + e_g(batch),    π = ρ / Σ ρ,    m = ℓ π,    ℓ ~ LogNormal,
    x_g ~ NB(mean m_g, variance m_g + a_g m_g²),    a_g = a exp(s n_g) + b / m̄_g,    n_g ~ N(0, 1)

with m̄_g the gene's count in a cell of mean library size and no active program. Every part has a random stream of its
own, or draws after those that were there before it, so that turning one knob leaves the others' draws as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri
from torch import Tensor

from harness.data.seeding import derive
from harness.data_spec import PerturbseqData

Floats = npt.NDArray[np.float64]

#: Cells drawn at once.
_BLOCK = 2000


@dataclass(frozen=True)
class Genes:
    """What genes do by themselves and under programs.

    Attributes
    ----------
    baseline : (genes,) b, log mean expression up to a constant.
    loadings : (d, genes) W, log-fold change per sd of each latent.
    dispersion : (genes,) a_g >= 0, all zero for Poisson counts.
    batches : (batches, genes) e, log-fold change in each batch; zeros where there is one batch.
    """

    baseline: Floats
    loadings: Floats
    dispersion: Floats
    batches: Floats


def draw_genes(spec: PerturbseqData, programs: int) -> Genes:
    """Draw genes and what ``programs`` latents do to them; each program moves at least one gene."""
    assert isinstance(spec.seed, int), "the plan resolves data.seed: per_trial"
    knobs, genes = spec.simulator, spec.genes
    random = np.random.default_rng(derive(spec.seed, "gene programs"))
    loadings = random.normal(0, knobs.loading_sd, (programs, genes))
    loadings *= random.random((programs, genes)) < knobs.loading_density
    loadings[np.arange(programs), random.integers(genes, size=programs)] = knobs.loading_sd  # no program is silent
    if knobs.baseline == "spread":
        baseline = knobs.baseline_sd * random.permutation(ndtri((np.arange(genes) + 0.5) / genes))
    else:
        baseline = random.normal(0, knobs.baseline_sd, genes)
    batches = np.zeros((1, genes))
    if knobs.batches > 1:
        others = np.random.default_rng(derive(spec.seed, "batches"))
        batches = others.normal(0, knobs.batch_sd, (knobs.batches, genes))
    return Genes(baseline, loadings, _dispersions(spec, baseline), batches)


def expression_shares(genes: Genes, latents: Tensor, batch: npt.NDArray[np.int64] | None = None) -> Iterator[Floats]:
    """Each gene's expected share of a cell's counts, in blocks of cells.

    Parameters
    ----------
    genes
        From `draw_genes`.
    latents : (m, d)
    batch : (m,)
        Of each cell; None: all in the first.

    Yields
    ------
    (block, genes) float64, rows summing to one.
    """
    of_cell = np.zeros(len(latents), dtype=np.int64) if batch is None else batch
    # every program moves expression alike, however far its latent spreads
    activity = ((latents - latents.mean(0)) / latents.std(0)).double().numpy()
    for start in range(0, len(activity), _BLOCK):
        block = slice(start, start + _BLOCK)
        logs = genes.baseline + activity[block] @ genes.loadings + genes.batches[of_cell[block]]
        shares = np.exp(logs - logs.max(axis=1, keepdims=True))
        yield shares / shares.sum(axis=1, keepdims=True)


def draw_counts(
    shares: Iterator[Floats], dispersion: Floats, library_size: float, library_sd: float, seed: int
) -> Iterator[npt.NDArray[np.int32]]:
    """Counts of cells with the given expression shares, block by block.

    Parameters
    ----------
    shares
        Blocks of (cells, genes), from `expression_shares`.
    dispersion : (genes,)
    library_size, library_sd
        See `library_sizes`.
    seed
        The data seed.

    Yields
    ------
    (block, genes) int32.
    """
    random = np.random.default_rng(derive(seed, "counts"))
    for block in shares:
        mean = block * library_sizes(len(block), library_size, library_sd, random)[:, None]
        yield negative_binomial(mean, dispersion, random).astype(np.int32)


def negative_binomial(mean: Floats, dispersion: float | Floats, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Counts with the given mean m and variance m + a m² (gamma-mixed Poisson); a = 0 is Poisson.

    Parameters
    ----------
    mean
        Expected counts, any shape.
    dispersion
        a, one for all or of each gene (the last dimension of ``mean``); all above 0, or all 0.
    random
        The stream to draw from.
    """
    if np.all(np.asarray(dispersion) > 0):
        mean = random.gamma(1 / dispersion, dispersion * mean)
    return random.poisson(mean)


def library_sizes(cells: int, mean: float, sd: float, random: np.random.Generator) -> Floats:
    """Log-normal expected counts of each cell, (cells,), with the given mean; ``sd`` is that of their logarithm."""
    return random.lognormal(np.log(mean) - sd**2 / 2, sd, cells)


def _dispersions(spec: PerturbseqData, baseline: Floats) -> Floats:
    """a_g of each gene, (genes,)."""
    assert isinstance(spec.seed, int)
    knobs = spec.simulator
    spread = np.random.default_rng(derive(spec.seed, "dispersions")).normal(0, knobs.dispersion_sd, spec.genes)
    shares = np.exp(baseline - baseline.max())
    mean = spec.library_size * shares / shares.sum()
    return spec.dispersion * np.exp(spread) + knobs.dispersion_trend / mean
