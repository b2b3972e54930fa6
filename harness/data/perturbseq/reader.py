"""Reading an ``.h5ad`` file block by block: labels first, then only the cells that are needed.

The matrix stays on disk: sparse or dense, it passes through memory in blocks, and only the result
(cells × genes, float32, log-normalised) is held.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import anndata
import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata.io import read_elem, sparse_dataset

from harness.data.perturbseq.values import Holds, check_finite, log_normalise, what_holds
from harness.errors import UserError

Matrix = npt.NDArray[np.float32]

#: Entries of a dense block; 16 MB as float32.
_BLOCK_ENTRIES = 4_000_000
#: Cells looked at, in runs spread over the file, to see what the matrix holds.
_SAMPLE_RUNS, _SAMPLE_RUN = 16, 64


@dataclass(frozen=True)
class Expression:
    """Log-normalised expression.

    Attributes
    ----------
    values : (cells, genes) float32, log(1 + counts per 10,000) or what the file holds as such.
    source : matrix it came from: ``X`` or ``layers/counts``.
    held : what that matrix held, ``counts`` or ``lognorm``.
    library : (cells,) float32 total counts of each cell over all genes of the file; None where the values are
        log-normalised and do not tell the counts.
    """

    values: Matrix
    source: str
    held: Holds
    library: npt.NDArray[np.float32] | None = None


class CellFile:
    """An open ``.h5ad`` file.

    Attributes
    ----------
    obs : one row a cell.
    genes : names, without duplicates.

    Raises
    ------
    UserError
        If the file is missing, is no ``.h5ad``, or names a gene twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise UserError(f"{path}: there is no such file; set data.path to an .h5ad file, or leave it out")
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise UserError(
                f"{path} is not a readable .h5ad (HDF5) file; write one with AnnData.write_h5ad, "
                "or download it again if it should be one"
            ) from error
        try:
            self.obs, var = self._tables()
            self.genes = tuple(str(name) for name in var.index)
            repeated = var.index[var.index.duplicated()]
            if len(repeated):
                raise UserError(
                    f"{path}: {len(set(repeated))} gene names occur more than once, first {repeated[0]!r}; "
                    "make them unique with AnnData.var_names_make_unique"
                )
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> CellFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def matrices(self) -> tuple[str, ...]:
        """Which of ``X`` and ``layers/counts`` the file has."""
        found = []
        for name in ("X", "layers/counts"):
            if name in self._file and self._file[name].attrs.get("encoding-type") != "null":
                found.append(name)
        return tuple(found)

    def obsm(self, name: str) -> npt.NDArray[Any]:
        """A table of the cells, (cells, columns)."""
        return np.asarray(read_elem(self._file["obsm"][name]))

    def blocks(self, name: str, runs: list[tuple[int, int]]) -> Iterator[tuple[int, Matrix]]:
        """Dense float32 blocks of the matrix ``name``: for each run of cells its start and (cells, genes) values."""
        element = self._file[name]
        try:
            source = sparse_dataset(element) if isinstance(element, h5py.Group) else element
            if tuple(source.shape) != (len(self.obs), len(self.genes)):
                raise UserError(
                    f"{self.path}: {name} is {source.shape[0]} × {source.shape[1]} but obs and var say "
                    f"{len(self.obs)} cells × {len(self.genes)} genes; write the file again"
                )
            if getattr(source, "format", "") == "csc":
                source = source.to_memory().tocsr()  # stays sparse; rows of a csc file cannot be read one by one
            for start, stop in runs:
                block = source[start:stop]
                dense = block.toarray() if hasattr(block, "toarray") else block
                yield start, np.asarray(dense, dtype=np.float32)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.path}: {name} cannot be read ({error}); write the file again") from error

    def _tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        missing = [name for name in ("obs", "var") if name not in self._file]
        if not self.matrices():
            missing.append("X")
        if missing:
            raise UserError(
                f"{self.path} is an HDF5 file without {' and '.join(missing)}, so no .h5ad; "
                "write one with AnnData.write_h5ad"
            )
        try:
            if isinstance(self._file["obs"], h5py.Dataset):  # written before anndata 0.7
                old = anndata.read_h5ad(self.path, backed="r")
                tables = old.obs, old.var
                old.file.close()
            else:
                tables = read_elem(self._file["obs"]), read_elem(self._file["var"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.path}: obs or var cannot be read ({error}); write the file again") from error
        return tables


def read_expression(
    file: CellFile, cells: npt.NDArray[np.int64], values: Literal["auto", "counts", "lognorm"]
) -> Expression:
    """Log-normalised expression of some cells.

    Parameters
    ----------
    file
        The open file.
    cells : (k,) rows wanted, in the order wanted.
    values
        The user's word on what X holds; ``auto``: seen from its values, and ``layers["counts"]`` where X is unclear.

    Raises
    ------
    UserError
        If it is unclear what the matrix holds, it holds NaN, infinite or negative values, or it would not fit
        into memory.
    """
    _refuse_too_large(file, len(cells))
    source, held = expression_matrix(file, values)
    position = np.full(len(file.obs), -1)
    position[cells] = np.arange(len(cells))
    result = np.empty((len(cells), len(file.genes)), dtype=np.float32)
    for start, block in file.blocks(source, block_runs(len(file.obs), len(file.genes))):
        to = position[start : start + len(block)]
        wanted = to >= 0
        chosen = block[wanted]
        names = file.obs.index[start : start + len(block)][wanted]
        check_finite(chosen, list(names), file.genes, f"{file.path}: {source}")
        result[to[wanted]] = log_normalise(chosen) if held == "counts" else chosen
    return Expression(result, source, held)


def expression_matrix(file: CellFile, values: Literal["auto", "counts", "lognorm"]) -> tuple[str, Holds]:
    """The matrix to read, ``X`` or ``layers/counts``, and what it holds; see `read_expression`."""
    present = file.matrices()
    if values != "auto" and "X" in present:
        return "X", values
    unclear = ""
    for name in present:
        held, why = matrix_holds(file, name)
        if held is not None:
            return name, held
        unclear = unclear or f"{name} {why}"
    raise UserError(
        f"{file.path}: it is unclear whether the file holds counts or log-normalised values: {unclear}; "
        "set data.values to counts or lognorm, or put counts into layers['counts']"
    )


def matrix_holds(file: CellFile, name: str) -> tuple[Holds | None, str]:
    """What a matrix of the file holds, by some of its cells; see `what_holds`."""
    return what_holds(np.concatenate([block for _, block in file.blocks(name, _sample(len(file.obs)))]))


def block_runs(cells: int, genes: int) -> list[tuple[int, int]]:
    """All cells in runs of neighbours, (start, stop), each small enough to be dense in memory."""
    size = max(1, _BLOCK_ENTRIES // max(genes, 1))
    return [(start, min(start + size, cells)) for start in range(0, cells, size)]


def _sample(cells: int) -> list[tuple[int, int]]:
    """Short runs of neighbouring cells, spread over the file."""
    if cells <= _SAMPLE_RUNS * _SAMPLE_RUN:
        return [(0, cells)]
    starts = np.linspace(0, cells - _SAMPLE_RUN, _SAMPLE_RUNS).astype(int)
    return [(int(start), int(start) + _SAMPLE_RUN) for start in starts]


def _refuse_too_large(file: CellFile, cells: int) -> None:
    needed = cells * len(file.genes) * 4
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > 0.8 * memory:
        raise UserError(
            f"{file.path}: {cells} cells × {len(file.genes)} genes take {needed / 1e9:.1f} GB but this machine has "
            f"{memory / 1e9:.1f}; keep the most variable genes (a few thousand) in the file"
        )
