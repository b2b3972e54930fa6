"""Simulated single cells: counts from a known responsive/invariant latent process.

Latents come from the linear-Gaussian process (``latent_process.py``), counts from gene programs (``count_model.py``).
"""

from __future__ import annotations

from dataclasses import replace

import anndata
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from harness.data.latent_process import Design, make_design, sample_process
from harness.data.perturbseq.count_model import draw_counts, draw_genes, expression_shares
from harness.data.perturbseq.labels import CONTROL, canonical
from harness.data.seeding import derive
from harness.data_spec import PerturbseqData


def design_of(spec: PerturbseqData) -> Design:
    """Perturbations, their targets and the cells of each condition, which ``simulator.cells_sd`` makes uneven."""
    design = make_design(spec, tuple(f"v{k + 1}" for k in range(spec.process.responsive)))
    return replace(design, environment=_uneven(spec, design)) if spec.simulator.cells_sd > 0 else design


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
        of one simulated cell), ``time`` (0: its control twin, which shares its invariant latents) and, with several
        batches, ``batch``. ``obsm``: true ``responsive`` (d_v) and ``invariant`` (d_i) latents. ``var``: each gene's
        log mean expression in ``baseline``, up to a constant, and its ``dispersion``. ``varm``: ``loadings``
        (d_v + d_i), log-fold changes per sd of each latent, responsive first.
    """
    assert isinstance(spec.seed, int), "the plan resolves data.seed: per_trial"
    design = design_of(spec)
    sample = sample_process(spec.process, design, spec.seed)
    n, times, d_v = sample.responsive.shape
    responsive = sample.responsive.reshape(n * times, d_v)
    invariant = sample.invariant.repeat_interleave(times, dim=0)
    latents = torch.cat([responsive, invariant], dim=1)
    genes = draw_genes(spec, latents.shape[1])
    batch = _batches(spec, n).repeat(times)
    shares = expression_shares(genes, latents, batch)
    counts = draw_counts(shares, genes.dispersion, spec.library_size, spec.simulator.library_sd, spec.seed)
    obs = _observations(design, times, spec.column or "condition", (*spec.control, CONTROL)[0])
    if spec.simulator.batches > 1:
        obs["batch"] = pd.Categorical.from_codes(
            batch, categories=[f"batch{k + 1}" for k in range(spec.simulator.batches)]
        )
    return anndata.AnnData(
        X=sparse.vstack([sparse.csr_matrix(block) for block in counts], format="csr"),
        obs=obs,
        var=pd.DataFrame(
            {"baseline": genes.baseline, "dispersion": genes.dispersion},
            index=[f"gene{k + 1}" for k in range(spec.genes)],
        ),
        obsm={"responsive": responsive.numpy(), "invariant": invariant.numpy()},
        varm={"loadings": genes.loadings.T.copy()},
    )


def _uneven(spec: PerturbseqData, design: Design) -> Tensor:
    """(n,) condition of each row where conditions have log-normal numbers of cells.

    No condition is left with fewer than ``spec.min_cells``, or with fewer than its even share where that is less.
    """
    assert isinstance(spec.seed, int)
    random = np.random.default_rng(derive(spec.seed, "cells per condition"))
    weights = random.lognormal(0, spec.simulator.cells_sd, len(design.conditions))
    single = spec.environments + 1
    doubles = len(design.conditions) - single
    parts = [(spec.cells, 0, single), (spec.test_cells, 0, single), (doubles * spec.double_cells, single, None)]
    conditions = [
        np.arange(start, start + len(weights[start:stop])).repeat(_shared_out(total, weights[start:stop], spec))
        for total, start, stop in parts
        if total
    ]
    return torch.from_numpy(np.concatenate(conditions))


def _shared_out(total: int, weights: npt.NDArray[np.float64], spec: PerturbseqData) -> npt.NDArray[np.int64]:
    """``total`` cells over conditions by weight, above what each has at least."""
    least = min(total // len(weights), spec.min_cells.least)
    edges = np.rint(np.cumsum(weights) / weights.sum() * (total - least * len(weights))).astype(np.int64)
    return least + np.diff(edges, prepend=0)


def _batches(spec: PerturbseqData, cells: int) -> npt.NDArray[np.int64]:
    """Batch of each simulated cell, (cells,), in a random order so that conditions share them."""
    assert isinstance(spec.seed, int)
    random = np.random.default_rng(derive(spec.seed, "batch of a cell"))
    return random.permutation(np.arange(cells) % spec.simulator.batches)


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
