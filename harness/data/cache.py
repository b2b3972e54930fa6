"""Datasets built once: under a lock, into a temporary folder, then renamed; others only read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from harness.errors import UserError


def built_once(cache_dir: Path, name: str, build: Callable[[Path], None]) -> Path:
    """Give the folder ``cache_dir/name``, building it first if nobody has.

    Parameters
    ----------
    cache_dir
        Folder of all built datasets; created if missing.
    name
        Unique name of this dataset, e.g. its kind and fingerprint.
    build
        Fills the empty folder it is given. When it raises, or the process dies, nothing stays under ``name``.

    Raises
    ------
    UserError
        If the cache folder cannot be written.
    """
    folder = cache_dir / name
    if folder.is_dir():
        return folder
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache_dir / f".{name}.lock")
        lock.acquire()
    except OSError as error:
        raise UserError(
            f"{cache_dir}: the data cache cannot be written ({error.strerror}); set data.cache_dir to a folder that can"
        ) from error
    try:
        if folder.is_dir():
            return folder
        unfinished = cache_dir / f".{name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        build(unfinished)
        unfinished.rename(folder)
        return folder
    finally:
        lock.release()
