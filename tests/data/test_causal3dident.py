"""The image family end to end: rendered, or served from a release, as `PerturbationData`."""

import itertools
import os

import numpy as np
import pytest
import torch
from PIL import Image

from harness.data import load
from harness.data.causal3dident import dataset
from harness.data.causal3dident.squash import Squash
from harness.data.causal3dident.variant import renderer_variant
from harness.data.fingerprint import fingerprint
from harness.data_spec import SCENE_LATENTS, Causal3DIdentData
from harness.errors import UserError
from harness.process_spec import LinearGaussianSpec

SMALL = {"cells": 60, "test_cells": 50, "double_cells": 10, "doubles": 2, "environments": 4, "validation": 0.2}
LINEAR = {
    "responsive": ("x", "hue_object"),
    "invariant": ("spotlight", "hue_background"),
    "process": LinearGaussianSpec(responsive=2, invariant=2),
}


def rendered_spec(**changes):
    return Causal3DIdentData(**{**SMALL, "image_size": 8, "samples": 1, **changes})


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    pytest.importorskip("mitsuba")
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", params=["native", "linear_gaussian"])
def rendered(request, cache):
    spec = rendered_spec(**(LINEAR if request.param == "linear_gaussian" else {}))
    return spec, load(spec, cache)


def test_rows_splits_and_names(rendered):
    spec, data = rendered
    rows = 60 + 50 + 2 * 10
    assert data.frames.shape == (2 * rows, 3, 8, 8)
    assert data.frames.dtype == torch.uint8
    assert data.index.shape == (rows, 2)
    assert data.conditions[:5] == ("control", *data.perturbations)
    expected = ("x", "y", "z", "phi") if len(spec.responsive) == 7 else ("x", "hue_object", "x_2", "hue_object_2")
    assert data.perturbations == expected
    assert {name: len(rows) for name, rows in data.splits.items()} == {
        "train": 48,
        "validation": 12,
        "test": 50,
        "double": 20,
    }
    assert sorted(torch.cat(list(data.splits.values())).tolist()) == list(range(rows))
    assert data.ood == ("double",)
    assert data.pairs == "true"
    counts = torch.bincount(data.condition[torch.cat([data.splits["train"], data.splits["validation"]])])
    assert counts.tolist() == [12] * 5  # control is one condition among equals
    for first, second in itertools.combinations(data.splits, 2):
        frames = [set(data.index[data.splits[name]].flatten().tolist()) for name in (first, second)]
        assert not frames[0] & frames[1]


def test_perturbations_of_a_condition_are_its_name(rendered):
    _, data = rendered
    for row, which in enumerate(data.condition.tolist()):
        members = {data.perturbations[k] for k in torch.nonzero(data.u[row]).flatten().tolist()}
        named = data.conditions[which].split("+")
        assert members == (set() if which == 0 else set(named))
        assert named == sorted(named)
    targets = [data.truth.responsive_names[k] for k in data.targets.int().argmax(dim=1)]
    assert [name.removesuffix("_2") for name in data.perturbations] == targets
    assert (data.targets.sum(dim=1) == 1).all()


def test_a_pair_shares_the_invariant_truth(rendered):
    spec, data = rendered
    truth = data.truth
    assert truth.responsive_names == spec.responsive
    assert truth.invariant_names == spec.invariant
    assert truth.responsive.shape == (len(data.frames), len(spec.responsive))
    torch.testing.assert_close(truth.invariant[data.index[:, 0]], truth.invariant[data.index[:, 1]])
    assert (truth.responsive[data.index[:, 0]] != truth.responsive[data.index[:, 1]]).all()
    assert (truth.mechanisms is None) == (spec.process.kind == "native")


def test_a_second_call_opens_what_the_first_built(rendered, cache, monkeypatch):
    spec, data = rendered

    def never(*arguments):
        raise AssertionError("rendered twice")

    monkeypatch.setattr(dataset, "_render", never)
    again = load(spec, cache)
    torch.testing.assert_close(again.frames, data.frames)
    torch.testing.assert_close(again.index, data.index)
    torch.testing.assert_close(again.truth.responsive, data.truth.responsive)
    assert again.fingerprint == data.fingerprint == fingerprint(spec)
    assert {path.name for path in cache.iterdir() if not path.name.endswith(".lock")} >= {
        f"causal3dident-{data.fingerprint}"
    }


def test_frames_may_be_written_to_without_harm_to_the_cache(rendered, cache):
    spec, data = rendered
    before = data.frames[0].clone()
    data.frames[0] = 0
    torch.testing.assert_close(load(spec, cache).frames[0], before)
    data.frames[0] = before


def test_truth_of_the_linear_process_is_not_squashed(cache):
    spec = rendered_spec(**LINEAR, cells=120)
    design = dataset.make_design(spec, spec.responsive)
    sample = dataset.sample_process(spec.process, design, spec.seed)
    data = load(spec, cache)
    torch.testing.assert_close(data.truth.responsive[data.index], sample.responsive, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(data.truth.invariant[data.index[:, 1]], sample.invariant, atol=1e-4, rtol=1e-4)


def test_the_squash_rises_is_bounded_and_can_be_undone():
    latents = np.random.default_rng(0).normal([3, -1], [0.1, 20], (500, 2))
    squash = Squash.fitted(latents, 2.0)
    values = squash.to_image(latents)
    assert np.abs(values).max() < 1
    assert np.abs(values.mean(axis=0)).max() < 0.1
    for k in range(2):
        assert (np.diff(values[np.argsort(latents[:, k]), k]) > 0).all()
    np.testing.assert_allclose(squash.from_image(values), latents, rtol=1e-9)
    assert np.isfinite(squash.from_image(np.array([[-1.0, 1.0]]))).all()
    assert np.isfinite(Squash.fitted(np.ones((5, 2)), 2.0).to_image(np.ones((5, 2)))).all()


def test_nothing_half_built_is_left_when_rendering_fails(tmp_path, monkeypatch):
    pytest.importorskip("mitsuba")

    def fail(*arguments, **named):
        raise OSError("disk full")

    monkeypatch.setattr(dataset, "_write", fail)
    spec = rendered_spec()
    with pytest.raises(OSError, match="disk full"):
        load(spec, tmp_path)
    assert not (tmp_path / f"causal3dident-{fingerprint(spec)}").exists()
    monkeypatch.undo()
    assert len(load(spec, tmp_path).frames) == 260


def test_the_fingerprint_follows_pixels_and_meshes_and_not_places(tmp_path):
    pytest.importorskip("mitsuba")
    spec = rendered_spec()
    assert renderer_variant(spec)["shapes"] == "own"
    assert fingerprint(spec) == fingerprint(spec.model_copy(update={"cache_dir": str(tmp_path)}))
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
        (folder / "teapot.obj").write_text("v 0 0 0\n")
    first, second = (spec.model_copy(update={"meshes": str(folder)}) for folder in folders)
    assert fingerprint(first) == fingerprint(second) != fingerprint(spec)
    (folders[1] / "teapot.obj").write_text("v 0 0 1\n")
    assert fingerprint(first) != fingerprint(second)


def test_a_folder_of_meshes_is_rendered(tmp_path):
    pytest.importorskip("mitsuba")
    corners = "".join(f"v {x} {y} {z}\n" for x, y, z in ((0, 0, 0), (1, 0, 0), (0, 2, 0), (0, 0, 3)))
    (tmp_path / "teapot.obj").write_text(corners + "f 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n")
    ours, theirs = (load(rendered_spec(meshes=meshes, image_size=16), tmp_path) for meshes in (None, str(tmp_path)))
    torch.testing.assert_close(ours.truth.responsive, theirs.truth.responsive)
    assert (ours.frames != theirs.frames).any()


# ------------------------------------------------------------------------------------------ release


def write_release(root, count):
    random = np.random.default_rng(3)
    for number, which in enumerate(("trainset", "testset")):
        folder = root / which / "images_1"
        folder.mkdir(parents=True)
        latents = random.uniform(-1, 1, (count, 10))
        np.save(root / which / "raw_latents_1.npy", latents)
        for row in range(count):
            pixels = np.full((8, 8, 3), (number, row // 256, row % 256), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{row:0{len(str(count - 1))}d}.png")
    return root


@pytest.fixture(scope="module", params=["native", "linear_gaussian"])
def served(request, tmp_path_factory):
    root = write_release(tmp_path_factory.mktemp("release"), 400)
    spec = Causal3DIdentData(
        **{**SMALL, **(LINEAR if request.param == "linear_gaussian" else {})},
        path=str(root),
        classes=(1,),
        image_size=8,
    )
    return spec, root, load(spec, tmp_path_factory.mktemp("cache"))


def test_each_stored_image_is_one_frame_and_its_latents_are_the_truth(served):
    spec, root, data = served
    stored = {which: np.load(root / which / "raw_latents_1.npy") for which in ("trainset", "testset")}
    seen = set()
    for frame in range(len(data.frames)):
        number, high, low = data.frames[frame, :, 0, 0].tolist()
        seen.add((number, high, low))
        latents = stored[("trainset", "testset")[number]][256 * high + low]
        if spec.process.kind == "native":
            np.testing.assert_allclose(data.truth.responsive[frame], latents[[0, 1, 2, 3, 4, 5, 7]], atol=1e-6)
            np.testing.assert_allclose(data.truth.invariant[frame], latents[[6, 8, 9]], atol=1e-6)
    assert len(seen) == len(data.frames) == data.quality["images_served"]
    assert 0 < data.quality["served_distance_mean"] < data.quality["served_distance_max"]
    assert data.quality["pair_invariant_rmse"] > 0


def test_no_image_of_the_training_split_serves_another(served):
    _, _, data = served
    frames = {name: set(data.index[rows].flatten().tolist()) for name, rows in data.splits.items()}
    assert not frames["train"] & (frames["validation"] | frames["test"] | frames["double"])
    assert not frames["validation"] & (frames["test"] | frames["double"])
    sets = {name: {int(data.frames[frame, 0, 0, 0]) for frame in members} for name, members in frames.items()}
    assert sets == {"train": {0}, "validation": {0}, "test": {1}, "double": {1}}


def test_a_linear_truth_served_rises_with_the_stored_latent(served):
    spec, root, data = served
    if spec.process.kind == "native":
        pytest.skip("native truth is the stored latent itself")
    stored = np.load(root / "trainset" / "raw_latents_1.npy")[:, 0]
    rows = [frame for frame in range(len(data.frames)) if data.frames[frame, 0, 0, 0] == 0]
    latent = [stored[256 * int(data.frames[f, 1, 0, 0]) + int(data.frames[f, 2, 0, 0])] for f in rows]
    order = np.argsort(latent)
    assert (np.diff(data.truth.responsive[rows, 0].numpy()[order]) > 0).all()


def test_a_larger_release_serves_nearer_images(tmp_path):
    distances = []
    for count in (50, 900):
        root = write_release(tmp_path / str(count), count)
        spec = Causal3DIdentData(**SMALL, path=str(root), classes=(1,), image_size=8)
        distances.append(load(spec, tmp_path / "cache").quality["served_distance_mean"])
    assert distances[1] < 0.8 * distances[0]


def test_frames_of_a_trajectory_are_served_about_the_invariant_latents_of_its_first(tmp_path):
    root = write_release(tmp_path / "release", 900)
    process = LinearGaussianSpec(responsive=2, invariant=2, steps=3, lagged="diagonal")
    spec = Causal3DIdentData(**SMALL, **{**LINEAR, "process": process}, path=str(root), classes=(1,), image_size=8)
    data = load(spec, tmp_path / "cache")
    assert data.index.shape == (60 + 50 + 2 * 10, 4)
    truth = data.truth.invariant[data.index]
    apart = truth[:, [0, 2, 3]] - truth[:, 1:2]
    spread = truth[:, 1].std(0)
    for time in range(3):
        assert (apart[:, time].square().mean(0).sqrt() < spread).all()  # of independent draws it is √2 of it
    assert data.truth.classes.tolist() == [1] * len(data.frames)


def test_a_release_without_the_class_is_refused_and_nothing_is_written(served, tmp_path):
    spec, _, _ = served
    with pytest.raises(UserError, match=r"raw_latents_0\.npy: not there"):
        load(spec.model_copy(update={"classes": (0, 1)}), tmp_path)
    assert os.listdir(tmp_path) == []


def test_scene_latents_are_the_default_invariant():
    assert rendered_spec().invariant == SCENE_LATENTS
