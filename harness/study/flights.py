"""The trials of a fleet: those that wait apart from those a job is at, so that the many cost nothing to the few."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.study.executors import Job
from harness.study.folder import TrialFolder
from harness.study.plan import PlannedTrial


@dataclass
class Flight:
    """A trial that has been taken on and has no result yet.

    Attributes
    ----------
    trial, folder : which.
    job : the job that is at it; None while it waits, or where an earlier driver's process is.
    told : whether the driver was told that it has begun.
    attempts : how often it had been started when its job was submitted.
    deaths : processes that left no result.
    gone_since : when its process was first missed, on the monotonic clock.
    mates : ids of the trials of the same job.
    """

    trial: PlannedTrial
    folder: TrialFolder
    job: Job | None = None
    told: bool = False
    attempts: int = 0
    deaths: int = 0
    gone_since: float | None = None
    mates: tuple[str, ...] = ()


class Flights:
    """All trials in flight, by id; each either waits or is submitted."""

    def __init__(self) -> None:
        self._waiting: dict[str, Flight] = {}
        self._submitted: dict[str, Flight] = {}

    def __contains__(self, trial_id: str) -> bool:
        return trial_id in self._waiting or trial_id in self._submitted

    def __len__(self) -> int:
        return len(self._waiting) + len(self._submitted)

    def __iter__(self) -> Iterator[Flight]:
        """Every trial; trials may come and go meanwhile."""
        return iter([*self._waiting.values(), *self._submitted.values()])

    @property
    def submitted(self) -> list[Flight]:
        """Trials that a job is at, or will be."""
        return list(self._submitted.values())

    @property
    def waiting(self) -> Iterator[Flight]:
        """Trials that no job is at, first come first; none may come or go meanwhile."""
        return iter(self._waiting.values())

    def get(self, trial_id: str) -> Flight | None:
        """A trial in flight; None for another."""
        return self._waiting.get(trial_id) or self._submitted.get(trial_id)

    def is_submitted(self, flight: Flight) -> bool:
        """Whether a job is at a trial, or will be."""
        return flight.trial.trial_id in self._submitted

    def wait(self, flight: Flight) -> None:
        """Let a trial wait, a new one or one whose process is gone."""
        flight.job, flight.gone_since = None, None
        self._submitted.pop(flight.trial.trial_id, None)
        self._waiting[flight.trial.trial_id] = flight

    def submit(self, flight: Flight, job: Job | None) -> None:
        """A job is at a trial now, or, without one, a process of an earlier driver."""
        flight.job, flight.gone_since = job, None
        self._waiting.pop(flight.trial.trial_id, None)
        self._submitted[flight.trial.trial_id] = flight

    def end(self, flight: Flight) -> None:
        """A trial came to its end."""
        self._waiting.pop(flight.trial.trial_id, None)
        self._submitted.pop(flight.trial.trial_id, None)
