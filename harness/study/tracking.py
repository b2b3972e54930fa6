"""Trial folders -> MLflow: one experiment a study, one parent run a launch, one child run a trial.

Everything is found again by tags and written with the original timestamps, so that any part can be replayed
at any time without doubling a run or a point. Only the driver calls this; a tracking server that is down is
noted and tried again later, since the trial folders hold everything.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.study.mlflow_page import VIEW_TAG, score_view
from harness.study.mlflow_store import connect, create_default_store, default_uri, has_server

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: MLflow takes at most this many points in one request.
BATCH = 1000
#: Most parameters in one request, and the longest value kept of one.
PARAMS_BATCH, LONGEST_PARAM = 100, 6000
#: Seconds before an unreachable server is tried again.
RETRY_SECONDS = 60.0

PARENT_TAG = "mlflow.parentRunId"
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "pruned": "KILLED"}


@dataclass(frozen=True)
class TrackedTrial:
    """What MLflow is told about one trial.

    Attributes
    ----------
    trial_id, cell, seed, model : identity, as tags.
    params : the flattened spec.
    epochs : lines of ``metrics.jsonl``: ``{"epoch", "time" (unix), "metrics"}``.
    result : content of ``result.json``; None while the trial runs.
    first_of_cell : whether the cell's baselines are logged here.
    fingerprint : of the data.
    artifacts : files to attach once there is a result: path -> folder below the run's artifacts.
    """

    trial_id: str
    cell: str
    seed: int
    model: str
    fingerprint: str
    params: Mapping[str, Any]
    epochs: Sequence[Mapping[str, Any]]
    result: Mapping[str, Any] | None
    first_of_cell: bool
    artifacts: Mapping[Path, str] = field(default_factory=dict)


@dataclass
class _Child:
    """A child run as MLflow has it: its id, the last epoch it holds, and which result and scores of its cell."""

    run_id: str
    epoch: int
    ended: str
    cell: str = ""


class Tracker:
    """Writes one study to MLflow.

    Parameters
    ----------
    root
        Study root; the default store is ``root/mlflow.db`` with artifacts in ``root/mlartifacts``.
    study, experiment
        Names of the study and of its experiment.
    uri
        Tracking URI; None for the default store.
    oracle_selection
        Whether the study selects on truth, which tags every run.
    check
        Called before every write; raises if this driver may not write any more.
    warn
        Told one sentence when the server is lost.
    """

    def __init__(
        self,
        root: Path,
        study: str,
        *,
        experiment: str | None = None,
        uri: str | None = None,
        oracle_selection: bool = False,
        check: Callable[[], None] = lambda: None,
        warn: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.uri = uri or default_uri(root)
        self._root = None if uri else root.absolute()
        self.experiment = experiment or study
        self._study = study
        # a server knows where its artifacts go; a bare database would put them below the working directory
        self._artifacts = None if has_server(self.uri) else (root.absolute() / "mlartifacts" / study).as_uri()
        self._oracle = oracle_selection
        self._check = check
        self._warn = warn
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._children: dict[str, _Child] = {}
        self._parent = ""
        self._launch: tuple[int, float, dict[str, str]] | None = None
        self._lost_at = float("-inf")
        self.lost: str | None = None

    # --------------------------------------------------------------------------------------- the launch

    def start_launch(self, number: int, started: float, tags: Mapping[str, str]) -> None:
        """Create the parent run of a launch, or find it where this launch is resumed."""
        self._launch = (number, started, dict(tags))
        self._guarded(self._connected)

    def end_launch(
        self, status: str, artifacts: Mapping[Path, str], texts: Mapping[str, str], metrics: Iterable[str] = ()
    ) -> None:
        """Attach files and texts to the parent run and end it.

        Parameters
        ----------
        status
            ``FINISHED``, ``FAILED`` or ``KILLED``.
        artifacts
            Files: path -> folder below the run's artifacts.
        texts
            Small texts: file name -> content.
        metrics
            Names of the metrics that the study's trials have, from which the page's columns are chosen.
        """
        view = score_view(metrics)

        def write() -> None:
            client = self._connected()
            for path, where in artifacts.items():
                if path.exists():
                    client.log_artifact(self._parent, str(path), where or None)
            for name, text in texts.items():
                client.log_text(self._parent, text, name)
            if view is not None:
                client.set_experiment_tag(self._experiment_id, VIEW_TAG, view)
            client.set_terminated(self._parent, status)

        self._guarded(write, insist=True)

    # ---------------------------------------------------------------------------------------- the trials

    def sync(self, trial: TrackedTrial, *, insist: bool = False) -> bool:
        """Bring a trial's child run up to what its folder holds; gives whether that was possible.

        Parameters
        ----------
        trial
            What the folder holds.
        insist
            Try even if the server was unreachable a moment ago.
        """
        return self._guarded(lambda: self._sync(trial), insist=insist)

    def is_synced(self, trial_id: str, result: Mapping[str, Any] | None) -> bool:
        """Whether MLflow already holds this very result."""
        child = self._children.get(trial_id)
        return child is not None and result is not None and child.ended == _end_mark(result)

    def log_cell(self, trial_id: str, metrics: Mapping[str, float], *, trials: int, time: float) -> bool:
        """Log scores of a whole cell on the child run that holds its baselines; gives whether that was possible.

        Parameters
        ----------
        trial_id
            The cell's first trial.
        metrics
            Flat MLflow names -> values.
        trials
            Trials they are taken over: the step, so that the value over more seeds stands after that over fewer.
        time
            Unix time at which the last of the trials ended.
        """
        return self._guarded(lambda: self._log_cell(trial_id, metrics, trials, time))

    def _log_cell(self, trial_id: str, metrics: Mapping[str, float], trials: int, time: float) -> None:
        client = self._connected()
        child, mark = self._children.get(trial_id), f"{trials} {time}"
        if child is None or child.cell == mark:
            return
        self._check()
        from mlflow.entities import Metric, RunTag

        points = [Metric(name, float(value), _milliseconds(time), trials) for name, value in metrics.items()]
        client.log_batch(child.run_id, metrics=points, tags=[RunTag("synced_cell", mark)])
        child.cell = mark

    def _sync(self, trial: TrackedTrial) -> None:
        client = self._connected()
        if self.is_synced(trial.trial_id, trial.result):
            return
        child = self._children.get(trial.trial_id) or self._create_child(client, trial)
        new = [line for line in trial.epochs if line["epoch"] > child.epoch]
        for chunk in _chunks(list(_points(new))):
            client.log_batch(child.run_id, metrics=chunk)
        if new:
            child.epoch = max(line["epoch"] for line in new)
            client.set_tag(child.run_id, "synced_epoch", str(child.epoch))
        if trial.result is not None:
            self._finish_child(client, child, trial, trial.result)

    def _create_child(self, client: MlflowClient, trial: TrackedTrial) -> _Child:
        self._check()
        from mlflow.entities import Param

        begun = trial.epochs[0]["time"] if trial.epochs else time.time()
        started = trial.result["started"] if trial.result and "started" in trial.result else begun
        tags = {
            PARENT_TAG: self._parent,
            "study": self._study,
            "cell": trial.cell,
            "seed": str(trial.seed),
            "trial_id": trial.trial_id,
            "model": trial.model,
            "data_fingerprint": trial.fingerprint,
            "synced_epoch": "0",
            **self._oracle_tag(),
            **({"oracle_targets": "true"} if told_targets(trial.params) else {}),
        }
        name = f"{trial.cell} · seed {trial.seed}"
        run = client.create_run(self._experiment_id, start_time=_milliseconds(started), tags=tags, run_name=name)
        child = _Child(run.info.run_id, 0, "")
        self._children[trial.trial_id] = child
        params = [Param(key, _text(value)) for key, value in trial.params.items()]
        for first in range(0, len(params), PARAMS_BATCH):
            client.log_batch(child.run_id, params=params[first : first + PARAMS_BATCH])
        return child

    def _finish_child(
        self, client: MlflowClient, child: _Child, trial: TrackedTrial, result: Mapping[str, Any]
    ) -> None:
        self._check()
        from mlflow.entities import Metric, RunTag

        ended = _milliseconds(result["ended"])
        last = {name: value for line in trial.epochs for name, value in line["metrics"].items()}
        values = {name: value for name, value in result["metrics"].items() if last.get(name) != value}
        if trial.first_of_cell:
            values.update(result["baselines"])
        # a final value beside a curve (the weights kept are the best, not the last) stands after its end
        step = 1 + max((line["epoch"] for line in trial.epochs), default=-1)
        points = [
            Metric(name, float(value), ended, step if name in last else 0)
            for name, value in values.items()
            if _is_finite(value)
        ]
        for chunk in _chunks(points):
            client.log_batch(child.run_id, metrics=chunk)
        for path, where in trial.artifacts.items():
            if path.exists():
                client.log_artifact(child.run_id, str(path), where or None)
        client.log_dict(child.run_id, result.get("environment", {}), "environment.json")
        client.set_terminated(child.run_id, _STATUS[result["state"]], ended)
        tags = [RunTag(key, value) for key, value in _result_tags(result).items()]
        if child.ended:  # an earlier result, of which nothing may stay
            present = client.get_run(child.run_id).data.tags
            for key in {"failure", "warnings"} & set(present) - {tag.key for tag in tags}:
                client.delete_tag(child.run_id, key)
        # last, so that a replay after a kill begins anew
        client.log_batch(child.run_id, tags=[*tags, RunTag("synced_result", _end_mark(result))])
        child.ended = _end_mark(result)

    # --------------------------------------------------------------------------------------- connection

    def _connected(self) -> MlflowClient:
        """The client, with experiment, parent run and the map of children in place."""
        if self._client is not None:
            return self._client
        self._check()
        if self._root is not None:
            create_default_store(self._root)
        client = connect(self.uri)
        self._experiment_id = self._find_experiment(client)
        self._children = dict(self._find_children(client))
        if self._launch is not None:
            self._parent = self._find_parent(client, *self._launch)
        self._client = client
        return client

    def _find_experiment(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            # the tag opens the experiment on its training runs; without it the UI shows an empty page for GenAI
            tags = {"mlflow.experimentKind": "custom_model_development", "study": self._study}
            return str(client.create_experiment(self.experiment, artifact_location=self._artifacts, tags=tags))
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _find_children(self, client: MlflowClient) -> Iterator[tuple[str, _Child]]:
        for run in _all_runs(client, self._experiment_id, f"tags.study = '{self._study}'"):
            tags = run.data.tags
            if "trial_id" in tags:
                synced = int(tags.get("synced_epoch", 0)), tags.get("synced_result", ""), tags.get("synced_cell", "")
                yield tags["trial_id"], _Child(run.info.run_id, *synced)

    def _find_parent(self, client: MlflowClient, number: int, started: float, tags: Mapping[str, str]) -> str:
        wanted = f"tags.study = '{self._study}' and tags.launch = '{number}'"
        for run in _all_runs(client, self._experiment_id, wanted):
            client.update_run(run.info.run_id, status="RUNNING")
            return str(run.info.run_id)
        all_tags = {"study": self._study, "launch": str(number), **self._oracle_tag(), **tags}
        run = client.create_run(
            self._experiment_id, start_time=_milliseconds(started), tags=all_tags, run_name=f"launch {number}"
        )
        return str(run.info.run_id)

    def _oracle_tag(self) -> dict[str, str]:
        return {"oracle_selection": "true"} if self._oracle else {}

    def _guarded(self, write: Callable[[], object], *, insist: bool = False) -> bool:
        """Write, unless the server cannot be reached; then say so once and leave it for later."""
        if self.lost is not None and not insist and time.monotonic() - self._lost_at < RETRY_SECONDS:
            return False
        from mlflow.exceptions import MlflowException

        try:
            write()
        except (MlflowException, OSError) as error:  # requests' connection errors are OSErrors
            if self.lost is None:
                self._warn(f"MLflow at {self.uri} cannot be written ({_first_line(error)}); training goes on")
            self.lost, self._lost_at = _first_line(error), time.monotonic()
            return False
        self.lost = None
        return True


def _all_runs(client: MlflowClient, experiment_id: str, wanted: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment_id], filter_string=wanted, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _points(epochs: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    from mlflow.entities import Metric

    for line in epochs:
        for name, value in line["metrics"].items():
            if _is_finite(value):  # MLflow would store infinity as 1.8e308
                yield Metric(name, float(value), _milliseconds(line["time"]), int(line["epoch"]))


def _chunks(points: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for first in range(0, len(points), BATCH):
        yield points[first : first + BATCH]


def _result_tags(result: Mapping[str, Any]) -> dict[str, str]:
    environment = result.get("environment") or {}
    failure = result.get("failure") or {}
    tags = {
        "state": result["state"],
        "git_commit": environment.get("git_commit"),
        "host": environment.get("host"),
        "device": environment.get("device"),
        "slurm_job_id": environment.get("slurm_job_id"),
        "failure": failure.get("reason"),
        "warnings": "\n".join(result.get("warnings", [])),
    }
    return {key: str(value)[:5000] for key, value in tags.items() if value}


def _end_mark(result: Mapping[str, Any]) -> str:
    """What tells one result of a trial from another: a retried failure ends at another time."""
    return f"{result['state']} {result['ended']}"


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def told_targets(params: Mapping[str, Any]) -> bool:
    """Whether a trial's model is told which latents perturbations act on, which only a generator knows."""
    if params.get("model.mechanisms") != "targeted":
        return False
    targets = params.get("model.targets")
    of_file = params.get("data.kind") == "perturbseq" and params.get("data.path") is not None
    return targets in ("known", "known_unordered") or (targets == "auto" and not of_file)


def _text(value: object) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:LONGEST_PARAM]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
