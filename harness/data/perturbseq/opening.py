"""Opens an HDF5 file for reading, or says in one sentence why it cannot be opened and what would do."""

from __future__ import annotations

import errno
from pathlib import Path

import h5py

from harness.data.perturbseq.foreign_formats import name_compressed, name_folder
from harness.errors import UserError

#: Compression filters that the package hdf5plugin has, by HDF5's registered numbers.
_PLUGINS = {
    307: "bzip2",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32017: "sz",
    32018: "fcidecomp",
    32024: "sz3",
    32026: "blosc2",
    32028: "sperr",
}
#: What the system answers where another program has the lock; any other answer means that it has no locks to give.
_TAKEN = (errno.EAGAIN, errno.EACCES)


def open_hdf5(path: Path) -> h5py.File:
    """The open file.

    Raises
    ------
    UserError
        If it is missing, a folder, compressed as a whole, locked, not readable for this user, or no HDF5.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such file; check the path")
    if path.is_dir():
        raise UserError(name_folder(path))
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(_why_not(path, error)) from error


def _why_not(path: Path, error: OSError) -> str:
    """HDF5 says in its message alone that it is the lock which failed."""
    if "unable to lock file" in str(error):
        if error.errno in _TAKEN:
            return (
                f"{path} is open for writing elsewhere, such as in a notebook with backed='r+'; close it there, or, "
                "where nothing writes it and the file system's locks are at fault, set HDF5_USE_FILE_LOCKING=FALSE in "
                "the environment"
            )
        return f"{path} lies on a file system without file locks; set HDF5_USE_FILE_LOCKING=FALSE in the environment"
    if isinstance(error, PermissionError):
        return f"{path}: you may not read this file; let its owner permit it"
    return name_compressed(path) or (
        f"{path} is not a readable .h5ad (HDF5) file; write one with AnnData.write_h5ad, "
        "or download it again if it should be one"
    )


def require_filters(path: Path, file: h5py.File, names: tuple[str, ...]) -> None:
    """See that every compression used can be undone, with the package hdf5plugin where that is installed.

    Parameters
    ----------
    names
        Groups and datasets of the file that will be read; those that are not there are passed over.

    Raises
    ------
    UserError
        With the filter that is missing, and how to get it.
    """
    if not _missing(file, names):
        return
    try:
        import hdf5plugin  # noqa: F401  it registers its filters
    except ImportError:
        installed = False
    else:
        installed = True
    missing = _missing(file, names)
    if not missing:
        return
    number, where = next(iter(missing.items()))
    what = f"{_PLUGINS[number]} (HDF5 filter {number})" if number in _PLUGINS else f"the HDF5 filter {number}"
    if number in _PLUGINS and not installed:
        remedy = "install what reads it: pip install hdf5plugin"
    else:
        remedy = "write the file again with AnnData.write_h5ad(..., compression='gzip') where it can be read"
    raise UserError(f"{path}: {where} is compressed with {what}, which is not installed here; {remedy}")


def _missing(file: h5py.File, names: tuple[str, ...]) -> dict[int, str]:
    """Filters that are used but not available, and the first dataset that uses each."""
    found: dict[int, str] = {}

    def look(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        made = item.id.get_create_plist()
        for k in range(made.get_nfilters()):
            number = made.get_filter(k)[0]
            if number not in found and not h5py.h5z.filter_avail(number):
                found[number] = name

    for name in names:
        if isinstance(part := file.get(name), h5py.Group):
            part.visititems(lambda below, item, name=name: look(f"{name}/{below}", item))
        elif part is not None:
            look(name, part)
    return found
