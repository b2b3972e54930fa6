"""Our own sequences in the layout of Temporal Causal3DIdent, so that other people's code can read them.

``OUT/{train,val_indep,test_indep,val_triplets,test_triplets}.npz``, as ``temporal_release.py`` reads them, images
uncompressed so that they can be mapped. What we draw is *Causal3DIdent-style*; the dynamics are those of CITRIS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.data.causal3dident.citris import COLUMNS, SHAPE_OF_CLASS, Dynamics, classes_of, simulate, to_scene, uniform
from harness.data.causal3dident.making import Artist, Floats, Unfinished, drawing_settings, made_whole
from harness.data.causal3dident.temporal_release import NUMBERS
from harness.data.seeding import derive
from harness.data_spec import Causal3DIdentData

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Sizes:
    """How much is made.

    Attributes
    ----------
    train : images of the training sequence, at least 2.
    test : images of each of the two sets of independent factors, at least 2.
    triplets : of each of the two sets of triplets, at least 2.
    """

    train: int
    test: int
    triplets: int


@dataclass(frozen=True)
class Content:
    """Numbers of one file.

    Attributes
    ----------
    latents : (N, 12) of a sequence, (N, 3, 12) of triplets; in single precision, as they are written.
    interventions : (N - 1, 12), or (N, 12) the source of each column of a triplet's third image.
    """

    latents: Floats
    interventions: Bools


def write_temporal(
    out: Path,
    spec: Causal3DIdentData,
    sizes: Sizes,
    *,
    coarse: bool = False,
    raw_columns: int = len(COLUMNS),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the folder ``out``, or go on with it.

    Parameters
    ----------
    out
        Not there yet, or empty.
    spec
        Classes, seed, and how images are drawn. One class alone is a sequence of a single shape.
    sizes
        How many images.
    coarse
        Whether position and rotation are intervened on, and exchanged in triplets, as wholes.
    raw_columns
        Columns of ``raw_latents``: 12, or the first 10, which the published loader joins with ``shape_latents``.
    progress
        Called with images drawn and images in all.

    Raises
    ------
    UserError
        If ``out`` is taken, Mitsuba is missing or a mesh cannot be used.
    """
    settings = {"layout": "temporal", **drawing_settings(spec), **vars(sizes), "coarse": coarse, "raw": raw_columns}
    artist = Artist(spec, progress, sizes.train + 2 * sizes.test + 6 * sizes.triplets)
    dynamics = Dynamics(shapes=tuple(sorted(SHAPE_OF_CLASS[list(spec.classes)].tolist())), grouped=coarse)
    ending = "_coarse" if coarse else ""
    makers: dict[str, Callable[[np.random.Generator], Content]] = {
        "train": lambda random: draw_sequence(dynamics, sizes.train, random),
        "val_indep": lambda random: draw_independent(dynamics, sizes.test, random),
        "test_indep": lambda random: draw_independent(dynamics, sizes.test, random),
        f"val_triplets{ending}": lambda random: draw_triplets(dynamics, sizes.triplets, random),
        f"test_triplets{ending}": lambda random: draw_triplets(dynamics, sizes.triplets, random),
    }
    with made_whole(out, settings) as unfinished:
        for name, make in makers.items():
            content = make(np.random.default_rng(derive(int(spec.seed), "temporal release", name)))
            _write_file(unfinished, artist, name, content, raw_columns)


def draw_sequence(dynamics: Dynamics, count: int, random: np.random.Generator) -> Content:
    """One sequence of ``count`` images under the dynamics."""
    drawn = simulate(dynamics, 1, count, random)
    return Content(_single(drawn.latents[0]), drawn.interventions[0])


def draw_independent(dynamics: Dynamics, count: int, random: np.random.Generator) -> Content:
    """Images whose factors are independent: every variable is intervened on in every step."""
    acts = np.zeros((count - 1, len(COLUMNS)), dtype=bool)
    for columns in dynamics.variables.values():
        acts[:, list(columns)] = True
    return Content(_single(uniform(dynamics, count, random)), acts)


def draw_triplets(dynamics: Dynamics, count: int, random: np.random.Generator) -> Content:
    """Two images of a sequence, and a third that has some variables of the first and the others of the second."""
    latents = draw_sequence(dynamics, max(count, 2), random).latents
    pairs = latents[random.integers(len(latents), size=(count, 2))]
    second = _mixed(count, len(dynamics.variables), random)
    source = np.zeros((count, len(COLUMNS)), dtype=bool)
    for which, columns in enumerate(dynamics.variables.values()):
        source[:, list(columns)] = second[:, which, None]
    third = np.where(source, pairs[:, 1], pairs[:, 0])
    return Content(np.concatenate([pairs, third[:, None]], axis=1), source)


def _mixed(count: int, variables: int, random: np.random.Generator) -> Bools:
    """Random choices (count, variables), drawn again where all of a row are the same."""
    chosen = random.random((count, variables)) < 0.5
    while (same := chosen.all(axis=1) | ~chosen.any(axis=1)).any():
        chosen[same] = random.random((int(same.sum()), variables)) < 0.5
    return chosen


def _single(latents: Floats) -> Floats:
    """Latents as single precision holds them, so that images are drawn from what is written."""
    return latents.astype(np.float32).astype(np.float64)


def _write_file(unfinished: Unfinished, artist: Artist, name: str, content: Content, raw_columns: int) -> None:
    finished = unfinished.data / f"{name}.npz"
    latents = content.latents
    lead = latents.shape[:-1]
    if finished.exists():
        artist.skip(int(np.prod(lead)))
        return
    flat = latents.reshape(-1, latents.shape[-1])
    images = artist.draw(unfinished.folder, name, classes_of(flat), to_scene(flat))
    begun = unfinished.folder / f"{name}.begun.npz"
    np.savez(
        begun,
        allow_pickle=False,
        imgs=np.moveaxis(images.reshape(*lead, *images.shape[1:]), -3, -1),
        raw_latents=latents[..., :raw_columns].astype(np.float32),
        shape_latents=latents[..., NUMBERS:].astype(np.uint8),
        interventions=content.interventions.astype(np.int64),
    )
    begun.rename(finished)
    (unfinished.folder / f"{name}.npy").unlink()
