"""Simulated single cells: counts from a known responsive/invariant latent process.

Latents of the linear-Gaussian process set the activity of gene programs (sparse loadings); activities give each gene's
share of a cell's counts; library sizes are log-normal and counts negative-binomial:

    log ρ_g = b_g + Σ_k W_gk z_k,    π = ρ / Σ ρ,    m = ℓ π,    ℓ ~ LogNormal,
    x_g ~ NB(mean m_g, variance m_g + a m_g²)
"""

from __future__ import annotations

from collections.abc import Iterator

import anndata
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from harness.data.latent_process import Design, make_design, sample_process
from harness.data.perturbseq.labels import CONTROL, canonical
from harness.data.seeding import derive
from harness.data_spec import PerturbseqData

Floats = npt.NDArray[np.float64]

#: sd of log library size, as in common droplet data.
LIBRARY_SD = 0.4
#: Share of genes that a program (one latent) moves, and the sd of its log-fold change per sd of the latent.
LOADING_DENSITY, LOADING_SD = 0.2, 0.4
#: sd of log mean expression over genes.
BASELINE_SD = 1.0
#: Cells drawn at once.
_BLOCK = 2000


def design_of(spec: PerturbseqData) -> Design:
    """Perturbations, their targets and the cells of each condition."""
    return make_design(spec, tuple(f"v{k + 1}" for k in range(spec.process.responsive)))


def simulate(spec: PerturbseqData) -> anndata.AnnData:
    """Simulate counts in the form of a real file, with what is true beside them.

    Parameters
    ----------
    spec
        Sizes, process and noise; ``spec.path`` is not read.

    Returns
    -------
    AnnData
        (cells × T) observations by genes of raw counts (CSR). ``obs``: the perturbation in ``spec.column``
        (default ``condition``) with ``spec.control`` (default ``control``), ``nperts``, ``trajectory`` (observations
        of one simulated cell) and ``time`` (0: its control twin, which shares its invariant latents). ``obsm``: true
        ``responsive`` (d_v) and ``invariant`` (d_i) latents.
    """
    assert isinstance(spec.seed, int), "the plan resolves data.seed: per_trial"
    design = design_of(spec)
    sample = sample_process(spec.process, design, spec.seed)
    n, times, d_v = sample.responsive.shape
    responsive = sample.responsive.reshape(n * times, d_v)
    invariant = sample.invariant.repeat_interleave(times, dim=0)
    rates = expression_shares(torch.cat([responsive, invariant], dim=1), spec.genes, spec.seed)
    column = spec.column or "condition"
    return anndata.AnnData(
        X=_counts(rates, spec),
        obs=_observations(design, times, column, spec.control or CONTROL),
        var=pd.DataFrame(index=[f"gene{k + 1}" for k in range(spec.genes)]),
        obsm={"responsive": responsive.numpy(), "invariant": invariant.numpy()},
    )


def expression_shares(latents: Tensor, genes: int, seed: int) -> Iterator[Floats]:
    """Each gene's expected share of a cell's counts, in blocks of cells.

    Parameters
    ----------
    latents : (m, d)
    genes
        Number of genes; each program moves at least one.
    seed
        The data seed.

    Yields
    ------
    (block, genes) float64, rows summing to one.
    """
    random = np.random.default_rng(derive(seed, "gene programs"))
    d = latents.shape[1]
    loadings = random.normal(0, LOADING_SD, (d, genes)) * (random.random((d, genes)) < LOADING_DENSITY)
    loadings[np.arange(d), random.integers(genes, size=d)] = LOADING_SD  # no program is silent
    baseline = random.normal(0, BASELINE_SD, genes)
    # every program moves expression alike, however far its latent spreads
    activity = ((latents - latents.mean(0)) / latents.std(0)).double().numpy()
    for start in range(0, len(activity), _BLOCK):
        logs = baseline + activity[start : start + _BLOCK] @ loadings
        shares = np.exp(logs - logs.max(axis=1, keepdims=True))
        yield shares / shares.sum(axis=1, keepdims=True)


def negative_binomial(mean: Floats, dispersion: float, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Counts with the given mean m and variance m + a m² (gamma-mixed Poisson); a = 0 is Poisson.

    Parameters
    ----------
    mean
        Expected counts, any shape.
    dispersion
        a >= 0.
    random
        The stream to draw from.
    """
    if dispersion > 0:
        mean = random.gamma(1 / dispersion, dispersion * mean)
    return random.poisson(mean)


def library_sizes(cells: int, mean: float, random: np.random.Generator) -> Floats:
    """Log-normal expected counts of each cell, (cells,), with the given mean."""
    return random.lognormal(np.log(mean) - LIBRARY_SD**2 / 2, LIBRARY_SD, cells)


def _counts(shares: Iterator[Floats], spec: PerturbseqData) -> sparse.csr_matrix:
    assert isinstance(spec.seed, int)
    random = np.random.default_rng(derive(spec.seed, "counts"))
    blocks = []
    for block in shares:
        mean = block * library_sizes(len(block), spec.library_size, random)[:, None]
        blocks.append(sparse.csr_matrix(negative_binomial(mean, spec.dispersion, random).astype(np.int32)))
    return sparse.vstack(blocks, format="csr")


def _observations(design: Design, times: int, column: str, control: str) -> pd.DataFrame:
    """One row an observation: what was done to it, and which simulated cell it shows at which time."""
    # a true control cell at every time, or a perturbed cell that is its own control at time 0
    texts = [canonical(design.perturbations[k] for k in members) for members in design.members]
    of_cell = design.environment.numpy()
    time = np.tile(np.arange(times), len(of_cell))
    condition = np.where(time == 0, 0, of_cell.repeat(times))
    names = np.array([control if text == CONTROL else text for text in texts], dtype=object)
    sizes = np.array([len(members) for members in design.members])
    return pd.DataFrame(
        {
            column: pd.Categorical.from_codes(condition, categories=names.tolist()),
            "nperts": sizes[condition],
            "trajectory": np.arange(len(of_cell)).repeat(times),
            "time": time,
        },
        index=[f"cell{k + 1}" for k in range(len(time))],
    )
