"""Images of a release as one array on disk: decoded and resized once for all studies, then mapped.

One folder of the cache for each class, set and size, named by the content of the images, so that no study decodes
what another has decoded. Threads do it: of 2.2 ms for a picture of 224 x 224, some 0.2 ms are under the interpreter's
lock, so that about ten cores are of use.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.data.cache import built_once
from harness.data.causal3dident.release import ClassImages, read_image
from harness.data.cores import usable_cores
from harness.data.partial_array import PartialArray, byte_header, checksum
from harness.data.progress import ProgressLine
from harness.errors import UserError

Pixels = NDArray[np.uint8]
Rows = NDArray[np.int64]

#: Images decoded in one task.
CHUNK = 64
#: A class is decoded whole where at least this share of it is asked for; for less, as in a dry run's slice, it would
#: not pay.
SHARE = 0.05


def open_images(stored: ClassImages, size: int, cache_dir: Path, *, threads: int | None = None) -> Pixels:
    """All images of a class, (N, 3, size, size) uint8, mapped from the cache, which is filled first if need be.

    Filling goes on where an interrupted one stopped, shows its progress, and ends by comparing what lies on disk with
    checksums. Opening compares the size and three chunks.

    Parameters
    ----------
    stored
        The class, as `release.read_class` gives it.
    size
        Pixels a side.
    cache_dir
        Folder of built datasets.
    threads
        How many decode; default: one for each core this process may use.

    Raises
    ------
    UserError
        If an image is broken, or the cache cannot be written or is damaged.
    """
    name = _name(stored, size)

    def fill(folder: Path) -> None:
        unfinished = cache_dir / f".{name}.images.npy"
        shape = (len(stored.latents), 3, size, size)
        with PartialArray(unfinished, shape, CHUNK) as array:
            _decode(stored, size, array, threads or usable_cores())
            checksums = array.finish()
        unfinished.rename(folder / "images.npy")
        (folder / "checksums.json").write_text(json.dumps({"chunk": CHUNK, "sha256": checksums}), encoding="ascii")

    folder = built_once(cache_dir, name, fill)
    return _opened(folder)


def take(stored: ClassImages, rows: Rows, size: int, cache_dir: Path) -> Iterator[Pixels]:
    """Some images of a class, in parts (k, 3, size, size), in the order asked for.

    Parameters
    ----------
    stored
        The class.
    rows
        Of its images.
    size, cache_dir
        See `open_images`, whose cache is used if it is there or most of it would be.

    Raises
    ------
    UserError
        As `open_images`.
    """
    parts = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    if (cache_dir / _name(stored, size)).is_dir() or len(rows) >= SHARE * len(stored.latents):
        images = open_images(stored, size, cache_dir)
        yield from (images[part] for part in parts)
        return
    with ThreadPoolExecutor(usable_cores()) as pool:
        try:
            yield from pool.map(lambda part: _read(stored, part, size), parts)
        finally:
            pool.shutdown(cancel_futures=True)


def write_taken(
    target: Path, sources: Sequence[ClassImages], source: Rows, rows: Rows, size: int, cache_dir: Path
) -> None:
    """Write images of several classes into one array file (m, 3, size, size).

    Parameters
    ----------
    target
        The ``.npy`` file.
    sources
        Classes.
    source : (m,) which of ``sources`` each image is of, rising.
    rows : (m,) row of each image there.
    size, cache_dir
        See `open_images`.

    Raises
    ------
    UserError
        As `open_images`.
    OSError
        If there is no room.
    """
    with target.open("wb") as out:
        out.write(byte_header((len(rows), 3, size, size)))
        for which, stored in enumerate(sources):
            for part in take(stored, rows[source == which], size, cache_dir):
                out.write(np.ascontiguousarray(part).tobytes())


def _name(stored: ClassImages, size: int) -> str:
    return f"causal3dident-images-{stored.digest}-{size}"


def _read(stored: ClassImages, rows: Rows, size: int) -> Pixels:
    return np.stack([read_image(stored.image_path(row), size) for row in rows.tolist()])


def _decode(stored: ClassImages, size: int, array: PartialArray, threads: int) -> None:
    """Fill what is missing of ``array``; what is done is kept when an image turns out to be broken."""
    total, done = len(stored.latents), array.rows_there
    progress = ProgressLine(f"decoding {stored.folder.parent.name}/{stored.folder.name}")
    progress(done, total)

    def make(start: int) -> tuple[int, str]:
        rows = np.arange(start, start + array.rows_of(start))
        return start, array.write(start, _read(stored, rows, size))

    with ThreadPoolExecutor(threads) as pool:
        tasks: list[Future[tuple[int, str]]] = [pool.submit(make, start) for start in array.missing]
        try:
            for task in as_completed(tasks):
                start, mark = task.result()
                array.note(start, mark)
                done += array.rows_of(start)
                progress(done, total)
        finally:
            pool.shutdown(cancel_futures=True)


def _opened(folder: Path) -> Pixels:
    """The array in a finished folder, mapped, if it is what was written there."""
    try:
        images: Pixels = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        record = json.loads((folder / "checksums.json").read_text(encoding="ascii"))
        chunk, marks = int(record["chunk"]), list(record["sha256"])
        sound = len(marks) == -(-len(images) // chunk) and all(
            checksum(images[k * chunk : (k + 1) * chunk].tobytes()) == marks[k]
            for k in {0, len(marks) // 2, len(marks) - 1}
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        sound = False
    if not sound:
        raise UserError(f"{folder}: the cached images are damaged; delete this folder, and they are decoded again")
    return images
