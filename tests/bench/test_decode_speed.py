"""What a release of images costs: decoding it once, opening it again, the first batch.

pytest tests/bench/test_decode_speed.py (needs pip install -e '.[bench]', and a quiet machine). Pictures have 224 x 224
pixels, as the official ones, and become 64 x 64. ``extra_info`` has images a second.
"""

import shutil
import time

import numpy as np
import pytest
from PIL import Image

from harness.data import load
from harness.data.causal3dident.image_cache import open_images
from harness.data.causal3dident.release import SETS, image_name, read_class, release_digest
from harness.data.cores import usable_cores
from harness.data_spec import Causal3DIdentData

DECODED = 600
#: Images of a class of the official release: 250,000 in seven.
OFFICIAL = 250_000 // 7
#: Two threads on two free cores, against one.
SPEED_UP = 1.5


def picture(random):
    """Smooth shades with a little grain, about as many bytes as a rendered picture has."""
    y, x = np.mgrid[:224, :224] / 224
    a, b, c = random.uniform(1, 6, 3)
    shades = np.stack([np.sin(a * x + b * y), np.cos(b * x - c * y), np.sin(c * x * y)], axis=-1)
    return Image.fromarray((127 + 100 * shades + random.normal(0, 2, shades.shape)).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """One class, a few pictures of it distinct."""
    root, random = tmp_path_factory.mktemp("release"), np.random.default_rng(0)
    pictures = root / "pictures"
    pictures.mkdir()
    for number in range(20):
        picture(random).save(pictures / f"{number}.png")
    for which, count in zip(SETS, (DECODED, 100), strict=True):
        folder = root / which / "images_0"
        folder.mkdir(parents=True)
        np.save(root / which / "raw_latents_0.npy", random.uniform(-1, 1, (count, 10)))
        for row in range(count):
            shutil.copyfile(pictures / f"{row % 20}.png", folder / image_name(row, count))
    return root


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_decoding(benchmark, release, tmp_path, threads):
    if threads > usable_cores():
        pytest.skip(f"{usable_cores()} cores cannot show what {threads} threads do")
    stored, caches = read_class(release, "trainset", 0), iter(range(100))
    benchmark.pedantic(
        lambda: open_images(stored, 64, tmp_path / str(next(caches)), threads=threads), rounds=3, warmup_rounds=1
    )
    benchmark.extra_info["images a second"] = DECODED / benchmark.stats.stats.min
    benchmark.extra_info["images a second and core"] = DECODED / benchmark.stats.stats.min / threads


def test_opening_again(benchmark, release, tmp_path):
    stored = read_class(release, "trainset", 0)
    open_images(stored, 64, tmp_path)
    images = benchmark(open_images, stored, 64, tmp_path)
    assert isinstance(images, np.memmap)


@pytest.mark.parametrize("again", [False, True], ids=["first", "again"])
def test_looking_through_a_class_of_official_size(benchmark, tmp_path, monkeypatch, again):
    """What a study's fingerprint costs for each class: latents read, and at first images counted."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    for which, count in zip(SETS, (OFFICIAL, OFFICIAL // 10), strict=True):
        folder = tmp_path / which / "images_0"
        folder.mkdir(parents=True)
        np.save(tmp_path / which / "raw_latents_0.npy", np.random.default_rng(0).uniform(-1, 1, (count, 10)))
        Image.new("RGB", (8, 8)).save(folder / image_name(0, count))
        content = (folder / image_name(0, count)).read_bytes()
        for row in range(1, count):
            (folder / image_name(row, count)).write_bytes(content)
    time.sleep(2.1)  # what is younger is not remembered

    def begin():
        if not again:
            shutil.rmtree(tmp_path / "xdg", ignore_errors=True)
        return (tmp_path, (0,)), {}

    benchmark.pedantic(release_digest, setup=begin, rounds=3, warmup_rounds=1)
    benchmark.extra_info["microseconds an image"] = 1e6 * benchmark.stats.stats.min / (OFFICIAL + OFFICIAL // 10)


def test_first_batch_of_what_is_cached(benchmark, release, tmp_path):
    spec = Causal3DIdentData(path=str(release), cells=400, test_cells=50, doubles=2, double_cells=10)
    load(spec, tmp_path)

    def first_batch():
        data = load(spec, tmp_path)
        return data.as_float(data.frames[data.index[data.splits["train"][:128], 1]])

    batch = benchmark.pedantic(first_batch, rounds=3, warmup_rounds=1)
    assert batch.shape == (128, 3, 64, 64)


@pytest.mark.skipif(usable_cores() < 2, reason="one core cannot show what two threads do")
def test_a_second_thread_decodes_almost_as_much_again(release, tmp_path):
    stored, times = read_class(release, "trainset", 0), {1: [], 2: []}
    for turn in range(3):
        for threads, taken in times.items():
            begun = time.perf_counter()
            open_images(stored, 64, tmp_path / f"{threads}-{turn}", threads=threads)
            taken.append(time.perf_counter() - begun)
    assert min(times[1]) / min(times[2]) > SPEED_UP
