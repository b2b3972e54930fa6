"""The driver: the only writer of Optuna and MLflow. It asks, submits, collects and tells.

It keeps nothing that cannot be found again: a driver that was killed is replaced by ``resume``, which reads
the trial folders, waits for the jobs that still run, and goes on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from harness.errors import UserError
from harness.study.data_stage import DataStage, check_files
from harness.study.executors import Executor, make_executor
from harness.study.fleet import Ended, Fleet, reopen
from harness.study.folder import StudyFolder, write_atomic
from harness.study.job import LOAD, RUN
from harness.study.launches import Launch, last_launch
from harness.study.lease import Lease
from harness.study.load import dump_study, load_profile
from harness.study.mlflow_store import check_uri
from harness.study.optuna_store import OptunaStore
from harness.study.past import launched, write_report
from harness.study.plan import Plan, PlannedTrial, Point, plan
from harness.study.progress import Progress, Screen, make_screen
from harness.study.search_loop import SearchLoop, means
from harness.study.spec import StudySpec
from harness.study.tracked import Tracking

if TYPE_CHECKING:
    from harness.study.report import Report

#: Seconds between two looks at the trial folders.
POLL_SECONDS = {"inline": 0.5, "local": 0.2, "slurm": 2.0}


@dataclass(frozen=True)
class Runner:
    """What jobs call, by importable name: the seam that tests use.

    Attributes
    ----------
    run : ``module:function`` that runs one trial.
    load : ``module:function`` that builds one dataset.
    """

    run: str = RUN
    load: str = LOAD


@dataclass
class Outcome:
    """How a launch ended.

    Attributes
    ----------
    ran : trials that ended in this launch.
    reused : trials whose result was there already.
    failed : trials without a result to show: name and reason.
    pruned : trials stopped by the search.
    interrupted : whether Ctrl-C ended it.
    gave_up : whether ``compute.max_failures`` ended it.
    untracked : why MLflow could not be written, if so.
    report : tables and figures; None where it was interrupted.
    tracking_uri : where the runs are; None for the root's own store.
    """

    ran: int = 0
    reused: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    pruned: int = 0
    interrupted: bool = False
    gave_up: bool = False
    untracked: str | None = None
    report: Report | None = None
    tracking_uri: str | None = None


def launch(study: StudySpec, root: Path, *, runner: Runner | None = None, screen: Screen | None = None) -> Outcome:
    """Run what is missing of a study.

    Parameters
    ----------
    study
        The study, as `harness.study.load.load_study` gives it.
    root
        Folder of all studies; its own MLflow store lies there.
    runner
        What jobs call.
    screen
        Where progress is shown; default: stderr.

    Raises
    ------
    UserError
        If the cluster is not there, a data file cannot be used, the folder cannot be written, or another
        driver holds the study. Nothing has run then.
    """
    return _drive(study, root, runner or Runner(), screen, resumed=False)


def resume(name: str, root: Path, *, runner: Runner | None = None, screen: Screen | None = None) -> Outcome:
    """Go on with the last launch of a study, as it was resolved then.

    Raises
    ------
    UserError
        As `launch`; and if no study of this name was launched.
    """
    study, _ = launched(name, root)
    return _drive(study, root, runner or Runner(), screen, resumed=True)


def _drive(study: StudySpec, root: Path, runner: Runner, screen: Screen | None, *, resumed: bool) -> Outcome:
    root = root.absolute()
    folder = StudyFolder(root, study.name)
    if folder.suite_file.exists():
        raise UserError(f"{study.name!r} is a suite in {root}; give the study another name")
    check_uri(study.tracking.uri)
    planned = plan(study)
    executor = executor_for(study, folder)
    missing = [trial for trial in planned.trials if folder.trial(trial.trial_id).read_result() is None]
    check_files(missing, root / "cache", runner.load)
    folder.create()
    with Lease(folder.lock, study.name) as lease:
        write_atomic(folder.study_file, dump_study(study))
        progress = Progress(screen or make_screen(), study.objective[0])
        try:
            return Driver(study, folder, planned, executor, lease, progress, runner).drive(resumed=resumed)
        finally:
            progress.close()


def executor_for(study: StudySpec, folder: StudyFolder) -> Executor:
    """The executor a study asks for.

    Raises
    ------
    UserError
        If the cluster or its profile is not there.
    """
    profile = load_profile(Path(study.compute.profile)) if study.compute.profile else None
    return make_executor(study.compute, profile, folder.job_logs.absolute())


class Driver:
    """Drives one launch; see `launch` for what it promises.

    Parameters
    ----------
    study, folder, planned
        The study, its folder, and its grid.
    executor
        Where jobs run.
    lease
        Held; checked before every write.
    progress
        What people see.
    runner
        What jobs call.
    """

    def __init__(
        self,
        study: StudySpec,
        folder: StudyFolder,
        planned: Plan,
        executor: Executor,
        lease: Lease,
        progress: Progress,
        runner: Runner,
    ) -> None:
        self._study, self._folder, self._plan, self._progress = study, folder, planned, progress
        self._executor, self._lease = executor, lease
        cache = folder.root.absolute() / "cache"
        compute = study.compute
        self._data = DataStage(folder, executor, cache, runner.load, progress.close)
        self._fleet = Fleet(
            folder,
            executor,
            cache,
            device=compute.device,
            trials_per_job=compute.trials_per_job,
            retries=compute.retries,
            check=lease.check,
            after=self._data.after,
            run=runner.run,
        )
        self._store = OptunaStore(folder.journal, study.name, study.objective, lease.check)
        self._tracking = Tracking(study, folder, lease.check, progress.say)
        self._numbers: dict[str, int] = {}
        self._search: SearchLoop | None = None
        self._outcome = Outcome(tracking_uri=study.tracking.uri)
        self._reused: list[str] = []

    def drive(self, *, resumed: bool) -> Outcome:
        """Run to the end, or to Ctrl-C; what ran is kept either way."""
        record = self._open_launch(resumed=resumed)
        try:
            self._tracking.start(record)
            self._take_on_grid()
            if any(point.space for point in self._plan.points):
                self._search = self._start_search()
            self._loop()
        except KeyboardInterrupt:
            self._outcome.interrupted = True
            self._progress.say("interrupted: ending jobs, keeping what ran")
            self._fleet.cancel()
            for ended in self._fleet.collect_results():
                self._take(ended)
        self._close_launch(record)
        return self._outcome

    # ------------------------------------------------------------------------------------ beginning

    def _open_launch(self, *, resumed: bool) -> Launch:
        last = last_launch(self._folder)
        if resumed and last is not None:
            record = last
            record.state, record.ended = "running", None
        else:
            record = Launch(1 if last is None else last.number + 1)
        record.study = dump_study(self._study)
        record.trials = [trial.trial_id for trial in self._plan.trials]
        record.epochs.append(self._lease.epoch)
        record.write(self._folder)
        return record

    def _take_on_grid(self) -> None:
        """Enqueue what has no finished result; take over what has one."""
        self._store.recover()
        entries = self._store.entries()
        self._store.widen(_setting(point, trial) for point in self._plan.points for trial in point.trials)
        fresh = []
        for point in self._plan.points:
            for trial in point.trials:
                entry = entries.get(trial.trial_id)
                number = entry.number if entry is not None and entry.state is TrialState.WAITING else None
                folder = self._folder.trial(trial.trial_id)
                result = folder.read_result()
                if result is not None and result["state"] == "finished":
                    self._reuse(trial, result)
                    if entry is None or entry.state is not TrialState.COMPLETE:
                        self._record(point, trial, result, number)
                    continue
                reopen(folder)  # failed before, or stopped by a search: a grid cell is run to its end
                self._numbers[trial.trial_id] = self._add(point, trial) if number is None else number
                fresh.append(trial)
                self._progress.expect(trial)
        if fresh and self._reused:
            self._progress.say(f"{len(self._reused)} trials are there already, {len(fresh)} to run")
        self._data.prepare(fresh)
        self._fleet.add(fresh)

    def _add(self, point: Point, trial: PlannedTrial) -> int:
        attributes = {"trial_id": trial.trial_id, "cell": trial.cell, "seed": trial.seed}
        return self._store.add(_setting(point, trial), key=trial.trial_id, attributes=attributes)

    def _record(self, point: Point, trial: PlannedTrial, result: Mapping[str, Any], number: int | None) -> None:
        """Tell a result that Optuna does not know, e.g. because the driver died first."""
        if number is None:
            if means([result], self._study.objective) is None:
                return  # told before as failed: it has no such metric
            number = self._add(point, trial)
        self._store.begin(number)
        self._tell(number, result)

    def _reuse(self, trial: PlannedTrial, result: Mapping[str, Any]) -> None:
        self._reused.append(trial.trial_id)
        self._outcome.reused += 1
        self._progress.reuse(trial, result)
        self._tracking.sync(trial, result)

    def _start_search(self) -> SearchLoop:
        at_once = max(1, self._executor.parallel // len(self._study.seeds))
        return SearchLoop(
            self._study,
            self._plan,
            self._store,
            self._fleet,
            at_once=at_once,
            progress=self._progress,
            reused=self._reuse,
            prepare=self._data.prepare,
        )

    # ------------------------------------------------------------------------------------ the loop

    def _loop(self) -> None:
        poll = POLL_SECONDS[self._executor.name]
        while True:
            self._lease.check()
            if self._search is not None:
                self._search.ask()
                self._progress.to_come = self._search.to_come
            if self._fleet.idle and (self._search is None or self._search.over):
                return
            if self._too_many_failures():
                self._outcome.gave_up = True
                self._fleet.cancel()
                return
            self._submit()
            self._executor.wait(poll, self._observe)
            self._collect()

    def _submit(self) -> None:
        for number in (self._numbers.get(trial_id) for trial_id in self._fleet.submit()):
            if number is not None:
                self._store.begin(number)

    def _observe(self) -> None:
        """While jobs run: show progress, prune, bring curves to MLflow."""
        self._progress.show(self._fleet.flights)
        if self._search is not None:
            self._search.observe()
        self._tracking.follow(self._fleet.running)

    def _collect(self) -> None:
        for fingerprint, reason in self._data.failures().items():
            for ended in self._fleet.fail_data(fingerprint, reason):
                self._take(ended)
        for ended in self._fleet.collect():
            self._take(ended)

    def _take(self, ended: Ended) -> None:
        """Tell everybody how a trial ended."""
        trial, result = ended.trial, ended.result
        self._outcome.ran += 1
        self._progress.ended(trial, result)
        if result["state"] == "failed":
            reason = (result.get("failure") or {}).get("reason", "no reason recorded")
            self._outcome.failed.append((trial.name, reason))
        self._outcome.pruned += result["state"] == "pruned"
        number = self._numbers.get(trial.trial_id)
        if number is not None:
            self._tell(number, result)
        if self._search is not None:
            self._search.ended(trial, result)
        self._tracking.sync(trial, result)

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

    def _too_many_failures(self) -> bool:
        most = self._study.compute.max_failures
        return most is not None and len(self._outcome.failed) > most

    # ------------------------------------------------------------------------------------ the end

    def _close_launch(self, record: Launch) -> None:
        outcome = self._outcome
        self._lease.check()
        outcome.report = (
            None if outcome.interrupted else write_report(self._study, self._folder, self._plan, self._store)
        )
        record.state = "interrupted" if outcome.interrupted else "failed" if outcome.failed else "finished"
        record.ended = time.time()
        record.reused = self._reused
        record.write(self._folder)
        outcome.untracked = self._tracking.finish(record, outcome.report)


def _setting(point: Point, trial: PlannedTrial) -> dict[str, Any]:
    return {**point.setting, "seed": trial.seed}
