"""A study as its folder shows it: the state of every trial, without planning the study or asking a database.

Results never change, so that somebody who looks again and again reads each of them once.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.study.folder import StudyFolder, TrialFolder, TrialState
from harness.study.launches import Launch, last_launch
from harness.study.lease import is_held
from harness.study.ownership import Owner, read_owner
from harness.study.sent_off import Detached, yet_to_begin
from harness.study.trial_index import Entry, left_over, read_index

#: What a trial is called that was dropped with ``harness cancel --cell``.
CANCELLED = "cancelled"
#: Names of states, in the order in which they are told.
STATES = ("waiting", "running", "interrupted", "finished", "failed", CANCELLED, "pruned")
#: Those of trials that are still to end.
OPEN = ("waiting", "running", "interrupted")
#: Most of the end of a ``metrics.jsonl`` that is read for its last line, in bytes.
_TAIL = 65_536


@dataclass(frozen=True, slots=True)
class Row:
    """One trial.

    Attributes
    ----------
    entry : its id, cell, seed and epochs.
    state : one of `STATES`.
    ended : unix time at which it ended; 0 where it has not.
    value : what the running best is judged by; None where it is not known.
    reason : why it failed or was cancelled, one line.
    torn : whether its result is there but cannot be read.
    """

    entry: Entry
    state: str
    ended: float = 0.0
    value: float | None = None
    reason: str = ""
    torn: bool = False


@dataclass(frozen=True)
class View:
    """One look at a study.

    Attributes
    ----------
    folder : the study's.
    rows : its trials, those of the grid in the study file's order.
    launch : record of its last launch; None before the first.
    driver : who drives it now; None if nobody does.
    last_driver : who drove it last; None before the first.
    sent_off : driver that was sent off and waits to begin, while nobody drives; None if none does.
    to_propose : most trials that its search still adds.
    left_over : trials of earlier launches that are no part of it any more.
    time : unix time of the look.
    """

    folder: StudyFolder
    rows: tuple[Row, ...]
    launch: Launch | None
    driver: Owner | None
    last_driver: Owner | None
    sent_off: Detached | None
    to_propose: int
    left_over: int
    time: float = field(default_factory=time.time)

    @property
    def counts(self) -> dict[str, int]:
        """Trials in each state that occurs, in the order of `STATES`."""
        counts = dict.fromkeys(STATES, 0)
        for row in self.rows:
            counts[row.state] += 1
        return {state: count for state, count in counts.items() if count}

    def having(self, state: str) -> tuple[Row, ...]:
        """Rows in one state."""
        return tuple(row for row in self.rows if row.state == state)

    @property
    def open(self) -> int:
        """Trials that are still to end, proposals of the search included."""
        return sum(row.state in OPEN for row in self.rows) + self.to_propose

    @property
    def is_driven(self) -> bool:
        """Whether a driver is at work, or was sent off and will be."""
        return self.driver is not None or self.sent_off is not None

    @property
    def begun(self) -> float | None:
        """Unix time at which the last driver took the study on."""
        if self.launch is None:
            return None
        return self.launch.begun[-1] if self.launch.begun else self.launch.started

    @property
    def per_hour(self) -> float | None:
        """Trials that ended in an hour, since the last driver took the study on; None before any did."""
        ran = [row for row in self.rows if row.state != CANCELLED]  # what is dropped takes no time
        ended = [row.ended for row in ran if self.begun is not None and row.ended >= self.begun]
        if not ended or self.begun is None:
            return None
        until = self.time if self.driver is not None else max(ended)
        return len(ended) / max(until - self.begun, 1e-3) * 3600

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all have ended, at that rate; None where nobody drives, or nothing has ended yet."""
        rate = self.per_hour
        return None if rate is None or self.driver is None else self.open / rate * 3600

    @property
    def best(self) -> tuple[str, float, int] | None:
        """Cell with the best mean over its finished seeds, that mean, and the number of seeds."""
        if self.launch is None or len(self.launch.judged_by) != 2:
            return None
        cells: dict[str, list[float]] = {}
        for row in self.rows:
            if row.value is not None:
                cells.setdefault(row.entry.cell, []).append(row.value)
        means = {cell: math.fsum(values) / len(values) for cell, values in cells.items()}
        if not means:
            return None
        pick: Callable[..., str] = max if self.launch.judged_by[1] == "maximize" else min
        cell = pick(means, key=lambda name: means[name])
        return cell, means[cell], len(cells[cell])


class Survey:
    """Looks at a study as often as it is asked to.

    Parameters
    ----------
    folder
        The study's.
    """

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder
        self._ended: dict[str, tuple[tuple[int, int], Row]] = {}

    def look(self) -> View:
        """Read what is new.

        Raises
        ------
        UserError
            If there is no such study, or its folder may not be read.
        """
        folder = self.folder
        if not folder.study_file.exists():
            raise UserError(f"no study {folder.name!r} in {folder.root}; launch it first, or say where with --root")
        launch = last_launch(folder)
        index = read_index(folder)
        entries = self._entries(launch, index)
        metric = launch.judged_by[0] if launch is not None and launch.judged_by else None
        there = dict.fromkeys(folder.trial_ids())
        base = str(folder.trials_folder)
        rows = tuple(
            self._row(entry, metric, f"{base}/{entry.trial_id}/result.json")
            if entry.trial_id in there
            else Row(entry, "waiting")
            for entry in entries
        )
        searched = sum(entry.searched for entry in entries)
        held = read_owner(folder.lock)
        driver = held if held is not None and is_held(held) else None
        searching = launch is not None and launch.to_search > 0
        return View(
            folder=folder,
            rows=rows,
            launch=launch,
            driver=driver,
            last_driver=held,
            sent_off=yet_to_begin(folder, held) if driver is None else None,
            to_propose=max(0, launch.to_search - searched) if launch is not None else 0,
            left_over=0 if launch is None else len(left_over(there, launch.trials, index, searching=searching)),
        )

    def _entries(self, launch: Launch | None, index: Mapping[str, Entry]) -> list[Entry]:
        """The study's trials: those of its grid, then what its search has proposed."""
        if launch is None:
            ids = [trial.trial_id for trial in self.folder.trials()]
        else:
            searched = [e.trial_id for e in index.values() if e.searched and launch.to_search > 0]
            ids = list(dict.fromkeys([*launch.trials, *searched]))
        known = index if all(trial_id in index for trial_id in ids) else {**_planned(self.folder), **index}
        return [known.get(trial_id) or Entry(trial_id, trial_id, 0, 0) for trial_id in ids]

    def _row(self, entry: Entry, metric: str | None, path: str) -> Row:
        """Row of a trial that has a folder; paths are text here, since there may be ten thousand."""
        seen = self._ended.get(entry.trial_id)
        if seen is not None and seen[0] == _mark(path) and seen[1].entry == entry:
            return seen[1]
        mark = _mark(path)  # before the content: one replaced in between is read again
        if mark is None:
            return Row(entry, _state_of_open(self.folder.trial(entry.trial_id)))
        row = _ended(entry, path, metric)
        if row is None:
            return Row(entry, _state_of_open(self.folder.trial(entry.trial_id)), torn=True)
        self._ended[entry.trial_id] = (mark, row)
        return row


def _mark(path: str) -> tuple[int, int] | None:
    """What tells one writing of a file from another; None without a file."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino


def _planned(folder: StudyFolder) -> dict[str, Entry]:
    """Entries of the grid's trials, for a study whose driver has noted none; empty where it cannot be planned."""
    from harness.study.load import load_study  # heavy, and seldom needed
    from harness.study.plan import plan

    try:
        trials = plan(load_study(folder.study_file)).trials
    except UserError:
        return {}
    return {t.trial_id: Entry(t.trial_id, t.cell, t.seed, t.spec.train.epochs) for t in trials}


def _state_of_open(trial: TrialFolder) -> str:
    """State of a trial without a result."""
    state = trial.state()
    if state is not TrialState.RUNNING and trial.cancelled.exists():
        return CANCELLED
    return state.value


def _ended(entry: Entry, path: str, metric: str | None) -> Row | None:
    """The row of a trial with a result; None where that cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            result = json.loads(file.read())
        state = str(result["state"])
        if state not in STATES or state in OPEN:
            return None
        ended = float(result.get("ended") or 0.0)
        failure = result.get("failure") or {}
        if state == "failed":
            reason = (str(failure.get("reason") or "").strip() or "no reason recorded").splitlines()[0]
            return Row(entry, CANCELLED if failure.get("cancelled") else state, ended, reason=reason)
        value = (result.get("metrics") or {}).get(metric) if metric and state == "finished" else None
        return Row(entry, state, ended, None if value is None else float(value))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


# ---------------------------------------------------------------------------------------------- running


@dataclass(frozen=True)
class Sign:
    """What a running trial was last heard of.

    Attributes
    ----------
    epoch : last epoch it has written; 0 before the first.
    metrics : of that epoch.
    age : seconds since it wrote anything or was claimed.
    owner : the process that runs it.
    """

    epoch: int
    metrics: Mapping[str, float]
    age: float
    owner: Owner | None


def last_sign(trial: TrialFolder) -> Sign:
    """The last sign of life of a trial."""
    owner = read_owner(trial.claim)
    signs = [owner.time] if owner is not None and owner.time else []
    with contextlib.suppress(OSError):
        signs.append(trial.metrics.stat().st_mtime)
    line = last_line(trial.metrics) or {}
    age = time.time() - max(signs) if signs else 0.0
    return Sign(int(line.get("epoch", 0)), line.get("metrics") or {}, max(0.0, age), owner)


def last_line(path: Path) -> dict[str, Any] | None:
    """The last whole line of a file of JSON lines; None where there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            lines: Iterable[bytes] = file.read().splitlines()
    except OSError:
        return None
    for line in reversed(list(lines)):
        try:
            value = json.loads(line)
        except ValueError:
            continue  # torn, or cut at the front
        if isinstance(value, dict):
            return value
    return None
