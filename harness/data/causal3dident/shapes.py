"""Seven shapes of our own in place of the release's meshes, built from ellipsoids, tubes and a lathed body.

None has a mirror plane or a rotation onto itself: with one, two rotations give the same image and the rotation
latents cannot be recovered from it. The names are those of the release's classes, whose silhouettes they recall.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from harness.data_spec import ObjectClass

Floats = NDArray[np.float64]

CLASS_NAMES: tuple[str, ...] = get_args(ObjectClass)


class Mesh(NamedTuple):
    """A triangle mesh.

    Attributes
    ----------
    vertices : (v, 3) float64 positions.
    faces : (f, 3) int64 corners, counter-clockwise seen from outside.
    """

    vertices: Floats
    faces: NDArray[np.int64]


def shape(class_id: int) -> Mesh:
    """Procedural shape of class 0..6, centred on its bounding box, its largest side 1."""
    return normalised(_BUILDERS[CLASS_NAMES[class_id]]())


def normalised(mesh: Mesh) -> Mesh:
    """The mesh moved so that its bounding box is centred at 0 and scaled so that its largest side is 1."""
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    return Mesh((mesh.vertices - (low + high) / 2) / (high - low).max(), mesh.faces)


def merged(parts: Sequence[Mesh]) -> Mesh:
    """Several closed meshes as one; parts may reach into each other, since only outsides are seen."""
    offsets = np.cumsum([0, *(len(part.vertices) for part in parts)])
    faces = [part.faces + offset for part, offset in zip(parts, offsets[:-1], strict=True)]
    return Mesh(np.concatenate([part.vertices for part in parts]), np.concatenate(faces))


# ------------------------------------------------------------------------------------------- primitives


def _closed_tube(rings: Floats, start: Floats, end: Floats) -> Mesh:
    """Mesh through ``rings`` (k, s, 3) with one vertex at each end."""
    count, sides, _ = rings.shape
    vertices = np.concatenate([rings.reshape(-1, 3), start[None], end[None]])
    this = np.arange(sides)
    after = (this + 1) % sides
    faces = []
    for ring in range(count - 1):
        a, b = ring * sides + this, ring * sides + after
        faces += [np.stack([a, b, a + sides], 1), np.stack([b, b + sides, a + sides], 1)]
    last = (count - 1) * sides
    faces.append(np.stack([np.full(sides, count * sides), after, this], 1))
    faces.append(np.stack([np.full(sides, count * sides + 1), last + this, last + after], 1))
    return Mesh(vertices, np.concatenate(faces).astype(np.int64))


def ellipsoid(centre: Sequence[float], radii: Sequence[float], *, rings: int = 12, sides: int = 18) -> Mesh:
    """Ellipsoid with axes along x, y, z."""
    polar = np.linspace(np.pi, 0, rings + 2)[1:-1, None]
    around = np.linspace(0, 2 * np.pi, sides, endpoint=False)[None]
    ball = np.stack(
        [np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar) + 0 * around], axis=-1
    )
    origin, size = np.asarray(centre, float), np.asarray(radii, float)
    pole = np.array([0.0, 0.0, size[2]])
    return _closed_tube(origin + ball * size, origin - pole, origin + pole)


def tube(
    points: Sequence[Sequence[float]], radii: Sequence[float], *, steps: int = 10, sides: int = 10, flat: float = 1.0
) -> Mesh:
    """Round limb along a smooth curve through ``points`` with the given radii.

    ``flat`` < 1 squeezes the section along one side, as for an ear or a wing.
    """
    knots = np.linspace(0, 1, len(points))
    along = np.linspace(0, 1, steps)
    curve = _smooth_curve(knots, np.asarray(points, float), along)
    radius = np.interp(along, knots, np.asarray(radii, float))
    tangent = np.gradient(curve, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side, up = _frames(tangent)
    around = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    section = np.cos(around)[None, :, None] * side[:, None] + flat * np.sin(around)[None, :, None] * up[:, None]
    rings = curve[:, None] + radius[:, None, None] * section
    start, end = curve[0] - 0.6 * radius[0] * tangent[0], curve[-1] + 0.6 * radius[-1] * tangent[-1]
    return _closed_tube(rings, start, end)


def lathe(profile: Sequence[Sequence[float]], *, sides: int = 28) -> Mesh:
    """Body of revolution about z.

    Parameters
    ----------
    profile
        (radius, height) along the outside, upwards, without the two poles: the first point's height is that of the
        flat bottom, the last point's that of the flat top. Corners are rounded.
    sides
        Corners of each ring.
    """
    outline = _corners_cut(np.asarray(profile, float), 2)
    around = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    circle = np.stack([np.cos(around), np.sin(around), np.zeros(sides)], axis=1)
    rings = outline[:, :1, None] * circle + outline[:, 1, None, None] * np.array([0.0, 0.0, 1.0])
    return _closed_tube(rings, np.array([0.0, 0.0, outline[0, 1]]), np.array([0.0, 0.0, outline[-1, 1]]))


def _corners_cut(points: Floats, times: int) -> Floats:
    """The polyline (k, d) with its corners cut off, ends kept (Chaikin 1974); each time doubles the points."""
    for _ in range(times):
        quarter = (points[1:] - points[:-1]) / 4
        cut = np.stack([points[:-1] + quarter, points[1:] - quarter], axis=1).reshape(-1, points.shape[1])
        points = np.concatenate([points[:1], cut[1:-1], points[-1:]])
    return points


def _smooth_curve(knots: Floats, points: Floats, along: Floats) -> Floats:
    """Quadratic or cubic polynomial through up to four points, else piecewise linear."""
    if len(points) <= 4:
        coefficients = np.polyfit(knots, points, len(points) - 1)
        return np.asarray(np.stack([np.polyval(column, along) for column in coefficients.T], axis=1), dtype=np.float64)
    return np.stack([np.interp(along, knots, column) for column in points.T], axis=1)


def _frames(tangent: Floats) -> tuple[Floats, Floats]:
    """Two unit vectors across each tangent, carried along the curve without twist; (side, up, tangent) right-handed."""
    start = np.eye(3)[np.argmin(np.abs(tangent[0]))]
    sides = []
    for direction in tangent:
        start = start - direction * (start @ direction)
        start = start / np.linalg.norm(start)
        sides.append(start)
    side = np.stack(sides)
    return side, np.cross(tangent, side)


# --------------------------------------------------------------------------------------------- shapes
# Every shape faces +x (towards the camera), z is up, +y its left. Limbs differ from side to side on purpose.


def _teapot() -> Mesh:
    # radius and height: foot, belly, shoulder, collar, the lid's edge and dome, knob
    profile = [
        *[(0.62, -0.8), (0.66, -0.8), (0.64, -0.7), (0.85, -0.6), (1.03, -0.3), (1.04, 0.05), (0.92, 0.4)],
        *[(0.66, 0.6), (0.63, 0.68), (0.68, 0.72), (0.55, 0.84), (0.16, 0.98), (0.09, 1.04), (0.2, 1.16), (0.12, 1.28)],
    ]
    # Handle and spout stand 115 degrees apart, not 180, and the spout bends aside: no plane halves it.
    spout = [(0.1, 0.7, -0.4), (0.15, 1.3, -0.3), (0.2, 1.4, 0.35), (0.5, 1.8, 0.75)]
    handle = [(0.35, -0.7, 0.5), (0.75, -1.35, 0.8), (0.9, -1.6, -0.2), (0.35, -0.75, -0.5)]
    return merged(
        [
            lathe(profile),
            tube(spout, [0.42, 0.28, 0.19, 0.2], steps=14, sides=12),
            tube(handle, [0.14, 0.15, 0.15, 0.14], steps=18),
        ]
    )


def _hare() -> Mesh:
    return merged(
        [
            ellipsoid((-0.3, 0, 0), (1.0, 0.68, 0.75)),
            ellipsoid((0.75, 0.2, 0.75), (0.5, 0.4, 0.42)),
            tube([(0.6, 0.05, 1.0), (0.45, -0.1, 1.6), (0.3, -0.15, 2.3)], [0.16, 0.24, 0.1], flat=0.5),
            tube([(0.55, 0.45, 1.0), (0.35, 0.95, 1.35), (0.45, 1.6, 1.0)], [0.16, 0.24, 0.1], flat=0.5),
            tube([(0.4, -0.35, -0.2), (0.7, -0.4, -0.6), (1.0, -0.45, -1.0)], [0.24, 0.18, 0.16]),
            tube([(0.4, 0.4, 0.1), (1.0, 0.6, 0.05), (1.3, 0.65, 0.35)], [0.22, 0.16, 0.14]),
            ellipsoid((-0.6, -0.5, -0.55), (0.65, 0.25, 0.35), rings=8, sides=12),
            ellipsoid((-0.7, 0.5, -0.5), (0.45, 0.25, 0.4), rings=8, sides=12),
            ellipsoid((-1.25, -0.35, 0.2), (0.3, 0.3, 0.3), rings=6, sides=10),
        ]
    )


def _dragon() -> Mesh:
    body = [
        (-1.9, 0.9, -0.6),
        (-1.6, -0.4, -0.6),
        (-0.6, -0.3, -0.3),
        (0.4, 0.25, -0.2),
        (1.0, 0.1, 0.6),
        (1.3, -0.3, 1.2),
    ]
    return merged(
        [
            tube(body, [0.08, 0.3, 0.5, 0.5, 0.3, 0.24], steps=26, sides=14),
            ellipsoid((1.55, -0.35, 1.3), (0.5, 0.26, 0.24), rings=8, sides=12),
            tube([(1.25, -0.2, 1.4), (1.0, 0.0, 1.75)], [0.1, 0.03], steps=4),
            tube([(0.0, 0.4, 0.1), (-0.2, 1.2, 0.9), (-0.7, 1.7, 1.6)], [0.4, 0.6, 0.1], flat=0.18, sides=14),
            tube([(-0.1, -0.4, 0.0), (-0.5, -0.9, 0.2), (-1.1, -1.1, 0.0)], [0.3, 0.4, 0.1], flat=0.2, sides=14),
            tube([(0.5, 0.5, -0.4), (0.8, 0.8, -0.7), (1.2, 0.7, -1.0)], [0.22, 0.16, 0.16], steps=7),
            tube([(0.4, -0.2, -0.4), (0.4, -0.55, -0.8), (0.2, -0.6, -1.1)], [0.22, 0.16, 0.16], steps=7),
            tube([(-0.9, -0.5, -0.5), (-1.0, -0.8, -0.8), (-0.8, -0.9, -1.1)], [0.2, 0.15, 0.15], steps=7),
        ]
    )


def _cow() -> Mesh:
    return merged(
        [
            ellipsoid((0, 0, 0.1), (1.25, 0.65, 0.62), rings=14, sides=20),
            tube([(1.0, 0.0, 0.3), (1.45, 0.3, 0.35), (1.75, 0.65, 0.1)], [0.38, 0.34, 0.3]),
            ellipsoid((1.95, 0.85, -0.1), (0.32, 0.32, 0.28), rings=8, sides=12),
            tube([(1.5, 0.15, 0.6), (1.55, -0.2, 0.85), (1.6, -0.25, 1.25)], [0.1, 0.08, 0.03], steps=7),
            tube([(1.65, 0.7, 0.35), (1.5, 1.0, 0.4), (1.35, 1.15, 0.3)], [0.12, 0.14, 0.06], steps=6, flat=0.5),
            tube([(0.75, 0.4, -0.2), (0.8, 0.42, -0.7), (0.8, 0.42, -1.2)], [0.24, 0.18, 0.18], steps=6),
            tube([(0.75, -0.4, -0.2), (1.1, -0.45, -0.6), (0.95, -0.45, -0.95)], [0.24, 0.18, 0.16], steps=7),
            tube([(-0.8, 0.4, -0.2), (-0.9, 0.42, -0.7), (-0.85, 0.42, -1.2)], [0.26, 0.18, 0.18], steps=6),
            tube([(-0.8, -0.4, -0.2), (-1.0, -0.45, -0.7), (-1.25, -0.45, -1.15)], [0.26, 0.18, 0.18], steps=6),
            tube([(-1.15, -0.1, 0.4), (-1.6, -0.3, 0.5), (-1.75, -0.7, 0.1)], [0.1, 0.08, 0.12], steps=8),
            ellipsoid((-0.35, -0.15, -0.45), (0.3, 0.28, 0.25), rings=6, sides=10),
        ]
    )


def _armadillo() -> Mesh:
    return merged(
        [
            ellipsoid((-0.1, 0, 0), (0.65, 0.7, 0.95), rings=14, sides=20),
            ellipsoid((0.25, 0.15, 1.15), (0.42, 0.38, 0.38)),
            tube([(0.45, 0.2, 1.1), (0.8, 0.3, 1.05), (1.05, 0.3, 0.95)], [0.24, 0.18, 0.12], steps=7),
            tube([(0.1, 0.45, 1.3), (0.0, 0.75, 1.55), (-0.1, 0.85, 1.8)], [0.1, 0.16, 0.05], steps=7, flat=0.5),
            tube([(0.1, -0.1, 1.4), (0.0, -0.35, 1.6), (0.0, -0.5, 1.65)], [0.1, 0.14, 0.06], steps=6, flat=0.5),
            tube([(0.0, 0.55, 0.5), (0.2, 1.2, 0.6), (0.3, 1.4, 1.3)], [0.26, 0.2, 0.2]),
            tube([(0.0, -0.55, 0.5), (0.3, -1.05, 0.1), (0.85, -0.95, -0.1)], [0.26, 0.2, 0.18]),
            tube([(0.0, 0.4, -0.6), (0.15, 0.6, -1.1), (0.2, 0.65, -1.6)], [0.34, 0.24, 0.24]),
            tube([(0.0, -0.4, -0.6), (0.7, -0.55, -0.7), (0.75, -0.6, -1.3)], [0.34, 0.24, 0.22]),
            tube([(-0.5, 0.0, -0.5), (-1.2, 0.1, -0.9), (-1.5, 0.7, -0.7)], [0.3, 0.18, 0.06]),
        ]
    )


def _horse() -> Mesh:
    return merged(
        [
            ellipsoid((0, 0, 0.2), (1.05, 0.45, 0.48), rings=14, sides=18),
            tube([(0.75, 0.0, 0.35), (1.2, -0.05, 0.95), (1.35, -0.2, 1.5)], [0.36, 0.26, 0.2]),
            tube([(1.25, -0.1, 1.5), (1.5, -0.45, 1.45), (1.65, -0.8, 1.15)], [0.22, 0.2, 0.15], steps=8),
            tube([(1.0, 0.1, 1.35), (0.75, 0.2, 1.0), (0.45, 0.15, 0.65)], [0.12, 0.16, 0.1], steps=8),
            tube([(0.75, 0.25, 0.0), (0.75, 0.3, -0.6), (0.7, 0.3, -1.3)], [0.22, 0.14, 0.13], steps=7),
            tube([(0.75, -0.25, 0.0), (1.35, -0.3, -0.15), (1.3, -0.3, -0.75)], [0.22, 0.15, 0.13], steps=9),
            tube([(-0.8, 0.25, 0.0), (-1.0, 0.3, -0.6), (-1.35, 0.3, -1.2)], [0.26, 0.15, 0.13], steps=7),
            tube([(-0.8, -0.25, 0.0), (-0.75, -0.3, -0.6), (-0.8, -0.3, -1.3)], [0.26, 0.15, 0.13], steps=7),
            tube([(-0.95, 0.0, 0.4), (-1.5, 0.25, 0.5), (-1.7, 0.75, -0.1)], [0.12, 0.18, 0.08]),
        ]
    )


def _head() -> Mesh:
    return merged(
        [
            ellipsoid((0, 0, 0.35), (0.84, 0.68, 0.8), rings=14, sides=22),
            ellipsoid((0.32, 0, -0.28), (0.5, 0.48, 0.6)),  # face and jaw
            tube([(0.78, 0.0, 0.32), (1.02, 0.03, 0.05), (1.0, 0.05, -0.14)], [0.1, 0.14, 0.18], steps=7),
            tube([(0.6, -0.48, 0.36), (0.86, 0.0, 0.42), (0.58, 0.5, 0.42)], [0.09, 0.12, 0.09], steps=9),
            ellipsoid((0.68, 0.06, -0.7), (0.24, 0.27, 0.2), rings=8, sides=12),
            ellipsoid((0.0, 0.74, 0.08), (0.17, 0.14, 0.3), rings=8, sides=10),
            tube([(-0.1, 0, -0.5), (-0.22, -0.05, -1.0), (-0.2, -0.12, -1.4)], [0.42, 0.38, 0.5], steps=7, sides=14),
            ellipsoid((-0.2, -0.2, -1.6), (0.45, 1.0, 0.28), rings=8),  # shoulders, one further out
            tube([(0.0, -0.4, 1.0), (-0.15, -0.95, 0.4), (0.0, -0.85, -0.6)], [0.3, 0.34, 0.12], steps=9),
            ellipsoid((-0.75, 0.4, 0.85), (0.4, 0.4, 0.38), rings=8, sides=12),  # a knot of hair
        ]
    )


_BUILDERS: dict[str, Callable[[], Mesh]] = {
    "teapot": _teapot,
    "hare": _hare,
    "dragon": _dragon,
    "cow": _cow,
    "armadillo": _armadillo,
    "horse": _horse,
    "head": _head,
}
