"""Procedural shapes: closed, normalised, and without any symmetry that would hide a rotation."""

from collections import Counter

import numpy as np
import pytest
from scipy.spatial import cKDTree

from harness.data.causal3dident.shapes import CLASS_NAMES, ellipsoid, shape

CLASSES = range(len(CLASS_NAMES))


def surface_points(mesh, count=1500):
    """Points spread evenly over the surface."""
    corners = mesh.vertices[mesh.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    random = np.random.default_rng(0)
    chosen = corners[random.choice(len(corners), count, p=area / area.sum())]
    a, b = np.sort(random.random((2, count)), axis=0)
    return chosen[:, 0] * a[:, None] + chosen[:, 1] * (b - a)[:, None] + chosen[:, 2] * (1 - b)[:, None]


def directions(count):
    """Even directions on the sphere (Fibonacci)."""
    k = np.arange(count) + 0.5
    z, angle = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    return np.stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z], axis=1)


def chamfer(tree, points):
    return tree.query(points)[0].mean()


def least_mirror_distance(points):
    tree = cKDTree(points)
    return min(chamfer(tree, points - 2 * np.outer(points @ n, n)) for n in directions(600))


def least_rotation_distance(points):
    tree, least = cKDTree(points), np.inf
    for axis in directions(150):
        cross = np.cross(np.eye(3), axis)
        for angle in (np.pi / 2, 2 * np.pi / 3, np.pi):
            rotated = np.outer(points @ axis, axis) * (1 - np.cos(angle)) + points * np.cos(angle)
            least = min(least, chamfer(tree, rotated + points @ cross * np.sin(angle)))
    return least


@pytest.mark.parametrize("class_id", CLASSES)
def test_every_edge_joins_two_faces_turned_outwards(class_id):
    vertices, faces = shape(class_id)
    edges = Counter(map(tuple, np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])))
    assert all(number == 1 and edges[(b, a)] == 1 for (a, b), number in edges.items())
    volume = np.einsum("ij,ij->", vertices[faces[:, 0]], np.cross(vertices[faces[:, 1]], vertices[faces[:, 2]])) / 6
    assert 0 < volume < 1


@pytest.mark.parametrize("class_id", CLASSES)
def test_the_bounding_box_is_centred_with_largest_side_one(class_id):
    vertices = shape(class_id).vertices
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    np.testing.assert_allclose(low, -high, atol=1e-12)
    assert (high - low).max() == pytest.approx(1)


@pytest.mark.parametrize("class_id", CLASSES)
def test_no_mirror_image_and_no_rotation_is_the_shape_itself(class_id):
    points = surface_points(shape(class_id))
    points = points - points.mean(axis=0)
    # an ellipsoid, which has all of them, comes to 0.018 or less (below): so fine are planes, axes and points
    assert least_mirror_distance(points) > 0.025
    assert least_rotation_distance(points) > 0.025


def test_the_symmetry_test_finds_a_symmetry():
    points = surface_points(ellipsoid((0, 0, 0), (0.5, 0.3, 0.2), rings=30, sides=40))
    assert least_mirror_distance(points) < 0.018
    assert least_rotation_distance(points) < 0.018
