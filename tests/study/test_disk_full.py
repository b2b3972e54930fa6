"""A study whose disk is full for a while: it waits, says so, and loses no trial; likewise its tracking alone."""

import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import fake_trial
import pytest
from driving import Driving
from small_disk import small_disk
from tracking_server import assert_whole

from harness.study.executors import LocalExecutor
from harness.study.folder import read_json
from harness.study.lease import Lease
from harness.study.mlflow_store import default_uri
from harness.study.optuna_store import OptunaStore
from harness.study.ownership import overwrite, read_owner, take, this_process
from harness.study.plan import plan
from harness.study.spec import ObjectiveSpec
from harness.study.trial_index import TrialIndex, read_index

EIGHT = ("grid.sparsity=[0, 0.1, 0.2, 0.3]",)


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", 12) as disk:
        yield disk


@pytest.fixture
def filled(disk, monkeypatch):
    """Fill the disk as the third trial begins, and make room again a while later."""
    run, begun = fake_trial.run_trial, []

    def run_trial(spec, folder, **keys):
        begun.append(folder)
        if len(begun) == 3:
            disk.fill()
            threading.Timer(3.0, disk.free).start()
        return run(spec, folder, **keys)

    monkeypatch.setattr(fake_trial, "run_trial", run_trial)
    return disk


def test_a_study_on_a_full_disk_waits_and_has_everything(filled, tmp_path, empty_database, capsys):
    driving = Driving(filled.path, empty_database)
    elsewhere = shutil.copy(empty_database, tmp_path / "elsewhere.db")
    outcome = driving.launch(f"tracking.uri=sqlite:///{elsewhere}", "compute.cluster=inline", *EIGHT)
    assert (outcome.ran, outcome.failed, outcome.untracked) == (8, [], None)
    assert "there is no room on the disk" in capsys.readouterr().err
    assert driving.optuna_states() == {"COMPLETE": 8}
    assert set(driving.starts().values()) == {1}
    for trial in driving.folder.trials():
        assert [line["epoch"] for line in trial.read_metrics()] == [1, 2, 3]
        assert len(trial.metrics.read_text().splitlines()) == 3
    assert not list(driving.root.rglob("*.partial"))
    assert read_json(driving.folder.launches / "1.json")["state"] == "finished"
    again = driving.launch(f"tracking.uri=sqlite:///{elsewhere}", *EIGHT)
    assert (again.ran, again.reused) == (0, 8)


def test_workers_and_driver_on_a_full_disk_lose_nothing(disk, empty_database, monkeypatch):
    driving = Driving(disk.path, empty_database)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    process = driving.driver("compute.cluster=local", "compute.workers=2", "train.epochs=6", *EIGHT, FAKE_SECONDS="0.2")
    driving.until(lambda: any(trial.metrics.exists() for trial in driving.folder.trials()), process)
    disk.fill()
    time.sleep(4.0)
    assert process.poll() is None
    disk.free()
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert driving.optuna_states() == {"COMPLETE": 8}
    assert_whole(driving)


def test_tracking_alone_on_a_full_disk_holds_up_no_trial(disk, driving, empty_database, monkeypatch):
    store = shutil.copy(empty_database, disk.path / "mlflow.db")
    run, begun = fake_trial.run_trial, []

    def run_trial(spec, folder, **keys):
        begun.append(folder)
        if len(begun) == 2:
            disk.fill()
        if len(begun) == 8:
            ended = sum(trial.read_result() is not None for trial in driving.folder.trials())
            assert ended == 7  # on the full disk all the while
            end = time.monotonic() + 120
            while not driving.said and time.monotonic() < end:
                time.sleep(0.1)
            disk.free()
        return run(spec, folder, **keys)

    monkeypatch.setattr(fake_trial, "run_trial", run_trial)
    outcome = driving.launch(f"tracking.uri=sqlite:///{store}", *EIGHT)
    assert (outcome.ran, outcome.failed, outcome.untracked) == (8, [], None)
    assert any("cannot be written" in sentence for sentence in driving.said)
    assert default_uri(driving.root) != f"sqlite:///{store}"
    (driving.root / "mlflow.db").unlink()
    (driving.root / "mlflow.db").symlink_to(store)
    assert_whole(driving)


def test_a_journal_line_is_whole_or_waits(disk):
    store = OptunaStore(disk.path / "journal", "s", [ObjectiveSpec(metric="validation/loss", direction="minimize")])
    store.add({"a": 1}, key="one", attributes={})
    disk.fill()
    threading.Timer(1.0, disk.free).start()
    store.add({"a": 2}, key="two", attributes={"long": "x" * 10_000})
    again = OptunaStore(disk.path / "journal", "s", [ObjectiveSpec(metric="validation/loss", direction="minimize")])
    assert set(again.entries()) == {"one", "two"}


def test_a_lease_on_a_full_disk_still_shows_life_and_is_let_go(disk):
    path = disk.path / "driver.lock"
    with Lease(path, "s") as lease:
        disk.fill()
        held = read_owner(path)
        overwrite(path, replace(held, time=held.time + 12345.678))
        assert read_owner(path).time == held.time + 12345.678
        lease.check()
        assert [entry.name for entry in disk.path.iterdir() if entry.name.startswith("driver")] == ["driver.lock"]
    assert read_owner(path).released


def test_a_claim_that_finds_no_room_leaves_no_empty_file(disk):
    disk.fill()
    timer = threading.Timer(1.0, disk.free)
    timer.start()
    owner = take(disk.path / "claim", this_process(), lambda held: False)
    assert not timer.is_alive()
    assert read_owner(disk.path / "claim") == owner


def test_a_worker_is_started_once_there_is_room(disk):
    folder = disk.path / "jobs"
    folder.mkdir()
    executor = LocalExecutor(folder, workers=1, threads=1)
    disk.fill()
    threading.Timer(1.0, disk.free).start()
    (job,) = executor.submit([print], "name")
    end = time.monotonic() + 120
    while job.alive() and time.monotonic() < end:
        time.sleep(0.1)
    assert not job.alive()


def test_the_index_of_trials_is_whole_after_a_full_disk(disk, empty_database):
    driving = Driving(disk.path, empty_database)
    driving.folder.create()
    trials = plan(driving.study(*EIGHT)).trials
    TrialIndex(driving.folder).note(trials[:1])
    disk.fill()
    threading.Timer(1.0, disk.free).start()
    TrialIndex(driving.folder).note(trials)
    assert set(read_index(driving.folder)) == {trial.trial_id for trial in trials}
