"""End a study's driver, what a dead driver left running, or single cells of a study."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from harness.study.cells import matching_of
from harness.study.folder import StudyFolder
from harness.study.ownership import Owner, read_owner
from harness.study.requests import ask_to_end, mark_cancelled
from harness.study.sent_off import end_sent_off, is_driven
from harness.study.status import job_names
from harness.study.survey import OPEN, Survey, View
from harness.words import counted, first

#: Cells that are named.
_MOST_NAMED = 6


def cancel(folder: StudyFolder) -> str:
    """End the driver of a study; without one, the jobs that run on. What ran is kept.

    Returns
    -------
    One sentence on what was done.

    Raises
    ------
    UserError
        If there is no such study.
    """
    sent_off = end_sent_off(folder, lambda: is_driven(folder))
    view = Survey(folder).look()
    resume = f"go on later with: {folder.command('resume')}"
    if view.driver is not None:
        return f"{_end(folder, view.driver)}; {resume}"
    ended = _end_workers(folder, view)
    queued = job_names(folder) if shutil.which("scancel") else []
    for job in queued:
        subprocess.run(["scancel", f"--name={job}"], check=False, capture_output=True)
    if not ended and not queued and sent_off is None:
        return f"nothing of {folder.name} is running"
    return f"ended what ran of {folder.name}; {resume}"


def _end(folder: StudyFolder, driver: Owner) -> str:
    """Tell a driver to end; one on another host finds the request in the study's folder."""
    if not driver.is_here:
        ask_to_end(folder, driver)
        return f"asked the driver of {folder.name} (process {driver.pid} on {driver.host}) to end, which it will soon"
    _interrupt(driver.pid)
    return f"told the driver of {folder.name} (process {driver.pid}) to end"


def _interrupt(pid: int) -> None:
    """Send the signal of Ctrl-C, or, to a shell script's background job, which ignores it, that of ``kill``."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM if _ignores(pid, signal.SIGINT) else signal.SIGINT)


def _ignores(pid: int, number: int) -> bool:
    """Whether a process ignores a signal, where the system says so."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    masks = [int(line.split()[1], 16) for line in lines if line.startswith("SigIgn:")]
    return any(mask >> (number - 1) & 1 for mask in masks)


def _end_workers(folder: StudyFolder, view: View) -> int:
    """Interrupt the processes on this host that claim a trial; gives how many."""
    pids = set()
    for row in view.having("running"):
        owner = read_owner(folder.trial(row.entry.trial_id).claim)
        if owner is not None and owner.is_here and owner.is_alive:
            pids.add(owner.pid)
    for pid in pids:
        _interrupt(pid)
    return len(pids)


def cancel_cells(folders: Sequence[StudyFolder], words: str) -> list[str]:
    """Drop the trials of some cells that have not ended, whether or not a driver is at work.

    They are not started any more, or stop at the end of their epoch, and run again only when they are retried.

    Parameters
    ----------
    folders
        The studies.
    words
        What must be in a cell's name.

    Returns
    -------
    A sentence for each study that has such a cell.

    Raises
    ------
    UserError
        If no study has such a cell; the sentence says which cells there are.
    """
    views = [Survey(folder).look() for folder in folders]
    return [_drop(view, cells) for view, cells in matching_of(views, words)]


def _drop(view: View, cells: Sequence[str]) -> str:
    folder = view.folder
    named = f"{counted(len(cells), 'cell')} of {folder.name} ({first(cells, _MOST_NAMED, '; ')})"
    chosen = [row for row in view.rows if row.entry.cell in set(cells) and row.state in OPEN]
    if not chosen:
        return f"nothing to cancel: all trials of {named} have ended"
    mark_cancelled(folder, [folder.trial(row.entry.trial_id) for row in chosen])
    running = sum(row.state == "running" for row in chosen)
    stops = f", {running} of them at the end of an epoch" if running else ""
    return (
        f"cancelled {counted(len(chosen), 'trial')} of {named}{stops}; "
        f"run them later with: {folder.command('retry')} --failed"
    )
