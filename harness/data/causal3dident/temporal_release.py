"""Reader of Temporal Causal3DIdent (Zenodo 6637749): sequences and triplets of images in ``.npz`` files.

Layout (Lippe et al. 2022): ``train``, ``val_indep`` and ``test_indep`` hold a sequence of N images each,
``{val,test}_triplets`` and ``{val,test}_triplets_coarse`` N triplets; ``val_*`` may be absent. Keys: ``imgs`` (uint8,
N x height x width x channels, of which the first three are the colours), ``raw_latents``, ``shape_latents`` (N x 2)
and ``interventions``. ``raw_latents`` has all 12 columns, or the first 10, which the published loader joins with
``shape_latents``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.causal3dident.citris import ANGLES, COLUMNS, REACH
from harness.data.causal3dident.npz_array import image_header, opened, read_images, read_member
from harness.errors import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Shapes by id, which is not the class of the static release.
SHAPE_NAMES = ("teapot", "armadillo", "hare", "cow", "dragon", "head", "horse")
MATERIALS = 3
#: Columns of ``raw_latents`` that are numbers; the rest are ``shape_latents``.
NUMBERS = 10

SEQUENCES = ("train", "val_indep", "test_indep")
TRIPLETS = ("val_triplets", "test_triplets", "val_triplets_coarse", "test_triplets_coarse")
#: Single precision of the files: how far beyond its range a value may lie.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Sequences:
    """One sequence of images.

    Attributes
    ----------
    images : (N, 3, height, width) uint8, mapped from disk where possible.
    latents : (N, 12) as in the file, columns as `COLUMNS`: positions in [-2, 2], angles in [0, 2 pi), ids.
    interventions : (N, k) bool; row t acts between t and t + 1, so that the last is False.
    shapes : (N, 2) ids of shape and material.
    variables : k names, the columns that vary: those of ``interventions``. Shape is a factor of its own among them.
    dropped : names of the columns that are constant.
    """

    images: NDArray[np.uint8]
    latents: Floats
    interventions: NDArray[np.bool_]
    shapes: Ints
    variables: tuple[str, ...]
    dropped: tuple[str, ...]

    @property
    def periodic(self) -> tuple[str, ...]:
        """Variables that are angles."""
        return tuple(name for name in self.variables if name in ANGLES)

    def columns(self, names: Sequence[str]) -> Floats:
        """Latents (N, len(names)) of some columns, by name."""
        return self.latents[:, [COLUMNS.index(name) for name in names]]


@dataclass(frozen=True)
class Triplets:
    """Triplets of images, whose third has some latents of the first and the others of the second.

    Attributes
    ----------
    images : (N, 3, 3, height, width) uint8, mapped from disk where possible.
    latents : (N, 3, 12), columns as `COLUMNS`.
    source : (N, k) bool, whether the third image has a variable from the second image, and not from the first.
    shapes : (N, 3, 2) ids of shape and material.
    variables : k names, the columns that vary.
    dropped : names of the columns that are constant.
    """

    images: NDArray[np.uint8]
    latents: Floats
    source: NDArray[np.bool_]
    shapes: Ints
    variables: tuple[str, ...]
    dropped: tuple[str, ...]


def stored(root: Path) -> tuple[str, ...]:
    """Names of the files that a folder has, of `SEQUENCES` and `TRIPLETS`.

    Raises
    ------
    UserError
        If the folder is not there.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; name the unpacked temporal release of Causal3DIdent")
    return tuple(name for name in (*SEQUENCES, *TRIPLETS) if _file(root, name).is_file())


def read_sequences(root: Path, which: str, cache_dir: Path | None) -> Sequences:
    """Read a sequence.

    Parameters
    ----------
    root
        Folder of the release.
    which
        One of `SEQUENCES`.
    cache_dir
        Where compressed images are unpacked, once; None: into memory.

    Raises
    ------
    UserError
        If the file is not there or damaged, lacks a key, or an array has the wrong shape or values; the sentence names
        file, row and column.
    """
    if which not in SEQUENCES:
        raise ValueError(f"which must be one of {', '.join(SEQUENCES)}, got {which!r}")
    path = _present(root, which)
    with opened(path) as archive:
        latents, interventions = _numbers(archive, path, ())
    acts = np.zeros((len(latents), len(COLUMNS)), dtype=bool)
    acts[:-1] = interventions[: len(latents) - 1]
    kept, dropped = _varying(latents, path)
    variables = tuple(COLUMNS[column] for column in kept)
    images = read_images(path, "imgs", cache_dir)
    return Sequences(images, latents, acts[:, kept], latents[..., NUMBERS:].astype(np.int64), variables, dropped)


def read_triplets(root: Path, which: str, cache_dir: Path | None = None) -> Triplets:
    """Read triplets; see `read_sequences`, of which ``which`` alone differs: one of `TRIPLETS`."""
    if which not in TRIPLETS:
        raise ValueError(f"which must be one of {', '.join(TRIPLETS)}, got {which!r}")
    path = _present(root, which)
    with opened(path) as archive:
        latents, source = _numbers(archive, path, (3,))
    kept, dropped = _varying(latents, path)
    variables = tuple(COLUMNS[column] for column in kept)
    images = read_images(path, "imgs", cache_dir)
    return Triplets(images, latents, source[:, kept], latents[..., NUMBERS:].astype(np.int64), variables, dropped)


# ------------------------------------------------------------------------------------------ checks


def _file(root: Path, name: str) -> Path:
    return root / f"{name}.npz"


def _present(root: Path, name: str) -> Path:
    """The file of that name."""
    if name not in stored(root):
        there = ", ".join(stored(root)) or "none of the release's files"
        raise UserError(f"{_file(root, name)}: not there (the folder has {there}); add it, or name another folder")
    return _file(root, name)


def _numbers(archive: zipfile.ZipFile, path: Path, group: tuple[int, ...]) -> tuple[Floats, NDArray[np.bool_]]:
    """Latents (N, *group, 12) and interventions (rows, 12), checked against each other and against the images."""
    shape = image_header(archive, path, "imgs").shape
    wanted = len(group) + 4
    if len(shape) != wanted or shape[1:-3] != group or shape[-3] != shape[-2] or shape[-1] < 3 or shape[0] < 2:
        form = " x ".join(["N", *map(str, group), "size", "size", "channels"])
        raise UserError(f"{path}: imgs has shape {shape}; the release has {form}, at least 2 rows and 3 channels")
    lead = shape[:-3]
    latents = _latents(archive, path, lead)
    acts = read_member(archive, path, "interventions")
    rows = (lead[0],) if group else (lead[0] - 1, lead[0])
    if acts.ndim != 2 or acts.shape[1] != len(COLUMNS) or acts.shape[0] not in rows:
        raise UserError(
            f"{path}: interventions has shape {acts.shape}; for {lead[0]:,} {'triplets' if group else 'images'} it is "
            f"{' or '.join(str((count, len(COLUMNS))) for count in rows)}"
        )
    _refuse(path, "interventions", acts, ~np.isin(acts, (0, 1)), "0 or 1", COLUMNS)
    return latents, acts.astype(bool)


def _latents(archive: zipfile.ZipFile, path: Path, lead: tuple[int, ...]) -> Floats:
    """All 12 columns (*lead, 12)."""
    raw = _array(archive, path, "raw_latents", lead, (NUMBERS, len(COLUMNS)))
    has_shapes = "shape_latents.npy" in archive.namelist()
    if raw.shape[-1] == NUMBERS or has_shapes:
        shapes = _array(archive, path, "shape_latents", lead, (len(COLUMNS) - NUMBERS,))
        if raw.shape[-1] == NUMBERS:
            raw = np.concatenate([raw, shapes], axis=-1)
        _refuse(
            path,
            "raw_latents",
            raw[..., NUMBERS:],
            raw[..., NUMBERS:] != shapes,
            "as in shape_latents",
            COLUMNS[NUMBERS:],
        )
    low, high = np.zeros(len(COLUMNS)), np.full(len(COLUMNS), 2 * np.pi)
    low[:3], high[:3] = -REACH, REACH
    high[NUMBERS:] = len(SHAPE_NAMES) - 1, MATERIALS - 1
    inside = (raw >= low - _ROUNDING) & (raw <= high + _ROUNDING)  # NaN is not
    inside[..., NUMBERS:] &= raw[..., NUMBERS:] == np.round(raw[..., NUMBERS:])
    _refuse(path, "raw_latents", raw, ~inside, "in [-2, 2] (positions), [0, 2 pi) (angles) or an id", COLUMNS)
    raw[..., :3] = np.clip(raw[..., :3], -REACH, REACH)
    raw[..., 3:NUMBERS] %= 2 * np.pi
    return raw


def _array(archive: zipfile.ZipFile, path: Path, key: str, lead: tuple[int, ...], columns: tuple[int, ...]) -> Floats:
    array = read_member(archive, path, key)
    if array.ndim == 0 or array.shape[:-1] != lead or array.shape[-1] not in columns or array.dtype.kind not in "fiu":
        form = " or ".join(str((*lead, count)) for count in columns)
        raise UserError(
            f"{path}: {key} has shape {array.shape} of {array.dtype}; numbers of shape {form} go with its images"
        )
    return array.astype(np.float64)


def _refuse(
    path: Path, key: str, values: NDArray[Any], wrong: NDArray[np.bool_], wanted: str, names: tuple[str, ...]
) -> None:
    """Refuse the file if a value is ``wrong``, naming the first such."""
    if wrong.any():
        place = tuple(np.argwhere(wrong)[0].tolist())
        row = place[0] if len(place) == 2 else f"{place[0]}, image {place[1]}"
        raise UserError(f"{path}: {key}, row {row}, column {names[place[-1]]} is {values[place]:g}; must be {wanted}")


def _varying(latents: Floats, path: Path) -> tuple[list[int], tuple[str, ...]]:
    """Columns that vary, and names of those that do not."""
    flat = latents.reshape(-1, len(COLUMNS))
    varies = (flat != flat[0]).any(axis=0)
    if not varies.any():
        raise UserError(f"{path}: no latent varies; give a sequence in which something moves")
    return np.flatnonzero(varies).tolist(), tuple(COLUMNS[column] for column in np.flatnonzero(~varies))
