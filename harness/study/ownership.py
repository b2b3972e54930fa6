"""Who works on a folder: a small JSON file that exactly one process can create.

Used twice: a driver holds a lease on its study, a job claims its trial. The file names host, process and
start time, so that another process on the same host can tell a live owner from a dead one; a process
identifier that the system has given to somebody else does not fool it.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from harness.files import has_no_room, patiently

#: Seconds without a sign of life after which an owner on another host counts as dead.
STALE_SECONDS = 120.0


@dataclass(frozen=True)
class Owner:
    """One process that owns a folder.

    Attributes
    ----------
    host, pid : where it runs.
    started : the kernel's start time of that process (clock ticks since boot), 0 where it is unknown.
    job : SLURM's job id, or the empty string.
    epoch : how often the folder has changed hands.
    time : unix time of taking, or of the last sign of life.
    released : whether the owner has let go; the file then only remembers the epoch.
    token : unique for each taking.
    """

    host: str
    pid: int
    started: int
    job: str = ""
    epoch: int = 1
    time: float = field(default_factory=time.time)
    released: bool = False
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def is_here(self) -> bool:
        """Whether the owner runs on this host."""
        return self.host == socket.gethostname()

    @property
    def is_me(self) -> bool:
        """Whether the owner is this very process."""
        return self.is_here and self.pid == os.getpid() and self.started == process_start(self.pid)

    @property
    def is_alive(self) -> bool | None:
        """Whether the owner lives; None where that cannot be known from here (another host)."""
        if self.released:
            return False
        if not self.is_here:
            return None
        started = process_start(self.pid)
        return started is not None and started == self.started

    @property
    def silence(self) -> float:
        """Seconds since the last sign of life."""
        return time.time() - self.time


def this_process() -> Owner:
    """An owner record for the process that asks."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")
    pid = os.getpid()
    return Owner(host=socket.gethostname(), pid=pid, started=process_start(pid) or 0, job=job)


def process_start(pid: int) -> int | None:
    """Start time of a process on this host in clock ticks; None if it is gone, 0 if only its life is known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except (OSError, IndexError, ValueError):
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)  # no /proc (macOS): ask the kernel whether anybody has this number
    except ProcessLookupError:
        return None
    except PermissionError:
        return 0
    return 0


def read_owner(path: Path) -> Owner | None:
    """The owner a file names; None without a file.

    A file whose content is not (yet) whole is read again for a second, then taken for the leavings of a
    process that died between creating and writing it: an owner that is not alive.
    """
    for _ in range(20):
        try:
            return Owner(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            time.sleep(0.05)
    return Owner(host=socket.gethostname(), pid=-1, started=-1, epoch=0, time=0.0, token="")


def take(path: Path, owner: Owner, may_replace: Callable[[Owner], bool]) -> Owner | None:
    """Become the owner of ``path``.

    Parameters
    ----------
    path
        The file; its folder exists.
    owner
        The record to write. Its epoch becomes one more than that of the owner it replaces.
    may_replace
        Whether an owner that stands there may be pushed aside, asked once for each that is found.

    Returns
    -------
    The record as written, or None where somebody else holds the file.

    Raises
    ------
    OSError
        Where the file cannot be written; while the disk is full this waits, as `harness.files.patiently` does.
    """
    return patiently(lambda: _take(path, owner, may_replace), path)


def _take(path: Path, owner: Owner, may_replace: Callable[[Owner], bool]) -> Owner | None:
    while True:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            held = read_owner(path)
            if held is None:
                continue
            if not may_replace(held):
                return None
            owner = replace(owner, epoch=held.epoch + 1)
            _push_aside(path, held)
            continue
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(json.dumps(asdict(owner)))
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return owner


def _push_aside(path: Path, held: Owner) -> None:
    """Remove the file of ``held``; leave it where somebody else took it a moment earlier."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        path.rename(aside)  # exactly one of several rivals succeeds
    except FileNotFoundError:
        return
    moved = read_owner(aside)
    if moved is not None and moved.token != held.token and not path.exists():
        aside.rename(path)
        return
    aside.unlink(missing_ok=True)


def holds(path: Path, owner: Owner) -> bool:
    """Whether ``path`` still names this very taking."""
    held = read_owner(path)
    return held is not None and held.token == owner.token and not held.released


def overwrite(path: Path, owner: Owner) -> None:
    """Replace the content of a file that ``owner`` holds, atomically.

    On a full disk the file is written over in place, which takes no room: an owner that goes on living shows it. Who
    reads in that instant reads again.
    """
    text = json.dumps(asdict(owner))
    temporary = path.with_name(f"{path.name}.{owner.token}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if not has_no_room(error):
            raise
        with path.open("r+") as file:
            file.write(text)
            file.truncate()
