"""A study's folder on disk: every path, every atomic write, and the state of a trial as its files tell it."""

from __future__ import annotations

import contextlib
import enum
import json
import os
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import files
from harness.errors import UserError
from harness.study.ownership import read_owner

#: Seconds without a sign of life after which a trial on another machine counts as interrupted.
SILENCE_SECONDS = 900.0


class TrialState(enum.StrEnum):
    """What a trial's folder says about it."""

    WAITING = "waiting"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FINISHED = "finished"
    FAILED = "failed"
    PRUNED = "pruned"

    @property
    def has_ended(self) -> bool:
        """Whether a result is there."""
        return self in (TrialState.FINISHED, TrialState.FAILED, TrialState.PRUNED)


#: The states of a trial that has a result, by the name that it gives them.
ENDED = {state.value: state for state in TrialState if state.has_ended}


def write_atomic(path: Path, text: str | bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part.

    While the disk is full this waits, and says so: no other folder is called for, only room.

    Raises
    ------
    UserError
        Where the folder may not be written.
    """
    try:
        files.write_when_room(path, text, seconds=files.FOREVER)
    except OSError as error:
        raise _unwritable(path, error) from error


def default_root() -> Path:
    """Folder of all studies, unless ``--root`` says otherwise: $HARNESS_ROOT, else ``runs``."""
    return Path(os.environ.get("HARNESS_ROOT") or "runs")


def root_option(root: Path) -> str:
    """`` --root ROOT`` as a shell takes it, or nothing where it is the default."""
    return "" if root.absolute() == default_root().absolute() else f" --root {shlex.quote(str(root))}"


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path} cannot be written ({error.strerror or error}); give a folder you may write to with --root"
    )


def read_json(path: Path | str) -> Any:
    """A JSON file's value; None where there is none, or where it is no JSON.

    Raises
    ------
    UserError
        Where the file may not be read, or its path is impossible.
    """
    try:
        with open(path, "rb") as file:
            return json.loads(file.read())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}); give a folder that you may use with --root"
        ) from error


# ------------------------------------------------------------------------------------------------ trial


@dataclass(frozen=True)
class TrialFolder:
    """Paths of one trial, and what they say."""

    path: Path

    @property
    def trial_id(self) -> str:
        """Name of the folder."""
        return self.path.name

    @property
    def spec(self) -> Path:
        """The trial's spec, JSON."""
        return self.path / "spec.json"

    @property
    def metrics(self) -> Path:
        """Metrics of each epoch, JSON lines."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path:
        """Where an interrupted trial goes on from."""
        return self.path / "checkpoint.pt"

    @property
    def model(self) -> Path:
        """Weights that were kept."""
        return self.path / "model.pt"

    @property
    def latents(self) -> Path:
        """Latents of the test split, true and learned."""
        return self.path / "latents.npz"

    @property
    def ood(self) -> Path:
        """Every OOD score, condition by condition, CSV."""
        return self.path / "ood.csv"

    @property
    def split(self) -> Path:
        """Which cells trained, validated and tested."""
        return self.path / "split.json"

    @property
    def result(self) -> Path:
        """Written last: its presence ends the trial."""
        return self.path / "result.json"

    @property
    def stop(self) -> Path:
        """Put here to stop the trial at the end of its epoch."""
        return self.path / "stop"

    @property
    def cancelled(self) -> Path:
        """Put here to drop the trial: it is not started, until it is retried."""
        return self.path / "cancelled"

    @property
    def claim(self) -> Path:
        """Who works on the trial."""
        return self.path / "claim"

    def request_stop(self, reason: str) -> None:
        """Ask the trial to stop; ``reason`` is kept for whoever looks."""
        write_atomic(self.stop, reason + "\n")

    def read_result(self) -> dict[str, Any] | None:
        """``result.json``, or None while there is none."""
        value = read_json(self.result)
        return value if isinstance(value, dict) else None

    def read_metrics(self) -> list[dict[str, Any]]:
        """Lines of ``metrics.jsonl``; a torn last line, and an epoch that was written again, count once or not.

        A trial that resumed repeats the epochs after its checkpoint: the later line of an epoch stands.
        """
        try:
            lines = self.metrics.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        epochs: dict[int, dict[str, Any]] = {}
        for line in lines:
            try:
                entry = json.loads(line)
                epochs[int(entry["epoch"])] = entry
            except (ValueError, TypeError, KeyError):
                continue  # torn where a process died: the resumed one wrote the epoch again, or will
        return [epochs[epoch] for epoch in sorted(epochs)]

    def state(self) -> TrialState:
        """The trial's state: its result's, or running or interrupted where claimed, else waiting."""
        result = self.read_result()
        if result is not None and result.get("state") in ENDED:
            return ENDED[result["state"]]
        owner = read_owner(self.claim)
        if owner is None:
            return TrialState.INTERRUPTED if self.checkpoint.exists() else TrialState.WAITING
        alive = owner.is_alive
        if alive is None:  # on another machine, where only what it writes tells
            alive = time.time() - self._last_sign(owner.time) < SILENCE_SECONDS
        return TrialState.RUNNING if alive else TrialState.INTERRUPTED

    def _last_sign(self, heartbeat: float) -> float:
        signs = [heartbeat]
        for path in (self.metrics, self.checkpoint):
            with contextlib.suppress(FileNotFoundError):
                signs.append(path.stat().st_mtime)
        return max(signs)


# ------------------------------------------------------------------------------------------------ study


@dataclass(frozen=True)
class StudyFolder:
    """Paths of one study below the root.

    Parameters
    ----------
    root
        Folder of all studies, e.g. ``runs``.
    name
        The study's name.
    """

    root: Path
    name: str

    @property
    def path(self) -> Path:
        """The study's folder."""
        return self.root / self.name

    @property
    def study_file(self) -> Path:
        """The study as it was resolved: ``base`` and ``--set`` worked in, paths made absolute."""
        return self.path / "study.yaml"

    @property
    def suite_file(self) -> Path:
        """What a suite of this name is made of; the folder then holds its report, and no trials."""
        return self.path / "suite.yaml"

    @property
    def journal(self) -> Path:
        """Optuna's journal."""
        return self.path / "optuna.journal"

    @property
    def lock(self) -> Path:
        """The driver's lease."""
        return self.path / "driver.lock"

    @property
    def launches(self) -> Path:
        """One JSON file a launch."""
        return self.path / "launches"

    @property
    def job_logs(self) -> Path:
        """What submitit writes."""
        return self.path / "submitit"

    @property
    def trials_folder(self) -> Path:
        """One folder a trial."""
        return self.path / "trials"

    @property
    def report(self) -> Path:
        """Tables and figures."""
        return self.path / "report"

    def create(self) -> None:
        """Make the folders, and see that they can be written.

        Raises
        ------
        UserError
            Where they cannot.
        """
        for folder in (self.path, self.launches, self.job_logs, self.trials_folder, self.report):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _unwritable(folder, error) from error
        probe = self.path / f".writable.{os.getpid()}"
        write_atomic(probe, "")
        probe.unlink(missing_ok=True)

    def command(self, verb: str) -> str:
        """What a user types for ``verb`` on this study, ``--root`` included where it is not the default."""
        return f"harness {verb} {self.name}{root_option(self.root)}"

    def trial(self, trial_id: str) -> TrialFolder:
        """One trial's folder, whether or not it exists."""
        return TrialFolder(self.trials_folder / trial_id)

    def trial_ids(self) -> list[str]:
        """Names of every trial folder that exists, sorted."""
        try:
            with os.scandir(self.trials_folder) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except FileNotFoundError:
            return []

    def trials(self) -> Iterator[TrialFolder]:
        """Every trial folder that exists, by id."""
        for name in self.trial_ids():
            yield self.trial(name)

    def states(self) -> dict[str, TrialState]:
        """State of every trial folder that exists, by trial id."""
        return {trial.trial_id: trial.state() for trial in self.trials()}
