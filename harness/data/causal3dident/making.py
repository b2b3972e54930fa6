"""What the writers of both layouts share: a folder that is finished or not there, and images drawn into it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from harness.data.causal3dident.meshes import meshes_for
from harness.data.causal3dident.rendering import job_of, render_to
from harness.data.causal3dident.variant import renderer_variant
from harness.data_spec import Causal3DIdentData
from harness.errors import UserError
from harness.files import write_atomic
from harness.outputs import refuse_no_folder

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]


class Unfinished:
    """A folder being made.

    Attributes
    ----------
    folder : for work on the way, which is thrown away at the end.
    data : becomes the finished folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"


@contextmanager
def made_whole(out: Path, settings: Mapping[str, Any]) -> Iterator[Unfinished]:
    """Make the folder ``out``, under another name until it is whole.

    Parameters
    ----------
    out
        Not there yet, or empty.
    settings
        What is made; an interrupted making of the same is gone on with.

    Raises
    ------
    UserError
        If ``out`` is taken, cannot be made, its folder is not there, it is being made by another process, or was begun
        with other settings.
    """
    out = Path(os.path.abspath(out))
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out}: is there already and not empty; give --out a new folder")
    refuse_no_folder(out)
    unfinished = Unfinished(out.parent / f".{out.name}.unfinished")
    try:
        unfinished.data.mkdir(parents=True, exist_ok=True)
        lock = FileLock(unfinished.folder / "lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{out}: another process is making it; wait for it, or give --out another folder") from error
    except OSError as error:
        raise UserError(f"{out}: cannot be made ({error.strerror}); give --out another folder") from error
    try:
        _check_settings(unfinished, settings)
        yield unfinished
        unfinished.data.rename(out)
        shutil.rmtree(unfinished.folder)
    finally:
        lock.release()


def _check_settings(unfinished: Unfinished, settings: Mapping[str, Any]) -> None:
    text = json.dumps(settings, sort_keys=True)
    record = unfinished.folder / "settings.json"
    if record.exists() and record.read_text(encoding="utf-8") != text:
        raise UserError(
            f"{unfinished.folder}: was begun with other options or another version; "
            "delete it, or give the options it was begun with"
        )
    write_atomic(record, text)


def drawing_settings(spec: Causal3DIdentData) -> dict[str, Any]:
    """What pixels depend on, for `made_whole`.

    Raises
    ------
    UserError
        If Mitsuba is not installed or a mesh is not there.
    """
    fields = {"classes", "seed", "image_size", "samples", "object_size", "render_device"}
    return {**spec.model_dump(mode="json", include=fields), **renderer_variant(spec)}


class Artist:
    """Draws images of one spec; what was drawn before an interruption is kept.

    Parameters
    ----------
    spec
        Classes, meshes, size, samples and seed.
    progress
        Called with images drawn and images in all.
    total
        Images in all.

    Raises
    ------
    UserError
        If a mesh cannot be used.
    """

    def __init__(self, spec: Causal3DIdentData, progress: Callable[[int, int], None], total: int) -> None:
        self._spec, self._progress, self._total = spec, progress, total
        self._meshes = meshes_for(spec)
        self._done = 0

    def skip(self, images: int) -> None:
        """Count images that are there already."""
        self._done += images
        self._progress(self._done, self._total)

    def draw(self, folder: Path, name: str, classes: NDArray[np.int64], scenes: Floats) -> Pixels:
        """Images (m, 3, size, size), mapped from ``folder/name.npy``.

        Parameters
        ----------
        folder
            For work on the way.
        name
            Of these images; with the spec's seed it determines the grain.
        classes : (m,)
        scenes : (m, 10)
        """
        drawn = folder / f"{name}.npy"
        if not drawn.exists():
            begun = folder / f"{name}.begun.npy"
            render_to(job_of(self._spec, self._meshes, classes, scenes, name), begun, progress=self._advanced)
            begun.rename(drawn)
        self.skip(len(scenes))
        images: Pixels = np.load(drawn, mmap_mode="r", allow_pickle=False)
        return images

    def _advanced(self, done: int, _: int) -> None:
        self._progress(self._done + done, self._total)
