"""What is known of a gene beside its name, so that a model can predict perturbations it never saw.

A table gives each gene a vector. Each of its columns is standardised over the perturbations that train, and a column of
ones is put in front, so that what all perturbations share has a weight of its own (u of control is zero, and mechanisms
are linear in u without a constant). u of a condition is the sum of its members' vectors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.utils.extmath import randomized_svd

from harness.data.perturbseq.conditions import in_condition
from harness.data.seeding import derive
from harness.errors import UserError

Table = npt.NDArray[np.float64]

#: Most training control cells that loadings are found on.
_FITTED_CELLS = 20_000


@dataclass(frozen=True)
class GeneVectors:
    """Vectors of genes.

    Attributes
    ----------
    genes : g names.
    values : (g, f)
    """

    genes: tuple[str, ...]
    values: Table

    def standardised(self, trained: Sequence[str]) -> GeneVectors:
        """A one, then each column by its mean and standard deviation over the ``trained`` genes.

        A column in which these do not differ becomes zero for them, and is left unscaled.
        """
        place = {gene: k for k, gene in enumerate(self.genes)}
        seen = self.values[[place[gene] for gene in trained]]
        deviation = seen.std(axis=0)
        scaled = (self.values - seen.mean(axis=0)) / np.where(deviation > 1e-12, deviation, 1.0)
        return GeneVectors(self.genes, np.concatenate([np.ones((len(self.genes), 1)), scaled], axis=1))


def read_vectors(path: Path) -> GeneVectors:
    """A table from a ``.csv`` file: a header, then a gene and its numbers in each line.

    Genes are named as in conditions, see `in_condition`.

    Raises
    ------
    UserError
        If it cannot be read, names a gene twice, or holds what is no number.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, index_col=0)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read as a .csv file ({error}); give one with a header, and a gene and its numbers in "
            "each line"
        ) from error
    genes = tuple(in_condition(str(name).strip()) for name in table.index)
    repeated = [name for name, times in Counter(genes).items() if times > 1]
    if repeated:
        raise UserError(f"{path}: names {repeated[0]!r} more than once; keep one line a gene")
    numbers = table.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    if not numbers.size:
        raise UserError(f"{path}: holds no numbers; give a header, and a gene and its numbers in each line")
    if not np.isfinite(numbers).all():
        row, column = np.argwhere(~np.isfinite(numbers))[0]
        raise UserError(
            f"{path}: {genes[row]} has no number in column {table.columns[column]!r}; fill it in, or leave the gene out"
        )
    return GeneVectors(genes, numbers)


def loadings(values: npt.NDArray[np.float32], genes: Sequence[str], count: int, seed: int) -> GeneVectors:
    """Each gene's loadings on the principal components of some cells, scaled by the components' standard deviations.

    So the inner product of two genes' vectors is near their covariance over these cells.

    Parameters
    ----------
    values : (cells, genes)
        Log-normalised expression of control cells that train.
    genes
        Names of the columns.
    count
        Components; fewer where there are fewer cells or genes.
    seed
        The data seed.

    Raises
    ------
    UserError
        If there are fewer than two cells.
    """
    if len(values) < 2:
        raise UserError(
            "data.perturbation_features: loadings needs 2 or more control cells that train; give more control cells"
        )
    if len(values) > _FITTED_CELLS:
        random = np.random.default_rng(derive(seed, "cells of loadings"))
        values = values[np.sort(random.choice(len(values), _FITTED_CELLS, replace=False))]
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    count = min(count, len(values) - 1, len(genes))
    _, scale, basis = randomized_svd(centred, count, random_state=derive(seed, "loadings") % 2**32)
    found = basis.T * (scale / np.sqrt(len(values) - 1))
    # of the two signs of a component, the one in which its largest loading is positive
    found *= np.sign(found[np.abs(found).argmax(axis=0), np.arange(found.shape[1])])
    return GeneVectors(tuple(genes), found)
