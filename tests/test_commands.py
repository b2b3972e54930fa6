"""Every command that README and the heads of studies give runs: at its printed size as far as that costs nothing.

Launches are planned at their printed size, without the trials that a dry run would warm up. Those that read somebody's
files then train one trial of their first model on small ones. The other commands run on what such a launch leaves.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from printed_commands import ROOT, Command, of_head, of_readme, printed_commands

from harness import cli
from harness.data.causal3dident.citris import Dynamics
from harness.data.causal3dident.temporal_writer import draw_sequence
from harness.parser import make_parser
from harness.study import dry_run
from harness.study.load import load_study
from harness.study.suite import is_suite

COMMANDS = printed_commands()
LAUNCHES = [command for command in COMMANDS if command.words[0] == "launch"]
OTHERS = [command for command in COMMANDS if command.words[0] != "launch"]
#: What stands for something of the reader's own; every other word in capitals is unknown.
PLACEHOLDERS = ("FOLDER", "FILE", "CELLS.h5ad", "STUDY", "STUDY.yaml", "TRIAL", "A+B", "YOURS", "SHARED")
NAME = "quickstart"
STUDY = f"""\
name: {NAME}
models: [{{kind: perturbed_vae, mechanisms: diagonal, latent_dim: 4, responsive_dim: 3, hidden: 8, layers: 1}}]
data: {{kind: perturbseq, path: cells.h5ad}}
seeds: 1
train: {{epochs: 1, starts: {{number: 1}}, second_stage: {{restarts: 0}}}}
evaluate: {{rotation_steps: 0}}
compute: {{cluster: inline}}
"""
#: Changes that make the real launch of a study small, by the kind of its data.
SMALL = [
    "compute.cluster=inline",
    "seeds=1",
    "train.epochs=1",
    "train.starts={number: 1}",
    "train.second_stage={restarts: 0}",
    "evaluate={rotation_steps: 0, cells: 20}",
]
SMALL_DATA = {
    "causal3dident": ["data.image_size=8"],
    "temporal_causal3dident": [
        "data.image_size=8",
        "data.cells=300",
        "data.test_cells=100",
        "data.doubles=2",
        "data.double_cells=10",
    ],
    "perturbseq": [],
}


# --------------------------------------------------------------------------- what people have of their own


def write_cells(path):
    """Counts of 60 genes in the conventions of Norman et al.: 100 controls, three singles, two pairs of them."""
    random = np.random.default_rng(0)
    sizes = {"ctrl": 100, "A+ctrl": 50, "B+ctrl": 50, "C+ctrl": 50, "A+B": 30, "A+C": 30}
    effect = {name: np.exp(random.normal(0, 0.5, 60)) for name in "ABC"}
    labels = np.repeat(list(sizes), list(sizes.values()))
    rate = np.stack([np.prod([effect.get(part, np.ones(60)) for part in label.split("+")], axis=0) for label in labels])
    counts = random.poisson(5 * rate).astype(np.float32)
    obs = pd.DataFrame({"condition": labels}, index=[f"cell{n}" for n in range(len(labels))])
    anndata.AnnData(counts, obs, pd.DataFrame(index=[f"GENE{n}" for n in range(60)])).write_h5ad(path)


def write_static(root):
    """A release of seven classes, with 20 plain images of each in either set."""
    random = np.random.default_rng(0)
    for which in ("trainset", "testset"):
        for class_id in range(7):
            folder = root / which / f"images_{class_id}"
            folder.mkdir(parents=True)
            np.save(root / which / f"raw_latents_{class_id}.npy", random.uniform(-1, 1, (20, 10)))
            for row in range(20):
                Image.new("RGB", (8, 8), tuple(random.integers(0, 256, 3).tolist())).save(folder / f"{row:02d}.png")


def write_temporal(root):
    """A sequence of 2,000 plain images under the published dynamics of all seven shapes."""
    random = np.random.default_rng(0)
    drawn = draw_sequence(Dynamics(shapes=tuple(range(7)), grouped=True), 2000, random)
    images = random.integers(0, 256, (2000, 8, 8, 3), dtype=np.uint8)
    root.mkdir()
    np.savez(
        root / "train.npz",
        imgs=images,
        raw_latents=drawn.latents,
        shape_latents=drawn.latents[:, 10:],
        interventions=drawn.interventions,
    )


@dataclass(frozen=True)
class Place:
    """A folder with the reader's own things, and a root in which studies of them have finished."""

    folder: Path

    @property
    def root(self):
        return self.folder / "runs"

    def release(self, words):
        """The release that a command means."""
        return self.folder / ("sequences" if any("temporal" in word for word in words) else "images")

    def trial(self):
        """Id of the finished trial."""
        return next((self.root / NAME / "trials").iterdir()).name

    def filled(self, words, out):
        """The words of a command with the reader's own things in place of placeholders; outputs go below ``out``."""
        return [self._filled(word, before, words, out) for before, word in zip(("", *words), words, strict=False)]

    def _filled(self, word, before, words, out):
        if before == "--out":
            return str(out / word)
        key, equals, value = word.rpartition("=")
        if value == "FOLDER":
            value = str(self.release(words))
        elif value == "FILE" or value.endswith(".h5ad"):
            value = str(self.folder / "cells.h5ad")
        elif value in ("STUDY", "STUDY.yaml"):
            value = str(self.folder / "study.yaml")
        elif value == "TRIAL":
            value = self.trial()
        elif value == "slurm/YOURS.yaml":
            value = str(self.folder / "profile.yaml")
        elif value == "/SHARED/runs":
            value = str(self.root)
        return key + equals + value


@pytest.fixture(scope="module")
def place(tmp_path_factory, empty_database):
    folder = tmp_path_factory.mktemp("place")
    write_cells(folder / "cells.h5ad")
    write_static(folder / "images")
    write_temporal(folder / "sequences")
    shutil.copy(ROOT / "slurm" / "gpu.yaml", folder / "profile.yaml")
    (folder / "study.yaml").write_text(STUDY)
    made = Place(folder)
    made.root.mkdir()
    shutil.copy(empty_database, made.root)
    assert cli.main(["launch", str(folder / "study.yaml"), "--root", str(made.root)]) == 0
    return made


@pytest.fixture
def at_home(monkeypatch):
    """Commands are typed where the project lies, with no cluster within reach."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(dry_run, "_warmed", lambda *arguments: 1.0)


def named(command):
    return str(command).replace("/", ".")


# ------------------------------------------------------------------------------------------- launches


def file_of(words):
    return next(word for word in words[1:] if word.endswith(".yaml"))


def reads_files(command):
    """Whether a launch reads what is somebody's own."""
    return any(word.startswith("data.path=") for word in command.words)


@pytest.mark.parametrize("command", LAUNCHES, ids=named)
def test_a_printed_launch_is_planned_at_its_size(place, at_home, tmp_path, monkeypatch, capsys, command):
    monkeypatch.setenv("HARNESS_ROOT", str(tmp_path / "runs"))
    words = [word for word in place.filled(command.words, tmp_path) if word not in ("--detach", "--dry-run")]
    if not is_suite(Path(file_of(words))):
        words += ["--set", "compute.cluster=inline"]
    assert cli.main([*words, "--dry-run"]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert re.search(r"[1-9]\d* (trial|stud)", printed)
    assert "nothing was run or written" in printed
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", [command for command in LAUNCHES if reads_files(command)], ids=named)
def test_a_printed_launch_trains_on_the_files_it_reads(place, at_home, tmp_path, empty_database, capsys, command):
    shutil.copy(empty_database, tmp_path)
    words, trials = made_small(place.filled(command.words, tmp_path), only_first=command.where == "README.md")
    assert cli.main([*words, "--root", str(tmp_path)]) == 0, capsys.readouterr().err
    results = [json.loads(path.read_text()) for path in tmp_path.glob("*/trials/*/result.json")]
    assert len(results) == trials
    for result in results:
        assert result["state"] == "finished"
        assert min(result["data"]["cells"].values()) > 0


def made_small(words, *, only_first):
    """A launch made small, of one trial of each model or of the first alone, and how many trials these are."""
    printed = [word for before, word in zip(words, words[1:], strict=False) if before == "--set"]
    study = load_study(Path(file_of(words)), printed)
    small = [*SMALL, *SMALL_DATA[study.data["kind"]]]
    small += [f"grid.{key}=[{values[0]}]" for key, values in study.grid.items()]
    if only_first:
        small.append(f"models={json.dumps([study.models[0]])}")
    trials = 1 if only_first else len(study.models)
    return [*words, *(word for change in small for word in ("--set", change))], trials


# --------------------------------------------------------------------------------------- other commands


#: What makes a command small, or end by itself, by its first words.
MORE = {
    "data make causal3dident": ["--images", "2", "--test-images", "1", "--size", "8", "--samples", "1"],
    "data make temporal_causal3dident": ["--images", "5", "--test-images", "2", "--size", "8", "--samples", "1"],
    "data sheet": ["--size", "8", "--samples", "1"],
    "data inspect": [],
    "check": [],
    "watch": ["--once"],
    "status": [],
    "report": [],
    "resume": [],
    "predict": [],
    "programs": [],
    "export": [],
    "schema": [],
    "ui": [],
    "doctor": [],
}
#: Images of a study that `check` would render.
FEW_IMAGES = ["data.cells=50", "data.test_cells=50", "data.double_cells=10", "data.image_size=8", "data.samples=1"]


def verb_of(words):
    """The key of ``MORE`` that a command begins with."""
    return next(verb for verb in MORE if list(words[: len(verb.split())]) == verb.split())


@pytest.mark.parametrize("command", [c for c in OTHERS if c.words[0] not in ("ui", "doctor")], ids=named)
def test_a_printed_command_runs(place, at_home, tmp_path, monkeypatch, capsys, command):
    if command.words[:2] in (("data", "make"), ("data", "sheet")) or "quickstart.yaml" in str(command):
        pytest.importorskip("mitsuba")
    monkeypatch.setenv("HARNESS_ROOT", str(place.root))
    words = [*place.filled(command.words, tmp_path), *MORE[verb_of(command.words)]]
    if command.words[0] == "check" and "STUDY" not in command.words:
        words += [word for change in FEW_IMAGES for word in ("--set", change)]
    assert cli.main(words) == 0, capsys.readouterr().err
    if "--out" in words:
        assert (tmp_path / command.words[command.words.index("--out") + 1]).exists()


def test_a_server_that_has_nothing_to_show_says_so(at_home, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HARNESS_ROOT", str(tmp_path))
    commands = [command for command in OTHERS if command.words[0] == "ui"]
    assert commands
    for command in commands:
        assert cli.main([*command.words]) == 2
        assert "launch a study first, or say where with --root" in capsys.readouterr().err


def test_a_doctor_who_finds_no_cluster_says_so(place, at_home, tmp_path, capsys):
    commands = [command for command in OTHERS if command.words[0] == "doctor"]
    assert commands
    for command in commands:
        assert cli.main(place.filled(command.words, tmp_path)) in (1, 2)
        said = "".join(capsys.readouterr())
        assert "SLURM" in said
        assert "Traceback" not in said


# ------------------------------------------------------------------------------------- none is left out


@pytest.mark.parametrize("command", COMMANDS, ids=named)
def test_a_printed_command_is_one_that_some_test_here_runs(command):
    if command.words[0] != "launch":
        verb_of(command.words)
    make_parser(cli._verbs()).parse_args([*command.words])
    unknown = [word for word in command.words if capitals_of(word)]
    assert not unknown, f"nobody fills in {unknown}"


def capitals_of(word):
    """Words of capitals that stand for something of the reader's own, and that no test fills in."""
    for known in sorted(PLACEHOLDERS, key=len, reverse=True):
        word = word.replace(known, "")
    return re.findall(r"[A-Z]{3,}", word)


def test_no_printed_change_study_or_verb_is_missed():
    readme = read("README.md")
    texts = {"README.md": "\n".join(re.findall(r"^```bash\n(.*?)^```", readme, flags=re.M | re.S))}
    for path in sorted((ROOT / "studies").rglob("*.yaml")):
        texts[path.relative_to(ROOT).as_posix()] = re.match(r"(?:#.*\n)*", path.read_text(encoding="utf-8"))[0]
    for where, text in texts.items():
        given = {word for command in COMMANDS if command.where == where for word in command.words}
        for key in re.findall(r"--set\s+['\"]?([\w.]+)=", text):
            assert any(word.startswith(f"{key}=") for word in given), f"{where}: --set {key}"
    launched = {file_of(command.words) for command in LAUNCHES}
    named = set(re.findall(r"harness launch\s+(\S+?\.yaml)", "\n".join([readme, *texts.values()])))
    assert named <= launched
    verbs = {command.words[0] for command in COMMANDS}
    assert set(re.findall(r"bin/harness (\w+)", texts["README.md"])) <= verbs


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


# ------------------------------------------------------------------------------- how commands are found


def test_commands_are_found_in_blocks_of_bash_alone():
    text = (
        "Say `harness schema` or `harness check STUDY`.\n\n```bash\n"
        "make && .venv/bin/harness launch a.yaml  # it's big\n"
        "few=\"--set a=1 --set b=2\"\n.venv/bin/harness launch b.yaml $few \\\n  --set 'c=[1, 2]'\n```\n"
        "```yaml\nharness launch c.yaml\n```\n"
    )
    assert [command.words for command in of_readme(text)] == [
        ("launch", "a.yaml"),
        ("launch", "b.yaml", "--set", "a=1", "--set", "b=2", "--set", "c=[1, 2]"),
        ("check", "STUDY"),
    ]


def test_lines_of_changes_in_a_head_are_added_to_its_launch():
    text = (
        "# What it is. Faster: --set 'a=[1, 2]'\n# Small:\n#   --set b=1 --set c=2\n#   --set d=3\n# Or as a whole:\n"
        "#   harness launch s.yaml --set e=5\n#     --set f=6\nname: s\n# --set g=7\n"
    )
    launch = ("launch", "s.yaml", "--set")
    assert of_head(text, "s.yaml") == [
        Command("s.yaml", (*launch, "a=[1, 2]")),
        Command("s.yaml", (*launch, "b=1", "--set", "c=2", "--set", "d=3")),
        Command("s.yaml", (*launch, "e=5", "--set", "f=6")),
    ]


def test_a_placeholder_that_nobody_fills_in_is_noticed():
    assert capitals_of("data.path=FOLDER") == []
    assert capitals_of("data.path=BASKET") == ["BASKET"]


def test_a_command_that_nobody_runs_is_noticed():
    with pytest.raises(StopIteration):
        verb_of(("dance", "STUDY"))
