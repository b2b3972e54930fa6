"""Releases of our own: exactly the published layouts, read back as they were written, whole or not there."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.data import load
from harness.data.causal3dident import making, static_writer, temporal_writer
from harness.data.causal3dident.citris import Dynamics, classes_of, to_scene
from harness.data.causal3dident.image_cache import open_images
from harness.data.causal3dident.meshes import meshes_of
from harness.data.causal3dident.native import OBJECT_SD, ROTATION_MEANS
from harness.data.causal3dident.release import SETS, read_class
from harness.data.causal3dident.scene import COLUMNS
from harness.data.causal3dident.static_writer import draw_latents, write_static
from harness.data.causal3dident.temporal_release import SEQUENCES, read_sequences, read_triplets, stored
from harness.data.causal3dident.temporal_writer import Sizes, draw_independent, draw_sequence, draw_triplets
from harness.data.causal3dident.worker import Draughtsman
from harness.data.seeding import derive
from harness.data_spec import Causal3DIdentData
from harness.errors import UserError

COUNTS = {"trainset": 12, "testset": 10}
SIZES = Sizes(train=9, test=4, triplets=3)


def small(**changes):
    return Causal3DIdentData(**{"classes": (0, 4), "image_size": 8, "samples": 1, "seed": 3, **changes})


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def drawn(spec, name, classes, scenes):
    """Images of scenes, drawn in this process."""
    seeds = np.array([derive(spec.seed, "pixels", name, frame) % 2**32 for frame in range(len(scenes))])
    draughtsman = Draughtsman(meshes_of(None, spec.classes), spec.image_size, spec.samples)
    return draughtsman.draw(classes, scenes, seeds)


@pytest.fixture(scope="module")
def static(tmp_path_factory):
    pytest.importorskip("mitsuba")
    out = tmp_path_factory.mktemp("static") / "release"
    progress = []
    write_static(out, small(), COUNTS, lambda done, total: progress.append((done, total)))
    assert progress[-1] == (44, 44)
    assert progress == sorted(progress)
    return out


@pytest.fixture(scope="module")
def temporal(tmp_path_factory):
    pytest.importorskip("mitsuba")
    out = tmp_path_factory.mktemp("temporal") / "release"
    temporal_writer.write_temporal(out, small(), SIZES)
    return out


# ------------------------------------------------------------------------------------------ static


def test_the_static_layout_is_the_published_one(static):
    expected = [f"{which}/raw_latents_{c}.npy" for which in SETS for c in (0, 4)]
    expected += [f"trainset/images_{c}/{i:02d}.png" for c in (0, 4) for i in range(12)]
    expected += [f"testset/images_{c}/{i}.png" for c in (0, 4) for i in range(10)]  # ceil(log10 10) is one digit
    assert files(static) == sorted(expected)
    assert not list(static.parent.glob(".*"))
    for which in SETS:
        latents = np.load(static / which / "raw_latents_0.npy")
        assert latents.shape == (COUNTS[which], 10)
        assert np.abs(latents).max() <= 1
    with Image.open(static / "trainset" / "images_0" / "00.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (8, 8))


@pytest.mark.parametrize("which", SETS)
@pytest.mark.parametrize("class_id", [0, 4])
def test_the_reader_finds_what_was_drawn(static, tmp_path, which, class_id):
    found = read_class(static, which, class_id)
    latents = draw_latents(small(), which, class_id, COUNTS[which])
    np.testing.assert_array_equal(found.latents, latents)
    images = drawn(small(), f"{which}_{class_id}", np.full(len(latents), class_id), latents)
    np.testing.assert_array_equal(open_images(found, 8, tmp_path), images)


def test_a_release_of_ours_is_served(static, tmp_path):
    sizes = {"cells": 60, "test_cells": 50, "double_cells": 10, "doubles": 1, "environments": 2}
    data = load(small(path=str(static), **sizes), tmp_path)
    assert data.frame_shape == (3, 8, 8)
    assert data.quality["images_served"] <= 44


@pytest.mark.parametrize("class_id", [1, 4])
def test_latents_follow_the_released_graph(class_id):
    latents = draw_latents(small(), "trainset", class_id, 20_000)
    assert np.abs(latents).max() <= 1
    by_name = dict(zip(COLUMNS, latents.T, strict=True))
    for name in ("spotlight", "hue_spotlight", "hue_background"):
        assert by_name[name].mean() == pytest.approx(0, abs=0.02)
        assert by_name[name].var() == pytest.approx(1 / 3, abs=0.01)
    sign = {1: -1, 4: 1}[class_id]
    assert np.corrcoef(by_name["x"], sign * np.sin(by_name["spotlight"] * np.pi / 2))[0, 1] > 0.6
    for angle, mean in zip(("phi", "theta", "psi"), ROTATION_MEANS[class_id], strict=True):
        assert np.median(by_name[angle]) * np.sign(mean) > 0.2
    assert by_name["z"].std() < OBJECT_SD  # truncated
    other = draw_latents(small(), "testset", class_id, 20_000)
    assert not np.isin(latents[:, 0], other[:, 0]).any()


# ---------------------------------------------------------------------------------------- temporal


def test_the_temporal_layout_is_the_published_one(temporal):
    names = ["test_indep.npz", "test_triplets.npz", "train.npz", "val_indep.npz", "val_triplets.npz"]
    assert files(temporal) == names
    assert not list(temporal.parent.glob(".*"))
    for name, lead in (("train", (9,)), ("val_indep", (4,)), ("test_indep", (4,)), ("val_triplets", (3, 3))):
        with np.load(temporal / f"{name}.npz", allow_pickle=False) as content:
            assert set(content.files) == {"imgs", "raw_latents", "shape_latents", "interventions"}
            assert content["imgs"].shape == (*lead, 8, 8, 3)
            assert content["imgs"].dtype == np.uint8
            assert content["raw_latents"].shape == (*lead, 12)
            assert content["shape_latents"].shape == (*lead, 2)
            assert content["interventions"].shape == (lead[0] - (len(lead) == 1), 12)
            assert set(np.unique(content["shape_latents"][..., 0])) <= {0, 1}  # teapot, armadillo
            assert not content["shape_latents"][..., 1].any()


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_reader_finds_the_sequences_drawn(temporal, name):
    found = read_sequences(temporal, name, None)
    assert isinstance(found.images.base, np.memmap)
    images = drawn(small(), name, classes_of(found.latents), to_scene(found.latents))
    np.testing.assert_array_equal(found.images, images)
    content = np.random.default_rng(derive(3, "temporal release", name))
    dynamics = Dynamics(shapes=(0, 1))
    made = (draw_sequence if name == "train" else draw_independent)(dynamics, len(images), content)
    np.testing.assert_allclose(found.latents, made.latents, atol=1e-12)
    np.testing.assert_array_equal(found.interventions[:-1].sum(axis=1), made.interventions.sum(axis=1))


@pytest.mark.parametrize("name", ["val_triplets", "test_triplets"])
def test_the_reader_finds_the_triplets_drawn(temporal, name):
    found = read_triplets(temporal, name)
    flat = found.latents.reshape(-1, 12)
    images = drawn(small(), name, classes_of(flat), to_scene(flat))
    np.testing.assert_array_equal(found.images.reshape(images.shape), images)


def test_the_third_of_a_triplet_is_made_of_the_others():
    content = draw_triplets(Dynamics(shapes=(0, 1, 2)), 500, np.random.default_rng(0))
    first, second, third = content.latents.transpose(1, 0, 2)
    np.testing.assert_array_equal(third, np.where(content.interventions, second, first))
    moving = content.interventions[:, [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]]
    assert moving.any(axis=1).all()
    assert not moving.all(axis=1).any()
    assert moving.mean() == pytest.approx(0.5, abs=0.05)


def test_independent_factors_are_independent():
    content = draw_independent(Dynamics(shapes=(0, 1, 2)), 5000, np.random.default_rng(0))
    moving = content.latents[:, [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]]
    assert np.abs(np.corrcoef(moving.T) - np.eye(10)).max() < 0.06
    assert content.interventions[:, [0, 3, 4, 6, 10]].all()
    assert not content.interventions[:, [5, 11]].any()


def test_coarse_variables_are_wholes(tmp_path):
    pytest.importorskip("mitsuba")
    out = tmp_path / "coarse"
    temporal_writer.write_temporal(out, small(classes=(1,)), Sizes(60, 2, 8), coarse=True, raw_columns=10)
    assert stored(out) == (*SEQUENCES, "val_triplets_coarse", "test_triplets_coarse")
    with np.load(out / "train.npz", allow_pickle=False) as content:
        assert content["raw_latents"].shape == (60, 10)
        acts = content["interventions"]
        # what the published loader does: join, then keep what is now and then intervened on and varies
        joined = np.concatenate([content["raw_latents"], content["shape_latents"]], axis=-1)
        assert joined.shape[-1] == acts.shape[-1]
    assert (acts[:, 0:3] == acts[:, :1]).all()
    assert (acts[:, 3] == acts[:, 4]).all()
    found = read_sequences(out, "train", None)
    assert found.dropped == ("psi", "shape", "material")
    assert set(found.shapes[:, 0]) == {2}  # hare
    source = read_triplets(out, "val_triplets_coarse").source
    assert (source[:, 0:3] == source[:, :1]).all()


# ----------------------------------------------------------------------------------- whole or not


@pytest.mark.parametrize("taken", ["file", "folder"])
def test_what_is_there_is_not_touched(tmp_path, taken):
    pytest.importorskip("mitsuba")
    out = tmp_path / "out"
    mine = out
    if taken == "folder":
        out.mkdir()
        mine = out / "mine.txt"
    mine.write_text("mine")
    for write in (
        lambda: write_static(out, small(), COUNTS),
        lambda: temporal_writer.write_temporal(out, small(), SIZES),
    ):
        with pytest.raises(UserError, match=r"out: is there already and not empty; give --out a new folder"):
            write()
    assert mine.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_filled(tmp_path):
    pytest.importorskip("mitsuba")
    (tmp_path / "out").mkdir()
    write_static(tmp_path / "out", small(classes=(0,)), {"trainset": 2, "testset": 1})
    assert len(files(tmp_path / "out")) == 5


def contents(root):
    return {name: (root / name).read_bytes() for name in files(root)}


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_interrupted_static_release_is_gone_on_with(static, tmp_path, monkeypatch, after):
    """Interrupted while writing pictures: what was drawn is not drawn again."""
    out, write_pngs, count = tmp_path / "out", static_writer._write_pngs, iter(range(10))

    def stop(images, folder):
        if next(count) == after:
            Path(folder / "00.png").write_bytes(b"half a picture")
            raise KeyboardInterrupt
        write_pngs(images, folder)

    monkeypatch.setattr(static_writer, "_write_pngs", stop)
    with pytest.raises(KeyboardInterrupt):
        write_static(out, small(), COUNTS)
    assert not out.exists()
    monkeypatch.setattr(static_writer, "_write_pngs", write_pngs)
    render_to, rendered = making.render_to, []

    def noting(job, path, **named):
        rendered.append(len(job.latents))
        render_to(job, path, **named)

    monkeypatch.setattr(making, "render_to", noting)
    write_static(out, small(), COUNTS)
    assert rendered == [12, 12, 10, 10][after + 1 :]
    assert contents(out) == contents(static)
    assert not list(tmp_path.glob(".*"))


def test_an_interrupted_temporal_release_is_gone_on_with(temporal, tmp_path, monkeypatch):
    out, savez, saved = tmp_path / "out", np.savez, []

    def stop(path, **content):
        if len(saved) == 2:
            Path(path).write_bytes(b"half a file")
            raise KeyboardInterrupt
        saved.append(path)
        savez(path, **content)

    monkeypatch.setattr(temporal_writer.np, "savez", stop)
    with pytest.raises(KeyboardInterrupt):
        temporal_writer.write_temporal(out, small(), SIZES)
    assert not out.exists()
    monkeypatch.setattr(temporal_writer.np, "savez", savez)
    temporal_writer.write_temporal(out, small(), SIZES)
    assert files(out) == files(temporal)
    for name in SEQUENCES:
        first, second = (read_sequences(root, name, None) for root in (out, temporal))
        np.testing.assert_array_equal(first.images, second.images)
        np.testing.assert_array_equal(first.latents, second.latents)


def test_a_release_begun_with_other_options_is_not_gone_on_with(tmp_path, monkeypatch):
    pytest.importorskip("mitsuba")
    out = tmp_path / "out"
    monkeypatch.setattr(static_writer, "_write_pngs", lambda images, folder: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_static(out, small(), COUNTS)
    assert json.loads((tmp_path / ".out.unfinished" / "settings.json").read_text())["seed"] == 3
    with pytest.raises(UserError, match=r"\.out\.unfinished: was begun with other options"):
        write_static(out, small(seed=4), COUNTS)


def test_two_at_once_are_refused(tmp_path):
    with (
        making.made_whole(tmp_path / "out", {}),
        pytest.raises(UserError, match="out: another process is making it"),
        making.made_whole(tmp_path / "out", {}),
    ):
        pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"file/out: cannot be made \(Not a directory\)"),
        making.made_whole(tmp_path / "file" / "out", {}),
    ):
        pass


def test_a_folder_in_no_folder_is_refused(tmp_path):
    with (
        pytest.raises(UserError, match="none/out: its folder is not there; make it first"),
        making.made_whole(tmp_path / "none" / "out", {}),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
