"""What SLURM says of our jobs: which wait or run, which array may run how many at once, and how a job ended."""

from __future__ import annotations

import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence

from harness.errors import UserError

#: Seconds that a controller may be silent before a driver that must have an answer gives up.
PATIENCE_SECONDS = 600.0
#: States in which squeue may still list a job that is over.
_OVER = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "OUT_OF_MEMORY", "BOOT_FAIL")


def run_tool(*command: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str] | None:
    """Run one of SLURM's programs; None where it cannot be started or does not answer in time."""
    try:
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired):
        return None


class SlurmQueue:
    """What squeue lists of this user's jobs, asked at most every few seconds.

    squeue and not sacct: without accounting sacct knows nothing. Job states are not needed, since a
    trial's outcome stands in its folder.

    Parameters
    ----------
    every
        Seconds between two questions.
    """

    def __init__(self, every: float = 2.0) -> None:
        self._every = every
        self._asked = float("-inf")
        self._listed: dict[str, str] = {}
        self._submitted: dict[str, float] = {}

    def expect(self, job_id: str) -> None:
        """Count a job as alive until squeue has been asked after its submission."""
        self._submitted[job_id] = time.monotonic()

    def has(self, job_id: str) -> bool:
        """Whether a job waits or runs, as far as is known."""
        self._refresh()
        return job_id in self._listed or self._submitted.get(job_id, float("-inf")) >= self._asked

    def left(self) -> Counter[str]:
        """Jobs that wait or run, by array (a job that is no array counts as one of its own)."""
        self._refresh()
        expected = [job_id for job_id, at in self._submitted.items() if at >= self._asked]
        return Counter(array_of(job_id) for job_id in {*self._listed, *expected})

    def named(self, name: str) -> list[str]:
        """Identifiers of the jobs of this name that wait or run.

        Raises
        ------
        UserError
            If the controller does not answer for ten minutes: without an answer jobs might be submitted twice.
        """
        until = time.monotonic() + PATIENCE_SECONDS
        while not self._ask():
            if time.monotonic() > until:
                raise UserError("SLURM does not answer, so that it is not known what runs; resume once squeue works")
            time.sleep(self._every)
        return [job_id for job_id, job_name in self._listed.items() if job_name == name]

    def _refresh(self) -> None:
        if time.monotonic() - self._asked > self._every:
            self._ask()

    def _ask(self) -> bool:
        """Ask; where no answer comes, what was known stays true until one does."""
        asked = time.monotonic()
        done = run_tool("squeue", "--me", "--noheader", "--array", "--format=%i %T %j")
        if done is None or done.returncode != 0:
            return False
        lines = (line.split(maxsplit=2) for line in done.stdout.splitlines())
        self._listed = {line[0]: line[2] for line in lines if len(line) == 3 and line[1] not in _OVER}
        self._asked = asked
        return True


class Throttles:
    """Bounds how many jobs run at once over several arrays, each of which SLURM bounds by itself alone.

    Each array has a throttle, and what the arrays may run together stays within the bound. As an array runs dry, the
    throttles of others are raised.

    Parameters
    ----------
    bound
        Jobs that may run at once.
    left
        Jobs that wait or run, by array.
    """

    def __init__(self, bound: int, left: Callable[[], Counter[str]]) -> None:
        self._bound, self._left = bound, left
        self._throttles: dict[str, int] = {}

    def opened(self, array: str, throttle: int) -> None:
        """An array was submitted with this throttle, or found with an unknown one."""
        self._throttles[array] = throttle

    def free(self) -> int:
        """Jobs that may run beside those that do; raises throttles first."""
        left = self._left()
        self._throttles = {array: own for array, own in self._throttles.items() if left[array] > 0}
        free = self._bound - sum(min(own, left[array]) for array, own in self._throttles.items())
        for array, own in list(self._throttles.items()):
            more = min(left[array] - own, free)
            if more > 0 and set_throttle(array, own + more):
                self._throttles[array] = own + more
                free -= more
        return free


def set_throttle(array: str, value: int) -> bool:
    """Let an array run this many jobs at once; gives whether the controller agreed."""
    done = run_tool("scontrol", "update", f"JobId={array}", f"ArrayTaskThrottle={value}")
    return done is not None and done.returncode == 0


def cancel_jobs(job_ids: Sequence[str]) -> None:
    """End jobs, many with one call."""
    for first in range(0, len(job_ids), 500):
        run_tool("scancel", *job_ids[first : first + 500])


def array_of(job_id: str) -> str:
    """``12`` for task 3 of array 12, which SLURM writes ``12_3``."""
    return job_id.partition("_")[0]


def ended_as(job_id: str) -> str:
    """How SLURM says a job ended, e.g. ``CANCELLED by 1000``; empty where it does not know.

    The controller forgets a job after some minutes, and accounting may not be there.
    """
    shown = run_tool("scontrol", "--oneliner", "show", "job", job_id, seconds=20)
    found = re.search(r"\bJobState=(\S+)", shown.stdout) if shown is not None else None
    if found is not None and found[1] not in ("PENDING", "RUNNING", "CANCELLED"):
        return found[1]
    known = run_tool("sacct", "-X", "-n", "-P", "-j", job_id, "-o", "State", seconds=20)
    lines = known.stdout.split("\n") if known is not None and known.returncode == 0 else []
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return said or (found[1] if found is not None else "")


def array_limit_of_cluster() -> int | None:
    """Largest array the controller takes; None where it does not say."""
    shown = run_tool("scontrol", "show", "config", seconds=20)
    found = re.search(r"(?m)^MaxArraySize\s*=\s*(\d+)", shown.stdout) if shown is not None else None
    return None if found is None else max(1, int(found[1]))
