"""One large array inside an ``.npz`` file: mapped where it lies uncompressed, else unpacked once into the cache."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.data.cache import built_once
from harness.data.digest import file_digest
from harness.data.partial_array import byte_header
from harness.data.progress import ProgressLine
from harness.errors import UserError

Pixels = NDArray[np.uint8]
#: Bytes of the fixed part of a zip member's own header, and where in it the lengths of name and extra field stand.
_LOCAL_HEADER, _LENGTHS = 30, 26
#: Images unpacked at a time.
_CHUNK = 256


class Header(NamedTuple):
    """What an ``.npy`` stream says of its array."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive at ``path``.

    Raises
    ------
    UserError
        If it is not there or not an ``.npz`` file, or if what is read of it within the context is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file; check the path") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, struct.error) as error:
        raise UserError(f"{path}: is not a readable .npz file ({error}); download it again") from error


def read_member(archive: zipfile.ZipFile, path: Path, key: str) -> NDArray[Any]:
    """A small array, read whole and checked against its checksum.

    Raises
    ------
    UserError
        If the archive has no such key.
    """
    with archive.open(_member(archive, path, key)) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
        stream.read()  # to the end, where the checksum is compared
    return array


def image_header(archive: zipfile.ZipFile, path: Path, key: str) -> Header:
    """Shape and type of the images, without reading them.

    Raises
    ------
    UserError
        If the archive has no such key, or it holds no uint8 array in C order.
    """
    with archive.open(_member(archive, path, key)) as stream:
        header = _header(stream)
    if header.dtype != np.uint8 or header.fortran:
        raise UserError(f"{path}: {key} is {header.dtype}, {'F' if header.fortran else 'C'} order; images are uint8, C")
    return header


def read_images(path: Path, key: str, cache_dir: Path | None) -> Pixels:
    """Images (..., 3, height, width) of an array (..., height, width, channels), whose first three channels count.

    Parameters
    ----------
    path
        The ``.npz`` file.
    key
        Of the array.
    cache_dir
        Where a compressed array is unpacked, once; None: into memory.

    Returns
    -------
    uint8. A view of the mapped file where the array is not compressed; a mapped file of the cache where it is.

    Raises
    ------
    UserError
        As `image_header`, or if the file is damaged or the cache cannot be written.
    """
    with opened(path) as archive:
        header = image_header(archive, path, key)
        member = archive.getinfo(f"{key}.npy")
        if member.compress_type == zipfile.ZIP_STORED:
            return _channels_first(_mapped(path, member))
        if cache_dir is None:
            return np.ascontiguousarray(_channels_first(read_member(archive, path, key)))
    name = f"npz-{key}-{file_digest(path)[:16]}"
    folder = built_once(cache_dir, name, lambda empty: _unpack(path, key, header, empty / "images.npy"))
    images: Pixels = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    return images


def _member(archive: zipfile.ZipFile, path: Path, key: str) -> str:
    if f"{key}.npy" not in archive.namelist():
        raise UserError(f"{path}: has no array {key!r}; a file of the temporal release has one")
    return f"{key}.npy"


def _header(stream: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return Header(*read(stream))


def _mapped(path: Path, member: zipfile.ZipInfo) -> Pixels:
    with path.open("rb") as stream:
        stream.seek(member.header_offset + _LENGTHS)
        # the lengths in the archive's directory may differ from these, which count
        name, extra = struct.unpack("<HH", stream.read(_LOCAL_HEADER - _LENGTHS))
        stream.seek(member.header_offset + _LOCAL_HEADER + name + extra)
        shape = _header(stream).shape
        return np.memmap(path, dtype=np.uint8, mode="r", offset=stream.tell(), shape=shape)


def _channels_first(images: Pixels) -> Pixels:
    return np.moveaxis(images[..., :3], -1, -3)


def _unpack(path: Path, key: str, header: Header, target: Path) -> None:
    """Write the images, channels first, as a plain array; what is read is checked against the archive's checksum."""
    total, *inner = header.shape
    row = int(np.prod(inner))
    progress = ProgressLine(f"unpacking {path.name}")
    with opened(path) as archive, archive.open(f"{key}.npy") as stream, target.open("wb") as out:
        _header(stream)
        shape = (total, *inner[:-3], 3, *inner[-3:-1])
        out.write(byte_header(shape))
        for start in range(0, total, _CHUNK):
            count = min(_CHUNK, total - start)
            part = np.frombuffer(stream.read(count * row), dtype=np.uint8).reshape(count, *inner)
            out.write(np.ascontiguousarray(_channels_first(part)).tobytes())
            progress(start + count, total)
        stream.read()
