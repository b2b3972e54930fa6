"""Files of cells that are no ``.h5ad``: what they are, and the line that makes an ``.h5ad`` of them."""

from __future__ import annotations

import shlex
from pathlib import Path

import h5py

from harness.data.perturbseq.features import means_gene_expression
from harness.data.perturbseq.remedies import python_line, quoted, unused

#: First bytes of a compressed file, what it is called, its usual ending, and the command that gives its content.
_COMPRESSED = (
    (b"\x1f\x8b", "gzip", ".gz", "gunzip -c"),
    (b"BZh", "bzip2", ".bz2", "bunzip2 -c"),
    (b"\xfd7zXZ\x00", "xz", ".xz", "xz -dc"),
    (b"PK\x03\x04", "zip", ".zip", "unzip -p"),
)


def name_folder(path: Path) -> str:
    """What a folder is, and what would do."""
    if any((path / name).exists() for name in (".zgroup", "zarr.json")):
        line = python_line(f"import anndata; anndata.read_zarr({quoted(path)}).write_h5ad({_made_of(path)})")
        return f"{path} is a zarr store, which is not read; make an .h5ad of it with   {line}"
    return f"{path} is a folder; name the .h5ad file in it"


def name_compressed(path: Path) -> str | None:
    """What a file is that is compressed as a whole, and the line that unpacks it; None where it is not."""
    with path.open("rb") as file:
        start = file.read(8)
    for magic, name, ending, command in _COMPRESSED:
        if start.startswith(magic):
            unpacked = path.with_suffix("") if path.suffix == ending else path.with_suffix(".h5ad")
            line = f"{command} {shlex.quote(str(path))} > {shlex.quote(str(unused(unpacked)))}"
            return f"{path} is compressed with {name}; unpack it with   {line}"
    return None


def name_hdf5(path: Path, file: h5py.File) -> str | None:
    """What an HDF5 file is that is no ``.h5ad``, and the line that makes one of it; None where it is not known."""
    if file.attrs.get("encoding-type") == "MuData" or isinstance(file.get("mod"), h5py.Group):
        return _name_mudata(path, list(file.get("mod", ())))
    if _is_10x(file):
        line = python_line(
            f"import scanpy; a = scanpy.read_10x_h5({quoted(path)}, gex_only=False); a.var_names_make_unique(); "
            f"a.write_h5ad({_made_of(path)})"
        )
        return (
            f"{path} is a 10x Genomics .h5 file, which does not say how its cells were perturbed; make an .h5ad of it "
            f"with   {line}   (needs pip install scanpy), and put the perturbations into obs"
        )
    if all(name in file for name in ("matrix", "row_attrs", "col_attrs")):
        return _name_loom(path, described=len(file["col_attrs"]) > 0)
    return None


def _name_mudata(path: Path, kinds: list[str]) -> str:
    """The copy is HDF5's own, so that it needs no other package, and no memory for the matrix."""
    chosen = next((kind for kind in kinds if means_gene_expression(kind)), kinds[0] if kinds else None)
    if chosen is None:
        return f"{path} is a MuData (.h5mu) file without any modality; give one with gene expression"
    made = unused(path.with_name(f"{path.stem}_{chosen}.h5ad"))
    line = python_line(
        f'import h5py; f = h5py.File({quoted(path)}); g = h5py.File({quoted(made)}, "w"); '
        f"[f.copy(part, g) for part in f[{quoted(f'mod/{chosen}')}].values()]"
    )
    return f"{path} is a MuData (.h5mu) file of {', '.join(kinds)}; make an .h5ad of {chosen} with   {line}"


def _name_loom(path: Path, described: bool) -> str:
    if described:
        line = python_line(f"import anndata; anndata.io.read_loom({quoted(path)}).write_h5ad({_made_of(path)})")
        return f"{path} is a loom file; make an .h5ad of it with   {line}   (needs pip install loompy)"
    line = python_line(
        f'import anndata, h5py, scipy; x = h5py.File({quoted(path)})["matrix"][:].T; '
        f"anndata.AnnData(scipy.sparse.csr_matrix(x)).write_h5ad({_made_of(path)})"
    )
    return (
        f"{path} is a loom file that says nothing of its cells, as col_attrs is empty; make an .h5ad of its matrix "
        f"with   {line}   and put the perturbations into obs"
    )


def _is_10x(file: h5py.File) -> bool:
    """Cell Ranger 3 and later have one group, ``matrix``, earlier ones a group for each genome."""
    return any(
        isinstance(group, h5py.Group) and "barcodes" in group and ("features" in group or "genes" in group)
        for group in file.values()
    )


def _made_of(path: Path) -> str:
    """A new file beside this one, as a literal of Python."""
    return quoted(unused(path.with_suffix(".h5ad")))
