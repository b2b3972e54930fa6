"""A large array file filled chunk by chunk, in any order; one whose making was interrupted is gone on with.

Bytes are written and not mapped, so that a full disk is an error and no signal that ends the process.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.files import append_whole

Bytes = NDArray[np.uint8]


def checksum(content: bytes) -> str:
    """Sixteen hex digits of a chunk's content."""
    return hashlib.sha256(content).hexdigest()[:16]


class PartialArray:
    """A uint8 array in the ``.npy`` file ``path``, beside which ``path.done`` remembers the chunks that are there.

    A chunk found on opening counts only if its content still has its checksum: what a crash of the machine left half
    on disk is made again. The caller holds a lock.

    Parameters
    ----------
    path
        Names the content: what lies there of the same shape is gone on with.
    shape
        (n, ...).
    chunk
        Rows of a chunk; the last may have fewer.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], chunk: int) -> None:
        self._path, self._record = path, Path(f"{path}.done")
        self._rows, self._chunk, self._width = shape[0], chunk, int(np.prod(shape[1:]))
        header = byte_header(shape)
        self._offset = len(header)
        begun = path.exists() and _beginning(path, self._offset) == header
        self._file = os.open(path, os.O_RDWR | (0 if begun else os.O_CREAT | os.O_TRUNC), 0o644)
        self._checksums: dict[int, str] = {}
        if begun:
            recorded = _read_record(self._record)
            self._checksums = {start: mark for start, mark in recorded.items() if self._checksum_at(start) == mark}
        else:
            self._record.unlink(missing_ok=True)
            _write_all(self._file, header, 0)

    def __enter__(self) -> PartialArray:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    @property
    def missing(self) -> list[int]:
        """First rows of the chunks that are not there."""
        return [start for start in range(0, self._rows, self._chunk) if start not in self._checksums]

    @property
    def rows_there(self) -> int:
        """How many rows are there."""
        return sum(self.rows_of(start) for start in self._checksums)

    def rows_of(self, start: int) -> int:
        """Rows of the chunk that begins at ``start``."""
        return min(self._chunk, self._rows - start)

    def write(self, start: int, rows: Bytes) -> str:
        """Write a chunk's rows, from any thread; gives what `note` wants.

        Raises
        ------
        OSError
            If there is no room.
        """
        content = np.ascontiguousarray(rows).tobytes()
        _write_all(self._file, content, self._offset + start * self._width)
        return checksum(content)

    def note(self, start: int, mark: str) -> None:
        """Remember that the chunk that begins at ``start`` is there."""
        append_whole(self._record, f"{start} {mark}\n")
        self._checksums[start] = mark

    def finish(self) -> list[str]:
        """Read everything back, and forget the record; gives the checksum of each chunk, in order.

        Raises
        ------
        OSError
            If the file does not hold what was written.
        """
        starts = range(0, self._rows, self._chunk)
        for start in starts:
            if self._checksum_at(start) != self._checksums[start]:
                raise OSError(None, f"rows from {start} on are not what was written; the disk fails", str(self._path))
        os.fsync(self._file)
        self._record.unlink()
        return [self._checksums[start] for start in starts]

    def _checksum_at(self, start: int) -> str:
        wanted = self.rows_of(start) * self._width
        return checksum(os.pread(self._file, wanted, self._offset + start * self._width))


def byte_header(shape: tuple[int, ...]) -> bytes:
    """What an ``.npy`` file of a uint8 array of this shape begins with."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _beginning(path: Path, size: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(size)


def _read_record(path: Path) -> dict[int, str]:
    """Checksum of each chunk noted; a line cut short is none."""
    try:
        lines = path.read_text(encoding="ascii").split("\n")[:-1]
    except FileNotFoundError:
        return {}
    words = [line.split() for line in lines]
    return {int(pair[0]): pair[1] for pair in words if len(pair) == 2 and pair[0].isdecimal()}


def _write_all(file: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        count = os.pwrite(file, view, offset)
        view, offset = view[count:], offset + count
