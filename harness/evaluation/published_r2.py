"""R² of each true latent at the sizes of the published protocol, which are far costlier than those taken by default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from harness.evaluation.regression import KernelRidge, LinearRegression
from harness.evaluation.scores import Array

#: Rows that the published protocol scores at once, how often it does, and how many of such batches it fits together.
BATCH, SCORED_BATCHES, FITTED_BATCHES = 2048, 10, 5
#: Fewest rows on which the protocol can be followed: those fitted and one batch that is scored.
FEWEST_ROWS = (FITTED_BATCHES + 1) * BATCH


class PublishedR2(NamedTuple):
    """R² of one true latent by kernel ridge and by least squares."""

    kernel: float
    linear: float


def published_r2(
    learned: Array,
    factors: Sequence[Array],
    *,
    seed: int,
    batch: int = BATCH,
    scored: int = SCORED_BATCHES,
    fitted: int = FITTED_BATCHES,
) -> list[PublishedR2]:
    """R² of each factor from a learned block: one regression on 5 × 2,048 rows, the mean R² of 10 × 2,048 others.

    Features and factors are standardised on the rows fitted; the kernel ridge regression is RBF, its α and γ found by
    the 3-fold search of `KernelRidge`. Its 49 and more factorisations of matrices of up to 10,240 rows take some six
    minutes of one slow core and 3 GB for a block, by the cube and the square of what fits of 2,560 rows took.

    Parameters
    ----------
    learned
        (n, a) learned latents, n >= (fitted + 1) · batch.
    factors
        One (n, c) array a true latent; an angle is the pair (cos, sin), with one R².
    seed
        Governs which rows fit and which are scored.
    batch, scored, fitted
        Rows of a batch, most batches scored, and batches fitted together; other numbers than the published ones make
        the score another.

    Returns
    -------
    One `PublishedR2` a factor. Not clipped; 0 where nothing was learned.

    Raises
    ------
    ValueError
        With too few rows.

    Notes
    -----
    Source: von Kügelgen et al. 2021 and its code, which draws the 15 batches from a test set of 25,000 that is gone
    through again once it is used up, so that some rows it scores were fitted. Here none is: where there are fewer than
    ten further batches, those there are are scored.
    """
    rows = len(learned)
    if rows < (fitted + 1) * batch:
        raise ValueError(
            f"{rows:,} rows are too few for the published R²; at least {(fitted + 1) * batch:,} are needed"
        )
    if learned.shape[1] == 0:
        return [PublishedR2(0.0, 0.0)] * len(factors)
    order = np.random.default_rng([seed, 1]).permutation(rows)
    first, rest = order[: fitted * batch], order[fitted * batch :]
    fit = learned[first], [factor[first] for factor in factors]
    batches = [rest[k * batch : (k + 1) * batch] for k in range(min(scored, len(rest) // batch))]
    means = []
    for regression in (KernelRidge(*fit), LinearRegression(*fit)):
        each = [regression.r2(learned[part], [factor[part] for factor in factors]) for part in batches]
        means.append(np.mean(each, axis=0))
    return [PublishedR2(float(kernel), float(linear)) for kernel, linear in zip(*means, strict=True)]
