"""The reader of the release, on a small release of our own in its layout."""

import shutil

import numpy as np
import pytest
from PIL import Image

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
        (remove_one_image, r"images_4: holds 29 images but raw_latents_4\.npy has 30 rows"),
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


@pytest.mark.parametrize("content", [b"", b"not an image", "half"])
def test_a_broken_image_is_refused_by_name(release, content):
    path = release / "trainset" / "images_4" / "07.png"
    path.write_bytes(path.read_bytes()[:200] if content == "half" else content)
    with pytest.raises(UserError, match=r"07\.png: is not a readable PNG"):
        read_image(path, 12)


def test_a_misnamed_image_is_refused_by_name(release):
    path = release / "trainset" / "images_4" / "07.png"
    path.rename(path.with_name("7.png"))
    with pytest.raises(UserError, match=r"07\.png: not there"):
        read_image(path, 12)


def test_the_digest_follows_the_content_and_not_the_place(written, release):
    digest = release_digest(written, (0, 4))
    assert release_digest(release, (4, 0)) == digest
    assert release_digest(release, (0,)) != digest
    change_latents(put(0.123))(release)
    assert release_digest(release, (0, 4)) != digest
