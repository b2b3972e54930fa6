"""Reader of the official release (Zenodo 4784282): latents and images on disk, served by nearest neighbour.

Layout: ``<root>/{trainset,testset}/raw_latents_{c}.npy`` (N_c × 10, in [−1, 1]) and ``images_{c}/{i}.png``, class
c = 0..6, ``i`` zero-padded to ceil(log10 N_c) digits. N_c is taken from the array.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.data.causal3dident.scene import COLUMNS
from harness.data.causal3dident.shapes import CLASS_NAMES
from harness.errors import UserError

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
SETS = ("trainset", "testset")


@dataclass(frozen=True)
class ClassImages:
    """Stored images of one class in one set.

    Attributes
    ----------
    latents : (N, 10) in [-1, 1].
    folder : of the images.
    """

    latents: Floats
    folder: Path

    def image_path(self, row: int) -> Path:
        """File of image ``row``."""
        digits = max(1, math.ceil(math.log10(len(self.latents)))) if len(self.latents) > 1 else 1
        return self.folder / f"{row:0{digits}d}.png"


def read_class(root: Path, which: str, class_id: int) -> ClassImages:
    """Latents of one class, checked against its images.

    Raises
    ------
    UserError
        If a file is missing, has the wrong shape or values outside [-1, 1], or the number of images disagrees.
    """
    name = f"class {class_id} ({CLASS_NAMES[class_id]})"
    path, folder = root / which / f"raw_latents_{class_id}.npy", root / which / f"images_{class_id}"
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; data.path names the unpacked release of Causal3DIdent")
    for needed in (root / which, path, folder):
        if not needed.exists():
            raise UserError(
                f"{needed}: not there; the release needs it for {name}: add it, or leave the class out of data.classes"
            )
    latents = _read_latents(path)
    images = _count_images(folder)[0]
    if images != len(latents):
        raise UserError(
            f"{folder}: holds {images:,} images but {path.name} has {len(latents):,} rows; unpack the release again"
        )
    return ClassImages(latents, folder)


def _read_latents(path: Path) -> Floats:
    try:
        latents = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: is not a readable .npy array; unpack the release again") from error
    if latents.ndim != 2 or latents.shape[1] != len(COLUMNS) or len(latents) == 0:
        raise UserError(f"{path}: has shape {latents.shape}, the release has N x {len(COLUMNS)} with N > 0")
    if latents.dtype.kind != "f":
        raise UserError(f"{path}: holds {latents.dtype}, the release has floating-point latents")
    outside = ~(np.abs(latents) <= 1 + 1e-6)  # written so that NaN is outside
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise UserError(
            f"{path}: row {row}, column {column} ({COLUMNS[column]}) is {latents[row, column]:g}; raw latents lie in "
            "[-1, 1] (latents_*.npy, in scene units, is another file)"
        )
    return np.clip(latents.astype(np.float64), -1.0, 1.0)


def _count_images(folder: Path) -> tuple[int, int]:
    """Number of PNG files in a folder, and their bytes."""
    count = size = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".png"):
                count, size = count + 1, size + entry.stat().st_size
    return count, size


def release_digest(root: Path, classes: Sequence[int]) -> str:
    """Sixteen hex digits of the latents' content and of the number and bytes of the images of ``classes``.

    The images themselves are not read (the release holds tens of gigabytes): a changed image of equal size goes
    unnoticed.

    Raises
    ------
    UserError
        As `read_class`.
    """
    content = hashlib.sha256()
    for which in SETS:
        for class_id in sorted(set(classes)):
            stored = read_class(root, which, class_id)
            content.update(f"{which} {class_id} {_count_images(stored.folder)}".encode())
            content.update(np.ascontiguousarray(stored.latents).tobytes())
    return content.hexdigest()[:16]


@dataclass(frozen=True)
class Pool:
    """Stored images that one split may use.

    Attributes
    ----------
    sets : class -> its images.
    rows : class -> rows of those images that belong to the pool.
    """

    sets: dict[int, ClassImages]
    rows: dict[int, Rows]

    def serve(self, classes: Rows, wanted: Floats) -> tuple[Rows, Floats, Floats]:
        """The nearest stored image, within the class, to each latent vector asked for.

        Parameters
        ----------
        classes : (k,)
        wanted : (k, 10) in [-1, 1].

        Returns
        -------
        rows : (k,) of the class's images.
        latents : (k, 10) of the images served.
        distances : (k,) Euclidean, in latent units (each latent spans 2).
        """
        from sklearn.neighbors import NearestNeighbors

        rows = np.zeros(len(classes), dtype=np.int64)
        latents, distances = np.zeros_like(wanted), np.zeros(len(classes))
        for class_id in np.unique(classes).tolist():
            asking = np.flatnonzero(classes == class_id)
            members = self.rows[class_id]
            stored = self.sets[class_id].latents
            near = NearestNeighbors(n_neighbors=1).fit(stored[members])
            distance, place = near.kneighbors(wanted[asking])
            rows[asking] = members[place[:, 0]]
            latents[asking], distances[asking] = stored[rows[asking]], distance[:, 0]
        return rows, latents, distances


def make_pools(root: Path, classes: Sequence[int], validation: float, random: np.random.Generator) -> dict[str, Pool]:
    """Pools of stored images for ``train``, ``validation`` and ``test`` (which held-out doubles share).

    No image is in two pools: the training set is divided between training and validation, the test set is its own.

    Parameters
    ----------
    root
        Folder of the release.
    classes
        Classes to read.
    validation
        Share of the training set that validates.
    random
        Divides the training set.

    Raises
    ------
    UserError
        As `read_class`, or if a class has fewer than two training images.
    """
    stored = {which: {c: read_class(root, which, c) for c in classes} for which in SETS}
    train, held_out = {}, {}
    for class_id, images in stored["trainset"].items():
        order = random.permutation(len(images.latents))
        if len(order) < 2:
            raise UserError(f"{images.folder}: one image cannot be both trained on and validated on")
        count = min(max(1, round(validation * len(order))), len(order) - 1)
        held_out[class_id], train[class_id] = np.sort(order[:count]), np.sort(order[count:])
    all_test = {c: np.arange(len(images.latents)) for c, images in stored["testset"].items()}
    return {
        "train": Pool(stored["trainset"], train),
        "validation": Pool(stored["trainset"], held_out),
        "test": Pool(stored["testset"], all_test),
    }


def read_image(path: Path, size: int) -> NDArray[np.uint8]:
    """One image as (3, size, size) uint8, resized by area where it has another size.

    Raises
    ------
    UserError
        If the file is missing or not an image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
            if rgb.size != (size, size):
                rgb = rgb.resize(
                    (size, size), Image.Resampling.BOX if min(rgb.size) > size else Image.Resampling.BICUBIC
                )
            return np.ascontiguousarray(np.asarray(rgb, dtype=np.uint8).transpose(2, 0, 1))
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: not there, though its folder has as many images as latents; unpack it again"
        ) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: is not a readable PNG image; unpack the release again") from error
