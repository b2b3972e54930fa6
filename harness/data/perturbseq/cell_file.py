"""An open ``.h5ad`` file: its tables, and its matrices block by block. It is only read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
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
from harness.data.perturbseq.features import features_in_use
from harness.data.perturbseq.foreign_formats import name_hdf5
from harness.data.perturbseq.opening import open_hdf5, require_filters
from harness.errors import UserError

#: Entries of a dense block; 16 MB as float32.
_BLOCK_ENTRIES = 4_000_000
_UNREADABLE = (OSError, KeyError, TypeError, ValueError)


class CellFile:
    """An open ``.h5ad`` file.

    A matrix of it is called ``X``, ``raw`` or ``layers/NAME``. ``raw`` has genes of its own.

    Attributes
    ----------
    obs : one row a cell.
    var : one row a feature in use; raw's own where raw is read.
    genes : names of those, each different.
    notes : sentences on features left out and names changed.
    numbers : the same in numbers.

    Parameters
    ----------
    path
        The file, which is only read.
    gene_names
        Column of var with the names of genes; default: its index.
    layer
        The matrix to read: a layer, ``raw`` or ``X``; default: X, or the layer counts where X is unclear.
    features
        Kinds of features in use; default: gene expression.

    Raises
    ------
    UserError
        If the file cannot be opened, is no ``.h5ad``, has no cells or no genes, lacks the column, the matrix or the
        kind of features, names a gene twice, or is compressed in a way that cannot be undone here.
    """

    def __init__(
        self, path: Path, gene_names: str | None = None, *, layer: str | None = None, features: Sequence[str] = ()
    ) -> None:
        self.path, self.layer = path, layer
        self._gene_names, self._features = gene_names, features
        self._by_cell: dict[str, Any] = {}
        self._file = open_hdf5(path)
        try:
            self._refuse_other_formats()
            self._named = None if layer is None else self._locate(layer)
            require_filters(path, self._file, ("obs", self._var, *map(self._node, self.sources())))
            self.obs, var = self._tables()
            if not len(self.obs) or not len(var):
                raise UserError(
                    f"{path} is empty, {len(self.obs)} cells × {len(var)} genes; give the file before what left "
                    "nothing of it, or filter less"
                )
            self._width = len(var)
            used = features_in_use(var, features, gene_names, path, self._var.replace("/", "."))
            self._columns = used.rows
            self.var = var if used.rows is None else var.iloc[used.rows]
            self.genes, self.numbers = used.names, used.numbers
            self.notes = (*self._hidden(), *used.notes)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> CellFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def other(self, layer: str) -> CellFile:
        """The same file, opened to read another matrix."""
        return CellFile(self.path, self._gene_names, layer=layer, features=self._features)

    def sources(self) -> tuple[str, ...]:
        """The matrices that may be read: the one that is named, or else those of ``X`` and ``layers/counts`` there."""
        if self._named is not None:
            return (self._named,)
        return tuple(name for name in ("X", "layers/counts") if self._has(name))

    def others(self, name: str | None) -> tuple[str, ...]:
        """The words of ``layer`` for all matrices but one."""
        every = ("raw", *(f"layers/{layer}" for layer in self._layers()), "X")
        return tuple(self._word(other) for other in every if other != name and self._has(other))

    def is_sparse(self, name: str) -> bool:
        """Whether a matrix is stored sparse."""
        return isinstance(self._file[self._node(name)], h5py.Group)

    def logged_to_base(self) -> float | None:
        """The base of logarithms as scanpy notes it; None where it notes none, as for natural ones."""
        noted = self._file.get("uns/log1p/base")
        value = noted[()] if isinstance(noted, h5py.Dataset) and noted.shape == () else None
        base = float(value) if isinstance(value, int | float | np.number) else np.e
        return None if np.isclose(base, np.e) else base

    def runs(self) -> list[tuple[int, int]]:
        """All cells in runs of neighbours, (start, stop), each small enough to be dense in memory."""
        size, cells = max(1, _BLOCK_ENTRIES // self._width), len(self.obs)
        return [(start, min(start + size, cells)) for start in range(0, cells, size)]

    def obsm(self, name: str) -> npt.NDArray[Any]:
        """A table of the cells, (cells, columns)."""
        return np.asarray(read_elem(self._file["obsm"][name]))

    def blocks(self, name: str, runs: list[tuple[int, int]]) -> Iterator[tuple[int, Block]]:
        """Blocks of a matrix: for each run of cells its start and (cells, genes) values, sparse or dense."""
        try:
            source = self._source(name)
            columns = None if name in self._by_cell else self._columns
            for start, stop in runs:
                yield start, as_block(source[start:stop], columns)
        except _UNREADABLE as error:
            raise UserError(f"{self.path}: {name} cannot be read ({error}); write the file again") from error

    def _source(self, name: str) -> Any:
        """What can be cut into runs of cells."""
        if name in self._by_cell:
            return self._by_cell[name]
        element = self._file[self._node(name)]
        source = sparse_dataset(element) if isinstance(element, h5py.Group) else element
        if tuple(source.shape) != (len(self.obs), self._width):
            raise UserError(
                f"{self.path}: {name} is {source.shape[0]} × {source.shape[1]} but obs and "
                f"{self._var.replace('/', '.')} say {len(self.obs)} cells × {self._width} genes; write the file again"
            )
        if getattr(source, "format", "") == "csc":
            self._refuse_large_csc(name, element["data"].size)
            whole = source.to_memory()
            used = whole if self._columns is None else whole[:, self._columns]
            source = self._by_cell[name] = used.tocsr()
        return source

    def _refuse_large_csc(self, name: str, stored: int) -> None:
        """Rows of a csc matrix cannot be read one by one; it is held whole, sparse, and twice while it is turned."""
        needed, memory = 2 * stored * 12, _memory()
        if needed > 0.8 * memory:
            raise UserError(
                f"{self.path}: {name} is stored gene by gene (csc) and takes {needed / 1e9:.1f} GB to turn, but this "
                f"machine has {memory / 1e9:.1f}; store it cell by cell, as scipy.sparse.csr_matrix"
            )

    def _layers(self) -> tuple[str, ...]:
        return tuple(self._file["layers"]) if "layers" in self._file else ()

    def _has(self, name: str) -> bool:
        node = self._node(name)
        return node in self._file and self._file[node].attrs.get("encoding-type") != "null"

    def _node(self, name: str) -> str:
        """Where a matrix is in the file; before anndata 0.7 a dot stood for the slash."""
        if name == "raw":
            return "raw.X" if "raw.X" in self._file else "raw/X"
        return name

    @property
    def _var(self) -> str:
        """Where the table of the features is in the file."""
        return self._node("raw").replace("X", "var") if self._named == "raw" else "var"

    def _locate(self, layer: str) -> str:
        """The matrix that the user's word means: X and raw themselves come before layers of that name."""
        for name in (layer if layer in ("X", "raw") else "", f"layers/{layer}", layer):
            if name and self._has(name) and (name in ("X", "raw") or name.startswith("layers/")):
                return name
        every = ("X", "raw", *(f"layers/{other}" for other in self._layers()))
        listed = ", ".join(self._word(name) for name in every if self._has(name))
        raise UserError(f"{self.path}: there is no layers[{layer!r}]; data.layer can be one of: {listed}")

    def _word(self, name: str) -> str:
        """The user's word for a matrix."""
        short = name.removeprefix("layers/")
        return name if short in ("X", "raw") and self._has(short) else short

    def _hidden(self) -> tuple[str, ...]:
        """What is to be said where a layer has the name of what is read."""
        if self._named in ("X", "raw") and self._named in self._layers():
            return (
                f"layer: {self.layer} is read as AnnData's .{self.layer}; for layers[{self.layer!r}] say "
                f"layer: layers/{self.layer}",
            )
        return ()

    def _refuse_other_formats(self) -> None:
        missing = [name for name in ("obs", "var") if name not in self._file]
        if (missing or "mod" in self._file) and (known := name_hdf5(self.path, self._file)):
            raise UserError(known)
        if missing:
            raise UserError(
                f"{self.path} is an HDF5 file without {' and '.join(missing)}, so no .h5ad; "
                "write one with AnnData.write_h5ad"
            )
        if not any(map(self._has, ("X", "raw", *(f"layers/{layer}" for layer in self._layers())))):
            raise UserError(
                f"{self.path} has neither X nor a layer nor raw, so no values of genes; write the file with its matrix"
            )

    def _tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        try:
            if isinstance(self._file["obs"], h5py.Dataset):  # written before anndata 0.7
                old = anndata.read_h5ad(self.path, backed="r")
                tables = old.obs, old.raw.var if self._named == "raw" else old.var
                old.file.close()
            else:
                tables = read_elem(self._file["obs"]), read_elem(self._file[self._var])
        except _UNREADABLE as error:
            raise UserError(f"{self.path}: obs or var cannot be read ({error}); write the file again") from error
        return tables


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
