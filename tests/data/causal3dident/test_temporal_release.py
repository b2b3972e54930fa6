"""The reader of the temporal release, on small files of our own in its layout."""

import numpy as np
import pytest

from harness.data.causal3dident import npz_array
from harness.data.causal3dident.temporal_release import (
    COLUMNS,
    TRIPLETS,
    read_sequences,
    read_triplets,
    stored,
)
from harness.errors import UserError

COUNT, SIZE = 20, 8
CONSTANT = ("psi", "material")


def arrays(lead, seed=0, *, raw_columns=12, channels=4, steps=None):
    """What one file holds: noise within the ranges of the layout."""
    random = np.random.default_rng(seed)
    raw = np.empty((*lead, 12), dtype=np.float32)
    raw[..., :3] = random.uniform(-2, 2, (*lead, 3))
    raw[..., 3:10] = random.uniform(0, 2 * np.pi - 1e-3, (*lead, 7))
    raw[..., 5] = 0
    shapes = np.stack([random.integers(0, 7, lead), np.zeros(lead, dtype=int)], axis=-1).astype(np.uint8)
    raw[..., 10:] = shapes
    return {
        "imgs": random.integers(0, 256, (*lead, SIZE, SIZE, channels), dtype=np.uint8),
        "raw_latents": raw[..., :raw_columns],
        "shape_latents": shapes,
        "interventions": random.integers(0, 2, (steps or lead[0], 12)),
    }


def write(root, name, content, save=np.savez):
    root.mkdir(exist_ok=True)
    save(root / f"{name}.npz", **content)
    return content


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("channels", [3, 4, 5])
@pytest.mark.parametrize("cached", [True, False])
def test_images_and_latents_of_a_sequence_are_those_of_the_file(tmp_path, save, channels, cached):
    content = write(tmp_path / "release", "train", arrays((COUNT,), channels=channels), save)
    found = read_sequences(tmp_path / "release", "train", tmp_path / "cache" if cached else None)
    assert found.images.shape == (COUNT, 3, SIZE, SIZE)
    assert found.images.dtype == np.uint8
    np.testing.assert_array_equal(found.images, content["imgs"][..., :3].transpose(0, 3, 1, 2))
    np.testing.assert_allclose(found.latents, content["raw_latents"].astype(np.float64), atol=1e-12)
    np.testing.assert_array_equal(found.shapes, content["shape_latents"])
    assert isinstance(found.images, np.memmap) or isinstance(found.images.base, np.memmap) or not cached


def test_compressed_images_are_unpacked_once(tmp_path, monkeypatch):
    content = write(tmp_path / "release", "train", arrays((COUNT,)), np.savez_compressed)
    read_sequences(tmp_path / "release", "train", tmp_path / "cache")
    monkeypatch.setattr(npz_array, "_unpack", None)
    again = read_sequences(tmp_path / "release", "train", tmp_path / "cache")
    assert isinstance(again.images, np.memmap)
    np.testing.assert_array_equal(again.images[:, 2], content["imgs"][..., 2])


def test_the_last_columns_may_stand_with_the_shapes_alone(tmp_path):
    both = [write(tmp_path / str(k), "train", arrays((COUNT,), raw_columns=k)) for k in (10, 12)]
    found = [read_sequences(tmp_path / str(k), "train", None) for k in (10, 12)]
    np.testing.assert_array_equal(found[0].latents, found[1].latents)
    assert found[0].latents.shape == (COUNT, 12)
    assert both[0]["raw_latents"].shape == (COUNT, 10)
    content = both[1]
    del content["shape_latents"]
    write(tmp_path / "none", "train", content)
    np.testing.assert_array_equal(read_sequences(tmp_path / "none", "train", None).shapes, found[1].shapes)


def test_constant_columns_are_dropped_by_name_and_shape_is_a_variable(tmp_path):
    content = write(tmp_path, "train", arrays((COUNT,)))
    found = read_sequences(tmp_path, "train", None)
    assert found.dropped == CONSTANT
    assert found.variables == tuple(name for name in COLUMNS if name not in CONSTANT)
    assert found.periodic == ("phi", "theta", "spotlight", "hue_object", "hue_spotlight", "hue_background")
    kept = [COLUMNS.index(name) for name in found.variables]
    np.testing.assert_array_equal(found.interventions[:-1], content["interventions"][:-1, kept] == 1)
    np.testing.assert_array_equal(found.columns(("hue_background", "x")), found.latents[:, [9, 0]])
    content["raw_latents"][:, 10] = content["shape_latents"][:, 0] = 3
    write(tmp_path, "test_indep", content)
    assert read_sequences(tmp_path, "test_indep", None).dropped == ("psi", "shape", "material")


@pytest.mark.parametrize("steps", [COUNT - 1, COUNT])
def test_nothing_acts_after_the_last_image(tmp_path, steps):
    content = arrays((COUNT,), steps=steps)
    content["interventions"][:] = 1
    write(tmp_path, "train", content)
    acts = read_sequences(tmp_path, "train", None).interventions
    assert acts.shape == (COUNT, 10)
    assert acts[:-1].all()
    assert not acts[-1].any()


@pytest.mark.parametrize("which", TRIPLETS)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_triplets_have_three_images_and_a_source(tmp_path, which, save):
    content = write(tmp_path / "release", which, arrays((COUNT, 3)), save)
    found = read_triplets(tmp_path / "release", which, tmp_path / "cache")
    np.testing.assert_array_equal(found.images, content["imgs"][..., :3].transpose(0, 1, 4, 2, 3))
    assert found.latents.shape == (COUNT, 3, 12)
    assert found.shapes.shape == (COUNT, 3, 2)
    kept = [COLUMNS.index(name) for name in found.variables]
    np.testing.assert_array_equal(found.source, content["interventions"][:, kept] == 1)


def test_validation_may_be_absent(tmp_path):
    for name in ("train", "test_indep"):
        write(tmp_path, name, arrays((COUNT,)))
    assert stored(tmp_path) == ("train", "test_indep")
    with pytest.raises(UserError, match=r"val_indep\.npz: not there \(the folder has train, test_indep\)"):
        read_sequences(tmp_path, "val_indep", None)


def test_an_angle_of_a_whole_turn_is_none(tmp_path):
    content = arrays((COUNT,))
    content["raw_latents"][4, 3] = np.float32(2 * np.pi)
    content["raw_latents"][4, 0] = np.float32(2.000001)
    write(tmp_path, "train", content)
    latents = read_sequences(tmp_path, "train", None).latents
    assert latents[4, 3] == pytest.approx(0, abs=1e-6)
    assert latents[4, 0] == 2
    assert (latents[:, 3:10] < 2 * np.pi).all()


def without(key):
    return lambda content: content.pop(key)


def change(key, make):
    def damage(content):
        content[key] = make(content[key])

    return damage


def put(key, place, value):
    def damage(content):
        content[key] = content[key].astype(np.float64)
        content[key][place] = value

    return damage


DAMAGES = [
    *[(without(key), rf"has no array '{key}'") for key in ("imgs", "raw_latents", "interventions")],
    (change("imgs", lambda a: a[:-1]), r"raw_latents has shape \(20, 12\)"),
    (change("imgs", lambda a: a[..., :2]), r"imgs has shape \(20, 8, 8, 2\)"),
    (change("imgs", lambda a: a[:, :4]), r"imgs has shape \(20, 4, 8, 4\)"),
    (change("imgs", lambda a: a[:, 0]), r"imgs has shape \(20, 8, 4\)"),
    (change("imgs", lambda a: a.astype(np.float32)), r"imgs is float32"),
    (change("raw_latents", lambda a: a[:, :11]), r"raw_latents has shape \(20, 11\)"),
    (change("raw_latents", lambda a: a[:-1]), r"raw_latents has shape \(19, 12\)"),
    (change("raw_latents", lambda a: a.astype("U4")), r"raw_latents has shape .* of <U4"),
    (change("raw_latents", lambda a: np.float64(3)), r"raw_latents has shape \(\)"),
    (change("raw_latents", lambda a: a.astype(object)), r"is not a readable \.npz file"),
    (change("shape_latents", lambda a: a[:, :1]), r"shape_latents has shape \(20, 1\)"),
    (change("shape_latents", lambda a: a + 1), r"raw_latents, row 0, column shape is .* as in shape_latents"),
    (change("interventions", lambda a: a[:, :10]), r"interventions has shape \(20, 10\)"),
    (change("interventions", lambda a: a[:-2]), r"interventions has shape \(18, 12\)"),
    (put("interventions", (3, 7), 0.5), r"interventions, row 3, column hue_object is 0\.5"),
    (put("raw_latents", (5, 1), -2.1), r"raw_latents, row 5, column y is -2\.1"),
    (put("raw_latents", (5, 9), 6.4), r"raw_latents, row 5, column hue_background is 6\.4"),
    (put("raw_latents", (5, 3), -0.1), r"raw_latents, row 5, column phi is -0\.1"),
    (put("raw_latents", (7, 4), np.nan), r"raw_latents, row 7, column theta is nan"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_a_malformed_file_is_refused_by_name(tmp_path, damage, words):
    content = arrays((COUNT,))
    damage(content)
    write(tmp_path, "train", content)
    with pytest.raises(UserError, match=rf"train\.npz: {words}"):
        read_sequences(tmp_path, "train", None)


def test_a_shape_that_is_none_is_refused(tmp_path):
    content = arrays((COUNT, 3), raw_columns=10)
    content["shape_latents"][2, 1, 0] = 7
    write(tmp_path, "val_triplets", content)
    with pytest.raises(UserError, match=r"row 2, image 1, column shape is 7"):
        read_triplets(tmp_path, "val_triplets")


def test_a_sequence_without_motion_is_refused(tmp_path):
    content = arrays((COUNT,))
    for key in ("raw_latents", "shape_latents"):
        content[key][:] = content[key][0]
    write(tmp_path, "train", content)
    with pytest.raises(UserError, match="no latent varies"):
        read_sequences(tmp_path, "train", None)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("damage", ["cut", "text", "empty", "array"])
def test_a_broken_archive_is_refused_by_name(tmp_path, save, damage):
    write(tmp_path, "train", arrays((COUNT,)), save)
    path = tmp_path / "train.npz"
    whole = path.read_bytes()
    if damage == "array":
        np.save(path.with_suffix(".npy"), np.zeros(3))
        path.with_suffix(".npy").replace(path)
    else:
        path.write_bytes({"cut": whole[: len(whole) // 2], "text": b"not found", "empty": b""}[damage])
    with pytest.raises(UserError, match=r"train\.npz: is not a readable \.npz file"):
        read_sequences(tmp_path, "train", None)


def test_compressed_images_that_changed_on_the_way_are_refused_and_nothing_stays(tmp_path):
    write(tmp_path, "train", arrays((COUNT,)), np.savez_compressed)
    path = tmp_path / "train.npz"
    content = bytearray(path.read_bytes())
    place = content.index(b"imgs.npy") + 2_000
    content[place] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"train\.npz: is not a readable \.npz file"):
        read_sequences(tmp_path, "train", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("npz-*"))


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        read_sequences(tmp_path / "no", "train", None)
    with pytest.raises(ValueError, match="which must be one of"):
        read_sequences(tmp_path, "val_triplets", None)
