"""``harness data``: help that teaches, one sentence for what is wrong, and releases that a study can use."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness import cli, data_verbs
from harness.data import load
from harness.data.causal3dident.release import read_class, read_image
from harness.data.causal3dident.temporal_release import read_sequences
from harness.study.load import load_study
from harness.study.plan import plan

SMALL = ["--size", "8", "--samples", "1", "--classes", "0"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "--help"],
        ["data", "make", "--help"],
        ["data", "make", "causal3dident", "--help"],
        ["data", "make", "temporal_causal3dident", "--help"],
        ["data", "sheet", "--help"],
        ["data", "inspect", "--help"],
    ],
)
def test_help_teaches_by_example_and_is_light(arguments):
    code = (
        "import sys, harness.cli\n"
        f"try: harness.cli.main({arguments!r})\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'matplotlib', 'mitsuba', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "examples:\n  harness data " in done.stdout


@pytest.mark.parametrize("arguments", [["data"], ["data", "make"]])
def test_without_a_command_its_help_is_shown(arguments, capsys):
    assert cli.main(arguments) == 2
    assert f"usage: harness {' '.join(arguments)}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "4"], "--size: 4 is not between 8 and 1,024"),
        (["--images", "1"], "--images: 1 is not at least 2"),
        (["--classes", "7"], "--classes: invalid choice: 7"),
        (["--samples", "many"], "--samples: invalid number value: 'many'"),
    ],
)
@pytest.mark.parametrize("layout", ["causal3dident", "temporal_causal3dident"])
def test_numbers_out_of_range_are_refused(tmp_path, capsys, layout, arguments, words):
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "make", layout, "--out", str(tmp_path / "out"), *arguments])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mesh-up", "y"], "--mesh-up turns the meshes of a folder"),
        (["--meshes", ".", "--mesh-up", "up"], "--mesh-up up: is no axis"),
        (["--meshes", ".", "--mesh-up", "cow=y", "cat=y"], "--mesh-up cat=y: is no axis"),
        (["--meshes", "missing"], "missing: no such folder"),
    ],
)
def test_meshes_that_are_not_there_are_one_sentence(tmp_path, monkeypatch, capsys, arguments, words):
    pytest.importorskip("mitsuba")
    monkeypatch.chdir(tmp_path)
    for command in (["make", "causal3dident", "--out", "out"], ["sheet", "--out", "sheet.png"]):
        assert cli.main(["data", *command, *arguments]) == 2
        said = capsys.readouterr().err
        assert said.startswith("harness: ")
        assert words in said
        assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_static_release_is_made_and_shown_how_to_use(tmp_path, capsys):
    pytest.importorskip("mitsuba")
    out = tmp_path / "my images"
    command = ["data", "make", "causal3dident", "--out", str(out), "--images", "3", "--test-images", "2", *SMALL]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert f"harness launch studies/causal3dident.yaml --set 'data.path={out}' --set 'data.classes=[0]'" in said
    assert len(read_class(out, "trainset", 0).latents) == 3
    assert cli.main(command) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_release_is_made_of_the_users_meshes(tmp_path):
    pytest.importorskip("mitsuba")
    meshes = os.environ.get("HARNESS_MESHES")
    if meshes is None:
        pytest.skip("HARNESS_MESHES names no folder of meshes")
    pictures = []
    for name, more in (
        ("ours", []),
        ("theirs", ["--meshes", meshes]),
        ("turned", ["--meshes", meshes, "--mesh-up=-y"]),
    ):
        out = tmp_path / name
        command = ["data", "make", "causal3dident", "--out", str(out), "--images", "2", "--test-images", "1"]
        assert cli.main([*command, *SMALL, *more]) == 0
        pictures.append(read_image(out / "trainset" / "images_0" / "0.png", 8).tobytes())
    assert len(set(pictures)) == 3


def test_a_temporal_release_is_made_and_shown_how_to_use(tmp_path, capsys):
    pytest.importorskip("mitsuba")
    out = tmp_path / "out"
    sizes = ["--images", "5", "--test-images", "2", "--triplets", "2", "--coarse", "--raw-columns", "10"]
    assert cli.main(["data", "make", "temporal_causal3dident", "--out", str(out), *sizes, *SMALL]) == 0
    assert f"made {out}, too short for studies/temporal_causal3dident.yaml" in capsys.readouterr().out
    assert read_sequences(out, "train", None).images.shape == (5, 3, 8, 8)
    with np.load(out / "train.npz", allow_pickle=False) as content:
        assert content["raw_latents"].shape == (5, 10)


@pytest.mark.parametrize("more", [[], ["--coarse", "--classes", "0", "1"]])
def test_the_line_printed_for_a_temporal_release_makes_its_study_fit(tmp_path, capsys, more):
    pytest.importorskip("mitsuba")
    made = ["data", "make", "temporal_causal3dident", "--out", str(tmp_path / "out"), "--images", "200"]
    assert cli.main([*made, "--test-images", "2", *SMALL, *more]) == 0
    line = capsys.readouterr().out.splitlines()[-1].removeprefix("use it: harness launch ")
    study, *changes = [word for word in shlex.split(line) if word != "--set"]
    planned = plan(load_study(Path(__file__).parent.parent / study, [*changes, "compute.cluster=inline"]))
    data = load(planned.trials[0].spec.data, tmp_path / "cache")
    assert (data.pairs, data.perturbations[-1]) == ("true", "shape" if more else "hue_background")
    assert len(data.splits["train"]) + len(data.splits["validation"]) == 66


def test_a_longer_sequence_is_used_with_doubles():
    fields = dict(change.split("=") for change in data_verbs._fitting_study(3000, coarse=False))
    assert (fields["data.doubles"], fields["data.double_cells"], fields["data.cells"]) == ("4", "10", "1000")


def test_a_release_without_an_image_is_refused_before_its_study_begins(tmp_path, capsys):
    for which in ("trainset", "testset"):
        folder = tmp_path / "release" / which / "images_0"
        folder.mkdir(parents=True)
        np.save(folder.parent / "raw_latents_0.npy", np.zeros((12, 10)))
        for row in range(12):
            Image.new("RGB", (8, 8)).save(folder / f"{row:02d}.png")
    (tmp_path / "release" / "testset" / "images_0" / "05.png").unlink()
    study = tmp_path / "study.yaml"
    study.write_text(
        "models: [{kind: perturbed_vae, latent_dim: 10, responsive_dim: 7}]\n"
        "data: {kind: causal3dident, path: release, image_size: 8}\n"
    )
    for arguments in (["--dry-run"], []):
        assert cli.main(["launch", str(study), "--root", str(tmp_path / "runs"), *arguments]) == 2
        assert "testset/images_0: image 5 (05.png) is missing" in capsys.readouterr().err
        assert not (tmp_path / "runs").exists()


def test_a_sheet_is_drawn(tmp_path):
    pytest.importorskip("mitsuba")
    out = tmp_path / "sheet.png"
    assert cli.main(["data", "sheet", "--out", str(out), "--size", "8", "--samples", "1"]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
