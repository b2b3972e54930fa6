"""How a job leaves its node: SLURM warns it, the trial ends its epoch and keeps a checkpoint, the job is requeued.

submitit requeues a job the instant the warning comes, in the middle of an epoch, and counts a limit of ten minutes or
less as reached whatever the cause. Here its handler is called once the epoch is over, or when little time is left, and
the time limit is told from preemption by asking the controller.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from harness.files import LineFile

#: The time limits that a trial ran into, one line each.
TIMEOUTS = "timeouts.jsonl"
#: SLURM may send its warning this much earlier than asked, in seconds.
EARLY_SECONDS = 65.0


@dataclass(frozen=True)
class JobLimit:
    """What a job's end depends on.

    Attributes
    ----------
    minutes : time limit of the job.
    signal_seconds : how long before it the warning comes.
    timeouts : how often a trial may run into the limit and go on.
    """

    minutes: float
    signal_seconds: float
    timeouts: int


class Leaving:
    """While the block runs, a warning of SLURM's is answered at the end of an epoch; elsewhere nothing changes.

    Parameters
    ----------
    limit
        Of the job; None where jobs have none.
    before
        Called before the job is requeued; gives whether anything is left to run.
    """

    def __init__(self, limit: JobLimit | None, before: Callable[[], bool]) -> None:
        self._limit, self._before = limit, before
        self._requeue: Any = None
        self._warned = False
        self._kept: dict[int, Any] = {}
        self.asked = False

    def __enter__(self) -> Leaving:
        if self._limit is None or os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
            return self
        warning = warning_signal()
        self._requeue = signal.getsignal(warning)
        handlers = {warning: self._on_warning, signal.SIGTERM: self._on_end, signal.SIGALRM: self._on_alarm}
        self._kept = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._kept.items():
            signal.signal(number, handler)
        signal.setitimer(signal.ITIMER_REAL, 0)

    def is_asked(self) -> bool:
        """Whether the trial should leave after this epoch."""
        return self.asked

    def leave(self) -> None:
        """End this process: requeued where SLURM warned and work is left, else plainly."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self._warned and self._before():
            self._requeue(warning_signal(), None)
        raise SystemExit(128 + signal.SIGTERM)

    def _on_warning(self, number: int, frame: FrameType | None) -> None:
        assert self._limit is not None, "installed only with a limit"
        self.asked = self._warned = True
        signal.setitimer(signal.ITIMER_REAL, max(1.0, self._limit.signal_seconds / 2))

    def _on_end(self, number: int, frame: FrameType | None) -> None:
        """Preempted, requeued or cancelled from outside: SLURM kills the job soon, and knows what comes next."""
        self.asked = True

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        self.leave()


def warning_signal() -> signal.Signals:
    """The signal that SLURM is asked to send before it ends a job."""
    from submitit.core.job_environment import JobEnvironment

    return signal.Signals["SIG" + JobEnvironment.USR_SIG]


def ran_out_of_time(limit: JobLimit, begun: float, now: float, preempted: bool | None) -> bool:
    """Whether a warning came from the time limit.

    Parameters
    ----------
    limit
        Of the job.
    begun, now
        Unix time at which the job began, and at which it was warned.
    preempted
        What the controller says; None where it says nothing.
    """
    if preempted is not None:
        return not preempted
    return now - begun >= 60 * limit.minutes - limit.signal_seconds - EARLY_SECONDS


def is_preempted() -> bool | None:
    """Whether the controller is preempting the job we run in; None where it does not say."""
    job = os.environ.get("SLURM_JOB_ID", "")
    try:
        done = subprocess.run(
            ["scontrol", "--oneliner", "show", "job", job], check=False, capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return preempted_in(done.stdout)


def preempted_in(shown: str) -> bool | None:
    """What ``scontrol show job`` says of preemption; None where it says nothing."""
    found = re.search(r"\bPreemptTime=(\S+)", shown)
    return None if found is None else found[1] not in ("None", "(null)")


def note_timeout(folder: Path) -> int:
    """Remember that a trial ran into the limit; gives how often it did."""
    path = folder / TIMEOUTS
    # a job that must leave has no time to wait for room: a limit that could not be noted is not counted
    LineFile(path).add(json.dumps({"time": time.time()}))
    return len(path.read_text().splitlines()) if path.exists() else 0
