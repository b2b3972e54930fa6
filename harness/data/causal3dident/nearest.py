"""The nearest stored latent vector to each one asked for: by faiss if it is installed, else by scikit-learn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

#: faiss counts in single precision: so many candidates are compared again in double.
_CANDIDATES = 8


def nearest(stored: Floats, wanted: Floats) -> tuple[Rows, Floats]:
    """Rows of the nearest stored vectors, and their Euclidean distances.

    Parameters
    ----------
    stored : (m, d), m > 0.
    wanted : (k, d)

    Returns
    -------
    rows : (k,) of ``stored``.
    distances : (k,)
    """
    try:
        import faiss  # type: ignore[import-not-found,import-untyped]
    except ImportError:
        return by_sklearn(stored, wanted)
    index = faiss.IndexFlatL2(stored.shape[1])
    index.add(np.ascontiguousarray(stored, dtype=np.float32))
    _, near = index.search(np.ascontiguousarray(wanted, dtype=np.float32), min(_CANDIDATES, len(stored)))
    distances = np.linalg.norm(stored[near] - wanted[:, None], axis=2)
    best = distances.argmin(axis=1)
    every = np.arange(len(wanted))
    return near[every, best], distances[every, best]


def by_sklearn(stored: Floats, wanted: Floats) -> tuple[Rows, Floats]:
    """As `nearest`, by scikit-learn."""
    from sklearn.neighbors import NearestNeighbors

    distance, place = NearestNeighbors(n_neighbors=1).fit(stored).kneighbors(wanted)
    return place[:, 0], distance[:, 0]
