"""A study that is left to itself on this machine: its driver outlives the shell, and is found again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from harness.errors import UserError
from harness.study import detach, lease
from harness.study.detach import DriverLeaves, as_job, write_down
from harness.study.folder import StudyFolder
from harness.study.lease import Lease
from harness.study.load import load_study
from harness.study.ownership import overwrite, process_start, read_owner, take, this_process
from harness.study.sent_off import Detached, end_sent_off, is_driven, keep, waiting_driver
from harness.study.status import status


def harness(*arguments, status=0):
    command = [sys.executable, "-m", "harness", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stderr


def until(happened, what):
    end = time.monotonic() + 120
    while not (value := happened()):
        assert time.monotonic() < end, what
        time.sleep(0.1)
    return value


def test_a_driver_in_the_background_outlives_its_shell_and_can_be_cancelled(tiny_study, tmp_path, empty_database):
    quick = ["seeds=1", "train.second_stage.restarts=0", "evaluate.ood=false", "evaluate.conditions=false"]
    quick = [word for change in quick for word in ("--set", change)]
    root, folder = tmp_path / "runs", StudyFolder(tmp_path / "runs", "tiny")
    root.mkdir()
    shutil.copy(empty_database, root / "mlflow.db")
    detached = ["launch", tiny_study, "--root", root, "--detach", *quick, "--set"]
    command = [sys.executable, "-m", "harness", *map(str, detached), "train.epochs=1000000"]
    shell = subprocess.Popen(
        ["bash", "-c", '"$@"; echo; sleep 600', "shell", *command],
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        said = "".join(iter(shell.stdout.readline, "\n"))
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
        shell.stdout.close()
    sent = waiting_driver(folder)
    assert f"driven by {sent}" in said
    assert f"harness cancel tiny --root {root}" in said
    try:
        until(lambda: [t for t in folder.trials() if t.metrics.exists()], "a trial trains")
        assert is_driven(folder)
        assert "sent off before and has not ended" in harness(*detached, "train.epochs=1", status=2)
        harness("cancel", "tiny", "--root", root)
        until(lambda: waiting_driver(folder) is None, "the driver ends")
    finally:
        if waiting_driver(folder) is not None:
            os.killpg(int(sent.id), signal.SIGKILL)
    assert "interrupted; what ran is kept" in (folder.path / "driver.log").read_text()

    harness(*detached, "train.epochs=1")
    until(lambda: waiting_driver(folder) is None, "the driver ends")
    assert json.loads((folder.launches / "2.json").read_text())["state"] == "finished"


def test_a_launch_is_written_down_once_and_nothing_runs(driving):
    study = driving.study()
    write_down(study, driving.root)
    record = json.loads((driving.folder.launches / "1.json").read_text())
    assert (record["state"], len(record["trials"])) == ("running", 4)
    assert load_study(driving.folder.study_file) == study
    assert list(driving.folder.trials()) == []
    assert driving.resume().failed == []
    assert [path.name for path in driving.folder.launches.iterdir()] == ["1.json"]
    assert len(driving.runs()[1]) == 4


def test_a_study_that_is_driven_is_not_written_down(driving):
    driving.folder.create()
    with Lease(driving.folder.lock, "fake"), pytest.raises(UserError, match="is already driven by"):
        write_down(driving.study(), driving.root)
    assert not list(driving.folder.launches.iterdir())


@pytest.fixture
def signals():
    """Signal handlers as they were, afterwards."""
    numbers = (signal.SIGUSR2, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR2, True), (signal.SIGTERM, False)])
def test_a_warned_job_leaves_its_lease_and_is_requeued_and_an_ended_one_is_left_to_slurm(
    folder, signals, monkeypatch, capsys, number, requeued
):
    asked = []
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setattr(detach, "run_tool", lambda *words: asked.append(words) or subprocess.CompletedProcess(words, 0))

    def drive():
        with Lease(folder.lock, "sample"):
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), signal.SIGTERM)  # SLURM's next one does not cut the way out short
            raise AssertionError("it went on")

    assert as_job(drive) == 0
    assert asked == ([("scontrol", "requeue", "12")] if requeued else [])
    assert read_owner(folder.lock).released
    assert "the study's own jobs run on" in capsys.readouterr().err


def test_a_job_that_cannot_be_requeued_says_so(signals, monkeypatch, capsys):
    failed = subprocess.CompletedProcess((), 1, "", "scontrol: error: Requested operation is disabled\n")
    monkeypatch.setattr(detach, "run_tool", lambda *words: failed)

    def drive():
        raise DriverLeaves(warned=True)

    assert as_job(drive) == 1
    assert "Requested operation is disabled); go on with harness resume" in capsys.readouterr().err


def held_by(path, **changes):
    """A lease that another process took a moment ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = take(path, replace(this_process(), **changes), lambda held: True)
    overwrite(path, owner)
    return owner


def test_a_requeued_job_takes_over_from_its_own_start_on_a_lost_node_at_once(folder, monkeypatch):
    held_by(folder.lock, host="elsewhere", job="12")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    with pytest.raises(UserError, match="already driven"), Lease(folder.lock, "sample"):
        pass  # the same job, but not started again: a second driver in one allocation
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with Lease(folder.lock, "sample") as taken:
        assert taken.epoch == 2
    held_by(folder.lock, host="elsewhere", job="13")
    with pytest.raises(UserError, match="already driven"), Lease(folder.lock, "sample"):
        pass


def test_a_requeued_job_waits_for_its_own_earlier_process_to_end(folder, monkeypatch):
    process = subprocess.Popen(["sleep", "600"])
    started = process_start(process.pid)
    held_by(folder.lock, pid=process.pid, started=started, job="12")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr(lease, "EARLIER_SECONDS", 0.3)
    with pytest.raises(UserError, match="already driven"), Lease(folder.lock, "sample"):
        pass
    monkeypatch.setattr(lease, "EARLIER_SECONDS", 60.0)
    monkeypatch.setattr(lease.time, "sleep", lambda seconds: (process.kill(), process.wait()))
    with Lease(folder.lock, "sample") as taken:
        assert taken.epoch == 2


def test_a_driver_that_was_sent_off_and_waits_is_told(folder, tiny_study):
    shutil.copy(tiny_study, folder.study_file)
    process = subprocess.Popen(["sleep", "600"])
    started = process_start(process.pid)
    sent = Detached("process", str(process.pid), this_process().host, started, time.time() - 5, "log")
    keep(folder, sent)
    try:
        assert f"to be driven by {sent}, which was sent off 5 s ago" in status(folder)
        with Lease(folder.lock, "sample"):
            pass
        assert "not being driven" in status(folder)  # it has begun, and let go: its process is about to end
    finally:
        process.kill()
        process.wait()
    assert "not being driven" in status(folder)


def test_what_was_sent_off_is_found_while_it_lives(folder):
    assert waiting_driver(folder) is None
    process = subprocess.Popen(["sleep", "600"])
    started = process_start(process.pid)
    sent = Detached("process", str(process.pid), this_process().host, started, time.time(), "log")
    keep(folder, sent)
    try:
        assert waiting_driver(folder) == sent
        assert end_sent_off(folder, lambda: True) is None  # at work: it is told, not ended here
        keep(folder, replace(sent, started=started + 1))  # the number was given to another process since
        assert waiting_driver(folder) is None
    finally:
        process.kill()
        process.wait()
    keep(folder, sent)
    assert waiting_driver(folder) is None
    (folder.path / "detached.json").write_text("{")
    assert waiting_driver(folder) is None
