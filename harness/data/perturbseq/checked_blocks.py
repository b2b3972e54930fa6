"""The cells of a study, block by block, each checked as it passes by."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from harness.data.perturbseq.blocks import Block
from harness.data.perturbseq.cell_file import CellFile
from harness.data.perturbseq.cell_kinds import CellKinds
from harness.data.perturbseq.values import LARGEST_LOG, Holds, check_finite
from harness.errors import UserError

Rows = npt.NDArray[np.int64]


def checked_blocks(
    file: CellFile, name: str, held: Holds | None, cells: Rows | None = None, kinds: CellKinds | None = None
) -> Iterator[tuple[Rows, Rows, Block]]:
    """Values of the cells in use.

    Parameters
    ----------
    name, held
        The matrix, and what it is taken for; None where that is unclear.
    cells : rows in use; None: all.
    kinds
        What is to look at each block, to tell after the last whether all cells hold the same.

    Yields
    ------
    tuple
        For each block with some of the cells: their positions in ``cells``, their rows in the file, and their values.

    Raises
    ------
    UserError
        At the first NaN, infinite or negative value; after the last block where values are too large for logarithms.
    """
    position = np.arange(len(file.obs)) if cells is None else np.full(len(file.obs), -1)
    if cells is not None:
        position[cells] = np.arange(len(cells))
    largest = 0.0
    runs = [(start, stop) for start, stop in file.runs() if np.any(position[start:stop] >= 0)]
    for start, block in file.blocks(name, runs):
        to = position[start : start + block.shape[0]]
        wanted = to >= 0
        chosen = block if wanted.all() else block[wanted]
        rows = start + np.flatnonzero(wanted)
        if held is not None:
            check_finite(chosen, file.obs.index[rows], file.genes, f"{file.path}: {name}")
        if kinds is not None:
            kinds.add(rows, chosen)
        if held == "lognorm":
            largest = max(largest, float(chosen.max()))
        yield to[wanted], rows, chosen
    if largest > LARGEST_LOG and (kinds is None or kinds.odd() is None):
        raise UserError(
            f"{file.path}: {name} {too_large(largest)}; give natural logarithms of one plus scaled counts, or counts "
            "without a word in data.values"
        )


def too_large(value: float) -> str:
    """Why values can be no logarithms."""
    return f"holds values up to {value:.4g}, and no log-normalised value is above {LARGEST_LOG}"
