"""Every latent moves the picture, and no two of its values give the same one: sweeps over each, for each class.

The benchmark's own meshes are swept too, where ``HARNESS_MESHES`` names their folder (``-m often``).
"""

import os
from pathlib import Path

import numpy as np
import pytest

from harness.data.causal3dident.meshes import meshes_of
from harness.data.causal3dident.renderer import Renderer
from harness.data.causal3dident.scene import COLUMNS
from harness.data.causal3dident.shapes import CLASS_NAMES, shape

STEPS = 21
#: Where the other latents stand during a sweep; drawn once from the range, so that nothing is at a special place.
REST = np.array([0.2, -0.3, 0.1, 0.25, -0.2, 0.3, -0.4, 0.35, 0.5, -0.6])

#: How the benchmark's files stand.
UP = {**dict.fromkeys(CLASS_NAMES, "y"), "horse": "z"}


@pytest.fixture(autouse=True)
def _mitsuba():
    pytest.importorskip("mitsuba")


def sweep(renderer, name, rest):
    """Images of 21 even values of one latent, each with light paths of its own, as in data; as floats (21, pixels)."""
    scenes = np.tile(rest, (STEPS, 1))
    scenes[:, COLUMNS.index(name)] = np.linspace(-1, 1, STEPS)
    images = [renderer.render(scene, 1000 + step) for step, scene in enumerate(scenes)]
    return np.stack(images).reshape(STEPS, -1).astype(np.float64)


def share_of_neighbours(images):
    """Share of images whose nearest other image, by pixel L2, is next to it in value."""
    apart = np.linalg.norm(images[:, None] - images[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    return np.mean(np.abs(apart.argmin(axis=1) - np.arange(len(images))) == 1)


def failures(mesh, rests, size):
    """Latents of a class for which fewer than 95 % of nearest images are neighbours, with the share."""
    renderer = Renderer(mesh, size, 16)
    shares = {name: np.mean([share_of_neighbours(sweep(renderer, name, rest)) for rest in rests]) for name in COLUMNS}
    return {name: share for name, share in shares.items() if share < 0.95}


def rests(count):
    """The first `REST`, the others even over the middle of the range."""
    random = np.random.default_rng(5)
    return [REST, *random.uniform(-0.6, 0.6, (count - 1, len(COLUMNS)))]


@pytest.mark.parametrize("class_id", range(len(CLASS_NAMES)), ids=CLASS_NAMES)
def test_the_image_nearest_to_each_is_a_neighbour_in_value(class_id):
    assert failures(shape(class_id), rests(1), 48) == {}


@pytest.mark.often
@pytest.mark.parametrize("class_id", range(len(CLASS_NAMES)), ids=CLASS_NAMES)
def test_the_image_nearest_to_each_is_a_neighbour_from_many_places(class_id):
    assert failures(shape(class_id), rests(4), 64) == {}


@pytest.mark.often
@pytest.mark.parametrize("class_id", range(len(CLASS_NAMES)), ids=CLASS_NAMES)
def test_the_image_nearest_to_each_is_a_neighbour_with_the_benchmarks_meshes(class_id):
    folder = os.environ.get("HARNESS_MESHES")
    if not folder:
        pytest.skip("HARNESS_MESHES, the folder of the benchmark's shapes, is not set")
    assert failures(meshes_of(Path(folder), [class_id], UP)[class_id], rests(2), 64) == {}


def test_a_latent_that_gives_an_image_twice_is_found_out():
    there_and_back = np.abs(np.linspace(-1, 1, STEPS))[:, None]
    assert share_of_neighbours(there_and_back) < 0.95
    assert share_of_neighbours(np.linspace(-1, 1, STEPS)[:, None]) == 1
