"""The control that stands beside each cell in the data, where that is not its own twin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from harness.data.seeding import derive
from harness.errors import UserError

Rows = npt.NDArray[np.int64]


def draw_controls(
    is_control: npt.NDArray[np.bool_],
    splits: Mapping[str, Rows],
    ood: Sequence[str],
    seed: int,
    strata: Rows | None = None,
) -> Rows:
    """A control cell for each cell, drawn at random within its split and stratum; for OOD splits, of test's controls.

    A control cell is paired with another one, where there is another.

    Parameters
    ----------
    is_control : (cells,)
    splits
        Name -> cells.
    ood
        Names of the OOD splits.
    seed
        The data seed.
    strata
        Number of the stratum of each cell, where there are some.

    Returns
    -------
    (cells,) int64 control cells; -1 for a cell in no split.

    Raises
    ------
    UserError
        If a split has no control cell to draw, in some stratum.
    """
    drawn = np.full(len(is_control), -1, dtype=np.int64)
    for name, stratum, members in _apart(splits, strata):
        home = splits["test" if name in ood else name]
        pool = home[is_control[home] & (True if strata is None else strata[home] == stratum)]
        if len(pool) == 0:
            within = "" if strata is None else " in one of the strata"
            raise UserError(
                f"the {'test' if name in ood else name} split has no control cells to pair with{within}; give more "
                "control cells, or use pairs: none"
            )
        purpose = (name,) if strata is None else (name, f"stratum {stratum}")
        random = np.random.default_rng(derive(seed, "controls", *purpose))
        drawn[members] = pool[random.integers(len(pool), size=len(members))]
        own = members[is_control[members]]  # in a split with control cells of its own, these are its pool
        if len(own) > 1:  # a step of 1 to n - 1 around the pool never comes back to the cell itself
            step = random.integers(1, len(own), size=len(own))
            drawn[own] = own[(np.arange(len(own)) + step) % len(own)]
    return drawn


def _apart(splits: Mapping[str, Rows], strata: Rows | None) -> Iterator[tuple[str, int, Rows]]:
    """Name, stratum and cells of each part of each split; stratum 0 where there are none."""
    for name, members in splits.items():
        for stratum in (0,) if strata is None else np.unique(strata[members]).tolist():
            yield name, stratum, members if strata is None else members[strata[members] == stratum]


def paired(
    index: Tensor, condition: Tensor, splits: Mapping[str, Tensor], ood: Sequence[str], *, pairs: str, seed: int
) -> Tensor:
    """The index of rows whose first column is what ``pairs`` says, (n, T); T = 2 for ``random`` and ``none``.

    Parameters
    ----------
    index : (n, T) int64
        Frames of each row, the first its control twin.
    condition : (n,) int64
        0 for control rows.
    splits, ood
        As of `PerturbationData`.
    pairs
        ``true``, ``nearest``: the twin, or what stands for it, stays. ``random``: the last frame of a control row
        stands in its place. ``none``: the row's own last frame does, so that no model can learn from a partner that is
        not there.
    seed
        The data seed.

    Raises
    ------
    UserError
        If a split has no control cell to draw.
    """
    if pairs in ("true", "nearest"):
        return index
    cells = index[:, -1]
    if pairs == "none":
        return torch.stack([cells, cells], dim=1)
    rows = {name: members.numpy() for name, members in splits.items()}
    controls = torch.from_numpy(draw_controls((condition == 0).numpy(), rows, ood, seed))
    return torch.stack([cells[controls], cells], dim=1)
