"""Readers of mesh files: OBJ, OFF, and PLY as text or binary. Polygons become triangles; colours and normals are left.

Each raises ``ValueError`` or ``IndexError`` where a file is not of its format; ``meshes.read_mesh`` says which file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.causal3dident.shapes import Mesh

Ints = NDArray[np.int64]


def fan(polygons: Sequence[Sequence[int]]) -> Ints:
    """Triangles (t, 3) of convex polygons."""
    triangles = [(ring[0], ring[k], ring[k + 1]) for ring in polygons for k in range(1, len(ring) - 1)]
    return np.array(triangles, dtype=np.int64).reshape(-1, 3)


def read_obj(path: Path) -> Mesh:
    """A Wavefront OBJ file; all its groups are one mesh."""
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
    return Mesh(np.array(vertices, dtype=np.float64).reshape(-1, 3), fan(polygons))


def read_off(path: Path) -> Mesh:
    """An OFF file of text."""
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
    return Mesh(vertices, fan(polygons))


# ------------------------------------------------------------------------------------------------- PLY

#: NumPy's codes of PLY's types, by both of their names.
_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass(frozen=True)
class _Property:
    """One value of an element, or, with the type of its length in ``count``, a list of them."""

    name: str
    type: str
    count: str | None = None


@dataclass(frozen=True)
class _Element:
    """``count`` rows of the same properties."""

    name: str
    count: int
    properties: list[_Property]


#: Of each property its value in every row, as a sequence of one or, for a list, of several.
_Columns = dict[str, Sequence[Sequence[float]] | Sequence[NDArray[Any]] | NDArray[Any]]


def read_ply(path: Path) -> Mesh:
    """A PLY file of text or, in either byte order, binary."""
    content = path.read_bytes()
    end = content.find(b"end_header")
    after = content.find(b"\n", end) + 1
    if not content.startswith(b"ply") or end < 0 or after == 0:
        raise ValueError("it does not begin with a header from ply to end_header")
    order, elements = _ply_header(content[:end].decode("ascii", errors="replace"))
    rows = _TextRows(content[after:]) if order is None else _BinaryRows(content[after:], order)
    columns = {element.name: rows.read(element) for element in elements}
    try:
        vertex, face = columns["vertex"], columns["face"]
        corners = face["vertex_index"] if "vertex_index" in face else face["vertex_indices"]
        vertices = [np.asarray(vertex[axis], dtype=np.float64).reshape(-1) for axis in "xyz"]
    except KeyError as error:
        raise ValueError(f"it has no {error.args[0]}") from error
    return Mesh(np.stack(vertices, axis=1), fan([[int(corner) for corner in ring] for ring in corners]))


def _ply_header(header: str) -> tuple[str | None, list[_Element]]:
    """Byte order (None: text) and elements in the order of the file."""
    layout = ""
    elements: list[_Element] = []
    for line in header.splitlines():
        match line.split():
            case ["format", kind, *_]:
                layout = kind
            case ["element", name, count]:
                elements.append(_Element(name, int(count), []))
            case ["property", "list", count, kind, name] if elements:
                elements[-1].properties.append(_Property(name, _type(kind), _type(count)))
            case ["property", kind, name] if elements:
                elements[-1].properties.append(_Property(name, _type(kind)))
    if layout != "ascii" and layout not in _ORDERS:
        raise ValueError(f"its format is {layout or 'not given'}, and must be ascii, {' or '.join(_ORDERS)}")
    return _ORDERS.get(layout), elements


def _type(name: str) -> str:
    if name not in _TYPES:
        raise ValueError(f"its header names the type {name}, which PLY does not have")
    return _TYPES[name]


class _TextRows:
    """Rows of a body of text."""

    def __init__(self, body: bytes) -> None:
        self._words = iter(body.split())

    def read(self, element: _Element) -> _Columns:
        """The next element's rows."""
        columns: dict[str, list[list[float]]] = {one.name: [] for one in element.properties}
        for _ in range(element.count):
            for one in element.properties:
                columns[one.name].append(self._next(1 if one.count is None else int(self._next(1)[0])))
        return dict(columns)

    def _next(self, count: int) -> list[float]:
        words = [float(word) for word in islice(self._words, count)]
        if len(words) < count:
            raise ValueError("it ends before its last row")
        return words


class _BinaryRows:
    """Rows of a binary body."""

    def __init__(self, body: bytes, order: str) -> None:
        self._body, self._order, self._at = body, order, 0

    def read(self, element: _Element) -> _Columns:
        """The next element's rows: at one go where all have lists of the same lengths, as triangles have."""
        if element.count == 0:
            return {one.name: [] for one in element.properties}
        start = self._at
        first = self._row(element)
        lengths = {one.name: len(first[one.name]) for one in element.properties}
        rows = self._alike(element, lengths, start)
        if rows is not None:
            self._at = start + rows.nbytes
            return {one.name: rows[one.name] for one in element.properties}
        others = [self._row(element) for _ in range(element.count - 1)]
        return {one.name: [row[one.name] for row in (first, *others)] for one in element.properties}

    def _row(self, element: _Element) -> dict[str, NDArray[Any]]:
        return {
            one.name: self._next(one.type, 1 if one.count is None else int(self._next(one.count, 1)[0]))
            for one in element.properties
        }

    def _next(self, kind: str, count: int) -> NDArray[Any]:
        values = np.frombuffer(self._body, self._order + kind, count, self._at) if count else np.empty(0)
        self._at += values.nbytes
        return values

    def _alike(self, element: _Element, lengths: dict[str, int], start: int) -> NDArray[Any] | None:
        """All rows as records, if every list is as long as that of the first row."""
        fields: list[tuple[str, str] | tuple[str, str, tuple[int]]] = []
        for one in element.properties:
            if one.count is not None:
                fields.append((f"length of {one.name}", self._order + one.count))
            fields.append((one.name, self._order + one.type, (lengths[one.name],)))
        record = np.dtype(fields)
        if start + element.count * record.itemsize > len(self._body):
            return None
        rows = np.frombuffer(self._body, record, element.count, start)
        listed = [one.name for one in element.properties if one.count is not None]
        return rows if all((rows[f"length of {name}"] == lengths[name]).all() for name in listed) else None
