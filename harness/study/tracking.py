"""Trial folders -> MLflow: one experiment a study, one parent run a launch, one child run a trial.

Everything is found again by tags and written with the original timestamps, so that any part can be replayed
at any time without doubling a run or a point. Only the driver calls this; a tracking server that is down is
noted and tried again later, since the trial folders hold everything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.study.child_runs import MARKS, ChildRuns
from harness.study.lease import LeaseLost
from harness.study.mlflow_page import VIEW_TAG, score_view
from harness.study.mlflow_store import all_runs, connect, create_default_store, default_uri, has_server, tagged_runs
from harness.study.tracked_book import BOOK, TrackedBook
from harness.study.tracked_trial import TrackedTrial, milliseconds

if TYPE_CHECKING:
    from mlflow import MlflowClient


class Tracker:
    """Writes one study to MLflow. What it is asked for may be asked for again, after any failure.

    Parameters
    ----------
    root
        Study root; the default store is ``root/mlflow.db`` with artifacts in ``root/mlartifacts``.
    study, experiment
        Names of the study and of its experiment.
    uri
        Tracking URI; None for the default store.
    check
        Called before every write; raises if this driver may not write any more.
    warn
        Told one sentence when MLflow is lost, and when it is there again; each sentence once.
    """

    def __init__(
        self,
        root: Path,
        study: str,
        *,
        experiment: str | None = None,
        uri: str | None = None,
        check: Callable[[], None] = lambda: None,
        warn: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.uri = uri or default_uri(root)
        self._root = None if uri else root.absolute()
        self.experiment = experiment or study
        self._study = study
        self._book = root.absolute() / study / BOOK
        # a server knows where its artifacts go; a bare database would put them below the working directory
        self._artifacts = None if has_server(self.uri) else (root.absolute() / "mlartifacts" / study).as_uri()
        self._tags = {"study": study}
        self._check = check
        self._warn = warn
        self._said: set[str] = set()
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._parent = ""
        self._children: ChildRuns | None = None
        self._launch: tuple[int, float, dict[str, str]] | None = None
        self._is_lost = False
        #: Why MLflow could not be written the last time that it could not.
        self.error = ""

    # --------------------------------------------------------------------------------------- the launch

    def start_launch(self, number: int, started: float, tags: Mapping[str, str]) -> bool:
        """Create the parent run of a launch, or find it where this launch is resumed; gives whether it is there."""
        self._launch = (number, started, dict(tags))
        return self._guarded(self._connected)

    def end_launch(
        self,
        status: str,
        artifacts: Mapping[Path, str],
        texts: Mapping[str, str],
        metrics: Iterable[str] = (),
        tags: Mapping[str, str] | None = None,
    ) -> bool:
        """Attach files, texts and tags to the parent run and end it; gives whether that was possible.

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
        tags
            Tags that are only known by now.
        """
        view = score_view(metrics)

        def write() -> None:
            client, _ = self._connected()
            for path, where in artifacts.items():
                if path.exists():
                    client.log_artifact(self._parent, str(path), where or None)
            for name, text in texts.items():
                client.log_text(self._parent, text, name)
            for key, value in (tags or {}).items():
                client.set_tag(self._parent, key, value)
            if view is not None:
                client.set_experiment_tag(self._experiment_id, VIEW_TAG, view)
            client.set_terminated(self._parent, status)

        return self._guarded(write)

    # ---------------------------------------------------------------------------------------- the trials

    def sync(self, trial: TrackedTrial) -> bool:
        """Bring a trial's child run up to what its folder holds; gives whether that was possible."""
        return self._guarded(lambda: self._connected()[1].sync(trial))

    def bring(self, trial_id: str, mark: str, read: Callable[[], TrackedTrial]) -> bool:
        """`sync`, reading the trial's folder only where MLflow does not hold the result of this mark."""

        def write() -> None:
            children = self._connected()[1]
            if not children.holds(trial_id, mark):
                children.sync(read())

        return self._guarded(write)

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

        def write() -> None:
            from mlflow.entities import Metric

            children = self._connected()[1]
            points = [Metric(name, float(value), milliseconds(time), trials) for name, value in metrics.items()]
            children.log_cell(trial_id, points, f"{trials} {time}")

        return self._guarded(write)

    def log_model(self, trial_id: str, mark: str, write: Callable[[Path], None]) -> str | None:
        """Have a trial's child run hold its model; gives the run, and None where that was not possible.

        Parameters are those of `harness.study.child_runs.ChildRuns.log_model`; with ``error`` empty there is no run.
        """
        held: list[str | None] = []
        self.error = ""
        self._guarded(lambda: held.append(self._connected()[1].log_model(trial_id, mark, write)))
        return held[0] if held else None

    # --------------------------------------------------------------------------------------- connection

    def _connected(self) -> tuple[MlflowClient, ChildRuns]:
        """The client and the child runs, with experiment and parent run in place."""
        if self._client is not None and self._children is not None:
            return self._client, self._children
        self._check()
        if self._root is not None:
            create_default_store(self._root)
        client = connect(self.uri)
        self._experiment_id = self._find_experiment(client)
        if self._launch is not None:
            self._parent = self._find_parent(client, *self._launch)
        self._children = self._find_children(client)
        self._client = client
        return client, self._children

    def _find_children(self, client: MlflowClient) -> ChildRuns:
        where = client, self._experiment_id, self._parent, self._tags
        if not has_server(self.uri):
            return ChildRuns(*where, tagged_runs(self.uri, self._experiment_id, self._study, MARKS), self._check)
        created = client.get_experiment(self._experiment_id).creation_time  # another one where the server began anew
        book = TrackedBook(self._book, f"{self.uri} {self._experiment_id} {created}")
        return ChildRuns(*where, book.runs(), self._check, book)

    def _find_experiment(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            # the tag opens the experiment on its training runs; without it the UI shows an empty page for GenAI
            tags = {"mlflow.experimentKind": "custom_model_development", "study": self._study}
            return str(client.create_experiment(self.experiment, artifact_location=self._artifacts, tags=tags))
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _find_parent(self, client: MlflowClient, number: int, started: float, tags: Mapping[str, str]) -> str:
        wanted = f"tags.study = '{self._study}' and tags.launch = '{number}'"
        for run in all_runs(client, self._experiment_id, wanted):
            client.update_run(run.info.run_id, status="RUNNING")
            return str(run.info.run_id)
        all_tags = {**self._tags, "launch": str(number), **tags}
        run = client.create_run(
            self._experiment_id, start_time=milliseconds(started), tags=all_tags, run_name=f"launch {number}"
        )
        return str(run.info.run_id)

    def _guarded(self, write: Callable[[], object]) -> bool:
        """Write; where that fails say so once, and leave it for later."""
        try:
            write()
        except LeaseLost:
            raise
        except Exception as error:  # whatever a server, a database or a disk raises: no trial may be lost to it
            self.error = _reason(error)
            self._say(f"MLflow at {self.uri} cannot be written ({self.error}); training goes on")
            self._is_lost = True
            return False
        if self._is_lost:
            self._say(f"MLflow at {self.uri} can be written again")
            self._is_lost = False
        return True

    def _say(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._warn(sentence)


def _reason(error: BaseException) -> str:
    """One line on what went wrong: the system's or the database's own words, where they are at the bottom of it."""
    said, cause = error, error.__cause__ or error.__context__
    while cause is not None:
        if isinstance(cause, OSError | sqlite3.Error):
            said = cause
        cause = cause.__cause__ or cause.__context__
    return (str(said).strip() or type(said).__name__).splitlines()[0][:200]
