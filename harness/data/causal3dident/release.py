"""Reader of the official release (Zenodo 4784282): latents and images on disk, served by nearest neighbour.

Layout: ``<root>/{trainset,testset}/raw_latents_{c}.npy`` (N_c × 10, in [−1, 1]) and ``images_{c}/{i}.png``, class
c = 0..6, ``i`` zero-padded to ceil(log10 N_c) digits. N_c is taken from the array.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.data.causal3dident.nearest import nearest
from harness.data.causal3dident.scene import COLUMNS
from harness.data.causal3dident.shapes import CLASS_NAMES
from harness.data.digest import remembered
from harness.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
SETS = ("trainset", "testset")

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Bytes of the smallest PNG file.
_SMALLEST = 67
#: Colours that become 8-bit RGB without loss; a fourth channel is dropped.
_MODES = ("RGB", "RGBA", "L", "P")


@dataclass(frozen=True)
class ClassImages:
    """Stored images of one class in one set.

    Attributes
    ----------
    latents : (N, 10) in [-1, 1].
    folder : of the images.
    digest : sixteen hex digits of the latents and of the images' sizes in bytes.
    """

    latents: Floats
    folder: Path
    digest: str

    def image_path(self, row: int) -> Path:
        """File of image ``row``."""
        return self.folder / image_name(row, len(self.latents))


def image_name(row: int, count: int) -> str:
    """File name of image ``row`` of ``count``: zero-padded to ceil(log10 count) digits."""
    return f"{row:0{_digits(count)}d}.png"


def _digits(count: int) -> int:
    return max(1, math.ceil(math.log10(count)))


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
    return ClassImages(latents, folder, _digest(folder, path, latents))


def read_sets(root: Path, classes: Sequence[int]) -> dict[str, dict[int, ClassImages]]:
    """Set -> class -> its images.

    Raises
    ------
    UserError
        As `read_class`, or if an image of the test set is one of the training set too, by its latents.
    """
    stored = {which: {c: read_class(root, which, c) for c in sorted(set(classes))} for which in SETS}
    for class_id, images in stored["trainset"].items():
        _refuse_shared(root, class_id, images.latents, stored["testset"][class_id].latents)
    return stored


def _refuse_shared(root: Path, class_id: int, train: Floats, test: Floats) -> None:
    """Refuse a test set that holds training images: latents are real numbers, so that equal ones are one image."""
    known = {row.tobytes(): number for number, row in enumerate(train)}
    for number, row in enumerate(test):
        if (same := known.get(row.tobytes())) is not None:
            name = f"raw_latents_{class_id}.npy"
            raise UserError(
                f"{root / 'testset' / name}: row {number} is row {same} of trainset/{name}, so that one image would "
                "train and test; give testset images of its own, or unpack the release again"
            )


def _digest(folder: Path, path: Path, latents: Floats) -> str:
    """Digest of a class whose images are looked through, unless folder and latents are as when they last were.

    On a cluster's file system that look takes minutes for the whole release.
    """
    inside, file = folder.stat(), path.stat()
    state = {
        "inode": inside.st_ino,
        "folder_mtime_ns": inside.st_mtime_ns,
        "folder_ctime_ns": inside.st_ctime_ns,
        "latents_mtime_ns": file.st_mtime_ns,
        "latents_size": file.st_size,
    }

    def look() -> str:
        sizes, digits = _sizes(folder), _digits(len(latents))
        names = [f"{row:0{digits}d}.png" for row in range(len(latents))]
        _check_images(folder, sizes, names, path)
        content = hashlib.sha256(np.ascontiguousarray(latents).tobytes())
        content.update(np.array([sizes[name] for name in names]).tobytes())
        return content.hexdigest()[:16]

    return remembered(folder, state, _last_change(inside, file), look)


def _last_change(*stats: os.stat_result) -> float:
    """When the last of some files and folders was changed."""
    return max(max(stat.st_mtime, stat.st_ctime) for stat in stats)


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


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each PNG file of a folder."""
    with os.scandir(folder) as entries:
        return {entry.name: entry.stat().st_size for entry in entries if entry.name.endswith(".png")}


def _check_images(folder: Path, sizes: dict[str, int], names: Sequence[str], latents: Path) -> None:
    """Refuse images that are not those of the latents, as far as it shows without reading all of them."""
    missing = [row for row, name in enumerate(names) if name not in sizes]
    if missing:
        more = f", and {len(missing) - 1:,} others" if len(missing) > 1 else ""
        raise UserError(
            f"{folder}: image {missing[0]} ({names[missing[0]]}) is missing{more}, though {latents.name} has "
            f"{len(names):,} rows; unpack the release again"
        )
    if len(sizes) > len(names):
        raise UserError(
            f"{folder}: holds {len(sizes):,} images but {latents.name} has {len(names):,} rows; "
            "unpack the release again"
        )
    for name in names:
        if sizes[name] < _SMALLEST:
            raise UserError(f"{folder / name}: is not a readable PNG image; unpack the release again")
    read_image(folder / names[0], 8)


def release_digest(root: Path, classes: Sequence[int]) -> str:
    """Sixteen hex digits of the latents' content and of the images' sizes in bytes, of ``classes``.

    The images themselves are not read (the release holds tens of gigabytes): one that is overwritten in place, or by
    one of equal size, goes unnoticed.

    Raises
    ------
    UserError
        As `read_sets`.
    """
    stored = read_sets(root, classes)
    content = "".join(
        f"{which} {class_id} {images.digest};" for which, found in stored.items() for class_id, images in found.items()
    )
    return hashlib.sha256(content.encode()).hexdigest()[:16]


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
        rows = np.zeros(len(classes), dtype=np.int64)
        latents, distances = np.zeros_like(wanted), np.zeros(len(classes))
        for class_id in np.unique(classes).tolist():
            asking = np.flatnonzero(classes == class_id)
            members = self.rows[class_id]
            stored = self.sets[class_id].latents
            place, distances[asking] = nearest(stored[members], wanted[asking])
            rows[asking] = members[place]
            latents[asking] = stored[rows[asking]]
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
        As `read_sets`, or if a class has fewer than two training images.
    """
    stored = read_sets(root, classes)
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
        If the file is missing, not a whole PNG image, or not square.
    """
    from PIL import Image

    try:
        content = path.read_bytes()
        _check_chunks(content)
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.width != image.height:
                raise UserError(f"{path}: is {image.width} x {image.height} pixels; images of the release are square")
            if image.mode not in _MODES:
                raise UserError(f"{path}: has colours of mode {image.mode}; images of the release are 8-bit RGB")
            rgb = image.convert("RGB")
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: not there, though its folder has as many images as latents; unpack it again"
        ) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: is not a readable PNG image; unpack the release again") from error
    return resized(rgb, size)


def resized(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """A square RGB image as (3, size, size) uint8, by area where it becomes smaller."""
    from PIL import Image

    if image.width != size:
        how = Image.Resampling.BOX if image.width > size else Image.Resampling.BICUBIC
        image = image.resize((size, size), how)
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))


def _check_chunks(content: bytes) -> None:
    """Compare every chunk of a PNG file with its checksum, since a decoder reads no further than the pixels.

    Raises
    ------
    ValueError
        If one differs, or the file ends early.
    """
    if not content.startswith(_SIGNATURE):
        raise ValueError("no PNG signature")
    place, kind = len(_SIGNATURE), b""
    view = memoryview(content)
    while kind != b"IEND":
        length, kind = int.from_bytes(view[place : place + 4], "big"), bytes(view[place + 4 : place + 8])
        end = place + 8 + length
        if end + 4 > len(content) or zlib.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ValueError("a chunk is damaged")
        place = end + 4
