import errno
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from harness import files
from harness.errors import UserError
from harness.study.folder import StudyFolder, TrialState, read_json, write_atomic
from harness.study.ownership import this_process


def claimed(trial, **changes):
    trial.path.mkdir(parents=True, exist_ok=True)
    trial.claim.write_text(json.dumps(asdict(replace(this_process(), **changes))))


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_create_makes_every_folder_and_leaves_no_probe(folder):
    assert {path.name for path in folder.path.iterdir()} == {"launches", "submitit", "trials", "report"}
    folder.create()


def test_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "root").write_text("")
    with pytest.raises(UserError, match=r"cannot be written .*--root"):
        StudyFolder(tmp_path / "root", "s").create()


def test_write_atomic_replaces_and_cleans_up(tmp_path):
    path = tmp_path / "deep" / "x.json"
    write_atomic(path, "old")
    write_atomic(path, b"new")
    assert path.read_text() == "new"
    assert [entry.name for entry in path.parent.iterdir()] == ["x.json"]


def test_a_failed_write_leaves_the_old_content_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write_atomic(path, "old")

    def fail(*_):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("harness.files.os.replace", fail)
    with pytest.raises(UserError, match="Permission denied"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("state", ["finished", "failed", "pruned"])
def test_a_result_decides_the_state_even_beside_a_claim(folder, state):
    trial = folder.trial("a")
    claimed(trial)
    write_atomic(trial.result, json.dumps({"state": state}))
    assert trial.state() == TrialState(state)
    assert trial.state().has_ended


def test_states_without_a_result(folder):
    assert folder.trial("none").state() is TrialState.WAITING
    alive, dead, left = folder.trial("alive"), folder.trial("dead"), folder.trial("left")
    claimed(alive)
    claimed(dead, pid=dead_pid())
    write_atomic(left.checkpoint, b"")
    assert folder.states() == {
        "alive": TrialState.RUNNING,
        "dead": TrialState.INTERRUPTED,
        "left": TrialState.INTERRUPTED,
    }


def test_a_process_number_used_again_is_no_sign_of_life(folder):
    claimed(folder.trial("a"), started=1)
    assert folder.trial("a").state() is TrialState.INTERRUPTED


def test_another_machine_is_alive_while_it_writes(folder):
    fresh, silent = folder.trial("fresh"), folder.trial("silent")
    claimed(fresh, host="elsewhere")
    claimed(silent, host="elsewhere", time=1000.0)
    assert fresh.state() is TrialState.RUNNING
    assert silent.state() is TrialState.INTERRUPTED
    silent.metrics.write_text("")
    assert silent.state() is TrialState.RUNNING


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"state": "other"}'])
def test_a_broken_result_counts_as_absent(folder, text):
    trial = folder.trial("a")
    trial.path.mkdir()
    trial.result.write_text(text)
    assert trial.state() is TrialState.WAITING


def test_metrics_survive_a_torn_line_and_a_resume(folder):
    trial = folder.trial("a")
    assert trial.read_metrics() == []
    trial.path.mkdir()
    lines = [{"epoch": e, "time": t, "metrics": {"train/loss": v}} for e, t, v in [(1, 0, 9), (2, 1, 8), (2, 5, 7)]]
    text = "\n".join(json.dumps(line) for line in lines)
    trial.metrics.write_text(text + '\n{"epoch": 3, "metr')
    assert trial.read_metrics() == [lines[0], lines[2]]
    trial.metrics.write_text(text.replace("\n", '\n{"epoch": 2, "me\n', 1))
    assert trial.read_metrics() == [lines[0], lines[2]]


def test_stop_is_asked_for_in_a_file(folder):
    trial = folder.trial("a")
    trial.request_stop("pruned: above the median")
    assert trial.stop.read_text() == "pruned: above the median\n"


def test_study_folder_that_does_not_exist_has_no_trials(tmp_path):
    assert StudyFolder(tmp_path, "none").states() == {}


def test_a_path_that_cannot_be_read_is_the_users_to_mend(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read \(File name too long\); give a folder"):
        read_json(tmp_path / ("x" * 300) / "result.json")


def test_a_full_disk_is_waited_for_and_no_matter_of_permissions(tmp_path, monkeypatch, capsys):
    write, tries = files.write_atomic, []

    def full_twice(path, text):
        tries.append(path)
        if len(tries) <= 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, text)

    monkeypatch.setattr("harness.files.write_atomic", full_twice)
    write_atomic(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text() == "text"
    assert capsys.readouterr().err.count("no room on the disk") == 1


def test_commands_name_a_root_that_is_not_the_default(tmp_path, monkeypatch):
    monkeypatch.delenv("HARNESS_ROOT", raising=False)
    assert StudyFolder(Path("runs"), "s").command("resume") == "harness resume s"
    assert StudyFolder(tmp_path / "a b", "s").command("resume") == f"harness resume s --root '{tmp_path}/a b'"
