"""Our own images in the layout of the official release, so that other people's code can read them.

``OUT/{trainset,testset}/raw_latents_{c}.npy`` and ``images_{c}/{i}.png``, as ``release.py`` reads them. Latents follow
the released graph, without interventions. What we draw is *Causal3DIdent-style*.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from harness.data.causal3dident.making import Artist, Floats, Pixels, Unfinished, drawing_settings, made_whole
from harness.data.causal3dident.native import OBJECT_SD, conditional_means, truncated_normal
from harness.data.causal3dident.release import SETS, image_name
from harness.data.causal3dident.scene import COLUMNS
from harness.data.cores import usable_cores
from harness.data.seeding import derive
from harness.data_spec import OBJECT_LATENTS, SCENE_LATENTS, Causal3DIdentData


def write_static(
    out: Path,
    spec: Causal3DIdentData,
    counts: Mapping[str, int],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the folder ``out``, or go on with it.

    Parameters
    ----------
    out
        Not there yet, or empty.
    spec
        Classes, seed, and how images are drawn.
    counts
        Images of each class, for ``trainset`` and ``testset``.
    progress
        Called with images drawn and images in all.

    Raises
    ------
    UserError
        If ``out`` is taken, Mitsuba is missing or a mesh cannot be used.
    """
    settings = {"layout": "causal3dident", **drawing_settings(spec), **counts}
    artist = Artist(spec, progress, len(spec.classes) * sum(counts.values()))
    with made_whole(out, settings) as unfinished:
        for which in SETS:
            (unfinished.data / which).mkdir(exist_ok=True)
            for class_id in spec.classes:
                _write_class(unfinished, artist, which, class_id, draw_latents(spec, which, class_id, counts[which]))


def draw_latents(spec: Causal3DIdentData, which: str, class_id: int, count: int) -> Floats:
    """Latents (count, 10) of a class under the released graph, columns as ``scene.COLUMNS``."""
    random = np.random.default_rng(derive(int(spec.seed), "release", which, class_id))
    scenes = np.zeros((count, len(COLUMNS)))
    scenes[:, [COLUMNS.index(name) for name in SCENE_LATENTS]] = random.uniform(-1, 1, (count, len(SCENE_LATENTS)))
    means = conditional_means(np.full(count, class_id), scenes)
    sds = np.full(means.shape, OBJECT_SD)
    scenes[:, [COLUMNS.index(name) for name in OBJECT_LATENTS]] = truncated_normal(means, sds, random)
    return scenes


def _write_class(unfinished: Unfinished, artist: Artist, which: str, class_id: int, latents: Floats) -> None:
    np.save(unfinished.data / which / f"raw_latents_{class_id}.npy", latents)
    finished = unfinished.data / which / f"images_{class_id}"
    if finished.is_dir():
        artist.skip(len(latents))
        return
    name = f"{which}_{class_id}"
    images = artist.draw(unfinished.folder, name, np.full(len(latents), class_id), latents)
    begun = unfinished.folder / f"{name}.images"
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir()
    _write_pngs(images, begun)
    begun.rename(finished)
    (unfinished.folder / f"{name}.npy").unlink()


def _write_pngs(images: Pixels, folder: Path) -> None:
    from PIL import Image

    def write(row: int) -> None:
        pixels = np.ascontiguousarray(images[row].transpose(1, 2, 0))
        Image.fromarray(pixels).save(folder / image_name(row, len(images)))

    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(write, range(len(images))))
