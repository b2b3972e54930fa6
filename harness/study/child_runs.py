"""The child runs of a study in MLflow, one a trial: found again, made, and brought up to what a folder holds.

Any step may have been carried out without our knowing: the driver was killed after it, or the server's answer was
lost. What is written again is therefore either the same to the last digit, which MLflow keeps once, or looked up
before: a run by its trial's id, the points of a curve by name and step.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from harness.study.mlflow_store import all_runs
from harness.study.tracked_book import TrackedBook
from harness.study.tracked_trial import (
    TrackedTrial,
    end_mark,
    epoch_points,
    final_points,
    identity_tags,
    milliseconds,
    params_of,
    result_tags,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

T = TypeVar("T")

#: MLflow takes at most this many points, and this many params, in one request.
BATCH, PARAMS_BATCH = 1000, 100
PARENT_TAG = "mlflow.parentRunId"
#: Name of the model among a run's artifacts.
MODEL = "model"
#: Tags of a child that say what it holds.
MARKS = ("trial_id", "synced_epoch", "synced_result", "synced_cell", "synced_model")
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "pruned": "KILLED"}


@dataclass
class Child:
    """A child run, as far as it is known here.

    Attributes
    ----------
    run_id : MLflow's name for it.
    epoch : the last epoch up to which it holds every point.
    ended : mark of the result it holds; empty before.
    cell : mark of the scores of its cell that it holds.
    model : mark of the result whose model it holds.
    certain : whether it is known to hold no point of a later epoch.
    described : whether its params are known to be there.
    """

    run_id: str
    epoch: int = 0
    ended: str = ""
    cell: str = ""
    model: str = ""
    certain: bool = False
    described: bool = False


class ChildRuns:
    """All child runs of a study.

    Parameters
    ----------
    client
        Connected.
    experiment_id
        The study's experiment.
    parent
        Run of the launch under which new children are put.
    tags
        Tags of every child.
    found
        Runs of the study that are there: id and tags of each.
    check
        Called before every write; raises if this driver may not write any more.
    book
        Where to note what was brought; without one ``found`` is all there is, with one others may be there too.
    """

    def __init__(
        self,
        client: MlflowClient,
        experiment_id: str,
        parent: str,
        tags: Mapping[str, str],
        found: Iterator[tuple[str, Mapping[str, str]]],
        check: Callable[[], None],
        book: TrackedBook | None = None,
    ) -> None:
        self._client, self._experiment_id, self._parent = client, experiment_id, parent
        self._tags, self._check, self._book = dict(tags), check, book
        self._unsure: set[str] = set()
        self._children: dict[str, Child] = {}
        for run_id, marks in found:
            if "trial_id" in marks:
                self._take(marks["trial_id"], _child(run_id, marks))

    def _take(self, trial_id: str, child: Child) -> None:
        """Keep one run a trial. Two are there where a server carried out what a killed driver had asked it for."""
        other = self._children.get(trial_id)
        if other is not None and other.run_id == child.run_id:
            return
        if other is not None:
            child, spare = sorted((child, other), key=lambda one: (one.ended != "", one.epoch), reverse=True)
            self._check()
            self._client.delete_run(spare.run_id)
        self._children[trial_id] = child

    def holds(self, trial_id: str, mark: str) -> bool:
        """Whether a trial's run holds the result of this mark."""
        child = self._children.get(trial_id)
        return child is not None and mark != "" and child.ended == mark

    def sync(self, trial: TrackedTrial) -> None:
        """Bring a trial's run up to what its folder holds."""
        if self.holds(trial.trial_id, end_mark(trial.result)):
            return
        try:
            self._bring(trial)
        except BaseException:
            # carried out or not, or the run is no more: the next time it is looked up
            self._children.pop(trial.trial_id, None)
            self._unsure.add(trial.trial_id)
            raise

    def _bring(self, trial: TrackedTrial) -> None:
        child = self._children.get(trial.trial_id) or self._make(trial)
        if not child.described:
            for chunk in _chunks(params_of(trial), PARAMS_BATCH):
                self._client.log_batch(child.run_id, params=chunk)
            child.described = True
        self._log_epochs(child, trial)
        if trial.result is not None:
            self._finish(child, trial, trial.result)

    def log_cell(self, trial_id: str, points: Sequence[Metric], mark: str) -> None:
        """Log scores of a whole cell on the run of its first trial, if it is there."""
        from mlflow.entities import RunTag

        child = self._children.get(trial_id)
        if child is None or child.cell == mark:
            return
        self._check()
        self._client.log_batch(child.run_id, metrics=points, tags=[RunTag("synced_cell", mark)])
        child.cell = mark
        if self._book is not None:
            self._book.note(child.run_id, trial_id=trial_id, synced_cell=mark)

    def log_model(self, trial_id: str, mark: str, write: Callable[[Path], None]) -> str | None:
        """Have a trial's run hold its model, as `harness.study.exported` writes it; gives the run, where there is one.

        Parameters
        ----------
        trial_id
            The trial.
        mark
            Of the result that the model belongs to: one that is there is not written again.
        write
            Writes the model into a new folder.
        """
        child = self._children.get(trial_id) or self._look_up(trial_id)
        if child is None or child.model == mark:
            return None if child is None else child.run_id
        with tempfile.TemporaryDirectory() as scratch:
            write(Path(scratch) / MODEL)
            self._check()
            self._client.log_artifacts(child.run_id, str(Path(scratch) / MODEL), MODEL)
        self._client.set_tag(child.run_id, "synced_model", mark)
        child.model = mark
        if self._book is not None:
            self._book.note(child.run_id, trial_id=trial_id, synced_model=mark)
        return child.run_id

    # ------------------------------------------------------------------------------------------- one run

    def _make(self, trial: TrackedTrial) -> Child:
        found = self._look_up(trial.trial_id) if self._may_be_elsewhere(trial.trial_id) else None
        child = self._children[trial.trial_id] = found or self._create(trial)
        return child

    def _may_be_elsewhere(self, trial_id: str) -> bool:
        """Whether a trial may have a run that is not known here."""
        return self._book is not None or trial_id in self._unsure

    def _create(self, trial: TrackedTrial) -> Child:
        self._check()
        run = self._client.create_run(
            self._experiment_id,
            start_time=milliseconds(trial.started),
            tags={PARENT_TAG: self._parent, **self._tags, **identity_tags(trial), "synced_epoch": "0"},
            run_name=f"{trial.cell} · seed {trial.seed}",
        )
        return Child(run.info.run_id, certain=True)

    def _look_up(self, trial_id: str) -> Child | None:
        """The run of a trial, wherever it is; None where there is none."""
        for run in all_runs(self._client, self._experiment_id, f"tags.trial_id = '{trial_id}'"):
            if run.data.tags.get("study") == self._tags["study"]:
                self._take(trial_id, _child(run.info.run_id, run.data.tags))
        return self._children.get(trial_id)

    def _log_epochs(self, child: Child, trial: TrackedTrial) -> None:
        from mlflow.entities import RunTag

        lines = [line for line in trial.epochs if line["epoch"] > child.epoch]
        if not lines:
            return
        points = list(epoch_points(lines))
        if not child.certain:
            held = self._held(child, {point.key for point in points})
            points = [point for point in points if (point.key, point.step) not in held]
        self._check()
        child.certain = False
        last = int(lines[-1]["epoch"])
        *chunks, final = list(_chunks(points, BATCH)) or [[]]
        for chunk in chunks:
            self._client.log_batch(child.run_id, metrics=chunk)
        self._client.log_batch(child.run_id, metrics=final, tags=[RunTag("synced_epoch", str(last))])
        child.epoch, child.certain = last, True

    def _held(self, child: Child, names: set[str]) -> set[tuple[str, int]]:
        """Name and step of the points that a run holds.

        A trial that was resumed wrote its last epochs again, at another time: the same points to us, others to MLflow.
        """
        histories = (self._client.get_metric_history(child.run_id, name) for name in sorted(names))
        return {(point.key, point.step) for history in histories for point in history}

    def _finish(self, child: Child, trial: TrackedTrial, result: Mapping[str, Any]) -> None:
        from mlflow.entities import RunTag

        self._check()
        client, run_id, mark = self._client, child.run_id, end_mark(result)
        for chunk in _chunks(final_points(trial, result), BATCH):
            client.log_batch(run_id, metrics=chunk)
        for path, where in trial.artifacts.items():
            if path.exists():
                client.log_artifact(run_id, str(path), where or None)
        client.log_dict(run_id, result.get("environment", {}), "environment.json")
        client.set_terminated(run_id, _STATUS[result["state"]], milliseconds(result["ended"]))
        tags = result_tags(result)
        if child.ended:  # an earlier result, of which nothing may stay
            present = client.get_run(run_id).data.tags
            for key in {"failure", "warnings"} & set(present) - {tag.key for tag in tags}:
                client.delete_tag(run_id, key)
        # last, so that a replay after a kill begins anew
        client.log_batch(run_id, tags=[*tags, RunTag("synced_result", mark)])
        child.ended = mark
        if self._may_be_elsewhere(trial.trial_id):
            self._look_up(trial.trial_id)  # again: a server that was blocked may have made an earlier driver's run late
            self._unsure.discard(trial.trial_id)
        if self._book is not None:
            self._book.note(run_id, trial_id=trial.trial_id, synced_result=mark)


def _child(run_id: str, marks: Mapping[str, str]) -> Child:
    epoch = int(marks.get("synced_epoch", 0))
    ended, cell, model = (marks.get(f"synced_{what}", "") for what in ("result", "cell", "model"))
    return Child(run_id, epoch, ended, cell, model)


def _chunks(points: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for first in range(0, len(points), size):
        yield points[first : first + size]
