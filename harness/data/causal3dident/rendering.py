"""Many images over all cores, each a function of its row alone; an interrupted job goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.causal3dident.renderer import Floats, Pixels
from harness.data.causal3dident.scene import OBJECT_SIZE
from harness.data.causal3dident.shapes import Mesh
from harness.data.causal3dident.worker import Draughtsman
from harness.data.causal3dident.workers import drawn
from harness.data.cores import usable_cores
from harness.data.seeding import derive
from harness.data_spec import ImageData

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
    object_size : largest side of the object in the scene.
    device : what draws, ``cpu`` or ``cuda``.
    """

    meshes: dict[int, Mesh]
    classes: NDArray[np.int64]
    latents: Floats
    seeds: NDArray[np.int64]
    image_size: int
    samples: int
    object_size: float = OBJECT_SIZE
    device: str = "cpu"

    @property
    def setting(self) -> tuple[Any, ...]:
        """What ``worker.Draughtsman`` is made from."""
        return self.meshes, self.image_size, self.samples, self.object_size, self.device


def job_of(spec: ImageData, meshes: dict[int, Mesh], classes: NDArray[np.int64], scenes: Floats, *stream: str) -> Job:
    """Images drawn as ``spec`` says.

    Parameters
    ----------
    spec
        Seed, size and samples.
    meshes
        As `meshes.meshes_of` gives them for ``spec``.
    classes : (m,) class of each image.
    scenes : (m, 10)
    stream
        Names that, with the seed, determine the grain.
    """
    return Job(
        meshes=meshes,
        classes=classes,
        latents=scenes,
        seeds=np.array([derive(int(spec.seed), "pixels", *stream, frame) % 2**32 for frame in range(len(scenes))]),
        image_size=spec.image_size,
        samples=spec.samples,
        object_size=spec.object_size,
        device=spec.render_device,
    )


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
        How many draw; default: one for each core this process may use, or one on a GPU. Pixels do not depend on it.
    progress
        Called with images done and images in all.
    """
    total = len(job.latents)
    record = Path(f"{path}.done")
    images, finished = _opened(path, record, (total, 3, job.image_size, job.image_size))
    chunks = [chunk for chunk in range(0, total, CHUNK) if chunk not in finished]
    done = total - sum(min(CHUNK, total - chunk) for chunk in chunks)
    progress(done, total)
    count = _processes(processes, job.device, total - done)
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


def _processes(wanted: int | None, device: str, images: int) -> int:
    if wanted is not None:
        return wanted
    if device == "cuda" or images < WORTH_PROCESSES:
        return 1
    return max(1, min(usable_cores(), images // CHUNK))


def _drawn(job: Job, chunks: Sequence[int], processes: int) -> Iterator[tuple[int, Pixels]]:
    """First row and pixels of each chunk, in whatever order they are ready."""
    if processes > 1:
        yield from drawn(chunks, partial(_part, job), job.setting, processes)
        return
    draughtsman = Draughtsman(*job.setting)
    for start in chunks:
        yield start, draughtsman.draw(*_part(job, start))


def _part(job: Job, start: int) -> tuple[NDArray[np.int64], Floats, NDArray[np.int64]]:
    rows = slice(start, start + CHUNK)
    return job.classes[rows], job.latents[rows], job.seeds[rows]
