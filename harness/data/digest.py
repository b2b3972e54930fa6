"""Content hashes of large files, remembered by size and modification time."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from harness.errors import UserError

#: A file changed this recently may change again within one tick of its clock: its hash is not remembered.
_SETTLED_SECONDS = 2.0


def file_digest(path: Path, cache_dir: Path | None = None) -> str:
    """SHA-256 of a file's content, read again only when its size or modification time changed.

    Parameters
    ----------
    path
        The file.
    cache_dir
        Where hashes are remembered; default: ``harness/digests`` in the user's cache folder
        (``$XDG_CACHE_HOME``, else ``~/.cache``). A folder that cannot be written costs time, never the answer.

    Returns
    -------
    str
        64 hex digits.

    Raises
    ------
    UserError
        If the file is missing or cannot be read.
    """
    try:
        before = path.stat()
        if not path.is_file():
            raise UserError(f"{path} is not a file; give the path of a file")

        def compute() -> str:
            with path.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()

        state = {"size": before.st_size, "mtime_ns": before.st_mtime_ns, "inode": before.st_ino}
        return remembered(path, state, before.st_mtime, compute, cache_dir)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file; check the path") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a file that can") from error


def remembered(
    path: Path, state: Mapping[str, int], changed: float, compute: Callable[[], str], cache_dir: Path | None = None
) -> str:
    """What ``compute`` gave when ``path`` was last in this state, or gives now.

    Parameters
    ----------
    path
        File or folder.
    state
        What tells cheaply that it is the same as before.
    changed
        When it was last changed, in seconds since the epoch.
    compute
        The digest of its content.
    cache_dir
        See `file_digest`.
    """
    note = _note(path, cache_dir)
    known = _recall(note, state)
    if known is not None:
        return known
    digest = compute()
    if time.time() - changed > _SETTLED_SECONDS:
        _remember(note, {**state, "sha256": digest})
    return digest


def _note(path: Path, cache_dir: Path | None) -> Path | None:
    """The file that remembers ``path``'s hash; None where there is no home to put it in."""
    if cache_dir is None:
        cache = os.environ.get("XDG_CACHE_HOME")
        try:
            cache_dir = (Path(cache) if cache else Path.home() / ".cache") / "harness" / "digests"
        except RuntimeError:  # no home folder
            return None
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    return cache_dir / f"{name}.json"


def _recall(note: Path | None, state: Mapping[str, int]) -> str | None:
    if note is None:
        return None
    try:
        known = json.loads(note.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(known, dict) or any(known.get(key) != value for key, value in state.items()):
        return None
    digest = known.get("sha256")
    return digest if isinstance(digest, str) else None


def _remember(note: Path | None, content: dict[str, int | str]) -> None:
    if note is None:
        return
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=note.parent, suffix=".tmp", delete=False) as stream:
            json.dump(content, stream)
        Path(stream.name).replace(note)
    except OSError:  # an unwritable cache only means hashing again next time
        return
