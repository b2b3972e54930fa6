"""Lines of Python that undo what was done to a file's matrix and write a new file; the file itself is only read."""

from __future__ import annotations

from harness.data.perturbseq.cell_file import CellFile
from harness.data.perturbseq.remedies import python_line, quoted, unused
from harness.data.perturbseq.transformations import Transformation


def mended(file: CellFile, name: str, done: Transformation) -> str:
    """The line that undoes a transformation of a matrix."""
    kind, what = ("counts", "counts") if done.gives == "counts" else ("logs", "natural logarithms")
    made = unused(file.path.with_name(f"{file.path.stem}_{kind}.h5ad"))
    matrix, opened = _in_memory(file, name)
    if file.is_sparse(name):
        change = f"m = {matrix}; m.data = {done.undone.format(x='m.data')}"
    else:
        change = f"{matrix} = {done.undone.format(x=matrix)}"
    forget = 'a.uns.pop("log1p", None); ' if file.logged_to_base() is not None else ""
    line = python_line(f"import anndata, numpy as np; {opened}; {change}; {forget}a.write_h5ad({quoted(made)})")
    also = "" if done.proven or done.gives == "counts" else ", with data.values: lognorm"
    return f"make a file of {what} with   {line}   and read that one{also}"


def without(file: CellFile, name: str, kept: str) -> str:
    """The line that leaves cells out.

    Parameters
    ----------
    kept
        Code for the cells that stay, of an AnnData ``a`` whose matrix is ``{x}``.
    """
    matrix, opened = _in_memory(file, name)
    made = unused(file.path.with_name(f"{file.path.stem}_without.h5ad"))
    code = f"import anndata, numpy as np; {opened}; {kept.format(x=matrix)}.write_h5ad({quoted(made)})"
    return f"make all cells alike, or leave these out with   {python_line(code)}   and read that file"


def _in_memory(file: CellFile, name: str) -> tuple[str, str]:
    """A matrix of an AnnData ``a``, and the statement that reads ``a``; what is made of raw has it as X."""
    opened = f"a = anndata.read_h5ad({quoted(file.path)})"
    if name == "raw":
        return "a.X", f"{opened}.raw.to_adata()"
    return ("a.X", opened) if name == "X" else (f"a.layers[{quoted(name.removeprefix('layers/'))}]", opened)
