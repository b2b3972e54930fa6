"""Expression of the cells that are needed, from an ``.h5ad`` file read block by block.

The matrix stays on disk: sparse or dense, it passes through memory in blocks, and only the result
(cells × chosen genes, float32, log-normalised) is held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from harness.data.perturbseq.blocks import Block, Values, dense, row_sums
from harness.data.perturbseq.cell_file import CellFile, refuse_too_large
from harness.data.perturbseq.cell_kinds import CellKinds
from harness.data.perturbseq.checked_blocks import checked_blocks
from harness.data.perturbseq.grid import counted_in
from harness.data.perturbseq.matrix_choice import ValuesWord, expression_matrix, notes_on, refuse_mixed
from harness.data.perturbseq.preprocessing import highly_variable, moments
from harness.data.perturbseq.values import TARGET_SUM, Holds, Matrix, log_normalise
from harness.errors import UserError
from harness.reading_spec import HighlyVariable, Preprocess

__all__ = ["CellFile", "Expression", "expression_matrix", "read_expression"]

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Expression:
    """Log-normalised expression.

    Attributes
    ----------
    values : (cells, genes) float32, log(1 + counts per target sum) or what the file holds as such.
    source : matrix it came from: ``X``, ``raw``, ``layers/counts`` or another layer.
    held : what that matrix held, ``counts`` or ``lognorm``.
    genes : names of the genes kept, in the file's order.
    library : (cells,) float32, such that counts are expm1(values) · library / 10,000: the total counts of a cell over
        all genes of the file, where values are scaled to 10,000 a cell (else that total times 10,000 / target sum).
        0 for a cell without counts. None where values are log-normalised and what one count gives cannot be told.
    steps : what was done, one step an item.
    notes : sentences on what a user should know of the file's matrix, features and names.
    numbers : all of these in numbers, to be logged.
    """

    values: Matrix
    source: str
    held: Holds
    genes: tuple[str, ...]
    library: npt.NDArray[np.float32] | None
    steps: tuple[str, ...]
    notes: tuple[str, ...] = ()
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Prepared:
    """A file's matrix, log-normalised block by block.

    Attributes
    ----------
    file : the open file.
    source, held : the matrix and what it holds.
    target : sum of a cell's counts after scaling.
    """

    file: CellFile
    source: str
    held: Holds
    target: float

    def blocks(self, cells: Rows, kinds: CellKinds | None = None) -> Iterator[tuple[Rows, Block, Block]]:
        """For each block with some of the cells: positions in ``cells``, values, and log-normalised values."""
        for to, _, block in checked_blocks(self.file, self.source, self.held, cells, kinds):
            yield to, block, log_normalise(block, self.target) if self.held == "counts" else block


def read_expression(
    file: CellFile,
    cells: Rows,
    values: ValuesWord,
    preprocess: Preprocess | None = None,
    *,
    training: Rows | None = None,
    perturbed: Iterable[str] = (),
) -> Expression:
    """Log-normalised expression of some cells.

    Parameters
    ----------
    file
        The open file.
    cells : (k,) rows wanted, in the order wanted.
    values
        The user's word on what the matrix holds, refused where its values contradict it; ``auto``: seen from its
        values, and ``layers["counts"]`` where X is unclear. Which other matrix to read, the file was told.
    preprocess
        Steps; default: counts are scaled to 10,000 a cell, all genes are kept.
    training : rows that may decide which genes are kept; needed where some are left out.
    perturbed
        Names of perturbed genes, which are kept always.

    Raises
    ------
    UserError
        If it is unclear what the matrix holds, or not what ``values`` says, some cells hold counts and others logs, it
        holds NaN, infinite or negative values, the result would not fit into memory, or a step cannot be taken.
    """
    steps = preprocess or Preprocess()
    source, held = expression_matrix(file, values, cells)
    if held == "lognorm" and steps.target_sum != TARGET_SUM:
        raise UserError(
            f"{file.path}: {source} is log-normalised already, so that data.preprocess.target_sum cannot be "
            f"{steps.target_sum:g}; leave it out, or name a layer of counts in data.layer"
        )
    matrix = _Prepared(file, source, held, steps.target_sum)
    kept, said, numbers = _kept(matrix, steps.highly_variable, training, perturbed)
    refuse_too_large(file.path, len(cells), len(kept))
    result = np.empty((len(cells), len(kept)), dtype=np.float32)
    library = np.empty(len(cells))
    kinds = CellKinds(len(file.obs), held)
    for to, raw, logs in matrix.blocks(cells, kinds):
        result[to] = dense(logs if len(kept) == len(file.genes) else logs[:, kept])
        library[to] = _library(raw, held, steps.target_sum)
    refuse_mixed(file, source, kinds, values)
    return Expression(
        values=result,
        source=source,
        held=held,
        genes=tuple(file.genes[k] for k in kept),
        library=None if np.isnan(library).any() else library.astype(np.float32),
        steps=(*_normalised(matrix), said),
        notes=(*file.notes, *notes_on(file, source, held, values, cells)),
        numbers=file.numbers | numbers,
    )


def _library(raw: Block, held: Holds, target: float) -> Values:
    """Library of each cell, see `Expression`; NaN where it cannot be told."""
    if held == "counts":
        return row_sums(raw) * (TARGET_SUM / target)
    unit = counted_in(raw)
    return np.divide(TARGET_SUM, unit, out=np.zeros_like(unit), where=unit != 0)


def _normalised(matrix: _Prepared) -> tuple[str, ...]:
    """The first steps, in words."""
    if matrix.held == "lognorm":
        return (f"{matrix.source} as it is, log-normalised",)
    genes = len(matrix.file.genes)
    return (f"counts of {matrix.source} scaled to {matrix.target:,g} a cell over all {genes:,} genes", "log1p")


def _kept(
    matrix: _Prepared, wanted: HighlyVariable | None, training: Rows | None, perturbed: Iterable[str]
) -> tuple[Rows, str, dict[str, float]]:
    """Which genes are kept, ascending; in words; and in numbers."""
    genes = matrix.file.genes
    numbers = {"genes_in_file": float(len(genes)), "genes_kept": float(len(genes))}
    if wanted is None:
        return np.arange(len(genes)), f"all {len(genes):,} genes kept", numbers
    if training is None or len(training) < 2:
        raise UserError(f"{matrix.file.path}: genes are chosen on training cells, and there are none")
    if wanted.genes > len(genes):
        raise UserError(
            f"{matrix.file.path}: data.preprocess.highly_variable.genes is {wanted.genes}, but there are only "
            f"{len(genes)} genes; lower it, or leave it out to keep all"
        )
    of = moments((logs for _, _, logs in matrix.blocks(training)), len(genes), wanted.method)
    chosen = highly_variable(of, wanted.genes, wanted.method)
    number = {name: k for k, name in enumerate(genes)}
    targets = np.array(sorted(number[name] for name in set(perturbed) if name in number), dtype=np.int64)
    kept = np.union1d(chosen, targets)
    besides = len(kept) - len(chosen)
    words = (
        f"{len(chosen):,} highly variable genes kept ({wanted.method}, seen in {len(training):,} training cells), "
        f"and {besides:,} perturbed genes besides"
    )
    numbers |= {
        "genes_kept": float(len(kept)),
        "genes_highly_variable": float(len(chosen)),
        "genes_kept_as_perturbed": float(besides),
    }
    return kept, words, numbers
