"""What MLflow is told about a study, put together from its folders; ``tracking`` does the telling."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.helps import Help, helps_of, tags, united
from harness.study.backlog import Backlog
from harness.study.exported import is_exportable, note_exported, write_model
from harness.study.folder import StudyFolder, TrialFolder
from harness.study.launches import Launch, environment
from harness.study.plan import Plan, PlannedTrial
from harness.study.spec import StudySpec
from harness.study.tracked_trial import TrackedTrial, end_mark
from harness.study.tracking import Tracker

if TYPE_CHECKING:
    from harness.study.across_seeds import Agreement
    from harness.study.report import Report

#: Seconds between two looks at the curves of running trials.
FOLLOW_SECONDS = 20.0
#: Trials that may be behind at the end of a launch without a word about it.
MANY = 100


class Tracking:
    """One launch of a study in MLflow, written from a thread of its own: nothing here waits for a server.

    What could not be written is tried again while the launch lasts, and once more at its end.

    Parameters
    ----------
    study, folder
        What is tracked.
    check
        Called before every write; raises if this driver may not write any more.
    say
        Told one sentence when the server is lost.
    """

    def __init__(
        self, study: StudySpec, folder: StudyFolder, check: Callable[[], None], say: Callable[[str], None]
    ) -> None:
        self._study, self._folder = study, folder
        self._tracker = Tracker(
            folder.root,
            study.name,
            experiment=study.experiment,
            uri=study.tracking.uri,
            check=check,
            warn=say,
        )
        self._backlog = Backlog()
        self._metrics: dict[str, None] = {}
        self._helps: tuple[Help, ...] = ()
        self._followed = time.monotonic()
        self._say = say

    def start(self, record: Launch, planned: Plan) -> None:
        """Make the launch's parent run, or find it where it is resumed.

        Its helps are those of all its trials; of a search they are only known at its end.
        """
        its = {"grid_trials": str(len(record.trials))}
        if self._study.description:
            its["mlflow.note.content"] = self._study.description
        self._helps = united(one for trial in planned.trials for one in self._helps_of(trial))
        if not planned.proposals:
            its |= tags(self._helps)
        number, started = record.number, record.started
        self._backlog.put("launch", lambda: self._tracker.start_launch(number, started, its))

    def sync(self, trial: PlannedTrial, result: Mapping[str, Any]) -> None:
        """Have a trial with a result brought to MLflow, unless it is there."""
        self._metrics.update(dict.fromkeys(result.get("metrics", {})))
        self._helps = united((*self._helps, *self._helps_of(trial)))
        self._backlog.put(trial.trial_id, self._task(trial, end_mark(result)))

    def follow(self, running: Mapping[str, PlannedTrial]) -> None:
        """Have the curves of running trials brought to MLflow, now and then."""
        if time.monotonic() - self._followed < FOLLOW_SECONDS:
            return
        self._followed = time.monotonic()
        for trial in running.values():
            self._backlog.offer(trial.trial_id, self._task(trial, ""))

    def finish(self, record: Launch, report: Report | None) -> str | None:
        """Bring what is behind, end the parent run; gives why that was not possible, if so."""
        if len(self._backlog) > MANY:
            self._say(f"{len(self._backlog)} trials are still to be brought to MLflow")
        self._put_end(record, report)
        is_done = self._backlog.drain()
        self._backlog.close()
        return None if is_done else self._tracker.error

    def close(self) -> None:
        """Write no more; for a driver that leaves without an end."""
        self._backlog.close()

    def _put_end(self, record: Launch, report: Report | None) -> None:
        artifacts: dict[Path, str] = {self._folder.study_file: ""}
        if report is not None:
            artifacts.update({path: "report" for path in report.files})
            if report.heatmap is not None:
                artifacts[report.heatmap] = ""
            for one in report.agreements:
                self._backlog.put(f"cell {one.trial_id}", partial(self._log_agreement, one))
        for trial_id in note_exported(self._folder, () if report is None else self._best(report)):
            self._backlog.put(f"model {trial_id}", partial(self._log_model, trial_id))
        texts = {
            "environment.json": json.dumps(environment(), indent=1),
            "reused_trials.json": json.dumps(record.reused, indent=1),
        }
        status = {"finished": "FINISHED", "failed": "FAILED"}.get(record.state, "KILLED")
        its = tags(self._helps)
        self._backlog.put("end", lambda: self._tracker.end_launch(status, artifacts, texts, self._metrics, its))

    def _log_agreement(self, one: Agreement) -> bool:
        return self._tracker.log_cell(one.trial_id, one.scores, trials=one.trials, time=one.time)

    def _best(self, report: Report) -> Iterator[str]:
        """The best trials of a report that have a model to be brought."""
        for trial_id in report.best:
            if is_exportable(self._folder.trial(trial_id)):
                yield trial_id

    def _log_model(self, trial_id: str) -> bool:
        """Bring a trial's model; where the trial is gone, or was retried and has none now, there is none to bring."""
        folder = self._folder.trial(trial_id)
        result = folder.read_result()
        if result is None or not is_exportable(folder):
            return True
        held = self._tracker.log_model(trial_id, end_mark(result), partial(write_model, folder.path))
        return held is not None or self._tracker.error == ""

    def _helps_of(self, trial: PlannedTrial) -> tuple[Help, ...]:
        return helps_of(trial.spec, selected=self._study.selected_by_truth(trial.spec.data))

    def _task(self, trial: PlannedTrial, mark: str) -> Callable[[], bool]:
        """Bring a trial to MLflow from its folder: many may wait, so that none holds its numbers in memory."""
        return lambda: self._tracker.bring(trial.trial_id, mark, lambda: self._read(trial, ended=mark != ""))

    def _read(self, trial: PlannedTrial, *, ended: bool) -> TrackedTrial:
        folder = self._folder.trial(trial.trial_id)
        result = folder.read_result() if ended else None
        return TrackedTrial(
            trial_id=trial.trial_id,
            cell=trial.cell,
            seed=trial.seed,
            model=trial.spec.model.kind,
            fingerprint=trial.spec.data_fingerprint,
            params=flattened(trial.spec.model_dump(mode="json")),
            epochs=folder.read_metrics(),
            result=result,
            first_of_cell=trial.seed == self._study.seeds[0] or self._study.data.get("seed") == "per_trial",
            helps=self._helps_of(trial),
            artifacts={} if result is None else self._artifacts(folder, trial),
        )

    def _artifacts(self, folder: TrialFolder, trial: PlannedTrial) -> dict[Path, str]:
        files = {folder.spec: "", folder.split: "", folder.ood: "", folder.result: ""}
        figure = _latents_figure(folder, trial.name)
        if figure is not None:
            files[figure] = ""
        return files


def flattened(spec: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as dotted keys, lists kept whole."""
    flat: dict[str, Any] = {}
    for key, value in spec.items():
        if isinstance(value, Mapping):
            flat.update(flattened(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _latents_figure(folder: TrialFolder, title: str) -> Path | None:
    if not folder.latents.exists():
        return None
    from harness.study.latents_figure import latents_figure

    try:
        return latents_figure(folder.latents, folder.path / "latents.png", title=title)
    except UserError:
        return None  # not such a file, e.g. torn: the trial's numbers are worth more than its picture
