"""The user's meshes in place of our shapes: OBJ, OFF and PLY files of a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from harness.data.causal3dident.shapes import CLASS_NAMES, Mesh, normalised, shape
from harness.errors import UserError

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


def meshes_of(folder: Path | None, classes: Sequence[int]) -> dict[int, Mesh]:
    """Shape of each class, centred, its largest side 1: our own, or the meshes of ``folder``.

    Raises
    ------
    UserError
        If the folder lacks a class or a file cannot be read; see `mesh_files`.
    """
    if folder is None:
        return {class_id: shape(class_id) for class_id in classes}
    return {class_id: read_mesh(path) for class_id, path in mesh_files(folder, classes).items()}


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
    """A mesh as it stands in its file (z is taken as up), centred, its largest side 1.

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
    return normalised(Mesh(vertices, faces))


def _fan(polygons: Sequence[Sequence[int]]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Triangles of convex polygons."""
    triangles = [(ring[0], ring[k], ring[k + 1]) for ring in polygons for k in range(1, len(ring) - 1)]
    return np.array(triangles, dtype=np.int64).reshape(-1, 3)


def _read_obj(path: Path) -> Mesh:
    vertices: list[list[float]] = []
    polygons: list[list[int]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if words[:1] == ["v"]:
            vertices.append([float(word) for word in words[1:4]])
        elif words[:1] == ["f"]:
            corners = [int(word.split("/")[0]) for word in words[1:]]
            # counted from 1, or, if negative, back from the latest vertex
            polygons.append([corner - 1 if corner > 0 else len(vertices) + corner for corner in corners])
    return Mesh(np.array(vertices, dtype=np.float64).reshape(-1, 3), _fan(polygons))


def _read_off(path: Path) -> Mesh:
    lines = (line.split("#")[0].split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    words = [word for line in lines for word in line]
    if not words or words[0] != "OFF":
        raise ValueError("it does not begin with OFF")
    vertex_count, face_count = int(words[1]), int(words[2])
    end = 4 + 3 * vertex_count
    vertices = np.array(words[4:end], dtype=np.float64).reshape(vertex_count, 3)
    polygons = []
    for _ in range(face_count):
        corners = int(words[end])
        polygons.append([int(word) for word in words[end + 1 : end + 1 + corners]])
        end += 1 + corners
    return Mesh(vertices, _fan(polygons))


def _read_ply(path: Path) -> Mesh:
    from harness.data.causal3dident.renderer import load_mitsuba

    mitsuba = load_mitsuba()
    values = mitsuba.traverse(mitsuba.load_dict({"type": "ply", "filename": str(path)}))
    vertices = np.array(values["vertex_positions"], dtype=np.float64).reshape(-1, 3)
    return Mesh(vertices, np.array(values["faces"], dtype=np.int64).reshape(-1, 3))


_READERS: dict[str, Callable[[Path], Mesh]] = {".obj": _read_obj, ".off": _read_off, ".ply": _read_ply}
