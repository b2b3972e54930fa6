"""The driver's lease on a study folder: one driver at a time, and a revived one notices that it was replaced."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from harness.errors import UserError
from harness.study.folder import root_option
from harness.study.ownership import STALE_SECONDS, Owner, holds, overwrite, read_owner, take, this_process

#: Seconds between signs of life.
HEARTBEAT_SECONDS = 10.0
#: Seconds that a requeued driver waits for its own earlier process to end.
EARLIER_SECONDS = 60.0


class LeaseLost(Exception):
    """Another driver has taken the study over; this one must not write any more."""


def is_held(owner: Owner) -> bool:
    """Whether a lease on disk still binds: its process lives here, or gave a sign of life elsewhere."""
    alive = owner.is_alive
    return owner.silence < STALE_SECONDS if alive is None else alive


def is_restarted(held: Owner) -> bool:
    """Whether we run in a SLURM job that was requeued, and a process of that job holds the lease."""
    return (
        os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")
        and held.job != ""
        and held.job == this_process().job
    )


def is_earlier_start(held: Owner) -> bool:
    """Whether the lease is that of an earlier start of this job, on a node that cannot be asked and was left."""
    return is_restarted(held) and held.is_alive is None


class Lease:
    """Holds ``driver.lock`` while the ``with`` block runs.

    Parameters
    ----------
    path
        The lock file, in the study's folder, which exists.
    study
        Name of the study, for the message to a second driver.

    Raises
    ------
    UserError
        On entry, if a live driver holds the study; the sentence says which.
    """

    def __init__(self, path: Path, study: str) -> None:
        self._path = path
        self._study = study
        self._owner: Owner | None = None
        self._over = threading.Event()

    @property
    def epoch(self) -> int:
        """How often the study has been taken, this driver included."""
        return self._owner.epoch if self._owner else 0

    def __enter__(self) -> Lease:
        self._owner = self._take()
        if self._owner is None:
            held = read_owner(self._path)
            who = f"process {held.pid} on {held.host}" if held else "another process"
            seen = f", last seen {held.silence:.0f} s ago" if held else ""
            raise UserError(
                f"study {self._study!r} is already driven by {who}{seen}; wait for it, or stop it with "
                f"`harness cancel {self._study}{root_option(self._path.parent.parent)}`"
            )
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def _take(self) -> Owner | None:
        """Take the lease; wait for an earlier start of this same SLURM job, which SLURM is still ending."""
        until = time.monotonic() + EARLIER_SECONDS
        while True:
            owner = take(self._path, this_process(), lambda held: not is_held(held) or is_earlier_start(held))
            held = None if owner is not None else read_owner(self._path)
            if held is None or not is_restarted(held) or time.monotonic() > until:
                return owner
            time.sleep(0.2)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._owner is not None and holds(self._path, self._owner):
            overwrite(self._path, replace(self._owner, released=True, time=time.time()))

    def check(self) -> None:
        """Raise `LeaseLost` if another driver has taken over; to be called before every write."""
        if self._owner is None or not holds(self._path, self._owner):
            raise LeaseLost(f"study {self._study!r} was taken over by another driver")

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT_SECONDS):
            # A missed beat is harmless: the next one comes, and the owner's pid still shows life here.
            with contextlib.suppress(OSError):
                if self._owner is None or not holds(self._path, self._owner):
                    return
                self._owner = replace(self._owner, time=time.time())
                overwrite(self._path, self._owner)
