"""The user's meshes in place of our shapes: OBJ, OFF and PLY files of a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.causal3dident.mesh_formats import read_obj, read_off, read_ply
from harness.data.causal3dident.shapes import CLASS_NAMES, Mesh, normalised, shape
from harness.data_spec import ImageData
from harness.errors import UserError

#: The file's axes that become x (towards the camera), y and z (up), by the axis that points up; each a rotation.
#: Models with y up look along z by custom: y and z go round in a ring, so that they then look at the camera.
_RINGS = {
    "x": ("y", "z", "x"),
    "y": ("z", "x", "y"),
    "z": ("x", "y", "z"),
    "-x": ("y", "-z", "-x"),
    "-y": ("z", "-x", "-y"),
    "-z": ("x", "-y", "-z"),
}

#: Words by which a file is known as a class of the release, whatever the order of the files.
_WORDS = {
    0: ("teapot",),
    1: ("hare", "bunny", "rabbit"),
    2: ("dragon",),
    3: ("cow", "spot"),
    4: ("armadillo",),
    5: ("horse",),
    6: ("head", "planck"),
}


def meshes_of(folder: Path | None, classes: Sequence[int], up: str | Mapping[Any, str] = "z") -> dict[int, Mesh]:
    """Shape of each class, centred, its largest side 1: our own, or the meshes of ``folder``.

    Parameters
    ----------
    folder
        Of meshes; None: our shapes.
    classes
        Numbers of the classes, 0..6.
    up
        As ``data.mesh_up``; see `up_axis`.

    Raises
    ------
    UserError
        If the folder lacks a class or a file cannot be read; see `mesh_files`.
    """
    if folder is None:
        return {class_id: shape(class_id) for class_id in classes}
    files = mesh_files(folder, classes)
    return {class_id: turned(read_mesh(path), up_axis(up, class_id)) for class_id, path in files.items()}


def meshes_for(spec: ImageData) -> dict[int, Mesh]:
    """Shapes of the classes of a study's images; see `meshes_of`."""
    return meshes_of(Path(spec.meshes) if spec.meshes else None, spec.classes, spec.mesh_up)


def up_axis(up: str | Mapping[Any, str], class_id: int) -> str:
    """The axis that points up in the file of a class: ``up`` itself, or what it says of the class, else ``z``."""
    return up if isinstance(up, str) else up.get(CLASS_NAMES[class_id], "z")


def turned(mesh: Mesh, up: str) -> Mesh:
    """The mesh turned, and not mirrored, so that the axis ``up`` of its file (``y``, ``-z``, ...) points up."""
    columns = ["xyz".index(axis[-1]) for axis in _RINGS[up]]
    signs = [-1.0 if axis.startswith("-") else 1.0 for axis in _RINGS[up]]
    return Mesh(mesh.vertices[:, columns] * signs, mesh.faces)


def mesh_files(folder: Path, classes: Sequence[int]) -> dict[int, Path]:
    """The file of each class.

    A file belongs to a class whose name it holds (``teapot``, ``hare`` or ``bunny``, ``dragon``, ``cow`` or ``spot``,
    ``armadillo``, ``horse``, ``head`` or ``planck``). If no file holds any of these words, classes are counted
    through the files in alphabetical order.

    Raises
    ------
    UserError
        If the folder is not there, holds no mesh, or lacks a class.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; data.meshes names a folder of .obj, .off or .ply files")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _READERS)
    if not files:
        raise UserError(f"{folder}: no .obj, .off or .ply file in it; data.meshes needs one for each class")
    named = {
        class_id: path
        for class_id, words in _WORDS.items()
        for path in files
        if any(word in path.stem.lower() for word in words)
    }
    chosen = named or dict(enumerate(files))
    for class_id in classes:
        if class_id not in chosen:
            wanted = " or ".join(_WORDS[class_id]) if named else f"{class_id + 1} meshes"
            raise UserError(
                f"{folder}: no mesh for class {class_id} ({CLASS_NAMES[class_id]}); "
                f"add {'a file whose name holds ' if named else 'files, at least '}{wanted}, or change data.classes"
            )
    return {class_id: chosen[class_id] for class_id in classes}


def read_mesh(path: Path) -> Mesh:
    """A mesh as it stands in its file, centred, its largest side 1; turned inside out where its faces look inwards.

    Materials have a front side only: a mesh whose faces look inwards, as some files' do, would be black in any light.

    Raises
    ------
    UserError
        If the file is not a triangle or polygon mesh of its format.
    """
    try:
        vertices, faces = _READERS[path.suffix.lower()](path)
    except (OSError, ValueError, IndexError, RuntimeError) as error:
        raise UserError(f"{path}: cannot be read as a mesh ({str(error).splitlines()[0][:120]})") from error
    if len(vertices) < 4 or len(faces) < 4:
        raise UserError(f"{path}: a mesh needs at least 4 vertices and 4 faces, found {len(vertices)} and {len(faces)}")
    if not np.isfinite(vertices).all() or np.ptp(vertices, axis=0).max() == 0:
        raise UserError(f"{path}: the vertices are not finite, or all in one place")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise UserError(f"{path}: a face names vertex {faces.max()}, but there are {len(vertices)}")
    mesh = normalised(Mesh(vertices, faces))
    return mesh if _volume(mesh) >= 0 else Mesh(mesh.vertices, mesh.faces[:, ::-1].copy())


def _volume(mesh: Mesh) -> float:
    """Volume that the faces enclose, negative if they look inwards (divergence theorem)."""
    a, b, c = mesh.vertices[mesh.faces].transpose(1, 0, 2)
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


_READERS: dict[str, Callable[[Path], Mesh]] = {".obj": read_obj, ".off": read_off, ".ply": read_ply}
