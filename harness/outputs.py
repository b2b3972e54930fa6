"""What ``--out`` names: refused before the work where it is taken or cannot be written, then whole or not there."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.errors import UserError


def refuse_taken(out: Path, *, ending: str | None = None) -> None:
    """Refuse a file or folder that is there already, so that none is lost, or that cannot be made.

    Parameters
    ----------
    out
        The new file or folder.
    ending
        What a file's name must end with, e.g. ``.h5ad``; None for any.

    Raises
    ------
    UserError
        If ``out`` ends otherwise, is there already, its folder is not, or nothing can be written there.
    """
    if ending is not None and out.suffix.lower() != ending:
        raise UserError(f"{out}: what is written is {ending}; give an --out that ends so")
    if os.path.lexists(out):
        raise UserError(f"{out}: is there already; give another --out, or remove it first")
    folder = out.absolute().parent
    with writing(out):
        try:
            descriptor, probe = tempfile.mkstemp(prefix=f".{out.name}.", dir=folder)
        except FileNotFoundError:
            refuse_no_folder(out)
            raise  # /proc says so of what it does not let be made
        os.close(descriptor)
        os.unlink(probe)


def refuse_no_folder(out: Path) -> None:
    """Refuse a file or folder in a folder that is not there.

    Raises
    ------
    UserError
        If it is not.
    """
    if not os.path.exists(out.absolute().parent):
        raise UserError(f"{out}: its folder is not there; make it first, or give another --out") from None


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Say in a sentence what the system refuses while ``out`` is written.

    Raises
    ------
    UserError
        In place of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{out} cannot be written ({_reason(error)}); give another --out") from error


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``out`` when it is whole; until then it stands beside it under another name.

    Raises
    ------
    UserError
        As `refuse_taken`, before and after; or where it cannot be written.
    """
    refuse_taken(out)
    with writing(out):
        unfinished = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.absolute().parent))
        try:
            yield unfinished
            refuse_taken(out)
            unfinished.chmod(0o755)  # mkdtemp's 0700 would hide results from the rest of a group
            unfinished.rename(out)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise


def _reason(error: OSError) -> str:
    """What the system said; HDF5 hides it in a longer message of its own."""
    hidden = re.search(r"errno = (\d+)", str(error))
    number = error.errno or (int(hidden[1]) if hidden else 0)
    return os.strerror(number) if number else str(error).partition("\n")[0]
