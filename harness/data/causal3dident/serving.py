"""Rows served by stored images: the nearest image to each latent vector asked for, how near it is and how often used.

No stored image has a twin. The control beside a cell is the image nearest to the control asked for that shares the
invariant latents of the cell's own image, so that the two agree in them about as far as images lie apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.data.causal3dident.release import ClassImages, Pool
from harness.data.causal3dident.scene import COLUMNS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: An image that serves more frames than this is said to be used often.
FEW = 4


@dataclass(frozen=True)
class Served:
    """What stands in each row's place.

    Attributes
    ----------
    scenes : (n, T, 10) latents of the images served, in [-1, 1]; time 0 is the control.
    distances : (n, T) Euclidean over the ten latents, each of which spans 2, from what was asked for. A frame after
        the first under u, and the control, are asked for with the invariant latents of that first one's image.
    place : (n, T, 2) number of the source and row of the image served.
    sources : stored images of a class and set.
    """

    scenes: Floats
    distances: Floats
    place: Ints
    sources: Sequence[ClassImages]


def serve_rows(
    pools: Mapping[str, Pool], splits: Mapping[str, Ints], classes: Ints, wanted: Floats, responsive: Sequence[str]
) -> Served:
    """Serve every frame of every row from the pool of its split; held-out doubles share that of ``test``.

    Parameters
    ----------
    pools
        Of ``train``, ``validation`` and ``test``.
    splits
        Name -> rows.
    classes : (n,)
    wanted : (n, T, 10) in [-1, 1]; time 0 is the control.
    responsive
        Names of the latents that a control does not share with its cell.
    """
    n, times, _ = wanted.shape
    scenes, distances = wanted.copy(), np.zeros((n, times))
    sources = list({images.folder: images for pool in pools.values() for images in pool.sets.values()}.values())
    number = {images.folder: which for which, images in enumerate(sources)}
    place = np.zeros((n, times, 2), dtype=np.int64)
    held = [COLUMNS.index(name) for name in COLUMNS if name not in responsive]
    for split, chosen in splits.items():
        pool = pools.get(split, pools["test"])
        # The first perturbed frame first: all others are then asked to share the invariant latents of the image served.
        for time in (1, 0, *range(2, times)):
            request = wanted[chosen, time].copy()
            if time != 1:
                request[:, held] = scenes[chosen, 1][:, held]
            served, scenes[chosen, time], distances[chosen, time] = pool.serve(classes[chosen], request)
            of_class = [number[pool.sets[class_id].folder] for class_id in classes[chosen].tolist()]
            place[chosen, time] = np.stack([np.array(of_class, dtype=np.int64), served], axis=1)
    return Served(scenes, distances, place, sources)


# ------------------------------------------------------------------------------------------ what it came to


class Nearness(NamedTuple):
    """How near images come to what some rows asked for; latents span 2 each.

    Attributes
    ----------
    cells : mean distance of frames under u from what was asked for, over the ten latents.
    controls : the same of control frames.
    invariant : root mean square difference of an invariant latent, between a cell and its control.
    """

    cells: float
    controls: float
    invariant: float


def nearness(served: Served, invariant: Sequence[str], rows: Ints | slice = slice(None)) -> Nearness:
    """How near the images of some rows are; of 0 invariant latents the difference is 0."""
    columns = [COLUMNS.index(name) for name in invariant]
    scenes = served.scenes[rows][:, :, columns]
    apart = scenes[:, :1] - scenes[:, 1:]
    rms = float(np.sqrt(np.mean(apart**2))) if apart.size else 0.0
    distances = served.distances[rows]
    return Nearness(float(distances[:, 1:].mean()), float(distances[:, 0].mean()), rms)


def unrelated(served: Served, invariant: Sequence[str]) -> float:
    """Root mean square difference of an invariant latent between two images that have nothing to do with each other."""
    columns = [COLUMNS.index(name) for name in invariant]
    return float(np.sqrt(2 * served.scenes[:, 1, columns].var(axis=0).mean())) if columns else 0.0


def frames_of_image(served: Served) -> Ints:
    """How many frames each image that serves any serves."""
    _, counts = np.unique(served.place.reshape(-1, 2), axis=0, return_counts=True)
    return counts


def quality_of(
    served: Served, invariant: Sequence[str], condition: Ints, conditions: Sequence[str]
) -> dict[str, float]:
    """Numbers of what was served, over all rows and for each condition, under names that MLflow takes.

    ``served_distance`` is of frames under u, ``control_distance`` of controls and ``pair_invariant_rmse`` of the
    difference between a cell and its control, as `Nearness` has them; a double ``A+B`` is ``A-B``.
    ``pair_invariant_rmse_unrelated`` is what images that share nothing would have.
    """
    uses = frames_of_image(served)
    quality = {
        "served_distance_mean": float(served.distances.mean()),
        "served_distance_max": float(served.distances.max()),
        "pair_invariant_rmse": nearness(served, invariant).invariant,
        "pair_invariant_rmse_unrelated": unrelated(served, invariant),
        "rows_served": float(len(served.scenes)),
        "frames_served": float(served.distances.size),
        "images_served": float(len(uses)),
        "image_most_frames": float(uses.max()),
        "images_used_often": float((uses > FEW).sum()),
        "rows_beside_themselves": float(_beside_themselves(served)),
    }
    for number, name in enumerate(conditions):
        rows = np.flatnonzero(condition == number)
        if len(rows):
            found, safe = nearness(served, invariant, rows), name.replace("+", "-")
            quality[f"served_distance/{safe}"] = found.cells
            quality[f"control_distance/{safe}"] = found.controls
            quality[f"pair_invariant_rmse/{safe}"] = found.invariant
    return quality


def notes_of(served: Served, invariant: Sequence[str], pairs: str) -> tuple[str, ...]:
    """What a reader of results must know of images that were served, a sentence each."""
    found, uses = nearness(served, invariant), frames_of_image(served)
    rows, frames = len(served.scenes), served.distances.size
    notes = [
        "each latent vector asked for is served by the nearest stored image: "
        f"{found.cells:.2g} away on average for a cell and {found.controls:.2g} for its control "
        f"(Euclidean, over ten latents that each span 2); {len(uses):,} distinct images serve {frames:,} frames of "
        f"{rows:,} rows"
    ]
    if pairs == "nearest":
        alone = _beside_themselves(served)
        notes.append(
            "pairs are nearest and not true: an invariant latent of a cell and of its control differ by "
            f"{found.invariant:.2g} (root mean square), where a true twin has 0 and an unrelated image "
            f"{unrelated(served, invariant):.2g}, so that nothing here shows what a method does with true pairs"
            + (f"; {alone:,} of {rows:,} rows have the cell's own image as control" if alone else "")
        )
    if uses.max() > FEW:
        notes.append(
            f"the image used most serves {uses.max():,} frames, and {int((uses > FEW).sum()):,} of {len(uses):,} "
            f"images serve more than {FEW}, so that cells are less independent than they count; a larger release, or "
            "less of data.cells, data.test_cells and data.double_cells, makes it fewer"
        )
    return tuple(notes)


def _beside_themselves(served: Served) -> int:
    """Rows whose control is the very image of their first frame under u."""
    return int((served.place[:, 0] == served.place[:, 1]).all(axis=1).sum())
