"""The command line: help at once, one sentence for an error, the exit statuses, and the main job end to end."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from harness import cli
from harness.study.driver import Outcome


@pytest.fixture
def rooted(tmp_path, empty_database, monkeypatch):
    """A root with an empty MLflow database, as the environment's default."""
    root = tmp_path / "runs"
    root.mkdir()
    (root / "mlflow.db").write_bytes(empty_database.read_bytes())
    monkeypatch.setenv("HARNESS_ROOT", str(root))
    return root


def results(root):
    """Metrics of every trial, without times."""
    found = {}
    for path in root.glob("tiny/trials/*/result.json"):
        body = json.loads(path.read_text())
        found[path.parent.name] = {key: value for key, value in body["metrics"].items() if "time/" not in key}
    return found


# ------------------------------------------------------------------------------------------------- light

HEAVY = ("torch", "mlflow", "optuna", "pydantic", "numpy", "submitit", "yaml", "rich", "matplotlib")


@pytest.mark.parametrize("arguments", [["--help"], ["launch", "--help"], ["--version"]])
def test_help_is_there_at_once(arguments):
    code = (
        "import sys, harness.cli\n"
        f"try: harness.cli.main({arguments!r})\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"heavy = set({HEAVY!r}) & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "harness" in done.stdout


@pytest.mark.parametrize(
    ("number", "status", "remedy"),
    [(errno.EACCES, 2, "--root"), (errno.ENOSPC, 1, "make room and resume"), (errno.EIO, 1, "what ran is kept")],
)
def test_what_the_system_refuses_is_one_sentence(number, status, remedy, monkeypatch, capsys):
    def refused(options):
        raise OSError(number, os.strerror(number), "/some/file")

    monkeypatch.setattr(cli, "_status", refused)
    assert cli.main(["status", "s"]) == status
    said = capsys.readouterr().err
    assert said.startswith(f"harness: /some/file: {os.strerror(number)}; ")
    assert remedy in said
    assert said.count("\n") == 1


def test_commands_that_are_shown_can_be_pasted(tmp_path, capsys):
    failed = Outcome(failed=[("cell", "reason")])
    assert cli._ended(failed, tmp_path / "my runs", "s") == 1
    assert f"harness retry s --root '{tmp_path}/my runs' --failed" in capsys.readouterr().err


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    out = capsys.readouterr().out
    assert "harness launch studies/quickstart.yaml" in out
    assert "130 interrupted" in out


def test_without_a_command_help_is_shown(capsys):
    assert cli.main([]) == 2
    assert "usage: harness" in capsys.readouterr().out


def test_schema_describes_study_files(capsys, tmp_path):
    assert cli.main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"models", "data", "grid", "search", "seeds"} <= set(schema["properties"])
    assert cli.main(["schema", "--out", str(tmp_path / "study.schema.json")]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path}/study.schema.json\n"
    assert json.loads((tmp_path / "study.schema.json").read_text()) == schema
    (tmp_path / "study.schema.json").write_text("mine")
    assert cli.main(["schema", "--out", str(tmp_path / "study.schema.json")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "study.schema.json").read_text() == "mine"
    assert cli.main(["schema", "--out", str(tmp_path / "no" / "folder.json")]) == 2
    assert "its folder is not there" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "change",
    [
        "train.epoch=3",
        "train.epochs=many",
        "models.0.latent_dim=-1",
        "grid.sparsty=[0, 1]",
        "grid={}",
        "tracking.uri=file:///x",
        "compute.cluster=slurm",
        "seeds=0",
    ],
)
def test_wrong_input_is_one_sentence_and_nothing_is_written(tiny_study, tmp_path, capsys, change):
    root = tmp_path / "runs"
    assert cli.main(["launch", str(tiny_study), "--root", str(root), "--set", change]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("harness: ")
    assert errors.count("\n") == 1
    assert "Traceback" not in errors
    assert not root.exists()


def test_a_missing_file_of_cells_is_refused(tiny_study, tmp_path, capsys):
    root = tmp_path / "runs"
    data = f"data={{kind: perturbseq, path: {tmp_path}/no.h5ad}}"
    assert cli.main(["launch", str(tiny_study), "--root", str(root), "--set", data]) == 2
    assert "no.h5ad" in capsys.readouterr().err
    assert not root.exists()


def test_a_file_that_is_no_h5ad_is_refused(tiny_study, tmp_path, capsys):
    root, wrong = tmp_path / "runs", tmp_path / "cells.h5ad"
    wrong.write_text("cells")
    data = f"data={{kind: perturbseq, path: {wrong}}}"
    assert cli.main(["launch", str(tiny_study), "--root", str(root), "--set", data]) == 2
    assert "cells.h5ad" in capsys.readouterr().err
    assert not root.exists()


def test_an_unwritable_root_is_refused(tiny_study, tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert cli.main(["launch", str(tiny_study), "--root", str(blocked / "runs")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_debug_shows_where_an_error_came_from(tiny_study, tmp_path):
    from harness.errors import UserError

    with pytest.raises(UserError):
        cli.main(["launch", str(tiny_study), "--root", str(tmp_path), "--set", "seeds=0", "--debug"])


@pytest.mark.parametrize("verb", ["resume", "status", "watch", "report", "cancel"])
def test_a_study_that_is_not_there(verb, tmp_path, capsys):
    assert cli.main([verb, "nothing", "--root", str(tmp_path)]) == 2
    assert "nothing" in capsys.readouterr().err


def test_ui_without_a_database(tmp_path, capsys):
    assert cli.main(["ui", "--root", str(tmp_path)]) == 2
    assert "launch a study first" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- the main job


def test_the_main_job(tiny_study, rooted, capsys):
    """Real trials: dry run, launch, launch again, status, report, check, cancel."""
    assert cli.main(["launch", str(tiny_study), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "1 cell, 2 trials; 2 to run in 2 jobs on cluster: inline" in said
    assert "warm-up" in said
    assert sorted(path.name for path in rooted.iterdir()) == ["mlflow.db"]

    assert cli.main(["launch", str(tiny_study)]) == 0
    said = capsys.readouterr().out
    assert "2 finished" in said
    assert "heatmap.png" in said
    assert "harness ui" in said
    first = results(rooted)
    assert len(first) == 2
    assert all("identifiability/mcc" in metrics for metrics in first.values())

    assert cli.main(["launch", str(tiny_study)]) == 0
    assert results(rooted) == first
    attempts = [len(p.read_text().splitlines()) for p in rooted.glob("tiny/trials/*/attempts.jsonl")]
    assert attempts == [1, 1]
    capsys.readouterr()

    assert cli.main(["launch", str(tiny_study), "--set", "seeds=3", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "(2 there already); 1 to run" in said
    assert "perturbed_vae: seeds 0, 1, 2; 1 to run" in said
    assert "from 2 finished trials" in said

    for verb, expected in (
        ("status", "2 finished"),
        ("report", "2 finished"),
        ("cancel", "nothing of tiny is running"),
    ):
        assert cli.main([verb, "tiny"]) == 0
        assert expected in capsys.readouterr().out
    assert cli.main(["check", str(tiny_study)]) == 0
    assert "environment_sufficiency" in capsys.readouterr().out


@pytest.fixture
def tiny_suite(tiny_study):
    """Path of a suite of the tiny study, once as it is and once with other seeds."""
    (tiny_study.parent / "other.yaml").write_text("base: tiny.yaml\nseeds: [7]\n")
    path = tiny_study.parent / "suite.yaml"
    path.write_text("name: both\nstudies: [tiny.yaml, other.yaml]\nset: {train.epochs: 1}\n")
    return path


def test_a_suite_is_launched_reported_and_asked_for(tiny_suite, rooted, capsys):
    """Real trials: dry run, launch, launch again, and every verb by file and by name."""
    assert cli.main(["launch", str(tiny_suite), "--dry-run"]) == 0
    assert "2 studies, 3 trials; 3 to run" in capsys.readouterr().out
    assert not (rooted / "both").exists()
    one_seed = ["--set", "seeds=1"]
    assert cli.main(["launch", str(tiny_suite), *one_seed]) == 0
    said = capsys.readouterr().out
    assert "study 1 of 2: both-tiny" in said
    assert "1 trials ran, 0 were there already" in said
    assert (rooted / "both" / "report" / "index.html").is_file()
    assert cli.main(["resume", "both"]) == 0
    assert capsys.readouterr().out.count("0 trials ran, 1 were there already") == 2
    for named in (str(tiny_suite), "both"):
        assert cli.main(["status", named]) == 0
        said = capsys.readouterr().out
        assert "both-tiny: 1 finished" in said
        assert "both-other: 1 finished" in said
        assert cli.main(["report", named]) == 0
        assert "Without a prediction: tiny, other." in capsys.readouterr().out
    assert cli.main(["cancel", "both"]) == 0
    assert capsys.readouterr().out.count("is running") == 2
    assert cli.main(["check", str(tiny_suite), *one_seed]) == 0
    said = capsys.readouterr().out
    assert "both-other\ndata " in said
    assert "learned by perturbed_vae (1 of 1 trials)" in said


@pytest.mark.parametrize(
    ("outcomes", "status", "launched"),
    [
        ([Outcome(failed=[("cell", "reason")]), Outcome()], 1, 2),  # one that fails does not keep the others
        ([Outcome(interrupted=True), Outcome()], 130, 1),
    ],
)
def test_a_suite_ends_as_its_studies_do(tiny_suite, rooted, monkeypatch, capsys, outcomes, status, launched):
    left = iter(outcomes)
    seen = []
    monkeypatch.setattr("harness.study.driver.launch", lambda study, root: seen.append(study.name) or next(left))
    assert cli.main(["launch", str(tiny_suite)]) == status
    assert seen == ["both-tiny", "both-other"][:launched]
    if status == 130:
        assert "go on with: harness resume both" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["resume", "status", "watch", "report", "cancel"])
def test_a_suite_that_was_never_launched(verb, tiny_suite, rooted, capsys):
    assert cli.main([verb, str(tiny_suite)]) == 2
    assert "no suite 'both' was launched" in capsys.readouterr().err


def test_wrong_input_in_a_suite_is_one_sentence_and_nothing_runs(tiny_suite, rooted, capsys):
    assert cli.main(["launch", str(tiny_suite), "--set", "train.epoch=3"]) == 2
    said = capsys.readouterr().err
    assert "train.epoch is unknown" in said
    assert said.count("\n") == 1
    assert sorted(path.name for path in rooted.iterdir()) == ["mlflow.db"]


def test_a_killed_launch_of_real_trials_resumes_to_the_same_numbers(tiny_study, rooted):
    longer = ["--set", "train.epochs=40", "--set", "train.checkpoint_seconds=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "launch", str(tiny_study), *longer],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 120
        while not any(len(path.read_text().splitlines()) > 3 for path in rooted.glob("tiny/trials/*/metrics.jsonl")):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert len(results(rooted)) < 2
    assert cli.main(["resume", "tiny"]) == 0
    resumed = results(rooted)
    assert len(resumed) == 2
    (rooted / "tiny").rename(rooted / "killed")
    assert cli.main(["launch", str(tiny_study), *longer]) == 0
    assert results(rooted) == resumed


def test_ui_serves_and_leaves_nothing_running(tiny_study, rooted):
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "ui", "--port", "50371"], stdout=subprocess.PIPE, text=True
    )
    try:
        first = process.stdout.readline()
        assert "http://127.0.0.1:50371" in first
        with urllib.request.urlopen("http://127.0.0.1:50371/health", timeout=10) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
    mine = [pid for pid in os.listdir("/proc") if pid.isdigit() and _command_of(pid).count(str(rooted))]
    assert mine == []


def _command_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read()
    except OSError:
        return ""
