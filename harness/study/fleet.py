"""Trials in flight: submit them as jobs, see from their folders how they end, start again what died.

A trial's outcome is its ``result.json``, never a job's status. A trial without one whose claim is held by a
live process, or whose job waits or runs, is in flight; whoever started it. Otherwise its process died.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from harness.study.again import CANCELLED, GIVEN_UP
from harness.study.chunks import Chunks
from harness.study.executors import FULL_SECONDS, ClusterFull, Executor, Job
from harness.study.flights import Flight, Flights
from harness.study.folder import StudyFolder, TrialFolder, TrialState, read_json, write_atomic
from harness.study.job import RUN, RunTrials, attempts, claimed_by, drop_claim
from harness.study.plan import PlannedTrial
from harness.trial_result import TrialResult

#: Seconds that a result may take to show on a shared file system after its job has left the queue.
GRACE_SECONDS = {"inline": 0.0, "local": 0.0, "slurm": 15.0}
#: Seconds for which a driver that died in the middle of a submission may still have brought it about.
SUBMISSION_SECONDS = 20.0


@dataclass(frozen=True)
class Ended:
    """A trial that came to its end: its result as ``result.json`` has it."""

    trial: PlannedTrial
    result: Mapping[str, Any]


@dataclass
class Fleet:
    """All trials in flight of one study.

    Attributes
    ----------
    folder : the study's.
    executor : where jobs run.
    cache_dir : folder of built datasets.
    device : ``auto``, ``cpu`` or ``cuda``.
    chunks : which trials share a job.
    retries : times a trial is started again after its process died.
    check : called before every write and submission; raises if this driver may not write any more.
    after : ids of the jobs that a dataset (by fingerprint) still waits for.
    run : importable name of the function that runs a trial.
    say : told one sentence when the cluster takes no more jobs.
    """

    folder: StudyFolder
    executor: Executor
    cache_dir: Path
    device: str = "auto"
    chunks: Chunks = field(default_factory=Chunks)
    retries: int = 1
    check: Callable[[], None] = lambda: None
    after: Callable[[str], Sequence[str]] = lambda fingerprint: ()
    run: str = RUN
    say: Callable[[str], None] = lambda sentence: None
    _flights: Flights = field(default_factory=Flights)
    _orphans: dict[str, Job] = field(default_factory=dict)
    _marked: set[str] = field(default_factory=set)
    _full_until: float = float("-inf")
    _most: int | None = None

    def __post_init__(self) -> None:
        self._orphans = self._find_orphans()

    # ------------------------------------------------------------------------------------ taking on

    def add(self, trials: Iterable[PlannedTrial]) -> None:
        """Take trials on; one that is in flight already is not taken twice."""
        for trial in trials:
            if trial.trial_id in self._flights:
                continue
            self.check()
            folder = self.folder.trial(trial.trial_id)
            if folder.cancelled.exists():
                self._marked.add(trial.trial_id)
            else:
                folder.stop.unlink(missing_ok=True)
            if not folder.spec.exists():
                write_atomic(folder.spec, trial.spec.model_dump_json(indent=1))
            flight = Flight(trial, folder, attempts=attempts(folder.path))
            orphan = self._orphans.get(trial.trial_id)
            if claimed_by(folder.path) is not None or (orphan is not None and orphan.alive()):
                self._flights.submit(flight, orphan)  # an earlier driver's job is at it
            else:
                self._flights.wait(flight)

    def submit(self) -> list[str]:
        """Start waiting trials, as many as the executor has room for; gives the ids of those at work by now."""
        for chunks, after in self._groups(self.executor.room(self._busy())):
            room = self.executor.room(self._busy())
            if room <= 0 or time.monotonic() < self._full_until:
                break
            self._submit(chunks[: room if self._most is None else min(room, self._most)], after)
        fresh = [flight for flight in self._flights.submitted if not flight.told]
        for flight in fresh:
            flight.told = True
        return [flight.trial.trial_id for flight in fresh]

    def _groups(self, room: int) -> list[tuple[list[tuple[PlannedTrial, ...]], tuple[str, ...]]]:
        """Jobs to submit where there is room for so many, those together that wait for the same data."""
        if room <= 0:
            return []
        trials = (flight.trial for flight in self._flights.waiting if flight.trial.trial_id not in self._marked)
        waiting = list(islice(trials, self.chunks.most(room)))
        groups: dict[tuple[str, ...], list[tuple[PlannedTrial, ...]]] = {}
        for chunk in self.chunks.of(waiting, len(self._flights.submitted), self.executor.parallel):
            groups.setdefault(tuple(self.after(chunk[0].spec.data_fingerprint)), []).append(chunk)
        return [(chunks, after) for after, chunks in groups.items()]

    def _submit(self, chunks: Sequence[Sequence[PlannedTrial]], after: Sequence[str]) -> None:
        self.check()
        name = f"{self.folder.name}-{uuid.uuid4().hex[:8]}"
        ids = [[trial.trial_id for trial in chunk] for chunk in chunks]
        record = self.folder.path / "jobs" / f"{name}.json"
        if self.executor.name == "slurm":
            # before sbatch, so that what a dead driver submitted is found by its name
            write_atomic(record, json.dumps({"name": name, "trials": ids, "time": time.time()}))
        tasks = [self._task(chunk) for chunk in ids]
        try:
            jobs = self.executor.submit(tasks, name, after)
        except ClusterFull as error:
            self._wait_for_room(len(chunks), str(error))
            jobs = self.executor.find(name)  # an answer that came too late is no refusal
            if not jobs:
                record.unlink(missing_ok=True)
                return
            jobs = sorted(jobs, key=lambda job: _index(job.id))
        self._most = None if self._most is None else 2 * self._most
        for chunk, job in zip(ids, jobs, strict=True):
            for flight in filter(None, map(self._flights.get, chunk)):
                self._flights.submit(flight, job)
                flight.attempts, flight.mates = attempts(flight.folder.path), tuple(chunk)

    def _wait_for_room(self, refused: int, reason: str) -> None:
        if self._full_until == float("-inf"):
            self.say(f"SLURM takes no more jobs now ({reason}); the rest waits here")
        self._most, self._full_until = max(1, refused // 2), time.monotonic() + FULL_SECONDS

    def _task(self, ids: Sequence[str]) -> RunTrials:
        folders = [str(self.folder.trial(trial_id).path.absolute()) for trial_id in ids]
        return RunTrials(
            folders, cache_dir=str(self.cache_dir), device=self.device, run=self.run, limit=self.executor.limit
        )

    def _busy(self) -> int:
        """Processes at work: our jobs, and those of an earlier driver on this machine."""
        submitted = self._flights.submitted
        jobs = {id(flight.job) for flight in submitted if flight.job is not None and flight.job.alive()}
        adopted = sum(1 for flight in submitted if flight.job is None)
        return len(jobs) + adopted

    def _find_orphans(self) -> dict[str, Job]:
        """Jobs of an earlier driver that still wait or run, by trial."""
        found: dict[str, Job] = {}
        for path in sorted((self.folder.path / "jobs").glob("*.json")) if self.executor.name == "slurm" else ():
            record = read_json(path) or {}
            jobs = self._jobs_of(record.get("name", path.stem), record.get("time", 0.0))
            if not jobs:
                path.unlink(missing_ok=True)
            for job in jobs:
                ids = record["trials"][_index(job.id)]
                self.executor.adopt(job, self._task(ids))
                found.update(dict.fromkeys(ids, job))
        return found

    def _jobs_of(self, name: str, submitted: float) -> list[Job]:
        """Jobs of a name; while its submission may still be under way, they are waited for."""
        while not (jobs := self.executor.find(name)) and 0.0 <= time.time() - submitted < SUBMISSION_SECONDS:
            time.sleep(1.0)
        return jobs

    # ------------------------------------------------------------------------------------ collecting

    @property
    def flights(self) -> dict[str, TrialFolder]:
        """Folders of the trials that a job is at or will be, by trial id."""
        return {flight.trial.trial_id: flight.folder for flight in self._flights.submitted}

    @property
    def running(self) -> dict[str, PlannedTrial]:
        """Trials that some process has begun and not ended, by trial id."""
        begun = (flight for flight in self._flights.submitted if flight.folder.metrics.exists())
        return {flight.trial.trial_id: flight.trial for flight in begun}

    @property
    def idle(self) -> bool:
        """Whether nothing is waiting or running."""
        return not self._flights

    def collect(self) -> list[Ended]:
        """Trials that ended since the last call; what died is made to start again, or counts as failed."""
        ended = []
        marked = [flight for flight in map(self._flights.get, self._marked) if flight is not None]
        for flight in [*self._flights.submitted, *(one for one in marked if not self._flights.is_submitted(one))]:
            submitted = self._flights.is_submitted(flight)
            at_work = submitted and self._at_work(flight)  # looked at before the result, which comes first
            is_free = flight.trial.trial_id in self._marked and claimed_by(flight.folder.path) is None  # likewise
            result = flight.folder.read_result()
            if (is_free and result is None) or (_is_pruned(result) and flight.folder.cancelled.exists()):
                self._flights.end(flight)
                ended.append(self._dropped(flight))
            elif result is not None and result.get("state") in ("finished", "failed", "pruned"):
                self._flights.end(flight)
                self.chunks.learn(flight.trial, result)
                ended.append(Ended(flight.trial, result))
            elif submitted and not at_work:
                gone = self._gone(flight)
                if gone is not None:
                    self._flights.end(flight)
                    ended.append(gone)
        return ended

    def see_marks(self) -> None:
        """Look for trials that were cancelled: they are not started, and are over once no process is at them."""
        self._marked.update(one.trial.trial_id for one in self._flights if one.folder.cancelled.exists())

    def _dropped(self, flight: Flight) -> Ended:
        """A cancelled trial that no process is at, and that none will begin, since its job looks for the mark."""
        mates = [self._flights.get(name) for name in flight.mates]
        alone = all(mate is None or mate.trial.trial_id in self._marked for mate in mates)
        if flight.job is not None and alone and not any(mate and claimed_by(mate.folder.path) for mate in mates):
            flight.job.cancel()
        reason = flight.folder.cancelled.read_text(errors="replace").strip() or "cancelled"
        return Ended(flight.trial, self.give_up(flight.trial, reason, kind=CANCELLED))

    def collect_results(self) -> list[Ended]:
        """Trials that ended since the last call, leaving alone what died: for a driver that is leaving."""
        ended = []
        for flight in self._flights:
            result = flight.folder.read_result()
            if result is not None:
                self._flights.end(flight)
                ended.append(Ended(flight.trial, result))
        return ended

    def _at_work(self, flight: Flight) -> bool:
        if flight.job is not None and flight.job.alive():
            return True
        owner = claimed_by(flight.folder.path)
        if owner is None:
            return False
        if owner.is_alive is None:  # on another host: its job has left the queue, or a sign of life must do
            return flight.job is None and flight.folder.state() is TrialState.RUNNING
        return True

    def _gone(self, flight: Flight) -> Ended | None:
        """A trial whose process is gone: wait a little, start it again, or give it up."""
        now = time.monotonic()
        flight.gone_since = flight.gone_since or now
        if now - flight.gone_since < GRACE_SECONDS[self.executor.name]:
            return None
        self.check()
        drop_claim(flight.folder.path)
        error = flight.job.error() if flight.job is not None else ""
        if attempts(flight.folder.path) > flight.attempts or not self._mate_started(flight):
            flight.deaths += 1
        if flight.deaths <= self.retries:
            self._flights.wait(flight)
            return None
        how = flight.job.ended_as() if flight.job is not None else ""
        return Ended(flight.trial, self.give_up(flight.trial, _death(flight.deaths, how, error), error))

    def _mate_started(self, flight: Flight) -> bool:
        """Whether another trial of the same job died, so that this one never had its turn."""
        others = (self._flights.get(mate) for mate in flight.mates if mate != flight.trial.trial_id)
        return any(other is None or attempts(other.folder.path) > 0 for other in others)

    def give_up(self, trial: PlannedTrial, reason: str, traceback: str = "", kind: str = GIVEN_UP) -> dict[str, Any]:
        """Write a failed result in the name of a trial that cannot write one; gives its content."""
        self.check()
        folder = self.folder.trial(trial.trial_id)
        now = time.time()
        failure = {"reason": reason, "quantity": None, "epoch": None, "traceback": traceback, kind: True}
        epochs = len(folder.read_metrics())
        result = TrialResult(trial.trial_id, "failed", failure=failure, epochs=epochs, started=now, ended=now)
        write_atomic(folder.result, result.to_json())
        return folder.read_result() or {}

    def fail_data(self, fingerprint: str, reason: str) -> list[Ended]:
        """Give up every trial of a dataset that could not be built."""
        ended = []
        for flight in self._flights:
            if flight.trial.spec.data_fingerprint == fingerprint:
                if flight.job is not None:
                    flight.job.cancel()
                self._flights.end(flight)
                ended.append(Ended(flight.trial, self.give_up(flight.trial, reason)))
        return ended

    # ------------------------------------------------------------------------------------ stopping

    def cancel(self, patience: float = 10.0) -> None:
        """End all jobs and wait a little until they are gone; their trials can go on from their checkpoints."""
        jobs = {id(flight.job): flight.job for flight in self._flights.submitted if flight.job is not None}
        self.executor.cancel([job for job in jobs.values() if job.alive()])
        until = time.monotonic() + patience
        while time.monotonic() < until and any(job.alive() for job in jobs.values()):
            time.sleep(0.1)


def _is_pruned(result: Mapping[str, Any] | None) -> bool:
    """Whether a stop file ended the trial, which the search puts there, or whoever cancels it."""
    return result is not None and result.get("state") == "pruned"


def _index(job_id: str) -> int:
    """Place in its array of a job such as ``12_3``; 0 where it is no array."""
    return int(job_id.partition("_")[2] or 0)


def _death(deaths: int, how: str, error: str) -> str:
    """One sentence on a process that left no result."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    # srun only says that the task ended; what the task itself said last stands above
    lines = [line for line in lines if not line.startswith("srun:")] or lines
    last = f": {lines[-1][:300]}" if lines else "; it left no message (killed, or out of memory?)"
    times = "once" if deaths == 1 else f"{deaths} times"
    return f"its process died {times} without a result{f' (SLURM: {how})' if how else ''}{last}"
