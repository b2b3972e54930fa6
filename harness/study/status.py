"""How a study stands, read from its folder alone: no database, no cluster."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from harness.errors import UserError
from harness.study.folder import StudyFolder, TrialState, read_json
from harness.study.lease import is_held
from harness.study.load import load_study
from harness.study.ownership import Owner, read_owner
from harness.study.plan import plan

_ORDER = tuple(TrialState)


@dataclass(frozen=True)
class Status:
    """How a study stands.

    Attributes
    ----------
    name : of the study.
    counts : trials in each state.
    failed : cell and seed of each failed trial -> why it failed.
    running : cell and seed of each running trial -> last epoch.
    driver : who drives it now; None if nobody does.
    resume : the command that goes on with it.
    """

    name: str
    counts: dict[TrialState, int]
    failed: dict[str, str]
    running: dict[str, int]
    driver: Owner | None
    resume: str

    def __str__(self) -> str:
        counts = ", ".join(f"{self.counts[state]} {state}" for state in _ORDER if self.counts.get(state))
        driver = f"driven by process {self.driver.pid} on {self.driver.host}" if self.driver else "not being driven"
        lines = [f"{self.name}: {counts or 'no trials yet'}; {driver}"]
        lines += [f"  running  {trial}: epoch {epoch}" for trial, epoch in self.running.items()]
        lines += [f"  failed   {trial}: {reason}" for trial, reason in self.failed.items()]
        unfinished = any(self.counts.get(state) for state in _ORDER if not state.has_ended)
        if self.driver is None and unfinished:
            lines.append(f"go on with: {self.resume}")
        return "\n".join(lines)


def status(folder: StudyFolder) -> Status:
    """Read how a study stands.

    Raises
    ------
    UserError
        If there is no such study.
    """
    if not folder.study_file.exists():
        raise UserError(f"no study {folder.name!r} in {folder.root}; launch it first, or say where with --root")
    states = folder.states()
    names = _names(folder)
    failed, running = {}, {}
    for trial_id, state in states.items():
        trial = folder.trial(trial_id)
        name = names.get(trial_id, trial_id)
        if state is TrialState.FAILED:
            failure = (trial.read_result() or {}).get("failure") or {}
            failed[name] = str(failure.get("reason", "no reason recorded"))
        elif state is TrialState.RUNNING:
            lines = trial.read_metrics()
            running[name] = int(lines[-1]["epoch"]) if lines else 0
    held = read_owner(folder.lock)
    driver = held if held is not None and is_held(held) else None
    return Status(folder.name, dict(Counter(states.values())), failed, running, driver, folder.command("resume"))


def _names(folder: StudyFolder) -> dict[str, str]:
    """Cell and seed of the grid's trials, by id; empty where the study file can no longer be planned."""
    try:
        trials = plan(load_study(folder.study_file)).trials
    except UserError:
        return {}
    return {trial.trial_id: trial.name for trial in trials}


def job_names(folder: StudyFolder) -> list[str]:
    """Names under which a driver has submitted jobs to SLURM."""
    records = (read_json(path) for path in sorted((folder.path / "jobs").glob("*.json")))
    return [record["name"] for record in records if isinstance(record, dict) and "name" in record]
