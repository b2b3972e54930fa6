"""Many images over all cores, each a function of its row alone; an interrupted job goes on where it stopped."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.data.causal3dident.renderer import Floats, Pixels, Renderer
from harness.data.causal3dident.shapes import Mesh

#: Images drawn in one task: small enough for a smooth progress line, large enough to hide the hand-over.
CHUNK = 64
#: Fewer images are drawn in this process: starting others would take longer.
WORTH_PROCESSES = 4 * CHUNK


@dataclass(frozen=True)
class Job:
    """Images to draw.

    Attributes
    ----------
    meshes : class -> shape.
    classes : (m,) class of each image.
    latents : (m, 10) in [-1, 1].
    seeds : (m,) 32-bit seed of each image's light paths.
    image_size : pixels a side.
    samples : light paths a pixel.
    """

    meshes: dict[int, Mesh]
    classes: NDArray[np.int64]
    latents: Floats
    seeds: NDArray[np.int64]
    image_size: int
    samples: int


def render_to(
    job: Job,
    path: Path,
    *,
    processes: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Draw all images of ``job`` into the array file ``path``, (m, 3, size, size) uint8.

    Work lies in ``path`` and ``path.done`` until finished; a call that finds them goes on from there, so the path
    must name the job's content. The caller holds the lock.

    Parameters
    ----------
    job
        What to draw.
    path
        A ``.npy`` file.
    processes
        How many draw; default: one for each core this process may use. Pixels do not depend on it.
    progress
        Called with images done and images in all.
    """
    total = len(job.latents)
    record = Path(f"{path}.done")
    images, finished = _opened(path, record, (total, 3, job.image_size, job.image_size))
    chunks = [chunk for chunk in range(0, total, CHUNK) if chunk not in finished]
    done = total - sum(min(CHUNK, total - chunk) for chunk in chunks)
    progress(done, total)
    count = _processes(processes, total - done)
    with open(record, "a", encoding="ascii") as log:
        for start, pixels in _drawn(job, chunks, count):
            images[start : start + len(pixels)] = pixels
            images.flush()
            log.write(f"{start}\n")
            log.flush()
            done += len(pixels)
            progress(done, total)
    del images
    record.unlink()


def _opened(
    path: Path, record: Path, shape: tuple[int, ...]
) -> tuple[np.memmap[tuple[int, ...], np.dtype[np.uint8]], set[int]]:
    """The image array, begun or found, and the chunks already in it."""
    if path.exists() and record.exists():
        lines = record.read_text(encoding="ascii").split("\n")[:-1]  # what follows the last line end was cut off
        with suppress(ValueError):  # another shape, or cut short while being made: begin again
            found = np.lib.format.open_memmap(path, mode="r+")
            if found.shape == shape and found.dtype == np.uint8:
                return found, {int(line) for line in lines}
    record.unlink(missing_ok=True)
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape), set()


def _processes(wanted: int | None, images: int) -> int:
    if multiprocessing.current_process().daemon:
        return 1  # daemons may not have children
    if wanted is not None:
        return wanted
    if images < WORTH_PROCESSES:
        return 1
    # the cores this process may use, which under SLURM are fewer than there are; macOS does not tell
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, images // CHUNK))


def _drawn(job: Job, chunks: Sequence[int], processes: int) -> Iterator[tuple[int, Pixels]]:
    """First row and pixels of each chunk, in whatever order they are ready."""
    if processes == 1:
        draughtsman = _Draughtsman(job.meshes, job.image_size, job.samples)
        for start in chunks:
            yield start, draughtsman.draw(*_part(job, start))
        return
    # spawn, not fork: torch and Mitsuba hold threads, which a fork would leave behind with their locks
    context = multiprocessing.get_context("spawn")
    setting = (job.meshes, job.image_size, job.samples)
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=setting) as pool:
        try:
            futures = {pool.submit(_draw_in_worker, *_part(job, start)): start for start in chunks}
            for future in as_completed(futures):
                yield futures.pop(future), future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _part(job: Job, start: int) -> tuple[NDArray[np.int64], Floats, NDArray[np.int64]]:
    rows = slice(start, start + CHUNK)
    return job.classes[rows], job.latents[rows], job.seeds[rows]


class _Draughtsman:
    """Draws images of several classes, one scene each, built when first needed."""

    def __init__(self, meshes: dict[int, Mesh], image_size: int, samples: int) -> None:
        self._meshes, self._image_size, self._samples = meshes, image_size, samples
        self._renderers: dict[int, Renderer] = {}

    def draw(self, classes: NDArray[np.int64], latents: Floats, seeds: NDArray[np.int64]) -> Pixels:
        """Images (k, 3, size, size)."""
        rows = zip(classes.tolist(), latents, seeds.tolist(), strict=True)
        return np.stack([self._renderer(which).render(row, seed) for which, row, seed in rows])

    def _renderer(self, which: int) -> Renderer:
        if which not in self._renderers:
            self._renderers[which] = Renderer(self._meshes[which], self._image_size, self._samples)
        return self._renderers[which]


_draughtsman: _Draughtsman | None = None


def _begin(meshes: dict[int, Mesh], image_size: int, samples: int) -> None:
    """Set up a worker process: it leaves interrupts to its parent and ends when the parent does."""
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"
    global _draughtsman  # noqa: PLW0603 - a pool's initialiser has no other way to hand its workers state
    _draughtsman = _Draughtsman(meshes, image_size, samples)


def _end_with_parent() -> None:
    """A parent that was killed cannot tell its workers to stop: they would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _draw_in_worker(classes: NDArray[np.int64], latents: Floats, seeds: NDArray[np.int64]) -> Pixels:
    assert _draughtsman is not None, "the pool's initialiser has run"
    return _draughtsman.draw(classes, latents, seeds)
