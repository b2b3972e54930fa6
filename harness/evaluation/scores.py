"""What every score returns, and what every score refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Index = NDArray[np.int64]


class NonFiniteError(ValueError):
    """An array to be scored holds NaN or infinity; its trial has failed and gets no score.

    Attributes
    ----------
    quantity : name of the array at fault.
    """

    def __init__(self, quantity: str, count: int, size: int) -> None:
        super().__init__(f"{quantity} has {count} of {size} values that are NaN or infinite")
        self.quantity = quantity


@dataclass(frozen=True)
class Scores:
    """Named numbers, all finite, and sentences about those that need a caveat.

    Attributes
    ----------
    values : metric -> value.
    warnings : one sentence each, naming the metric and the latent, condition or array concerned.
    """

    values: Mapping[str, float]
    warnings: tuple[str, ...] = field(default=())


def as_matrix(values: ArrayLike, name: str) -> Array:
    """Check that ``values`` is a finite (rows, columns) array and give it as float64.

    Parameters
    ----------
    values
        (rows, columns), any real type.
    name
        What to call it in an error.

    Raises
    ------
    NonFiniteError
        If an entry is NaN or infinite.
    ValueError
        If it has not two axes.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"{name} must be (rows, columns), got shape {array.shape}")
    bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if bad:
        raise NonFiniteError(name, bad, array.size)
    return array


def is_constant(values: Array) -> Mask:
    """Columns whose spread is rounding noise: sd at most 1e-6 of their root mean square (or all zero).

    Parameters
    ----------
    values
        (rows, columns).

    Returns
    -------
    (columns,) bool. Latents come from float32 networks, hence 1e-6.
    """
    spread = values.std(axis=0)
    size = np.sqrt(np.mean(values**2, axis=0))
    constant: Mask = spread <= 1e-6 * size
    return constant
