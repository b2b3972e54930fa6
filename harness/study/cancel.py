"""End a study's driver, or what a dead driver left running."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from harness.errors import UserError
from harness.study.folder import StudyFolder
from harness.study.ownership import read_owner
from harness.study.status import job_names, status


def cancel(name: str, root: Path) -> str:
    """End the driver of a study; without one, the jobs that run on. What ran is kept.

    Returns
    -------
    One sentence on what was done.

    Raises
    ------
    UserError
        If there is no such study, or its driver runs on another host.
    """
    folder = StudyFolder(root, name)
    driver = status(folder).driver
    if driver is not None:
        if not driver.is_here:
            raise UserError(f"study {name!r} is driven on {driver.host}; run `harness cancel {name}` there")
        os.kill(driver.pid, signal.SIGINT)
        return f"told the driver of {name} (process {driver.pid}) to end; go on later with: {folder.command('resume')}"
    ended = _end_workers(folder)
    queued = job_names(folder) if shutil.which("scancel") else []
    for job in queued:
        subprocess.run(["scancel", f"--name={job}"], check=False, capture_output=True)
    if not ended and not queued:
        return f"nothing of {name} is running"
    return f"ended what ran of {name}; go on later with: {folder.command('resume')}"


def _end_workers(folder: StudyFolder) -> int:
    """Interrupt the processes on this host that claim a trial; gives how many."""
    pids = set()
    for trial in folder.trials():
        owner = read_owner(trial.claim)
        if owner is not None and owner.is_here and owner.is_alive:
            pids.add(owner.pid)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
    return len(pids)
