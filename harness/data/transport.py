"""Optimal transport between cells: the one place where cells get partners by what they cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

#: Principal components in which costs are taken; more only adds noise to distances.
COMPONENTS = 20


def partners_of(cells: npt.NDArray[Any], others: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """A partner of each cell among ``others``, all pairs together at least cost, which is squared Euclidean distance.

    With as many others as cells this is exact optimal transport between the two empirical distributions. Of more
    others, each is a partner once at most, and some are left out. Of fewer, each is a partner ⌈n / m⌉ times at most,
    which is exact where the numbers divide, and near it otherwise.

    Parameters
    ----------
    cells : (n, components) where cells lie.
    others : (m, components) where those lie that may be partners, m >= 1.

    Returns
    -------
    (n,) positions in ``others``.
    """
    candidates = np.tile(np.arange(len(others)), -(-len(cells) // len(others)))
    _, chosen = linear_sum_assignment(cdist(cells, others[candidates], "sqeuclidean"))
    found: npt.NDArray[np.int64] = candidates[chosen]
    return found
