"""A tracking server that is down, comes back, never answers, or loses its driver: nothing lost, nothing doubled."""

import json
import socket
import subprocess
import sys
import time

import fake_trial
import pytest
from tracking_server import TrackingServer, assert_whole, finished_children

from harness.study.mlflow_store import default_uri

EIGHT = ("grid.sparsity=[0, 0.1, 0.2, 0.3]", "train.epochs=4")


@pytest.fixture
def server(driving):
    server = TrackingServer(driving.root)
    yield server
    server.stop()


@pytest.fixture
def before_trial(monkeypatch):
    """Things to do as the n-th trial from here begins (from 1), in the driver's own process."""
    todo, run, begun = {}, fake_trial.run_trial, []

    def run_trial(spec, folder, **keys):
        begun.append(folder)
        todo.get(len(begun), lambda: None)()
        return run(spec, folder, **keys)

    monkeypatch.setattr(fake_trial, "run_trial", run_trial)
    return todo


def until(happened, seconds=120):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def test_a_server_that_comes_and_goes_has_everything_within_the_launch(driving, server, before_trial):
    def come(trials):
        server.start()
        until(lambda: len(finished_children(server.uri)) >= trials)  # brought now, and not at the end

    before_trial.update({3: lambda: come(2), 5: server.stop, 7: lambda: come(6)})
    outcome = driving.launch(f"tracking.uri={server.uri}", *EIGHT)
    assert (outcome.ran, outcome.failed, outcome.untracked) == (8, [], None)
    assert_whole(driving, server.uri)
    parents, _ = driving.runs()
    assert [(parent.data.tags["launch"], parent.info.status) for parent in parents] == [("1", "FINISHED")]
    assert sum("cannot be written" in sentence for sentence in driving.said) >= 1
    assert len(driving.said) == len(set(driving.said))


def test_a_server_that_stays_away_is_brought_up_to_date_by_resume(driving, server):
    outcome = driving.launch(f"tracking.uri={server.uri}")
    assert (outcome.ran, outcome.failed) == (4, [])
    assert outcome.untracked
    server.start()
    resumed = driving.resume()
    assert (resumed.ran, resumed.reused, resumed.untracked) == (0, 4, None)
    assert_whole(driving, server.uri)
    parents, _ = driving.runs()
    assert [(parent.data.tags["launch"], parent.info.status) for parent in parents] == [("1", "FINISHED")]


def test_a_server_that_never_answers_holds_up_no_trial(driving, before_trial, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(100)

        def asked():  # the driver is at its fourth trial while the server still owes the first answer
            silent.settimeout(120)
            silent.accept()
            assert driving.said == []

        before_trial[4] = asked
        outcome = driving.launch(f"tracking.uri=http://127.0.0.1:{silent.getsockname()[1]}")
    assert (outcome.ran, outcome.failed) == (4, [])
    assert "timed out" in outcome.untracked.lower()


LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_locked_database_holds_up_no_trial_and_is_written_later(driving, before_trial):
    command = [sys.executable, "-c", LOCK, str(driving.root / "mlflow.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "locked\n"

        def release():
            ended = [trial.read_result() for trial in driving.folder.trials() if trial.read_result()]
            assert len(ended) == 7
            time.sleep(6.0)  # longer than the database is waited for as it is opened
            holder.stdin.close()
            holder.wait()

        before_trial[8] = release
        outcome = driving.launch(*EIGHT)
    assert (outcome.ran, outcome.failed, outcome.untracked) == (8, [], None)
    assert_whole(driving)


def test_a_database_that_is_locked_to_the_end_is_written_by_resume(driving, monkeypatch):
    # MLflow waits 20 s for each call; here the connection itself is refused at once
    import sqlalchemy

    create = sqlalchemy.create_engine

    def refused(*arguments, **keys):
        raise sqlalchemy.exc.OperationalError("select", {}, Exception("database is locked"))

    monkeypatch.setattr(sqlalchemy, "create_engine", refused)
    outcome = driving.launch()
    assert (outcome.ran, outcome.failed) == (4, [])
    assert "database is locked" in outcome.untracked
    monkeypatch.setattr(sqlalchemy, "create_engine", create)
    assert driving.resume().untracked is None
    assert_whole(driving)


def test_a_driver_that_leaves_by_an_error_takes_its_thread_along(driving, monkeypatch):
    import threading

    def broken(self):
        raise ZeroDivisionError

    monkeypatch.setattr("harness.study.driver.Driver._loop", broken)
    with pytest.raises(ZeroDivisionError):
        driving.launch()
    assert not [thread for thread in threading.enumerate() if thread.name == "tracking"]
    assert default_uri(driving.root).startswith("sqlite")
    assert json.loads((driving.folder.launches / "1.json").read_text())["state"] == "running"
