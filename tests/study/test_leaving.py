"""How a job answers SLURM's warnings; the real thing is in ``tests/slurm``."""

import os
import signal

import pytest

from harness.study.leaving import JobLimit, Leaving, note_timeout, preempted_in, ran_out_of_time

LIMIT = JobLimit(minutes=60, signal_seconds=90, timeouts=1)


@pytest.mark.parametrize(
    ("minutes", "ran", "preempted", "expected"),
    [
        (60, 3600 - 90, None, True),
        (60, 3600 - 90 - 60, None, True),  # SLURM warns up to a minute early
        (60, 1000, None, False),
        (60, 3600 - 90, True, False),
        (60, 1000, False, True),
        (5, 60, True, False),  # submitit would have said yes to anything under ten minutes
    ],
)
def test_the_time_limit_is_told_from_preemption(minutes, ran, preempted, expected):
    assert ran_out_of_time(JobLimit(minutes, 90, 1), 1000.0, 1000.0 + ran, preempted) is expected


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("JobId=3 PreemptTime=None SuspendTime=None", False),
        ("JobId=3 PreemptEligibleTime=2026-01-01T00:00:00 PreemptTime=2026-01-01T00:00:05", True),
        ("slurm_load_jobs error: Invalid job id specified", None),
    ],
)
def test_what_the_controller_says_of_preemption(shown, expected):
    assert preempted_in(shown) is expected


def test_time_limits_are_counted_for_a_trial(tmp_path):
    assert [note_timeout(tmp_path) for _ in range(3)] == [1, 2, 3]


@pytest.fixture
def on_slurm(monkeypatch):
    """As submitit leaves a process on SLURM: its handler on the warning, what it did in a list."""
    requeued = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: requeued.append(number))
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    yield requeued
    signal.signal(signal.SIGUSR2, before)


def test_a_warning_is_answered_when_the_trial_lets_go(on_slurm):
    counted = []
    with Leaving(LIMIT, lambda: counted.append(1) is None) as leaving:
        os.kill(os.getpid(), signal.SIGUSR2)
        assert leaving.is_asked()
        assert on_slurm == []
        with pytest.raises(SystemExit):
            leaving.leave()
    assert (on_slurm, counted) == ([signal.SIGUSR2], [1])
    os.kill(os.getpid(), signal.SIGUSR2)
    assert len(on_slurm) == 2  # outside the block it is submitit's again


def test_a_job_with_nothing_left_is_not_requeued(on_slurm):
    with Leaving(LIMIT, lambda: False) as leaving:
        os.kill(os.getpid(), signal.SIGUSR2)
        with pytest.raises(SystemExit):
            leaving.leave()
    assert on_slurm == []


def test_an_epoch_that_takes_too_long_is_cut_short(on_slurm):
    def long_epoch():
        os.kill(os.getpid(), signal.SIGUSR2)
        signal.pause()  # the alarm comes after half the warning time

    with Leaving(JobLimit(60, 2, 1), lambda: True), pytest.raises(SystemExit):
        long_epoch()
    assert on_slurm == [signal.SIGUSR2]


def test_a_job_that_slurm_ends_is_not_requeued_by_us(on_slurm):
    counted = []
    with Leaving(LIMIT, lambda: counted.append(1) is None) as leaving:
        os.kill(os.getpid(), signal.SIGTERM)
        assert leaving.is_asked()
        with pytest.raises(SystemExit):
            leaving.leave()
    assert (on_slurm, counted) == ([], [])


def test_elsewhere_nothing_is_changed():
    before = signal.getsignal(signal.SIGTERM)
    with Leaving(LIMIT, lambda: True) as leaving:
        assert signal.getsignal(signal.SIGTERM) is before
        assert not leaving.is_asked()
