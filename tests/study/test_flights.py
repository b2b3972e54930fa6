"""Flights: each trial waits or is submitted, never both, and the first to come is the first to go."""

import pytest

from harness.study.chunks import Chunks
from harness.study.flights import Flight, Flights
from harness.study.load import load_study
from harness.study.plan import plan


@pytest.fixture
def flights(driving):
    """Four trials that wait."""
    made = Flights()
    for trial in plan(load_study(driving.file)).trials:
        made.wait(Flight(trial, driving.folder.trial(trial.trial_id)))
    return made


def names(chosen):
    return [flight.trial.trial_id for flight in chosen]


def test_a_trial_is_in_one_place(flights):
    first, second, *rest = list(flights)
    flights.submit(second, None)
    assert names(flights.submitted) == names([second])
    assert names(flights.waiting) == names([first, *rest])
    assert names(flights) == names([first, *rest, second])
    assert len(flights) == 4
    assert flights.is_submitted(second)
    assert not flights.is_submitted(first)
    assert flights.get(second.trial.trial_id) is second
    flights.end(second)
    assert (len(flights), second.trial.trial_id in flights, flights.submitted) == (3, False, [])
    assert flights.get(second.trial.trial_id) is None


def test_a_trial_whose_process_is_gone_waits_again_behind_the_others(flights):
    first, *rest = list(flights)
    flights.submit(first, None)
    first.gone_since = 1.0
    flights.wait(first)
    assert names(flights.waiting) == names([*rest, first])
    assert (first.job, first.gone_since) == (None, None)


@pytest.mark.parametrize(("per_job", "most"), [(1, 3), (2, None), ("auto", None)])
def test_only_trials_that_share_no_job_are_taken_by_number(per_job, most):
    assert Chunks(trials_per_job=per_job).most(3) == most
