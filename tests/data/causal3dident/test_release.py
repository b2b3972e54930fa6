"""The reader of the release, on a small release of our own in its layout."""

import shutil
import time

import numpy as np
import pytest
from PIL import Image

from harness.data.causal3dident import release as release_module
from harness.data.causal3dident.nearest import by_sklearn, nearest
from harness.data.causal3dident.release import make_pools, read_class, read_image, release_digest
from harness.errors import UserError

COUNTS = {("trainset", 0): 120, ("trainset", 4): 30, ("testset", 0): 11, ("testset", 4): 10}


def write_release(root, counts=None, size=12, seed=0):
    """Noise images whose first pixel holds set, class and row, so that a served image can be told."""
    random = np.random.default_rng(seed)
    for (which, class_id), count in (counts or COUNTS).items():
        folder = root / which / f"images_{class_id}"
        folder.mkdir(parents=True)
        np.save(root / which / f"raw_latents_{class_id}.npy", random.uniform(-1, 1, (count, 10)))
        digits = len(str(count - 1))
        for row in range(count):
            pixels = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
            pixels[0, 0] = (which == "testset", class_id, row)
            Image.fromarray(pixels).save(folder / f"{row:0{digits}d}.png")
    return root


@pytest.fixture(autouse=True)
def _just_changed(monkeypatch):
    """However long a test takes, its files count as too young to be remembered."""
    monkeypatch.setattr(release_module, "_last_change", lambda *stats: time.time())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def release(written, tmp_path):
    return shutil.copytree(written, tmp_path / "release")


@pytest.mark.parametrize(("which", "class_id"), list(COUNTS))
def test_the_number_of_images_and_of_digits_follows_the_latents(written, which, class_id):
    stored = read_class(written, which, class_id)
    count = COUNTS[which, class_id]
    assert stored.latents.shape == (count, 10)
    for row in (0, count - 1):
        pixels = read_image(stored.image_path(row), 12)
        assert pixels[:, 0, 0].tolist() == [which == "testset", class_id, row]


def test_images_are_resized(written):
    path = read_class(written, "trainset", 0).image_path(3)
    small = read_image(path, 6)
    blocks = read_image(path, 12).reshape(3, 6, 2, 6, 2).astype(float).mean(axis=(2, 4))
    np.testing.assert_allclose(small, blocks, atol=1)
    assert read_image(path, 24).shape == (3, 24, 24)


def test_the_nearest_stored_image_of_the_class_is_served(written):
    pool = make_pools(written, (0, 4), 0.2, np.random.default_rng(0))["train"]
    random = np.random.default_rng(1)
    classes, wanted = random.choice([0, 4], 40), random.uniform(-1, 1, (40, 10))
    rows, latents, distances = pool.serve(classes, wanted)
    for k in range(40):
        stored = pool.sets[classes[k]].latents
        away = np.linalg.norm(stored[pool.rows[classes[k]]] - wanted[k], axis=1)
        assert distances[k] == pytest.approx(away.min())
        assert rows[k] == pool.rows[classes[k]][away.argmin()]
        np.testing.assert_array_equal(latents[k], stored[rows[k]])


def test_a_stored_vector_is_served_at_no_distance(written):
    pool = make_pools(written, (0,), 0.2, np.random.default_rng(0))["test"]
    _, _, distances = pool.serve(np.zeros(11, int), pool.sets[0].latents)
    np.testing.assert_allclose(distances, 0, atol=1e-9)


def test_training_and_validation_share_no_image(written):
    pools = make_pools(written, (0, 4), 0.2, np.random.default_rng(0))
    for class_id, count in ((0, 120), (4, 30)):
        both = np.concatenate([pools["train"].rows[class_id], pools["validation"].rows[class_id]])
        assert sorted(both.tolist()) == list(range(count))
        assert len(pools["validation"].rows[class_id]) == count // 5


def remove_latents(root):
    (root / "trainset" / "raw_latents_4.npy").unlink()


def remove_images(root):
    shutil.rmtree(root / "testset" / "images_4")


def remove_set(root):
    shutil.rmtree(root / "testset")


def remove_one_image(root):
    (root / "trainset" / "images_4" / "07.png").unlink()


def misname_images(root):
    for row in range(10):
        path = root / "trainset" / "images_4" / f"{row:02d}.png"
        path.rename(path.with_name(f"{row}.png"))


def empty_one_image(root):
    (root / "trainset" / "images_4" / "07.png").write_bytes(b"")


def replace_first(root, kind, size=(12, 12)):
    Image.new("RGB", size).save(root / "testset" / "images_4" / "0.png", kind)
    Image.new("RGB", size).save(root / "trainset" / "images_4" / "00.png", kind)


def change_latents(change):
    def damage(root):
        path = root / "trainset" / "raw_latents_4.npy"
        np.save(path, change(np.load(path)))

    return damage


def put(value):
    def change(latents):
        latents[3, 7] = value
        return latents

    return change


def cut_latents(root):
    path = root / "trainset" / "raw_latents_4.npy"
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (remove_latents, r"raw_latents_4\.npy: not there.*class 4 \(armadillo\)"),
        (remove_images, r"images_4: not there.*class 4"),
        (remove_set, r"testset: not there"),
        (remove_one_image, r"images_4: image 7 \(07\.png\) is missing, though raw_latents_4\.npy has 30 rows"),
        (misname_images, r"images_4: image 0 \(00\.png\) is missing, and 9 others, though"),
        (empty_one_image, r"images_4/07\.png: is not a readable PNG"),
        (lambda root: replace_first(root, "JPEG"), r"images_4/00\.png: is not a readable PNG"),
        (lambda root: replace_first(root, "PNG", (9, 8)), r"images_4/00\.png: is 9 x 8 pixels"),
        (change_latents(lambda latents: latents[:-2]), r"holds 30 images but raw_latents_4\.npy has 28 rows"),
        (change_latents(put(1.5)), r"row 3, column 7 \(hue_object\) is 1\.5.*\[-1, 1\]"),
        (change_latents(put(np.nan)), r"row 3, column 7 \(hue_object\) is nan"),
        (change_latents(lambda latents: latents[:, :9]), r"shape \(30, 9\)"),
        (change_latents(lambda latents: latents.ravel()), r"shape \(300,\)"),
        (change_latents(lambda latents: (latents > 0).astype(int)), r"holds int64"),
        (cut_latents, r"not a readable \.npy array"),
        (change_latents(lambda latents: latents.astype(object)), r"not a readable \.npy array"),
        (shutil.rmtree, r"release: no such folder"),
    ],
)
def test_a_damaged_release_is_refused_by_name(release, damage, words):
    damage(release)
    with pytest.raises(UserError, match=words):
        make_pools(release, (0, 4), 0.2, np.random.default_rng(0))
    with pytest.raises(UserError, match=words):
        release_digest(release, (0, 4))


def test_a_damaged_class_that_is_not_asked_for_does_not_matter(release):
    remove_latents(release)
    assert set(make_pools(release, (0,), 0.2, np.random.default_rng(0))["train"].sets) == {0}


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: b"not an image",
        lambda content: content[:200],
        lambda content: content[:-12],
        *[lambda content, place=place: flipped(content, place) for place in (20, 60, -20, -14)],
    ],
)
def test_a_broken_image_is_refused_by_name(release, change):
    path = release / "trainset" / "images_4" / "07.png"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=r"07\.png: is not a readable PNG"):
        read_image(path, 12)


def test_an_image_that_is_not_square_or_not_8_bit_is_refused_by_name(tmp_path):
    Image.new("RGB", (8, 9)).save(tmp_path / "0.png")
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(tmp_path / "1.png")
    with pytest.raises(UserError, match=r"0\.png: is 8 x 9 pixels; images of the release are square"):
        read_image(tmp_path / "0.png", 8)
    with pytest.raises(UserError, match=r"1\.png: has colours of mode I"):
        read_image(tmp_path / "1.png", 8)


def test_a_fourth_channel_is_dropped(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0.png")
    np.testing.assert_array_equal(read_image(tmp_path / "0.png", 8), pixels[..., :3].transpose(2, 0, 1))


def test_a_misnamed_image_is_refused_by_name(release):
    path = release / "trainset" / "images_4" / "07.png"
    path.rename(path.with_name("7.png"))
    with pytest.raises(UserError, match=r"07\.png: not there"):
        read_image(path, 12)


def test_a_class_has_its_own_digest(written):
    digests = {read_class(written, which, class_id).digest for which, class_id in COUNTS}
    assert len(digests) == len(COUNTS)


def test_the_digest_follows_the_content_and_not_the_place(written, release):
    digest = release_digest(written, (0, 4))
    assert release_digest(release, (4, 0)) == digest
    assert release_digest(release, (0,)) != digest
    change_latents(put(0.123))(release)
    assert release_digest(release, (0, 4)) != digest


def test_the_digest_follows_the_size_of_each_image(release):
    digest = release_digest(release, (0, 4))
    first, second = (release / "trainset" / "images_4" / name for name in ("03.png", "08.png"))
    contents = [first.read_bytes(), second.read_bytes() + b"more"]
    second.write_bytes(contents[1])
    longer = release_digest(release, (0, 4))
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    assert len({digest, longer, release_digest(release, (0, 4))}) == 3


def test_images_that_were_looked_through_are_not_looked_at_again(release, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(release_module, "_last_change", lambda *stats: 0.0)
    looks, sizes = [], release_module._sizes
    monkeypatch.setattr(release_module, "_sizes", lambda folder: looks.append(folder) or sizes(folder))
    digest = release_digest(release, (0,))
    assert len(looks) == 2
    assert release_digest(release, (0,)) == digest
    assert len(looks) == 2
    (release / "trainset" / "images_0" / "000.png").unlink()
    with pytest.raises(UserError, match=r"000\.png\) is missing"):
        release_digest(release, (0,))


# ----------------------------------------------------------------------------------------- nearest


def test_faiss_and_scikit_learn_serve_the_same_images():
    pytest.importorskip("faiss", reason="faiss is not installed; scikit-learn serves")
    random = np.random.default_rng(0)
    stored, wanted = random.uniform(-1, 1, (3000, 10)), random.uniform(-1, 1, (500, 10))
    stored[1000:1500] = stored[:500] + 1e-9  # closer together than single precision tells
    wanted[:100] = stored[:100]
    for first, second in zip(nearest(stored, wanted), by_sklearn(stored, wanted), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-12)


@pytest.mark.parametrize("count", [1, 3, 400])
def test_the_nearest_is_the_nearest(count):
    random = np.random.default_rng(1)
    stored, wanted = random.uniform(-1, 1, (count, 10)), random.uniform(-1, 1, (50, 10))
    rows, distances = nearest(stored, wanted)
    away = np.linalg.norm(stored[None] - wanted[:, None], axis=2)
    np.testing.assert_array_equal(rows, away.argmin(axis=1))
    np.testing.assert_allclose(distances, away.min(axis=1))
