"""Speed of drawing: images a second of one core, and what several cores make of it, as a ratio within one run.

pytest tests/bench/test_render_speed.py -s (needs pip install -e '.[bench]', and a quiet machine).
"""

import itertools
import os
import time

import numpy as np
import pytest

from harness.data.causal3dident.renderer import Renderer
from harness.data.causal3dident.rendering import CHUNK, Job, render_to
from harness.data.causal3dident.shapes import CLASS_NAMES, shape

pytest.importorskip("mitsuba")

#: Chunks of each process in a measurement: about ten seconds at the default size.
CHUNKS_EACH = 12


def random_scenes(count):
    return np.random.default_rng(0).uniform(-1, 1, (count, 10))


@pytest.mark.parametrize("class_id", range(len(CLASS_NAMES)), ids=CLASS_NAMES)
def test_an_image(benchmark, class_id):
    """Images of the default size and samples; 1 / mean is the rate of one core."""
    renderer = Renderer(shape(class_id), 64, 16)
    scenes = itertools.cycle(random_scenes(50))
    seeds = itertools.count()
    benchmark.pedantic(lambda: renderer.render(next(scenes), next(seeds)), rounds=50, iterations=2, warmup_rounds=5)


def steady_rate(processes, path):
    """Images a second from when every process has delivered until the first may have nothing left to draw."""
    count = processes * CHUNKS_EACH * CHUNK
    job = Job(
        meshes={class_id: shape(class_id) for class_id in range(len(CLASS_NAMES))},
        classes=np.arange(count) % len(CLASS_NAMES),
        latents=random_scenes(count),
        seeds=np.arange(count),
        image_size=64,
        samples=16,
    )
    seen = []
    render_to(job, path, processes=processes, progress=lambda done, _: seen.append((time.perf_counter(), done)))
    path.unlink()
    edge = processes * CHUNK
    inside = [(at, done) for at, done in seen if edge <= done <= count - edge]
    (begin, first), (end, last) = inside[0], inside[-1]
    return (last - first) / (end - begin)


def test_the_cores_worth(benchmark, tmp_path):
    """Rate with a process on each core over the cores times the rate with one, best of three each; 0.9 is wanted.

    The second or so in which processes start is not counted: it is nothing beside 20,000 images.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores == 1:
        pytest.skip("one core has nobody to share with")
    rates = {1: 0.0, cores: 0.0}
    for _ in range(3):
        for processes, best in rates.items():
            rates[processes] = max(best, steady_rate(processes, tmp_path / "images.npy"))
    worth = rates[cores] / (cores * rates[1])
    benchmark.extra_info |= {"images_per_second": rates, "share_of_the_cores_worth": worth}
    print(
        f"\n{rates[1]:.0f} images/s with one process, {rates[cores]:.0f} with {cores}: {worth:.0%} of the cores' worth"
    )
    benchmark.pedantic(lambda: steady_rate(cores, tmp_path / "images.npy"), rounds=1)
    assert worth >= 0.9
