"""Files written whole or not at all, and what is done where the disk is full for a while."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO, TypeVar

T = TypeVar("T")

#: What the system says where there is no room: on the disk, or in the user's quota.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
#: Seconds that a trial waits for room before it fails, and so gives its machine back.
PATIENCE_SECONDS = 600.0
#: Seconds between two looks whether there is room: first and longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
#: Without an end: for the driver, whose trials go on meanwhile.
FOREVER = math.inf


def has_no_room(error: BaseException) -> bool:
    """Whether an error says that the disk, or the user's quota, is full."""
    return isinstance(error, OSError) and error.errno in NO_ROOM


def write_atomic(path: Path, text: str | bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part.

    Raises
    ------
    OSError
        Where the folder cannot be written, or the disk is full; nothing is left behind then.
    """
    content = text.encode() if isinstance(text, str) else text
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide results from the rest of a group
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def append_whole(path: Path, text: str, *, sync: bool = False) -> None:
    """Add text to the end of a file; where it cannot be added whole, the file stays as it was.

    For files that one process writes. With ``sync`` the text is on the disk when this returns.

    Raises
    ------
    OSError
        Where the file cannot be written, or the disk is full.
    """
    content = text.encode()
    descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
    before = os.fstat(descriptor).st_size
    try:
        try:
            while content:
                content = content[os.write(descriptor, content) :]
            if sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)  # where a network file system may say at last that there is no room
    except OSError:
        os.truncate(path, before)
        raise


def say_if_room(sentence: str, stream: TextIO) -> None:
    """Print a line, unless there is no room for it: the stream may be a log on the disk that is full."""
    try:
        print(sentence, file=stream, flush=True)
    except OSError as error:
        if not has_no_room(error):
            raise


def _say(sentence: str) -> None:
    say_if_room(sentence, sys.stderr)


def patiently(
    write: Callable[[], T], what: Path, *, seconds: float | None = None, say: Callable[[str], None] = _say
) -> T:
    """What ``write`` gives, called again while there is no room on the disk.

    Parameters
    ----------
    write
        Writes all or nothing, so that it may be called again.
    what
        The file or folder that is written, for the sentence.
    seconds
        How long to wait for room; None for ``PATIENCE_SECONDS``.
    say
        Told once that there is no room.

    Raises
    ------
    OSError
        Where there was no room all that time; any other error at once.
    """
    patience = PATIENCE_SECONDS if seconds is None else seconds
    begun, pause, told = time.monotonic(), FIRST_PAUSE, False
    while True:
        try:
            return write()
        except OSError as error:
            if not has_no_room(error):
                raise
            waited = time.monotonic() - begun
            if waited >= patience:
                sentence = f"no room on the disk for {waited:.0f} s; make room and run it again"
                raise OSError(error.errno, sentence, str(what)) from error
        if not told:
            say(f"there is no room on the disk for {what}; waiting until there is")
            told = True
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def write_when_room(path: Path, text: str | bytes, *, seconds: float | None = None) -> None:
    """`write_atomic`, waiting while the disk is full; see `patiently`."""
    patiently(lambda: write_atomic(path, text), path, seconds=seconds)


class LineFile:
    """A file of lines that only grows; a line that finds no room is kept, and written before later ones.

    Parameters
    ----------
    path
        The file; created with its first line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[str] = []

    def add(self, line: str) -> None:
        """Write a line, or keep it until there is room.

        Raises
        ------
        OSError
            Where the file cannot be written for another reason.
        """
        self._waiting.append(line + "\n")
        self.flush()

    def flush(self) -> bool:
        """Write what is kept; gives whether all is written."""
        if not self._waiting:
            return True
        try:
            append_whole(self._path, "".join(self._waiting))
        except OSError as error:
            if not has_no_room(error):
                raise
            return False
        self._waiting.clear()
        return True

    def settle(self) -> None:
        """Write what is kept, waiting for room as `patiently` does."""

        def write() -> None:
            append_whole(self._path, "".join(self._waiting))
            self._waiting.clear()

        if self._waiting:
            patiently(write, self._path)
