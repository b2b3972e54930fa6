"""A search in flight: proposals become points, points become trials, ended trials become values.

One proposal is one point and one Optuna trial; its value is the mean over its seeds. A point proposed again
takes the results that are there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from harness.errors import UserError
from harness.study.again import open_again, stands
from harness.study.fleet import Fleet
from harness.study.optuna_store import OptunaStore
from harness.study.plan import Plan, PlannedTrial, Point, point_for
from harness.study.progress import Progress
from harness.study.search import Proposal, Proposals, sampler_arguments
from harness.study.spec import ObjectiveSpec, StudySpec
from harness.study.trial_index import TrialIndex
from harness.trial_spec import TrainSpec


@dataclass
class _Flying:
    """A point whose trials have not all ended."""

    point: Point
    proposal: Proposal
    proposals: Proposals
    number: int
    results: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    reported: int = 0
    stopped: bool = False


@dataclass
class _Cell:
    """A grid cell that is searched: where its proposals start from, and how much of its budget is spent.

    ``begun`` has the journal's number of a proposal that a driver wrote down but did not live to run.
    """

    point: Point
    proposals: Proposals
    asked: int = 0
    budget: int = 0
    repeated: int = 0
    begun: dict[int, int] = field(default_factory=dict)


class SearchLoop:
    """Keeps as many points in flight as there is room for, until the budget of every cell is spent.

    Parameters
    ----------
    study, plan
        What is searched: the cells of the plan that have a space. Other cells' trials are never stopped.
    store
        The journal; what a dead driver left running is proposed again.
    fleet
        Runs trials.
    at_once
        Points in flight at the same time.
    progress
        Counts trials and reads their curves.
    reused
        Called with a trial whose result is there already.
    bring
        Called with each trial of a point that ended before: the driver may have died between the journal and MLflow.
    prepare
        Called with trials that will run, to see that their data are there.
    only
        Ids of failed trials that are retried: nothing is proposed then but their points.
    """

    def __init__(
        self,
        study: StudySpec,
        plan: Plan,
        store: OptunaStore,
        fleet: Fleet,
        *,
        at_once: int,
        progress: Progress,
        reused: Callable[[PlannedTrial, Mapping[str, Any]], None],
        bring: Callable[[PlannedTrial, Mapping[str, Any]], None],
        prepare: Callable[[Iterable[PlannedTrial]], None],
        only: frozenset[str] | None = None,
    ) -> None:
        if study.search is None:
            raise ValueError("this study has no search")
        self._study, self._store, self._fleet, self._progress = study, store, fleet, progress
        self._search, self._objectives = study.search, study.objective
        self._at_once, self._reused, self._bring, self._prepare = at_once, reused, bring, prepare
        self._only, self._index = only, TrialIndex(fleet.folder)
        self._grid = {trial.trial_id for trial in plan.trials}
        self._flying: dict[int, _Flying] = {}
        self._cells = [self._cell(point) for point in plan.points if point.space]
        store.note("sampler", {"kind": self._search.sampler, **sampler_arguments(self._search)})

    def _cell(self, point: Point) -> _Cell:
        """Fill a cell's sampler and pruner from the journal, each proposal under its own number."""
        words = [self._study.name, "search", point.cell]
        train = training_of(self._study, point)
        cell = _Cell(point, Proposals(self._search, point.space, self._objectives, words, train))
        tries: dict[int, list[FrozenTrial]] = {}
        for trial in self._store.trials():
            if trial.user_attrs.get("search_cell") == point.cell:
                tries.setdefault(trial.user_attrs.get("ordinal", len(tries)), []).append(trial)
        for ordinal in sorted(tries):
            while cell.proposals.count < ordinal:
                cell.proposals.skip()
            self._replay(cell, ordinal, tries[ordinal])
        cell.budget = self._search.trials if self._only is None else cell.asked + cell.repeated
        return cell

    def _replay(self, cell: _Cell, ordinal: int, tries: Sequence[FrozenTrial]) -> None:
        """Take over one proposal: as it ended, as it was refused, or to be run again."""
        told = [trial for trial in tries if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        if told:
            cell.proposals.replay(told[-1])
            cell.asked += 1
            self._bring_point(told[-1])
        elif self._stays(tries[-1]):
            cell.proposals.skip()
            cell.asked += 1
            self._bring_point(tries[-1])
        elif cell.proposals.repeat(tries[-1].user_attrs["proposal"]):
            cell.repeated += 1
            waiting = [trial.number for trial in tries if trial.state is TrialState.WAITING]
            if waiting:
                cell.begun[ordinal] = waiting[-1]

    def _bring_point(self, ended: FrozenTrial) -> None:
        for point in recorded_points(self._study, [ended]):
            for trial in point.trials:
                result = self._fleet.folder.trial(trial.trial_id).read_result()
                if result is not None:
                    self._bring(trial, result)

    def _stays(self, proposed: FrozenTrial) -> bool:
        """Whether a point without a value is left as it is: no model can have it, or it failed and is not retried."""
        if proposed.user_attrs.get("impossible") and proposed.state is TrialState.FAIL:
            return True
        ids = proposed.user_attrs.get("trial_ids", ())
        if self._only is not None:
            return not self._only.intersection(ids)
        return any(stands(self._fleet.folder.trial(name).read_result()) for name in ids)

    @property
    def over(self) -> bool:
        """Whether every budget is spent and nothing is in flight."""
        return not self._flying and self.to_come == 0

    @property
    def to_come(self) -> int:
        """Trials that are still to be proposed."""
        return sum(max(0, cell.budget - cell.asked) for cell in self._cells) * len(self._study.seeds)

    def ask(self) -> None:
        """Propose points, for the cells in turn, while there is room."""
        while len(self._flying) < self._at_once and self.to_come:
            cell = min((one for one in self._cells if one.asked < one.budget), key=lambda one: one.asked)
            cell.asked += 1
            proposal = cell.proposals.ask()
            try:
                point = point_for(self._study, {**cell.point.setting, **proposal.setting})
            except UserError as error:
                self._refuse(cell, proposal, str(error))
                continue
            self._start(cell, proposal, point)

    def _start(self, cell: _Cell, proposal: Proposal, point: Point) -> None:
        number = cell.begun.pop(proposal.number, None)
        if number is None:
            number = self._write_down(cell, proposal, point)
        self._store.begin(number)
        flying = self._flying[number] = _Flying(point, proposal, cell.proposals, number)
        fresh = []
        for trial in point.trials:
            folder = self._fleet.folder.trial(trial.trial_id)
            result = folder.read_result()
            if result is not None and result["state"] == "failed" and open_again(folder, result, self._only):
                result = None
            if result is None:
                fresh.append(trial)
                self._progress.expect(trial)
            else:
                flying.results[trial.trial_id] = result
                self._reused(trial, result)
        self._index.note(point.trials, searched=True)
        self._prepare(fresh)
        self._fleet.add(fresh)
        if not fresh:
            self._finish(flying)
        elif any(result["state"] == "pruned" for result in flying.results.values()):
            self._stop(flying, "another seed of this point was pruned before the driver died")

    def _write_down(self, cell: _Cell, proposal: Proposal, point: Point) -> int:
        """Add a point to the journal; gives its number there."""
        ids = [trial.trial_id for trial in point.trials]
        attributes = {
            "proposal": proposal.setting,
            "ordinal": proposal.number,
            "search_cell": cell.point.cell,
            "cell": point.cell,
            "trial_ids": ids,
        }
        key = f"point {' '.join(ids)}"
        return self._store.add(point.setting, key=key, attributes=attributes, system=proposal.system)

    def _refuse(self, cell: _Cell, proposal: Proposal, reason: str) -> None:
        """A combination that no model can have counts as a failed proposal."""
        number = cell.begun.pop(proposal.number, None)
        if number is None:
            attributes = {
                "proposal": proposal.setting,
                "ordinal": proposal.number,
                "search_cell": cell.point.cell,
                "impossible": True,
            }
            key = f"impossible {json.dumps(proposal.setting, sort_keys=True)}"
            number = self._store.add(proposal.setting, key=key, attributes=attributes)
        self._store.begin(number)
        self._store.fail(number, reason)
        cell.proposals.tell(proposal.number, TrialState.FAIL)

    def ended(self, trial: PlannedTrial, result: Mapping[str, Any]) -> None:
        """Count the result of a trial in, for every point it belongs to."""
        for flying in list(self._flying.values()):
            ids = {one.trial_id for one in flying.point.trials}
            if trial.trial_id in ids:
                flying.results[trial.trial_id] = result
                if len(flying.results) == len(ids):
                    self._finish(flying)

    def _finish(self, flying: _Flying) -> None:
        if self._search.pruner != "none" and not flying.stopped:
            self._report(flying)  # what was written since the last look: others are measured against it
        del self._flying[flying.number]
        results = list(flying.results.values())
        states = [result["state"] for result in results]
        if "failed" in states:
            self._store.fail(flying.number, f"{states.count('failed')} of {len(states)} seeds failed")
            flying.proposals.tell(flying.proposal.number, TrialState.FAIL)
            return
        if "pruned" in states:
            self._store.prune(flying.number, self._last_value(flying))
            flying.proposals.tell(flying.proposal.number, TrialState.PRUNED)
            return
        values = means(results, self._objectives)
        if values is None:
            metrics = ", ".join(objective.metric for objective in self._objectives)
            self._store.fail(flying.number, f"{metrics} is missing or not finite")
            flying.proposals.tell(flying.proposal.number, TrialState.FAIL)
            return
        self._store.complete(flying.number, values)
        flying.proposals.tell(flying.proposal.number, TrialState.COMPLETE, values)

    def _last_value(self, flying: _Flying) -> float | None:
        values = [result["metrics"].get(self._objectives[0].metric) for result in flying.results.values()]
        known = [float(value) for value in values if value is not None]
        return sum(known) / len(known) if known else None

    # ------------------------------------------------------------------------------------ pruning

    def observe(self) -> None:
        """Report every epoch that all seeds of a point have reached; stop a point that the pruner gives up."""
        if self._search.pruner == "none":
            return
        for flying in list(self._flying.values()):
            if not flying.stopped:
                self._report(flying)

    def _report(self, flying: _Flying) -> None:
        metric = self._objectives[0].metric
        epochs = flying.point.trials[0].spec.train.epochs
        curves = [
            self._progress.curve(trial.trial_id, self._fleet.folder.trial(trial.trial_id))
            for trial in flying.point.trials
        ]
        for epoch in range(flying.reported + 1, min(curve.last for curve in curves) + 1):
            flying.reported = epoch
            values = [curve.value(epoch, metric) for curve in curves]
            known = [value for value in values if value is not None and math.isfinite(value)]
            if len(known) < len(values):
                continue  # an epoch without validation
            mean = sum(known) / len(known)
            self._store.report(flying.number, epoch, mean)
            if flying.proposals.report(flying.proposal.number, epoch, mean, is_last=epoch >= epochs):
                self._stop(flying, f"pruned at epoch {epoch} by the {self._search.pruner} of this search")
                return

    def _stop(self, flying: _Flying, reason: str) -> None:
        """Put stop files; a grid cell's trial runs on, since it was asked for by name."""
        flying.stopped = True
        for trial in flying.point.trials:
            if trial.trial_id not in flying.results and trial.trial_id not in self._grid:
                self._fleet.folder.trial(trial.trial_id).request_stop(reason)


def training_of(study: StudySpec, cell: Point) -> TrainSpec:
    """How the trials of a searched grid cell train, before a search has changed anything."""
    own = {key.removeprefix("train."): value for key, value in cell.values.items() if key.startswith("train.")}
    known = {key: value for key, value in own.items() if key in ("epochs", "validate_every")}
    return study.train.model_copy(update=known)


def means(results: Sequence[Mapping[str, Any]], objectives: Sequence[ObjectiveSpec]) -> list[float] | None:
    """Each objective's mean over seeds; None where one is missing or not finite."""
    values = []
    for objective in objectives:
        each = [result.get("metrics", {}).get(objective.metric) for result in results]
        if any(value is None or not math.isfinite(value) for value in each):
            return None
        values.append(sum(float(value) for value in each) / len(each))
    return values


def recorded_points(study: StudySpec, trials: Sequence[FrozenTrial]) -> list[Point]:
    """Every point that the journal knows of a search, each once, in order of proposal."""
    found: dict[str, Point] = {}
    for trial in trials:
        if "proposal" in trial.user_attrs and not trial.user_attrs.get("impossible"):
            try:
                point = point_for(study, trial.user_attrs["setting"])
            except UserError:
                continue  # outside what the study file now allows
            found.setdefault(point.cell, point)
    return list(found.values())
