"""The driver: the only writer of Optuna and MLflow. It asks, submits, collects and tells.

It keeps nothing that cannot be found again: a driver that was killed is replaced by ``resume``, which reads
the trial folders, waits for the jobs that still run, and goes on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.files import FOREVER, patiently
from harness.study.again import CANCELLED, open_again
from harness.study.data_stage import DataStage, check_files
from harness.study.executors import Executor
from harness.study.fleet import Ended, Fleet
from harness.study.folder import StudyFolder, write_atomic
from harness.study.grid_book import GridBook
from harness.study.launches import Launch, last_launch
from harness.study.lease import Lease
from harness.study.load import dump_study
from harness.study.mlflow_store import check_uri
from harness.study.optuna_store import OptunaStore
from harness.study.past import launched, write_report
from harness.study.plan import Plan, PlannedTrial, Point, plan
from harness.study.progress import Progress, Screen, make_screen, selection
from harness.study.requests import Requests
from harness.study.running import Outcome, Runner, chunks_for, executor_for
from harness.study.search_loop import SearchLoop
from harness.study.spec import StudySpec
from harness.study.tracked import Tracking
from harness.study.trial_index import TrialIndex, left_over, left_over_words, read_index

if TYPE_CHECKING:
    from harness.study.report import Report

#: Seconds between two looks at the trial folders.
POLL_SECONDS = {"inline": 0.5, "local": 0.2, "slurm": 2.0}


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


def resume(
    name: str,
    root: Path,
    *,
    only: frozenset[str] | None = None,
    runner: Runner | None = None,
    screen: Screen | None = None,
) -> Outcome:
    """Go on with the last launch of a study, as it was resolved then.

    Parameters
    ----------
    name, root, runner, screen
        As in `launch`.
    only
        Ids of trials that failed or were cancelled, to be run again, and nothing else.

    Raises
    ------
    UserError
        As `launch`; and if no study of this name was launched.
    """
    study, _ = launched(name, root)
    return _drive(study, root, runner or Runner(), screen, resumed=True, only=only)


def _drive(
    study: StudySpec,
    root: Path,
    runner: Runner,
    screen: Screen | None,
    *,
    resumed: bool,
    only: frozenset[str] | None = None,
) -> Outcome:
    folder, planned, executor = admit(study, root, runner)
    with Lease(folder.lock, study.name) as lease:
        write_atomic(folder.study_file, dump_study(study))
        progress = Progress(screen or make_screen(), study.objective[0])
        try:
            return Driver(study, folder, planned, executor, lease, progress, runner, only).drive(resumed=resumed)
        finally:
            progress.close()


def admit(study: StudySpec, root: Path, runner: Runner | None = None) -> tuple[StudyFolder, Plan, Executor]:
    """See that a study can be driven from here, and make its folder; gives also its plan and where it will run.

    Raises
    ------
    UserError
        As `launch`, but for another driver that holds the study.
    """
    root = root.absolute()
    folder = StudyFolder(root, study.name)
    if folder.suite_file.exists():
        raise UserError(f"{study.name!r} is a suite in {root}; give the study another name")
    check_uri(study.tracking.uri)
    planned = plan(study)
    executor = executor_for(study, folder)
    missing = [trial for trial in planned.trials if folder.trial(trial.trial_id).read_result() is None]
    check_files(missing, root / "cache", (runner or Runner()).load, lambda sentence: print(sentence, flush=True))
    folder.create()
    return folder, planned, executor


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
    only
        Ids of the trials that a retry is about; None for all that are missing.
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
        only: frozenset[str] | None = None,
    ) -> None:
        self._study, self._folder, self._plan, self._progress = study, folder, planned, progress
        self._executor, self._lease, self._only = executor, lease, only
        self._requests = Requests(folder, lease.epoch)
        cache = folder.root.absolute() / "cache"
        compute = study.compute
        self._data = DataStage(folder, executor, cache, runner.load, progress.close, progress.say)
        self._fleet = Fleet(
            folder,
            executor,
            cache,
            device=compute.device,
            chunks=chunks_for(compute, executor),
            retries=compute.retries,
            check=lease.check,
            after=self._data.after,
            run=runner.run,
            say=progress.say,
        )
        self._store = OptunaStore(folder.journal, study.name, study.objective, lease.check)
        self._tracking = Tracking(study, folder, lease.check, progress.say)
        self._book = GridBook(study, planned, self._store)
        self._search: SearchLoop | None = None
        self._outcome = Outcome(tracking_uri=study.tracking.uri)
        self._reused: list[str] = []

    def drive(self, *, resumed: bool) -> Outcome:
        """Run to the end, or to Ctrl-C; what ran is kept either way."""
        record = self._open_launch(resumed=resumed)
        try:
            self._go_through(record)
            self._close_launch(record)
        finally:
            self._tracking.close()
        return self._outcome

    def _go_through(self, record: Launch) -> None:
        try:
            self._tracking.start(record, self._plan)
            with self._store.together():
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
        record.begun.append(time.time())
        judge = selection(self._study.objective[0])
        record.judged_by = [judge.metric, judge.direction]
        record.to_search = self._plan.proposals * self._plan.seeds
        TrialIndex(self._folder).note(self._plan.trials)
        record.write(self._folder)
        return record

    def _take_on_grid(self) -> None:
        """Enqueue what has no finished result; take over what has one."""
        fresh = []
        for point in self._plan.points:
            for trial in point.trials:
                folder = self._folder.trial(trial.trial_id)
                result = folder.read_result()
                if result is not None and result["state"] == "finished":
                    self._reuse(trial, result)
                    self._book.reuse(point, trial, result)
                elif open_again(folder, result, self._only):  # also what a search has stopped: it was asked for
                    self._book.enter(point, trial)
                    fresh.append(trial)
                    self._progress.expect(trial)
                else:
                    self._leave(point, trial, result)
        self._say_what_is_there(len(fresh))
        self._data.prepare(fresh)
        self._fleet.add(fresh)

    def _leave(self, point: Point, trial: PlannedTrial, result: Mapping[str, Any] | None) -> None:
        """Count a trial that is not run now."""
        if result is None or result["state"] != "failed":
            self._outcome.unfinished += 1
            return
        self._outcome.left.append((trial.name, _reason(result)))
        self._book.leave(point, trial, result)
        self._tracking.sync(trial, result)

    def _say_what_is_there(self, to_run: int) -> None:
        outcome, say = self._outcome, self._progress.say
        if to_run and outcome.reused:
            say(f"{outcome.reused} trials are there already, {to_run} to run")
        if outcome.left and self._only is None:
            count, retry = len(outcome.left), f"{self._folder.command('retry')} --failed"
            say(f"{count} failed or were cancelled before and are left as they are; run them again with: {retry}")
        ids = (trial.trial_id for trial in self._plan.trials)
        there, index = self._folder.trial_ids(), read_index(self._folder)
        over = left_over(there, ids, index, searching=self._plan.proposals > 0)
        if over:
            say(left_over_words(len(over)))

    def _reuse(self, trial: PlannedTrial, result: Mapping[str, Any]) -> None:
        self._reused.append(trial.trial_id)
        self._outcome.reused += 1
        self._progress.reuse(trial, result)
        self._fleet.chunks.learn(trial, result)
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
            bring=self._tracking.sync,
            prepare=self._data.prepare,
            only=self._only,
        )

    # ------------------------------------------------------------------------------------ the loop

    def _loop(self) -> None:
        poll = POLL_SECONDS[self._executor.name]
        while True:
            self._lease.check()
            self._heed()
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
        for trial_id in self._fleet.submit():
            self._book.begin(trial_id)

    def _heed(self) -> None:
        """Do what other processes ask for."""
        if self._requests.end_asked():
            raise KeyboardInterrupt
        if self._requests.marks_changed():
            self._fleet.see_marks()

    def _observe(self) -> None:
        """While jobs run: show progress, prune, bring curves to MLflow."""
        self._requests.interrupt_if_asked()
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
            was_cancelled = bool((result.get("failure") or {}).get(CANCELLED))
            (self._outcome.left if was_cancelled else self._outcome.failed).append((trial.name, _reason(result)))
        self._outcome.pruned += result["state"] == "pruned"
        self._book.end(trial.trial_id, result)
        if self._search is not None:
            self._search.ended(trial, result)
        self._tracking.sync(trial, result)

    def _too_many_failures(self) -> bool:
        most = self._study.compute.max_failures
        return most is not None and len(self._outcome.failed) > most

    # ------------------------------------------------------------------------------------ the end

    def _close_launch(self, record: Launch) -> None:
        outcome = self._outcome
        self._lease.check()
        if not outcome.interrupted:
            outcome.report = patiently(self._report, self._folder.report, seconds=FOREVER)
        stopped, failed = outcome.interrupted or outcome.unfinished > 0, outcome.failed or outcome.left
        record.state = "interrupted" if stopped else "failed" if failed else "finished"
        record.ended = time.time()
        record.reused = self._reused
        record.write(self._folder)
        outcome.untracked = self._tracking.finish(record, outcome.report)

    def _report(self) -> Report:
        return write_report(self._study, self._folder, self._plan, self._store)


def _reason(result: Mapping[str, Any]) -> str:
    return str((result.get("failure") or {}).get("reason", "no reason recorded"))
