"""Arithmetic on some cells' rows, sparse or dense as the file has them; nothing sparse is made dense on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

Values = npt.NDArray[np.float64]
#: (cells, genes) values of neighbouring cells: a dense array, or a scipy CSR array.
Block = Any


def as_block(part: Any, columns: npt.NDArray[np.int64] | None = None) -> Block:
    """Some columns, or all, as read from a file, in float32: a dense array, or a CSR array without repeated entries."""
    if columns is not None:
        part = part[:, columns]
    if not sparse.issparse(part):
        return np.asarray(part, dtype=np.float32)
    block = sparse.csr_array(part, dtype=np.float32)
    block.sum_duplicates()
    return block


def dense(block: Block) -> npt.NDArray[Any]:
    """The block as a dense array."""
    return np.asarray(block.toarray() if sparse.issparse(block) else block)


def entries(block: Block) -> npt.NDArray[Any]:
    """The stored values, flat; those a sparse block leaves out are zero."""
    return np.asarray(block.data if sparse.issparse(block) else block.ravel())


def place(block: Block, entry: int) -> tuple[int, int]:
    """Row and column of one of `entries`."""
    if not sparse.issparse(block):
        return divmod(entry, block.shape[1])
    return int(np.searchsorted(block.indptr, entry, side="right")) - 1, int(block.indices[entry])


def row_sums(block: Block) -> Values:
    """Sum of each row, (cells,) float64."""
    return np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()


def scaled(block: Block, factors: Values) -> Block:
    """Each row times its factor, in float64."""
    if not sparse.issparse(block):
        return block * factors[:, None]
    return _with_data(block, block.data * np.repeat(factors, np.diff(block.indptr)))


def log1p(block: Block) -> Block:
    """log(1 + x) of each value."""
    return _with_data(block, np.log1p(block.data)) if sparse.issparse(block) else np.log1p(block)


def expm1(block: Block) -> Block:
    """exp(x) - 1 of each value, in float64."""
    if not sparse.issparse(block):
        return np.expm1(block, dtype=np.float64)
    return _with_data(block, np.expm1(block.data, dtype=np.float64))


def column_sums(block: Block) -> tuple[Values, Values]:
    """Sum of each column, and of its squares; both (genes,) float64."""
    if not sparse.issparse(block):
        return block.sum(axis=0, dtype=np.float64), np.einsum("ij,ij->j", block, block, dtype=np.float64)
    values = block.data.astype(np.float64)
    sums, squares = (np.bincount(block.indices, weights=of, minlength=block.shape[1]) for of in (values, values**2))
    return sums.astype(np.float64), squares.astype(np.float64)


def empty_rows(block: Block) -> npt.NDArray[np.bool_]:
    """Rows without a value other than zero, (cells,)."""
    if not sparse.issparse(block):
        return ~block.any(axis=1)
    if block.data.all():
        return np.diff(block.indptr) == 0
    return np.bincount(rows_of(block)[block.data != 0], minlength=block.shape[0]) == 0


def whole_rows(block: Block) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Rows with a value other than zero whose values are all whole numbers, and those with a fraction; (cells,) each.

    A row that begins with a fraction is not looked at further, which spares nearly all of a block of logarithms.
    """
    if not sparse.issparse(block):
        broken = (block != np.rint(block)).any(axis=1)
        return ~broken & block.any(axis=1), broken
    broken = np.zeros(block.shape[0], dtype=bool)
    filled = np.diff(block.indptr) > 0
    begin = block.data[block.indptr[:-1][filled]]
    broken[filled] = begin != np.rint(begin)
    open_ = np.flatnonzero(filled & ~broken)
    rest = block if len(open_) == block.shape[0] else block[open_]
    fractions = rest.data != np.rint(rest.data)
    if fractions.any():
        broken[open_[np.unique(rows_of(rest)[fractions])]] = True
    return ~broken & ~empty_rows(block), broken


def rows_of(block: Block) -> npt.NDArray[np.int64]:
    """The row of each stored value of a sparse block."""
    return np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))


def _with_data(block: Block, data: npt.NDArray[Any]) -> Block:
    return sparse.csr_array((data, block.indices, block.indptr), shape=block.shape)
