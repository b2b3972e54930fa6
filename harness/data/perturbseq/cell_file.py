"""An open ``.h5ad`` file: its tables, and its matrices block by block. It is only read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import anndata
import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata.io import read_elem, sparse_dataset

from harness.data.perturbseq.blocks import Block, as_block
from harness.errors import UserError

#: Entries of a dense block; 16 MB as float32.
_BLOCK_ENTRIES = 4_000_000


class CellFile:
    """An open ``.h5ad`` file.

    Attributes
    ----------
    obs : one row a cell.
    var : one row a gene.
    genes : names, without duplicates.

    Parameters
    ----------
    path
        The file, which is only read.
    gene_names
        Column of var with the names of genes; default: its index.

    Raises
    ------
    UserError
        If the file is missing, is no ``.h5ad``, has no cells or no genes, has no such column, or names a gene twice.
    """

    def __init__(self, path: Path, gene_names: str | None = None) -> None:
        self.path = path
        self._by_cell: dict[str, Any] = {}
        if not path.exists():
            raise UserError(f"{path}: there is no such file; check the path")
        if path.is_dir():
            raise UserError(
                f"{path} is a folder; name the .h5ad file in it (of a .zarr store: write it as .h5ad first)"
            )
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise UserError(
                f"{path} is not a readable .h5ad (HDF5) file; write one with AnnData.write_h5ad, "
                "or download it again if it should be one"
            ) from error
        try:
            self.obs, self.var = self._tables()
            if not len(self.obs) or not len(self.var):
                raise UserError(
                    f"{path} is empty, {len(self.obs)} cells × {len(self.var)} genes; give the file before what left "
                    "nothing of it, or filter less"
                )
            self.genes = self._names(gene_names)
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
        return tuple(name for name in ("X", "layers/counts") if self._has(name))

    def layers(self) -> tuple[str, ...]:
        """Names of all layers."""
        return tuple(self._file["layers"]) if "layers" in self._file else ()

    def layer(self, name: str) -> str:
        """The matrix of a layer that the user names."""
        if name not in self.layers():
            listed = ", ".join(self.layers()) or "none"
            raise UserError(f"{self.path}: there is no layers[{name!r}]; data.layer can be one of: {listed}")
        return f"layers/{name}"

    def _has(self, name: str) -> bool:
        return name in self._file and self._file[name].attrs.get("encoding-type") != "null"

    def obsm(self, name: str) -> npt.NDArray[Any]:
        """A table of the cells, (cells, columns)."""
        return np.asarray(read_elem(self._file["obsm"][name]))

    def blocks(self, name: str, runs: list[tuple[int, int]]) -> Iterator[tuple[int, Block]]:
        """Blocks of the matrix ``name``: for each run of cells its start and (cells, genes) values, sparse or dense."""
        try:
            source = self._source(name)
            for start, stop in runs:
                yield start, as_block(source[start:stop])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.path}: {name} cannot be read ({error}); write the file again") from error

    def _source(self, name: str) -> Any:
        """What can be cut into runs of cells."""
        if name in self._by_cell:
            return self._by_cell[name]
        element = self._file[name]
        source = sparse_dataset(element) if isinstance(element, h5py.Group) else element
        if tuple(source.shape) != (len(self.obs), len(self.genes)):
            raise UserError(
                f"{self.path}: {name} is {source.shape[0]} × {source.shape[1]} but obs and var say "
                f"{len(self.obs)} cells × {len(self.genes)} genes; write the file again"
            )
        if getattr(source, "format", "") == "csc":
            self._refuse_large_csc(name, element["data"].size)
            source = self._by_cell[name] = source.to_memory().tocsr()
        return source

    def _refuse_large_csc(self, name: str, stored: int) -> None:
        """Rows of a csc matrix cannot be read one by one; it is held whole, sparse, and twice while it is turned."""
        needed, memory = 2 * stored * 12, _memory()
        if needed > 0.8 * memory:
            raise UserError(
                f"{self.path}: {name} is stored gene by gene (csc) and takes {needed / 1e9:.1f} GB to turn, but this "
                f"machine has {memory / 1e9:.1f}; store it cell by cell, as scipy.sparse.csr_matrix"
            )

    def _names(self, column: str | None) -> tuple[str, ...]:
        """Names of the genes."""
        if column is not None and column not in self.var.columns:
            listed = ", ".join(map(str, self.var.columns)) or "none"
            raise UserError(f"{self.path}: there is no column var[{column!r}]; data.gene_names can be one of: {listed}")
        names = pd.Index(self.var.index if column is None else self.var[column].astype(str))
        repeated = names[names.duplicated()]
        if len(repeated):
            raise UserError(
                f"{self.path}: {len(set(repeated))} gene names occur more than once, first {repeated[0]!r}; "
                "make them unique with AnnData.var_names_make_unique"
            )
        return tuple(map(str, names))

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


def block_runs(cells: int, genes: int) -> list[tuple[int, int]]:
    """All cells in runs of neighbours, (start, stop), each small enough to be dense in memory."""
    size = max(1, _BLOCK_ENTRIES // max(genes, 1))
    return [(start, min(start + size, cells)) for start in range(0, cells, size)]


def refuse_too_large(path: Path, cells: int, genes: int) -> None:
    """Refuse expression that would not fit into memory."""
    needed, memory = cells * genes * 4, _memory()
    if needed > 0.8 * memory:
        raise UserError(
            f"{path}: {cells} cells × {genes} genes take {needed / 1e9:.1f} GB but this machine has "
            f"{memory / 1e9:.1f}; keep the most variable genes: data.preprocess.highly_variable: {{genes: 2000}}"
        )


def _memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
