"""Rows served by a release: how near, how often, how many, and what is said of it."""

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from harness.condition_scoring import conditions_of_truth
from harness.data import load
from harness.data.causal3dident import serving
from harness.data.causal3dident.release import make_pools
from harness.data.causal3dident.row_limits import as_served, lowered_words
from harness.data.causal3dident.scene import COLUMNS
from harness.data_spec import Causal3DIdentData, SimulationData
from harness.errors import UserError
from harness.helps import helps_of
from harness.study.data_stage import check_files
from harness.study.dry_run import dry_run
from harness.study.load import load_study
from harness.study.plan import plan
from harness.training.pairing import Pairing
from harness.trial_model import described_model

ROWS = {"environments": 4, "doubles": 2, "cells": 60, "test_cells": 50, "double_cells": 10, "validation": 0.2}
STUDY = """\
name: served
models: [{kind: perturbed_vae, latent_dim: 4, responsive_dim: 2, mechanisms: free, hidden: 4}]
data: {kind: causal3dident, path: PATH, environments: 4, doubles: 2, image_size: 8}
train: {epochs: 1, second_stage: {restarts: 1, steps: 2}}
evaluate: {rotation_steps: 2, cells: 10}
compute: {cluster: inline}
"""


def write_release(root, sizes, seed=0):
    """A release of plain images; ``sizes``: class -> images of the training and of the test set."""
    random = np.random.default_rng(seed)
    for class_id, counts in sizes.items():
        for which, count in zip(("trainset", "testset"), counts, strict=True):
            folder = root / which / f"images_{class_id}"
            folder.mkdir(parents=True)
            np.save(root / which / f"raw_latents_{class_id}.npy", random.uniform(-1, 1, (count, 10)))
            for row in range(count):
                shade = tuple(random.integers(0, 256, 3).tolist())
                Image.new("RGB", (8, 8), shade).save(folder / f"{row:0{len(str(count - 1))}d}.png")
    return root


def of_release(root, **changes):
    return Causal3DIdentData(**{**ROWS, "path": str(root), "image_size": 8, **changes})


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return write_release(tmp_path_factory.mktemp("release"), {0: (120, 60)})


@pytest.fixture(scope="module")
def data(release, tmp_path_factory):
    return load(of_release(release), tmp_path_factory.mktemp("cache"))


def numbers_in(sentence):
    return [float(number.replace(",", "")) for number in re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?", sentence)]


# --------------------------------------------------------------------------------------- how near


def test_the_distance_is_that_between_what_was_asked_for_and_what_stands_there(release):
    spec = of_release(release)
    pools = make_pools(release, spec.classes, spec.validation, np.random.default_rng(0))
    wanted = np.random.default_rng(1).uniform(-1, 1, (20, 3, 10))
    served = serving.serve_rows(
        pools, {"train": np.arange(12), "test": np.arange(12, 20)}, np.zeros(20, int), wanted, spec.responsive
    )
    held = [COLUMNS.index(name) for name in COLUMNS if name not in spec.responsive]
    for row in range(20):
        for time in range(3):
            asked = wanted[row, time].copy()
            if time != 1:
                asked[held] = served.scenes[row, 1, held]
            assert served.distances[row, time] == pytest.approx(np.linalg.norm(asked - served.scenes[row, time]))


def test_every_environment_says_how_near_its_images_and_its_controls_are(data):
    truth, index = data.truth.invariant.double(), data.index
    apart = (truth[index[:, 0]] - truth[index[:, 1]]).square()
    assert data.quality["pair_invariant_rmse"] == pytest.approx(apart.mean().sqrt().item())
    for number, name in enumerate(data.conditions):
        here = data.condition == number
        safe = name.replace("+", "-")
        assert data.quality[f"pair_invariant_rmse/{safe}"] == pytest.approx(apart[here].mean().sqrt().item(), rel=1e-5)
        assert 0 < data.quality[f"served_distance/{safe}"] < data.quality["served_distance_max"]
        assert 0 < data.quality[f"control_distance/{safe}"] < data.quality["served_distance_max"]
    assert len([name for name in data.conditions if "+" in name]) == 2


def test_distances_of_environments_average_to_those_of_all(data):
    rows = np.bincount(data.condition.numpy())
    safe = [name.replace("+", "-") for name in data.conditions]
    cells, controls = (
        np.average([data.quality[f"{kind}_distance/{name}"] for name in safe], weights=rows)
        for kind in ("served", "control")
    )
    assert (cells + controls) / 2 == pytest.approx(data.quality["served_distance_mean"])


def test_names_of_what_was_measured_are_those_that_mlflow_takes(data):
    from mlflow.utils.validation import _validate_metric_name

    for name, value in data.quality.items():
        _validate_metric_name(name)
        assert np.isfinite(value)


def test_what_it_comes_to_is_said_in_sentences(data):
    near, pairs = data.notes[:2]
    quality = data.quality
    images, frames, rows = (int(quality[f"{what}_served"]) for what in ("images", "frames", "rows"))
    assert f"{images} distinct images serve {frames} frames of {rows} rows" in near
    assert (frames, rows) == (260, 130)
    assert f"differ by {quality['pair_invariant_rmse']:.2g} (root mean square)" in pairs
    assert f"an unrelated image {quality['pair_invariant_rmse_unrelated']:.2g}" in pairs
    # of latents drawn evenly from [-1, 1] two differ by the root of two thirds
    assert quality["pair_invariant_rmse_unrelated"] == pytest.approx((2 / 3) ** 0.5, rel=0.1)


def test_an_image_that_stands_beside_itself_is_counted(data):
    alone = int((data.index[:, 0] == data.index[:, 1]).sum())
    assert data.quality["rows_beside_themselves"] == alone > 0
    assert f"{alone} of 130 rows have the cell's own image as control" in data.notes[1]


# ------------------------------------------------------------------------------------- how often


def test_an_image_that_serves_more_than_a_few_frames_is_pointed_out(data):
    uses = np.bincount(data.index.flatten().numpy())
    often = int((uses > serving.FEW).sum())
    assert data.quality["images_used_often"] == often > 0
    assert data.quality["image_most_frames"] == uses.max()
    assert f"the image used most serves {uses.max()} frames, and {often} of {len(uses)} images" in data.notes[2]


def test_images_that_serve_few_frames_are_not(tmp_path):
    served = load(of_release(write_release(tmp_path / "release", {0: (4000, 3000)})), tmp_path / "cache")
    assert served.quality["image_most_frames"] <= serving.FEW
    assert not [note for note in served.notes if "used most" in note]
    assert len(served.notes) == 2


# ---------------------------------------------------------------------------- pairs are not true


def test_pairs_of_a_release_are_nearest_unless_asked_otherwise(release, data):
    assert of_release(release).pairs == data.pairs == "nearest"
    assert of_release(release, pairs="random").pairs == "random"
    assert Causal3DIdentData(**ROWS).pairs == "true"


@pytest.mark.parametrize("pairs", [True, "true"])
def test_nobody_can_call_pairs_of_a_release_true(release, pairs):
    with pytest.raises(ValidationError, match=r"pairs: true is not possible with the images of a release.*leave pairs"):
        of_release(release, pairs=pairs)


def test_only_a_release_has_nearest_pairs():
    with pytest.raises(ValidationError, match=r"pairs: nearest is for the images of a release.*use pairs: true"):
        Causal3DIdentData(**ROWS, pairs="nearest")
    with pytest.raises(ValidationError, match="pairs"):
        SimulationData(preset="tiny", pairs="nearest")


def test_auto_takes_nearest_pairs_as_they_are(data):
    pairing = Pairing(data, "auto", 0)
    assert pairing.kind == "nearest"
    assert pairing.index("train", 2).equal(data.index[data.splits["train"]])


def test_nearest_pairs_are_refused_as_true_ones(data):
    with pytest.raises(UserError, match=r"pairing: true needs data with true pairs.*use auto"):
        Pairing(data, "true", 0)


@pytest.mark.parametrize("kind", ["random", "ot"])
def test_other_controls_can_be_drawn(data, kind):
    controls = set(data.index[data.control_rows("train"), -1].tolist())
    assert set(Pairing(data, kind, 0).index("train", 1)[:, 0].tolist()) <= controls


def test_models_do_not_take_nearest_pairs_for_true_ones(release, tmp_path):
    trial = plan(study_of(tmp_path, release)).trials[0]
    data = load(trial.spec.data, tmp_path / "cache")
    assert described_model(trial.spec, data, Pairing(data, "auto", 0).kind).alignment_kind == "mmd"
    assert not [help for help in helps_of(trial.spec, selected=False) if help.word == "pairs"]
    twins = trial.spec.model_copy(update={"data": Causal3DIdentData(**ROWS)})
    assert [help for help in helps_of(twins, selected=False) if help.word == "pairs"]


def test_nearest_pairs_do_not_meet_the_theorems_condition(data):
    verdict = conditions_of_truth(data, 0)["alignment"]
    assert (verdict.holds, verdict.margin) == (False, 0.0)
    assert "no true pairs" in verdict.reason
    assert "no true pairs" not in conditions_of_truth(replace(data, pairs="true"), 0)["alignment"].reason


def test_random_controls_of_a_release_are_not_called_nearest(release, tmp_path):
    data = load(of_release(release, pairs="random"), tmp_path)
    assert data.pairs == "random"
    assert not [note for note in data.notes if "pairs are nearest" in note]
    assert "nearest stored image" in data.notes[0]


def study_of(tmp_path, root, changes=()):
    path = tmp_path / "served.yaml"
    path.write_text(STUDY.replace("PATH", str(root)))
    return load_study(path, list(changes))


def test_a_study_that_takes_them_for_true_is_refused_before_it_runs(release, tmp_path):
    with pytest.raises(UserError, match=r"pairing is true, but no image of a release has a true twin.*use auto"):
        study_of(tmp_path, release, ["models.0.pairing=true"])
    for allowed in ("auto", "random", "ot"):
        plan(study_of(tmp_path, release, [f"models.0.pairing={allowed}"]))


def test_trajectories_of_a_release_keep_their_first_frame(release, tmp_path):
    over_time = {"kind": "linear_gaussian", "responsive": 2, "invariant": 1, "steps": 2, "lagged": "diagonal"}
    fields = {"responsive": ("x", "y"), "invariant": ("hue_background",), "process": over_time}
    data = load(of_release(release, **fields), tmp_path)
    assert (data.pairs, data.index.shape) == ("nearest", (130, 3))
    pairing = Pairing(data, "auto", 0)
    assert pairing.kind == "drawn"  # one image follows another, but not of one cell
    assert pairing.index("train", 0).equal(data.index[data.splits["train"]])
    with pytest.raises(UserError, match="break the trajectories of these data; use pairing: auto"):
        Pairing(data, "random", 0)
    with pytest.raises(ValidationError, match="leave pairs out"):
        of_release(release, **fields, pairs="random")


# ------------------------------------------------------------------------------------- how many


def test_no_split_draws_more_rows_than_it_has_images(tmp_path):
    release = write_release(tmp_path / "release", {0: (100, 40)})
    asked = of_release(release, cells=5000, test_cells=1000, double_cells=200)
    data = load(asked, tmp_path / "cache")
    assert {name: len(rows) for name, rows in data.splits.items()} == {
        "train": 80,
        "validation": 20,
        "test": 40,
        "double": 40,
    }
    lowered = data.notes[0]
    assert numbers_in(lowered) == [100, 5000, 40, 1000, 20, 200]
    assert "data.cells is 100 instead of 5,000, data.test_cells is 40 instead of 1,000" in lowered
    assert str(tmp_path) not in lowered  # the cache serves the release wherever it lies


@pytest.mark.parametrize(
    ("sizes", "classes", "cells"),
    [
        ({0: (100, 90), 4: (100, 90)}, (0, 4), 200),
        ({0: (100, 90), 4: (40, 90)}, (0, 4), 80),
        ({0: (100, 90), 4: (40, 90)}, (0,), 100),
        ({0: (100, 90), 4: (40, 90)}, (4, 0, 0), 120),
    ],
)
def test_the_smallest_class_bounds_the_rows(tmp_path, sizes, classes, cells):
    release = write_release(tmp_path, sizes)
    assert as_served(of_release(release, classes=classes, cells=5000)).cells == cells


def test_rows_that_are_there_are_drawn_as_asked(release):
    spec = of_release(release)
    assert as_served(spec) == spec
    assert lowered_words(spec, as_served(spec)) is None
    assert as_served(of_release(release, cells=120)).cells == 120


def test_the_rows_drawn_of_a_lowered_spec_are_those_of_the_lowered_numbers(release, tmp_path):
    many, few = (load(of_release(release, cells=cells), tmp_path) for cells in (1000, 120))
    assert many.index.equal(few.index)
    assert many.fingerprint != few.fingerprint
    assert len(many.notes) == len(few.notes) + 1


@pytest.mark.parametrize(
    ("changes", "words", "remedy"),
    [
        ({"environments": 70}, r"testset: has images for 60 rows, fewer than 2 for each of the 71", "environments=29"),
        ({"environments": 70, "test_cells": 60}, r"trainset: has images for 120 rows, fewer", "environments=59"),
        ({"doubles": 16}, r"testset: has images for 60 rows, too few for 16 doubles of 4 cells", "doubles=15"),
    ],
)
def test_a_release_that_shows_too_little_is_refused_and_the_remedy_works(release, changes, words, remedy):
    spec = of_release(release, **{"cells": 5000, "test_cells": 1000, **changes})
    with pytest.raises(UserError, match=rf"{words}.*set data\.{remedy}"):
        as_served(spec)
    name, value = remedy.split("=")
    as_served(spec.model_copy(update={name: int(value)}))


def test_a_launch_that_cannot_be_served_is_refused_before_anything_is_written(release, tmp_path):
    study = study_of(tmp_path, release, ["data.environments=70"])
    with pytest.raises(UserError, match="fewer than 2 for each of the 71 conditions"):
        check_files(plan(study).trials, tmp_path / "cache")
    with pytest.raises(UserError, match="fewer than 2 for each of the 71 conditions"):
        dry_run(study, tmp_path / "root")
    assert not (tmp_path / "cache").exists()


def test_a_dry_run_says_what_is_lowered_and_costs_no_more_rows_than_are_drawn(release, tmp_path, capsys):
    asked = ["data.cells=120000", "data.test_cells=60"]
    study = study_of(tmp_path, release, asked)
    said = dry_run(study, tmp_path / "root")
    printed = capsys.readouterr().out
    assert "note: the release in data.path has fewer images" in printed
    assert "data.cells is 120 instead of 120,000" in printed
    assert "building them comes on top" in str(said)
    assert said.seconds < 600  # of 120,000 rows, hours


def test_every_trial_repeats_what_is_to_be_known_of_its_data(release, tmp_path):
    from harness.trial import run_trial

    trial = plan(study_of(tmp_path, release, ["data.cells=5000", "seeds=1"])).trials[0]
    result = run_trial(trial.spec, tmp_path / trial.trial_id, cache_dir=tmp_path / "cache")
    assert result.state == "finished", result.failure
    data = load(trial.spec.data, tmp_path / "cache")
    assert len(data.notes) == 4
    assert [warning for warning in result.warnings if warning in data.notes] == list(data.notes)
    assert result.data["quality"] == data.quality


# ------------------------------------------------------------------------------- between the sets


def test_an_image_of_both_sets_is_refused_by_name(tmp_path):
    release = write_release(tmp_path / "release", {0: (30, 60)})
    path = release / "testset" / "raw_latents_0.npy"
    latents = np.load(path)
    latents[7] = np.load(release / "trainset" / "raw_latents_0.npy")[3]
    np.save(path, latents)
    with pytest.raises(UserError, match=r"testset/raw_latents_0.npy: row 7 is row 3 of trainset/raw_latents_0.npy"):
        load(of_release(release), tmp_path / "cache")


def test_a_test_set_that_is_the_training_set_is_refused(tmp_path):
    release = write_release(tmp_path / "release", {0: (60, 60)})
    for part in ("raw_latents_0.npy", "images_0"):
        (release / "testset" / part).rename(tmp_path / f"put_aside_{part}")
        (release / "testset" / part).symlink_to(release / "trainset" / part)
    with pytest.raises(UserError, match="one image would train and test"):
        load(of_release(release), tmp_path / "cache")
