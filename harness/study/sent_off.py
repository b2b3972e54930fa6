"""A driver that was sent off by ``--detach``, as others find it. Light, since ``status`` asks too."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from harness.study.folder import StudyFolder, read_json, write_atomic
from harness.study.lease import is_held
from harness.study.ownership import Owner, process_start, read_owner
from harness.study.slurm_queue import run_tool

#: Seconds that a driver may take from the start of its process until it holds its study.
BEGIN_SECONDS = 60.0

_RECORD = "detached.json"


@dataclass(frozen=True)
class Detached:
    """A driver that was sent off.

    Attributes
    ----------
    kind : ``job`` or ``process``.
    id : SLURM's job id, or the process id.
    host : where it was sent off.
    started : start time of the process as the kernel counts it; 0 for a job.
    time : unix time.
    log : what it prints.
    """

    kind: str
    id: str
    host: str
    started: int
    time: float
    log: str

    def __str__(self) -> str:
        return f"SLURM job {self.id}" if self.kind == "job" else f"process {self.id} on {self.host}"


def keep(folder: StudyFolder, sent: Detached) -> None:
    """Write down which driver was sent off."""
    write_atomic(folder.path / _RECORD, json.dumps(asdict(sent)))


def waiting_driver(folder: StudyFolder) -> Detached | None:
    """The driver that was sent off last, while it waits or runs; None where it has ended, or none was."""
    record = read_json(folder.path / _RECORD)
    try:
        sent = Detached(**record)
    except TypeError:
        return None
    if sent.kind == "job":
        return None if _job_state(sent) in ("", "COMPLETED", "CANCELLED") else sent
    alive = sent.host == socket.gethostname() and process_start(int(sent.id)) == sent.started
    return sent if alive else None


def yet_to_begin(folder: StudyFolder, held: Owner | None) -> Detached | None:
    """The driver that was sent off last, if it has not taken the study yet; ``held`` is who took it last.

    One that has let go, and is about to end, is not; a job that SLURM took back into its queue is.
    """
    sent = waiting_driver(folder)
    if sent is None or held is None or held.time < sent.time:
        return sent
    return sent if sent.kind == "job" and _job_state(sent) == "PENDING" else None


def _job_state(sent: Detached) -> str:
    """State of its job as SLURM lists it; empty where it lists none, or does not answer."""
    listed = run_tool("squeue", "--noheader", f"--jobs={sent.id}", "--format=%T")
    return "" if listed is None or listed.returncode != 0 else listed.stdout.strip()


def end_sent_off(folder: StudyFolder, has_begun: Callable[[], bool]) -> Detached | None:
    """End a driver that was sent off and still waits; one that is about to begin is waited for, so as to be told.

    Parameters
    ----------
    folder
        Of the study or suite that it was sent off for.
    has_begun
        Whether a driver is at work by now.

    Returns
    -------
    The driver, if it was ended; None where there is none, or it has begun and can be told to end.
    """
    sent, until = waiting_driver(folder), time.monotonic() + BEGIN_SECONDS
    if sent is None:
        return None
    while waiting_driver(folder) is not None:
        if has_begun() or time.monotonic() > until:
            return None
        if sent.kind == "job":
            run_tool("scancel", "--state=PENDING", sent.id)
        time.sleep(0.5)
    return sent


def is_driven(folder: StudyFolder) -> bool:
    """Whether a live driver holds a study."""
    held = read_owner(folder.lock)
    return held is not None and is_held(held)
