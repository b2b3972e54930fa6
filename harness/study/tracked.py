"""What MLflow is told about a study, put together from its folders; ``tracking`` does the telling."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.study.folder import StudyFolder, TrialFolder
from harness.study.launches import Launch, environment
from harness.study.plan import PlannedTrial
from harness.study.spec import StudySpec
from harness.study.tables import MCC_ACROSS_SEEDS
from harness.study.tracking import TrackedTrial, Tracker

if TYPE_CHECKING:
    from harness.study.report import Report

#: Seconds between two looks at the curves of running trials.
FOLLOW_SECONDS = 20.0


class Tracking:
    """One launch of a study in MLflow.

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
            oracle_selection=study.oracle_selection,
            check=check,
            warn=say,
        )
        self._behind: dict[str, tuple[PlannedTrial, Mapping[str, Any]]] = {}
        self._metrics: dict[str, None] = {}
        self._followed = time.monotonic()

    def start(self, record: Launch) -> None:
        """Make the launch's parent run, or find it where it is resumed."""
        tags = {"grid_trials": str(len(record.trials))}
        if self._study.description:
            tags["mlflow.note.content"] = self._study.description
        self._tracker.start_launch(record.number, record.started, tags)

    def sync(self, trial: PlannedTrial, result: Mapping[str, Any]) -> None:
        """Bring a trial with a result to MLflow; one that could not be brought is tried again at the end."""
        self._metrics.update(dict.fromkeys(result.get("metrics", {})))
        if self._tracker.is_synced(trial.trial_id, result):
            return
        self._behind[trial.trial_id] = (trial, result)
        if self._bring(trial, result):
            del self._behind[trial.trial_id]

    def follow(self, running: Mapping[str, PlannedTrial]) -> None:
        """Bring the curves of running trials to MLflow, now and then."""
        if time.monotonic() - self._followed < FOLLOW_SECONDS:
            return
        self._followed = time.monotonic()
        for trial in running.values():
            self._bring(trial, None)

    def finish(self, record: Launch, report: Report | None) -> str | None:
        """Bring what is behind, end the parent run; gives why that was not possible, if so."""
        for trial, result in list(self._behind.values()):
            if not self._bring(trial, result, insist=True):
                break
            del self._behind[trial.trial_id]
        artifacts: dict[Path, str] = {self._folder.study_file: ""}
        if report is not None:
            artifacts.update({path: "report" for path in report.files})
            if report.heatmap is not None:
                artifacts[report.heatmap] = ""
            for one in report.agreements:
                self._tracker.log_cell(one.trial_id, {MCC_ACROSS_SEEDS: one.value}, trials=one.trials, time=one.time)
        texts = {
            "environment.json": json.dumps(environment(), indent=1),
            "reused_trials.json": json.dumps(record.reused, indent=1),
        }
        status = {"finished": "FINISHED", "failed": "FAILED"}.get(record.state, "KILLED")
        self._tracker.end_launch(status, artifacts, texts, self._metrics)
        return self._tracker.lost

    def _bring(self, trial: PlannedTrial, result: Mapping[str, Any] | None, *, insist: bool = False) -> bool:
        folder = self._folder.trial(trial.trial_id)
        tracked = TrackedTrial(
            trial_id=trial.trial_id,
            cell=trial.cell,
            seed=trial.seed,
            model=trial.spec.model.kind,
            fingerprint=trial.spec.data_fingerprint,
            params=flattened(trial.spec.model_dump(mode="json")),
            epochs=folder.read_metrics(),
            result=result,
            first_of_cell=trial.seed == self._study.seeds[0] or self._study.data.get("seed") == "per_trial",
            artifacts={} if result is None else self._artifacts(folder, trial),
        )
        return self._tracker.sync(tracked, insist=insist)

    def _artifacts(self, folder: TrialFolder, trial: PlannedTrial) -> dict[Path, str]:
        files = {folder.spec: "", folder.split: "", folder.result: ""}
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
