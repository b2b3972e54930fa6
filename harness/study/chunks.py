"""Which trials share a job: a fixed number, or as many as fill the asked minutes, from the time that trials took."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.study.plan import PlannedTrial, into_jobs

#: How long a job of ``auto`` lasts where a study does not say.
JOB_MINUTES = 10.0
#: Latest trials of a model that its time is judged by.
REMEMBERED = 50


@dataclass
class Chunks:
    """Cuts waiting trials into jobs.

    Attributes
    ----------
    trials_per_job : how many trials share a job; ``auto`` measures.
    minutes : how long a job of ``auto`` should last.
    """

    trials_per_job: int | Literal["auto"] = 1
    minutes: float = JOB_MINUTES
    _seconds: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=REMEMBERED)))

    def learn(self, trial: PlannedTrial, result: Mapping[str, Any]) -> None:
        """Take note of how long a trial took."""
        if result.get("state") == "finished":
            self._seconds[trial.spec.model.kind].append(float(result["ended"]) - float(result["started"]))

    def most(self, jobs: int) -> int | None:
        """How many waiting trials so many jobs are made of; None where it takes all of them to see who shares a job."""
        return jobs if self.trials_per_job == 1 else None

    def of(
        self, waiting: Sequence[PlannedTrial], in_flight: int, parallel: int
    ) -> tuple[tuple[PlannedTrial, ...], ...]:
        """Jobs for waiting trials, in order.

        Parameters
        ----------
        waiting
            Trials that no job runs.
        in_flight
            Trials that jobs run or will run.
        parallel
            Jobs that run at once: ``auto`` leaves none of them without work, and starts no more single trials than
            these while it has nothing to measure by.
        """
        if self.trials_per_job != "auto":
            return into_jobs(waiting, self.trials_per_job)
        by_kind: dict[str, list[PlannedTrial]] = {}
        for trial in waiting:
            by_kind.setdefault(trial.spec.model.kind, []).append(trial)
        fair = max(1, math.ceil(len(waiting) / parallel))
        jobs: list[tuple[PlannedTrial, ...]] = []
        for kind, trials in by_kind.items():
            if self._seconds[kind]:
                jobs += into_jobs(trials, min(fair, self._fitting(kind)))
            else:
                jobs += into_jobs(trials[: max(0, parallel - in_flight)], 1)
        return tuple(jobs)

    def _fitting(self, kind: str) -> int:
        return fitting(self.minutes, statistics.median(self._seconds[kind]))


def fitting(minutes: float, seconds: float) -> int:
    """How many trials of some seconds fill some minutes; at least one."""
    return max(1, int(60.0 * minutes / max(seconds, 0.01)))
