"""Drivers that die half-way, in processes of their own: what they leave is gone on with, never run twice."""

import os
import signal
import time
from contextlib import nullcontext

import pytest
from driving import end_group, ignoring_ctrl_c

from harness.study.folder import TrialState


def ended(driving):
    return sum(1 for trial in driving.folder.trials() if trial.state() is TrialState.FINISHED)


def alive(process_ids):
    return [pid for pid in process_ids if os.path.exists(f"/proc/{pid}")]


@pytest.fixture
def expected(driving):
    """Results of the same study, uninterrupted."""
    driving.launch()
    results = driving.results()
    driving.folder.path.rename(driving.root / "uninterrupted")
    return results


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_a_killed_driver_is_replaced_and_the_results_are_the_same(driving, expected, cluster, monkeypatch):
    process = driving.driver(f"compute.cluster={cluster}", "compute.workers=1", "train.epochs=3", FAKE_SECONDS="0.3")
    try:
        driving.until(lambda: ended(driving) >= 1 and any_running(driving), process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        outcome = driving.resume()  # the worker of the dead driver may still run: its trial is waited for
    finally:
        end_group(process)
    assert outcome.failed == []
    assert driving.results() == expected
    starts = driving.starts()
    assert sum(starts.values()) <= 5  # at most the one in flight was started again
    if cluster == "local":
        assert set(starts.values()) == {1}
    parents, children = driving.runs()
    assert [parent.data.tags["launch"] for parent in parents].count("1") == 1
    of_this = [child for child in children if child.data.tags["trial_id"] in expected]
    assert len(of_this) == 4
    client = driving.client()
    for child in of_this:
        curve = client.get_metric_history(child.info.run_id, "validation/loss")
        assert [point.step for point in curve] == [1, 2, 3]


def any_running(driving):
    return any(trial.state() is TrialState.RUNNING and trial.metrics.exists() for trial in driving.folder.trials())


@pytest.mark.parametrize(
    ("number", "ignored"), [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)]
)
def test_ctrl_c_ends_jobs_politely_and_says_how_to_go_on(driving, number, ignored):
    """Also jobs of a driver that ignores Ctrl-C, as one that a script starts in the background."""
    with ignoring_ctrl_c() if ignored else nullcontext():
        process = driving.driver("compute.cluster=local", "compute.workers=2", "train.epochs=40", FAKE_SECONDS="1")
    try:
        driving.until(lambda: any_running(driving), process)
        workers = [int(trial_owner(trial)["pid"]) for trial in driving.folder.trials() if trial.claim.exists()]
        os.kill(process.pid, number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        assert "harness resume fake" in errors
        assert "Traceback" not in errors
        time.sleep(0.2)
        assert not alive(workers)
    finally:
        end_group(process)
    outcome = driving.resume()
    assert outcome.failed == []
    assert outcome.ran + outcome.reused == 4


def trial_owner(trial):
    from harness.study.folder import read_json

    return read_json(trial.claim) or {"pid": 0}


def test_a_worker_that_dies_is_started_again_and_goes_on(driving, monkeypatch):
    monkeypatch.setenv("FAKE_DIE", "[0.5]")  # once: the checkpoint it leaves keeps it alive
    outcome = driving.launch("compute.cluster=local", "compute.workers=2", "seeds=1")
    assert (outcome.ran, outcome.failed) == (2, [])
    assert sorted(driving.starts().values()) == [1, 2]


def test_a_worker_that_always_dies_is_given_up_with_its_last_words(driving, monkeypatch):
    monkeypatch.setenv("FAKE_DIE", "[0.5]")
    monkeypatch.setenv("FAKE_ALWAYS", "true")
    changes = ("compute.cluster=local", "compute.workers=1", "compute.trials_per_job=2", "seeds=1")
    outcome = driving.launch(*changes)
    assert (outcome.ran, len(outcome.failed)) == (2, 1)
    name, reason = outcome.failed[0]
    assert "sparsity=0.5" in name
    assert reason == "its process died 2 times without a result: out of luck"
    monkeypatch.delenv("FAKE_DIE")
    assert driving.launch(*changes).failed == []
