"""Which genes are kept: the most variable ones as scanpy chooses them, seen in training cells only.

The dispersion of a gene is its variance over its mean, and is compared with that of genes of like mean. ``seurat``
(Satija et al., Nature Biotechnology 2015) takes it of counts scaled to one sum a cell, then its log, and gives z-scores
in 20 bins of equal width; ``cell_ranger`` (Zheng et al., Nature Communications 2017) takes it of the log-normalised
values, as scanpy does, and gives distances from the median of bins between percentiles of the mean, in median absolute
deviations. Both need a gene's mean and variance alone, so that a file passes through memory block by block.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.data.perturbseq import blocks
from harness.data.perturbseq.blocks import Block, Values

Method = Literal["seurat", "cell_ranger"]

#: Bins of the mean in ``seurat``.
_BINS = 20
#: The median absolute deviation of a normal variable with unit variance.
_NORMAL_MAD = 0.6744897501960817


@dataclass(frozen=True)
class Moments:
    """Of each gene, over cells.

    Attributes
    ----------
    mean : (genes,)
    variance : (genes,), with cells - 1 in the denominator.
    """

    mean: Values
    variance: Values


def moments(logs: Iterable[Block], genes: int, method: Method) -> Moments:
    """Mean and variance of each gene, as ``method`` takes them.

    Parameters
    ----------
    logs
        Blocks of cells, log-normalised.
    genes
        Number of genes.
    """
    cells = 0
    total, squares = np.zeros(genes), np.zeros(genes)
    for block in logs:
        sums, of_squares = blocks.column_sums(blocks.expm1(block) if method == "seurat" else block)
        total += sums
        squares += of_squares
        cells += block.shape[0]
    mean = total / max(cells, 1)
    return Moments(mean, np.maximum(squares - cells * mean**2, 0) / max(cells - 1, 1))


def highly_variable(of: Moments, number: int, method: Method) -> npt.NDArray[np.int64]:
    """The genes with the largest normalised dispersion.

    Parameters
    ----------
    of
        What `moments` gives.
    number
        How many genes; more where several are level at the end, fewer where fewer vary.
    method
        scanpy's flavor.

    Returns
    -------
    ndarray
        Their numbers, ascending.
    """
    score = normalised_dispersion(of, method)
    ranked = np.sort(score[~np.isnan(score)])[::-1]
    if not len(ranked):
        return np.empty(0, dtype=np.int64)
    least = ranked[min(number, len(ranked)) - 1]
    return np.flatnonzero(np.nan_to_num(score, nan=-np.inf) >= least)


def normalised_dispersion(of: Moments, method: Method) -> Values:
    """Dispersion of each gene compared with genes of like mean, (genes,); NaN for genes that do not vary."""
    mean = np.where(of.mean == 0, 1e-12, of.mean)
    dispersion = of.variance / mean
    if method == "seurat":
        return _z_scores(np.log1p(mean), np.log(np.where(dispersion == 0, np.nan, dispersion)))
    return _deviations(mean, dispersion)


def _z_scores(mean: Values, dispersion: Values) -> Values:
    table = pd.DataFrame({"dispersion": dispersion, "bin": pd.cut(pd.Series(mean), bins=_BINS)})
    grouped = table.groupby("bin", observed=True)["dispersion"]
    centre, spread = grouped.transform("mean"), grouped.transform("std")
    # a gene alone in its bin has no spread; it scores 1, as in Seurat
    alone = spread.isna()
    score = (table["dispersion"] - centre.mask(alone, 0)) / spread.mask(alone, centre)
    return score.to_numpy()


def _deviations(mean: Values, dispersion: Values) -> Values:
    edges = np.unique(np.r_[-np.inf, np.percentile(mean, np.arange(10, 105, 5)), np.inf])
    table = pd.DataFrame({"dispersion": dispersion, "bin": pd.cut(pd.Series(mean), edges)})
    median = table.groupby("bin", observed=True)["dispersion"].transform("median")
    table["away"] = (table["dispersion"] - median).abs()
    spread = table.groupby("bin", observed=True)["away"].transform("median") / _NORMAL_MAD
    score: Values = ((table["dispersion"] - median) / spread).to_numpy()
    return score
