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

from harness.errors import UserError
from harness.study.ownership import Owner, holds, read_owner, take, this_process

#: Importable name of the function that runs one trial: ``module:function``.
RUN = "harness.trial:run_trial"
#: Importable name of the function that builds one dataset.
LOAD = "harness.data:load"

CLAIM = "claim"
ATTEMPTS = "attempts.jsonl"
RESULT = "result.json"


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
    line = json.dumps({"time": time.time(), "host": claim.host, "pid": claim.pid, "job": claim.job})
    with (folder / ATTEMPTS).open("a") as file:
        file.write(line + "\n")


def _may_replace(held: Owner) -> bool:
    """A dead process' claim, or that of an earlier start of this same SLURM job (requeued, node lost)."""
    me = this_process()
    return held.is_alive is False or (me.job != "" and held.job == me.job)


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
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folders = tuple(folders)
        self.cache_dir = cache_dir
        self.device = device
        self.run = run
        self.environment = dict(environment or {})

    def __call__(self) -> None:
        os.environ.update(self.environment)
        for folder in self.folders:
            self._run_one(Path(folder))

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Submit the same again: finished trials are skipped, the one in flight goes on from its checkpoint."""
        return submitit.helpers.DelayedSubmission(self)

    def _run_one(self, folder: Path) -> None:
        if (folder / RESULT).exists():
            return
        claim = take(folder / CLAIM, this_process(), _may_replace)
        if claim is None:
            return
        try:
            if (folder / RESULT).exists():  # finished between the look and the claim
                return
            _note_attempt(folder, claim)
            from harness.trial_spec import TrialSpec

            spec = TrialSpec.model_validate_json((folder / "spec.json").read_text(), strict=False)
            imported(self.run)(spec, folder, device=self.device, cache_dir=Path(self.cache_dir))
        finally:
            drop_claim(folder, claim)


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
        note = Path(self.note)
        temporary = note.with_name(f"{note.name}.{os.getpid()}")
        temporary.write_text(json.dumps({"state": state, "reason": reason, "seconds": seconds}))
        temporary.replace(note)
