"""Temporal images end to end: drawn by us or read from a release, as `PerturbationData`; and linear dynamics."""

import itertools

import numpy as np
import pytest
import torch

from harness.data import load
from harness.data.causal3dident import temporal
from harness.data.causal3dident.citris import CLASS_OF_SHAPE, COLUMNS, Dynamics, simulate
from harness.data.fingerprint import fingerprint
from harness.data.latent_process import make_design, sample_process
from harness.data_spec import Causal3DIdentData, TemporalCausal3DIdentData
from harness.errors import UserError
from harness.process_spec import LinearGaussianSpec

SMALL = {"cells": 60, "test_cells": 50, "double_cells": 10, "doubles": 2, "validation": 0.2}
PIXELS = {"image_size": 8, "samples": 1}
LINEAR = {
    "responsive": ("x", "hue_object"),
    "invariant": ("spotlight", "hue_background"),
    "environments": 4,
    "process": LinearGaussianSpec(responsive=2, invariant=2, steps=3, lagged="dense", held_out_steps=1),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def drawn(cache):
    pytest.importorskip("mitsuba")
    spec = TemporalCausal3DIdentData(**SMALL, **PIXELS, classes=(0, 5), invariant=("hue_background",))
    return spec, load(spec, cache)


def check_splits(data):
    frames = {name: set(data.index[rows].flatten().tolist()) for name, rows in data.splits.items()}
    for name, other in itertools.combinations(frames, 2):
        if {name, other} != {"test", "double"}:
            assert not frames[name] & frames[other]
    for row, which in enumerate(data.condition.tolist()):
        members = {data.perturbations[k] for k in torch.nonzero(data.u[row]).flatten().tolist()}
        assert members == (set() if which == 0 else set(data.conditions[which].split("+")))
    doubles = data.condition[data.splits["double"]].unique().tolist()
    assert doubles == list(range(len(data.perturbations) + 1, len(data.conditions)))


# ------------------------------------------------------------------------------------ CITRIS, drawn


def test_rows_are_transitions_with_their_truth(drawn):
    spec, data = drawn
    assert data.frames.shape[1:] == (3, 8, 8)
    assert data.frames.dtype == torch.uint8
    assert data.index.shape == (60 + 50 + 20, 2)
    assert data.pairs == "true"
    assert data.perturbations == (*spec.responsive, "shape")
    check_splits(data)
    truth = data.truth
    assert truth.responsive_names == spec.responsive
    assert truth.responsive.shape == (len(data.frames), 8)
    assert set(truth.periodic) == {*spec.responsive, "hue_background"} - {"x", "y", "z"}
    assert truth.mechanisms is None
    torch.testing.assert_close(truth.invariant[data.index[:, 0]], truth.invariant[data.index[:, 1]])
    assert truth.classes.dtype == torch.int64
    assert set(truth.classes.tolist()) == {0, 5}
    torch.testing.assert_close(data.targets, torch.cat([torch.eye(8), torch.zeros(1, 8)]).bool())


def test_what_is_not_hit_moves_by_steps(drawn):
    spec, data = drawn
    for name in ("x", "y", "z"):
        column = spec.responsive.index(name)
        moved = (
            data.truth.responsive[data.index[:, 1], column] - data.truth.responsive[data.index[:, 0], column]
        ).abs()
        assert moved[data.u[:, column] == 0].max() < (2 + 1.5) / 2 + 6 * 0.1


def test_a_frame_shows_its_latents(drawn):
    """Redrawn alone, from its truth, a frame has the same pixels."""
    from harness.data.causal3dident.citris import SHAPE_OF_CLASS, to_scene
    from harness.data.causal3dident.meshes import meshes_of
    from harness.data.causal3dident.renderer import Renderer
    from harness.data.seeding import derive

    spec, data = drawn
    raw = np.zeros((1, 12))
    names = (*spec.responsive, *spec.invariant)
    frame = 7
    values = torch.cat([data.truth.responsive, data.truth.invariant], dim=1)[frame].double().numpy()
    raw[0, [COLUMNS.index(name) for name in names]] = values
    which = int(data.truth.classes[frame])
    raw[0, COLUMNS.index("shape")] = SHAPE_OF_CLASS[which]
    again = Renderer(meshes_of(None, (which,))[which], 8, 1).render(
        to_scene(raw)[0], derive(0, "pixels", frame) % 2**32
    )
    apart = np.abs(again.astype(int) - data.frames[frame].numpy().astype(int))
    assert (apart <= 2).mean() > 0.9  # the truth is kept in single precision


def test_a_second_call_opens_what_the_first_built(drawn, cache, monkeypatch):
    spec, data = drawn

    def never(*arguments):
        raise AssertionError("built twice")

    monkeypatch.setattr(temporal, "_write", never)
    again = load(spec, cache)
    torch.testing.assert_close(again.frames, data.frames)
    torch.testing.assert_close(again.u, data.u)
    torch.testing.assert_close(again.truth.responsive, data.truth.responsive)
    assert again.excluded == data.excluded
    assert again.excluded.keys() == {"two at once", "three or more at once"}
    assert (cache / f"temporal_causal3dident-{fingerprint(spec)}").is_dir()


# --------------------------------------------------------------------------------- CITRIS, released


def write_release(root, frames=1500, size=8, **layout):
    """A sequence in the release's layout, whose pixels say which frame they are."""
    dynamics = Dynamics(**layout)
    made = simulate(dynamics, 1, frames, np.random.default_rng(3))
    images = np.zeros((frames, size, size, 4), dtype=np.uint8)
    images[:, :, :, 0], images[:, :, :, 1] = (np.arange(frames) // 256)[:, None, None], 128
    images[:, :, :, 2] = (np.arange(frames) % 256)[:, None, None]
    root.mkdir(exist_ok=True)
    np.savez_compressed(
        root / "train.npz",
        imgs=images,
        interventions=made.interventions[0].astype(np.uint8),
        raw_latents=made.latents[0, :, :10].astype(np.float32),
        shape_latents=made.latents[0, :, 10:].astype(np.uint8),
    )
    return made


def test_a_release_is_read_frame_by_frame(tmp_path):
    made = write_release(tmp_path / "release", shapes=(0, 2), grouped=True)
    spec = TemporalCausal3DIdentData(
        **SMALL,
        path=str(tmp_path / "release"),
        image_size=8,
        classes=tuple(CLASS_OF_SHAPE[[0, 2]].tolist()),
        process={"kind": "citris", "grouped": True},
    )
    data = load(spec, tmp_path / "cache")
    check_splits(data)
    place = 256 * data.frames[:, 0, 0, 0].long() + data.frames[:, 2, 0, 0]
    assert (data.frames[:, 1] == 128).all()
    assert (place.diff() > 0).all()
    columns = [COLUMNS.index(name) for name in spec.responsive]
    expected = torch.from_numpy(made.latents[0][place][:, columns]).float()
    torch.testing.assert_close(data.truth.responsive, expected, atol=1e-5, rtol=1e-5)
    assert data.truth.invariant.shape == (len(place), 0)
    torch.testing.assert_close(place[data.index[:, 1]], place[data.index[:, 0]] + 1)
    hit = made.interventions[0][place[data.index[:, 0]]]
    first = [COLUMNS.index(name) for name in ("x", "phi", "spotlight", "hue_object", "hue_spotlight", "hue_background")]
    torch.testing.assert_close(data.u[:, :6], torch.from_numpy(hit[:, first]).float())
    torch.testing.assert_close(data.u[:, 6], torch.from_numpy(hit[:, COLUMNS.index("shape")]).float())
    assert data.targets[:2].tolist() == [[True] * 3 + [False] * 6, [False] * 3 + [True] * 2 + [False] * 4]
    assert not data.targets[6].any()


def test_released_images_are_resized(tmp_path):
    write_release(tmp_path, size=16)
    sizes = {}
    for size in (8, 16, 32):
        spec = TemporalCausal3DIdentData(**SMALL, path=str(tmp_path), image_size=size)
        sizes[size] = load(spec, tmp_path / "cache").frames
        assert sizes[size].shape[2:] == (size, size)
    torch.testing.assert_close(sizes[8][:, :, 0, 0], sizes[16][:, :, 0, 0])


def test_a_release_that_is_not_there_is_refused_before_anything_is_written(tmp_path):
    spec = TemporalCausal3DIdentData(**SMALL, path=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"train\.npz: there is no such file"):
        load(spec, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


# --------------------------------------------------------------------------------- linear dynamics


@pytest.mark.parametrize("kind", [Causal3DIdentData, TemporalCausal3DIdentData])
def test_linear_dynamics_are_drawn_frame_by_frame(kind, cache):
    pytest.importorskip("mitsuba")
    spec = kind(**SMALL, **PIXELS, **LINEAR)
    data = load(spec, cache)
    sample = sample_process(spec.process, make_design(spec, spec.responsive), spec.seed)
    assert data.index.shape == (60 + 50 + 2 * 10, 4)
    torch.testing.assert_close(data.truth.responsive[data.index], sample.responsive, atol=1e-4, rtol=1e-4)
    for time in range(4):
        torch.testing.assert_close(data.truth.invariant[data.index[:, time]], sample.invariant, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(data.truth.mechanisms.lagged, sample.mechanisms.lagged)
    assert sample.mechanisms.lagged[0].abs().min() > 0
    assert data.seen == 3
    assert data.ood == ("double", "later")
    assert set(data.splits["later"].tolist()) < set(data.splits["test"].tolist())
    assert data.truth.classes.tolist() == [0] * len(data.frames)
