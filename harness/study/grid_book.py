"""The grid's trials as Optuna's journal has them: one entry each, told once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.trial import TrialState

from harness.study.optuna_store import Entry, OptunaStore
from harness.study.plan import Plan, PlannedTrial, Point
from harness.study.search_loop import means
from harness.study.spec import StudySpec


class GridBook:
    """Adds and tells the trials of a grid.

    Parameters
    ----------
    study, planned
        What is run.
    store
        The journal; what a dead driver left running there is marked as failed, and entered again.
    """

    def __init__(self, study: StudySpec, planned: Plan, store: OptunaStore) -> None:
        self._study, self._store = study, store
        store.recover()
        self._entries = store.entries()
        store.widen(_setting(point, trial) for point in planned.points for trial in point.trials)
        self._numbers: dict[str, int] = {}

    def enter(self, point: Point, trial: PlannedTrial) -> None:
        """Enqueue a trial that is to run, unless it waits there already."""
        waiting = self._waiting(trial)
        self._numbers[trial.trial_id] = self._add(point, trial) if waiting is None else waiting

    def begin(self, trial_id: str) -> None:
        """A trial was submitted; one that is none of the grid's is passed over."""
        if trial_id in self._numbers:
            self._store.begin(self._numbers[trial_id])

    def end(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """A trial ended; one that is none of the grid's is passed over."""
        if trial_id in self._numbers:
            self._tell(self._numbers[trial_id], result)

    def reuse(self, point: Point, trial: PlannedTrial, result: Mapping[str, Any]) -> None:
        """Tell a finished result that the journal does not know, e.g. because the driver died first."""
        entry, number = self._entries.get(trial.trial_id), self._waiting(trial)
        if entry is not None and entry.state is TrialState.COMPLETE:
            return
        if number is None:
            if means([result], self._study.objective) is None:
                return  # told before as failed: it has no such metric
            number = self._add(point, trial)
        self._store.begin(number)
        self._tell(number, result)

    def leave(self, point: Point, trial: PlannedTrial, result: Mapping[str, Any]) -> None:
        """Tell a failure that is not run again, where the journal does not know it."""
        number = self._waiting(trial)
        if number is None and trial.trial_id not in self._entries:
            number = self._add(point, trial)
        if number is not None:
            self._store.begin(number)
            self._tell(number, result)

    def _waiting(self, trial: PlannedTrial) -> int | None:
        entry: Entry | None = self._entries.get(trial.trial_id)
        return entry.number if entry is not None and entry.state is TrialState.WAITING else None

    def _add(self, point: Point, trial: PlannedTrial) -> int:
        attributes = {"trial_id": trial.trial_id, "cell": trial.cell, "seed": trial.seed}
        return self._store.add(_setting(point, trial), key=trial.trial_id, attributes=attributes)

    def _tell(self, number: int, result: Mapping[str, Any]) -> None:
        if result["state"] != "finished":
            self._store.fail(number, (result.get("failure") or {}).get("reason", result["state"]))
            return
        values = means([result], self._study.objective)
        if values is None:
            wanted = ", ".join(objective.metric for objective in self._study.objective)
            self._store.fail(number, f"{wanted} is missing or not finite")
        else:
            self._store.complete(number, values)


def _setting(point: Point, trial: PlannedTrial) -> dict[str, Any]:
    return {**point.setting, "seed": trial.seed}
