"""Bounds over several arrays, and what SLURM's programs say."""

import subprocess
from collections import Counter

import pytest

from harness.errors import UserError
from harness.study import slurm_queue
from harness.study.slurm_queue import SlurmQueue, Throttles


@pytest.fixture
def raised(monkeypatch):
    """Throttles that were raised: array, value."""
    calls = []
    monkeypatch.setattr(slurm_queue, "set_throttle", lambda array, value: calls.append((array, value)) or True)
    return calls


def test_throttles_share_one_bound(raised):
    left = Counter({"1": 10, "2": 3})
    throttles = Throttles(8, lambda: left)
    throttles.opened("1", 8)
    assert throttles.free() == 0
    left["1"] = 5  # ran dry: five of it are left
    assert throttles.free() == 3
    throttles.opened("2", 3)
    assert throttles.free() == 0
    assert raised == []


def test_a_throttle_is_raised_as_others_run_dry(raised):
    left = Counter({"1": 4, "2": 20})
    throttles = Throttles(6, lambda: left)
    throttles.opened("1", 4)
    throttles.opened("2", 2)
    assert throttles.free() == 0
    left["1"] = 1
    assert throttles.free() == 0
    assert raised == [("2", 5)]
    del left["1"]
    throttles.free()
    assert raised[-1] == ("2", 6)


def test_arrays_that_were_found_get_what_is_free(raised):
    throttles = Throttles(6, lambda: Counter({"7": 4}))
    throttles.opened("7", 0)
    assert throttles.free() == 2
    assert raised == [("7", 4)]


def answers(monkeypatch, *outputs):
    """What SLURM's programs say, one after another; None: no answer."""
    told = list(outputs)

    def run_tool(*command, seconds=60.0):
        said = told.pop(0) if len(told) > 1 else told[0]
        return None if said is None else subprocess.CompletedProcess(command, 0, said, "")

    monkeypatch.setattr(slurm_queue, "run_tool", run_tool)


def test_what_is_listed_lives_and_what_was_just_submitted_too(monkeypatch):
    answers(monkeypatch, "5_0 RUNNING a\n5_1 PENDING a\n6 COMPLETED b\n")
    queue = SlurmQueue(every=1000.0)
    assert [queue.has(job) for job in ("5_0", "5_1", "6", "7")] == [True, True, False, False]
    queue.expect("7")
    assert queue.has("7")
    assert queue.left() == Counter({"5": 2, "7": 1})


def test_without_an_answer_nothing_is_taken_for_dead(monkeypatch):
    answers(monkeypatch, "5 RUNNING a\n", None)
    queue = SlurmQueue(every=0.0)
    assert queue.has("5")
    assert queue.has("5")


def test_a_search_by_name_waits_for_an_answer(monkeypatch):
    answers(monkeypatch, None, None, "5 RUNNING a\n6 RUNNING b\n")
    assert SlurmQueue(every=0.01).named("b") == ["6"]


def test_a_search_by_name_that_is_never_answered_is_refused(monkeypatch):
    monkeypatch.setattr(slurm_queue, "PATIENCE_SECONDS", 0.05)
    answers(monkeypatch, None)
    with pytest.raises(UserError, match="SLURM does not answer"):
        SlurmQueue(every=0.01).named("b")


@pytest.mark.parametrize(
    ("scontrol", "sacct", "expected"),
    [
        ("JobId=3 JobState=NODE_FAIL Reason=x", None, "NODE_FAIL"),
        ("JobId=3 JobState=CANCELLED Reason=x", "CANCELLED by 1000\n", "CANCELLED by 1000"),
        ("JobId=3 JobState=CANCELLED Reason=x", None, "CANCELLED"),
        (None, "PREEMPTED\nTIMEOUT\n", "TIMEOUT"),
        (None, None, ""),
    ],
)
def test_how_a_job_ended(monkeypatch, scontrol, sacct, expected):
    answers(monkeypatch, scontrol, sacct)
    assert slurm_queue.ended_as("3") == expected
