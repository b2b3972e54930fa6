"""The cache of a release's decoded images: made once, whole, gone on with after an interruption."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from harness.data.causal3dident import image_cache
from harness.data.causal3dident.image_cache import open_images, take, write_taken
from harness.data.causal3dident.release import read_class, read_image
from harness.errors import UserError

COUNT, SIZE = 300, 12


@pytest.fixture
def stored(tmp_path):
    """A class of noise images."""
    random = np.random.default_rng(0)
    folder = tmp_path / "release" / "trainset" / "images_2"
    folder.mkdir(parents=True)
    np.save(folder.parent / "raw_latents_2.npy", random.uniform(-1, 1, (COUNT, 10)))
    for row in range(COUNT):
        Image.fromarray(random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(folder / f"{row:03d}.png")
    return read_class(tmp_path / "release", "trainset", 2)


@pytest.fixture
def decoded(monkeypatch):
    """Names of the images decoded."""
    names = []

    def noting(path, size):
        names.append(path.name)
        return read_image(path, size)

    monkeypatch.setattr(image_cache, "read_image", noting)
    return names


@pytest.mark.parametrize("size", [12, 6, 20])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_array_holds_every_image(stored, tmp_path, size, threads):
    images = open_images(stored, size, tmp_path / "cache", threads=threads)
    assert isinstance(images, np.memmap)
    assert images.shape == (COUNT, 3, size, size)
    for row in range(COUNT):
        np.testing.assert_array_equal(images[row], read_image(stored.image_path(row), size))


def test_images_are_decoded_once_for_each_size_wherever_the_release_lies(stored, tmp_path, decoded):
    open_images(stored, 12, tmp_path / "cache")
    assert len(decoded) == COUNT
    moved = (tmp_path / "release").rename(tmp_path / "elsewhere")
    again = read_class(moved, "trainset", 2)
    open_images(again, 12, tmp_path / "cache")
    assert len(decoded) == COUNT
    open_images(again, 6, tmp_path / "cache")
    assert len(decoded) == 2 * COUNT


def test_two_at_once_decode_once(stored, tmp_path, decoded):
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: open_images(stored, 12, tmp_path / "cache", threads=1), range(2)))
    assert sorted(decoded) == [f"{row:03d}.png" for row in range(COUNT)]
    np.testing.assert_array_equal(*both)


def test_an_interrupted_decoding_is_gone_on_with(stored, tmp_path, monkeypatch, decoded):
    note, noted = image_cache.PartialArray.note, []

    def stop_at_third(array, start, mark):
        if len(noted) == 2:
            raise KeyboardInterrupt
        noted.append(start)
        note(array, start, mark)

    monkeypatch.setattr(image_cache.PartialArray, "note", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        open_images(stored, 12, tmp_path / "cache", threads=1)
    assert not any(path.is_dir() and not path.name.startswith(".") for path in (tmp_path / "cache").iterdir())
    monkeypatch.setattr(image_cache.PartialArray, "note", note)
    decoded.clear()
    images = open_images(stored, 12, tmp_path / "cache", threads=1)
    kept = {f"{start + k:03d}.png" for start in noted for k in range(image_cache.CHUNK)}
    assert len(kept) == 128
    assert sorted(decoded) == sorted({f"{row:03d}.png" for row in range(COUNT)} - kept)
    for row in range(COUNT):
        np.testing.assert_array_equal(images[row], read_image(stored.image_path(row), 12))


def test_a_broken_image_is_named_and_its_repair_goes_on(stored, tmp_path):
    path = stored.image_path(150)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=r"150\.png: is not a readable PNG"):
        open_images(stored, 12, tmp_path / "cache")
    path.write_bytes(whole)
    assert len(open_images(stored, 12, tmp_path / "cache")) == COUNT


@pytest.mark.parametrize("damage", ["flip", "cut", "no record", "no array", "short record"])
def test_a_damaged_cache_is_refused_by_name(stored, tmp_path, damage):
    open_images(stored, 12, tmp_path / "cache")
    (folder,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    array, record = folder / "images.npy", folder / "checksums.json"
    content = bytearray(array.read_bytes())
    if damage == "flip":
        content[-5] ^= 1
        array.write_bytes(content)
    elif damage == "cut":
        array.write_bytes(content[:-500])
    elif damage == "short record":
        record.write_text('{"chunk": 64, "sha256": []}')
    else:
        (record if damage == "no record" else array).unlink()
    with pytest.raises(UserError, match="cached images are damaged; delete this folder"):
        open_images(stored, 12, tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_refused_by_name(stored, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match="the data cache cannot be written"):
        open_images(stored, 12, tmp_path / "cache")


@pytest.mark.parametrize("count", [5, 100])
def test_some_images_in_the_order_asked_for(stored, tmp_path, decoded, count):
    """Few are decoded alone; for many the whole class is."""
    rows = np.random.default_rng(1).permutation(COUNT)[:count]
    found = np.concatenate(list(take(stored, rows, 12, tmp_path / "cache")))
    assert len(decoded) == (5 if count == 5 else COUNT)
    for place, row in enumerate(rows):
        np.testing.assert_array_equal(found[place], read_image(stored.image_path(row), 12))
    before = len(decoded)
    if count == 100:
        again = np.concatenate(list(take(stored, rows[:5], 12, tmp_path / "cache")))
        np.testing.assert_array_equal(again, found[:5])
        assert len(decoded) == before


def test_images_of_several_classes_are_written_in_order(stored, tmp_path):
    source, rows = np.array([0, 0, 1, 1, 1]), np.array([7, 9, 0, 7, 299])
    write_taken(tmp_path / "frames.npy", [stored, stored], source, rows, 6, tmp_path / "cache")
    frames = np.load(tmp_path / "frames.npy", mmap_mode="r")
    assert frames.shape == (5, 3, 6, 6)
    for frame, row in zip(frames, rows, strict=True):
        np.testing.assert_array_equal(frame, read_image(stored.image_path(row), 6))


def test_decoding_ends_its_threads(stored, tmp_path):
    before = threading.active_count()
    open_images(stored, 12, tmp_path / "cache", threads=3)
    assert threading.active_count() == before
