"""What a job runs, wherever it runs: trials one after the other, or the building of a dataset.

Objects of this module are pickled into submitit's jobs; they hold strings, find everything else by path,
and import torch only once they are called.
"""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit

from harness.errors import TrialInterrupted, UserError
from harness.files import append_whole, patiently, write_when_room
from harness.study.leaving import JobLimit, Leaving, is_preempted, note_timeout, ran_out_of_time
from harness.study.ownership import Owner, holds, read_owner, take, this_process

#: Importable name of the function that runs one trial: ``module:function``.
RUN = "harness.trial:run_trial"
#: Importable name of the function that builds one dataset.
LOAD = "harness.data:load"

CLAIM = "claim"
ATTEMPTS = "attempts.jsonl"
RESULT = "result.json"
CANCELLED = "cancelled"
#: Seconds a requeued job waits for its own earlier process, which SLURM is still ending, to let go of a trial.
EARLIER_SECONDS = 60.0


def imported(name: str) -> Callable[..., Any]:
    """The function that ``module:function`` names."""
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def claimed_by(folder: Path) -> Owner | None:
    """The process that claims a trial folder, unless it is known to be dead."""
    owner = read_owner(folder / CLAIM)
    return None if owner is None or owner.is_alive is False else owner


def drop_claim(folder: Path, owner: Owner | None = None) -> None:
    """Remove the claim on a trial folder; with ``owner``, only if that taking still stands."""
    path = folder / CLAIM
    if owner is None or holds(path, owner):
        path.unlink(missing_ok=True)


def attempts(folder: Path) -> int:
    """How often a trial was started, over all launches."""
    path = folder / ATTEMPTS
    return len(path.read_text().splitlines()) if path.exists() else 0


def _note_attempt(folder: Path, claim: Owner) -> None:
    log = os.environ.get("SUBMITIT_LOCAL_JOB_ID", claim.job)  # with which submitit's names of log files begin
    line = json.dumps({"time": time.time(), "host": claim.host, "pid": claim.pid, "job": claim.job, "log": log})
    path = folder / ATTEMPTS
    patiently(lambda: append_whole(path, line + "\n"), path)


def _may_replace(held: Owner) -> bool:
    """A dead process' claim, or that of an earlier start of this same SLURM job on another node (that was lost)."""
    me = this_process()
    return held.is_alive is False or (held.is_alive is None and me.job != "" and held.job == me.job)


def _claim(folder: Path) -> Owner | None:
    """Claim a trial; None where another job has it."""
    me, until = this_process(), time.monotonic() + EARLIER_SECONDS
    while True:
        claim = take(folder / CLAIM, this_process(), _may_replace)
        held = None if claim is not None else read_owner(folder / CLAIM)
        if held is None or me.job == "" or held.job != me.job or time.monotonic() > until:
            return claim
        time.sleep(0.2)


class RunTrials:
    """Run trials one after the other; a trial that another process claims, or that is done, is left alone.

    Parameters
    ----------
    folders
        Trial folders; each holds its ``spec.json``.
    cache_dir
        Folder of built datasets.
    device
        ``auto``, ``cpu`` or ``cuda``.
    run
        Importable name of the function that runs a trial.
    limit
        Time limit of the job; None where it has none.
    environment
        Variables set before anything heavy is imported.
    """

    def __init__(
        self,
        folders: Sequence[str],
        *,
        cache_dir: str,
        device: str = "auto",
        run: str = RUN,
        limit: JobLimit | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folders = tuple(folders)
        self.limit = limit
        self.begun = 0.0
        self.at: str | None = None
        self.cache_dir = cache_dir
        self.device = device
        self.run = run
        self.environment = dict(environment or {})

    def __call__(self) -> None:
        os.environ.update(self.environment)
        self.begun = time.time()
        with Leaving(self.limit, self._before_requeue) as leaving:
            for folder in self.folders:
                try:
                    self._run_one(Path(folder), leaving)
                except TrialInterrupted:
                    leaving.leave()
                if leaving.asked:
                    leaving.leave()

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Submit the same again: finished trials are skipped, the one in flight goes on from its checkpoint."""
        return submitit.helpers.DelayedSubmission(self)

    def _before_requeue(self) -> bool:
        """Count a time limit against the trial that ran into it, give up one that did too often; is any trial left?"""
        if self.at is not None and self.limit is not None:
            self._count_limit(Path(self.at), self.limit)
        return not all((Path(folder) / RESULT).exists() for folder in self.folders)

    def _count_limit(self, folder: Path, limit: JobLimit) -> None:
        if (folder / RESULT).exists() or not ran_out_of_time(limit, self.begun, time.time(), is_preempted()):
            return
        times = note_timeout(folder)
        if times > limit.timeouts:
            _give_up(folder, times, limit)

    def _run_one(self, folder: Path, leaving: Leaving) -> None:
        if (folder / RESULT).exists():
            return
        claim = _claim(folder)
        if claim is None:
            return
        self.at = str(folder)
        try:
            if (folder / RESULT).exists() or (folder / CANCELLED).exists():  # since the look, before the claim
                return
            _note_attempt(folder, claim)
            from harness.trial_spec import TrialSpec

            spec = TrialSpec.model_validate_json((folder / "spec.json").read_text(), strict=False)
            run = imported(self.run)
            run(spec, folder, device=self.device, cache_dir=Path(self.cache_dir), leave=leaving.is_asked)
            self.at = None  # kept where the trial was interrupted, so that it is known who ran out of time
        finally:
            drop_claim(folder, claim)


def _give_up(folder: Path, times: int, limit: JobLimit) -> None:
    from harness.trial_result import TrialResult

    metrics = folder / "metrics.jsonl"
    epochs = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    reason = (
        f"its job ran into the time limit of {limit.minutes:g} min {times} times, more than max_timeouts in the "
        f"profile allows, and it stood at epoch {epochs}; raise time_minutes or max_timeouts, then retry"
    )
    failure = {"reason": reason, "quantity": None, "epoch": epochs, "traceback": ""}
    now = time.time()
    result = TrialResult(folder.name, "failed", failure=failure, epochs=epochs, started=now, ended=now)
    write_when_room(folder / RESULT, result.to_json())


class BuildData:
    """Build one dataset into the cache and leave a note; without a note the process died.

    Parameters
    ----------
    data
        The data's spec as JSON, its seed resolved.
    note
        File that says how it ended: ``{"state": "finished" | "refused", "reason", "seconds"}``.
    cache_dir, load
        As in `RunTrials`.
    """

    def __init__(self, data: str, note: str, *, cache_dir: str, load: str = LOAD) -> None:
        self.data = data
        self.note = note
        self.cache_dir = cache_dir
        self.load = load

    def __call__(self) -> None:
        from pydantic import TypeAdapter

        from harness.data_spec import AnyDataSpec

        spec: Any = TypeAdapter(AnyDataSpec).validate_json(self.data, strict=False)
        begun = time.time()
        try:
            imported(self.load)(spec, Path(self.cache_dir))
        except UserError as error:
            self._write("refused", reason=str(error))
            raise
        self._write("finished", seconds=time.time() - begun)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Submit the same again: a dataset half built is built anew."""
        return submitit.helpers.DelayedSubmission(self)

    def _write(self, state: str, *, reason: str | None = None, seconds: float = 0.0) -> None:
        write_when_room(Path(self.note), json.dumps({"state": state, "reason": reason, "seconds": seconds}))
