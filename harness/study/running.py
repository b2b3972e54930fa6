"""What a launch is given and what it comes to, apart from the driving: light, since a dry run needs it too."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.study.chunks import JOB_MINUTES, Chunks
from harness.study.executors import Executor, make_executor
from harness.study.folder import StudyFolder
from harness.study.job import LOAD, RUN
from harness.study.load import load_profile
from harness.study.spec import ComputeSpec, StudySpec

if TYPE_CHECKING:
    from harness.study.report import Report

#: Part of a job's time limit that several trials may fill.
FILLED = 0.7


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
    left : trials that failed or were cancelled before, and were not run again: name and reason.
    unfinished : trials that a retry left to ``resume``.
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
    left: list[tuple[str, str]] = field(default_factory=list)
    unfinished: int = 0
    pruned: int = 0
    interrupted: bool = False
    gave_up: bool = False
    untracked: str | None = None
    report: Report | None = None
    tracking_uri: str | None = None


def executor_for(study: StudySpec, folder: StudyFolder) -> Executor:
    """The executor a study asks for.

    Raises
    ------
    UserError
        If the cluster or its profile is not there.
    """
    profile = load_profile(Path(study.compute.profile)) if study.compute.profile else None
    return make_executor(study.compute, profile, folder.job_logs.absolute())


def chunks_for(compute: ComputeSpec, executor: Executor) -> Chunks:
    """Jobs of ``auto`` stay well within the cluster's time limit."""
    minutes = JOB_MINUTES if compute.job_minutes is None else compute.job_minutes
    if executor.limit is not None:
        minutes = min(minutes, FILLED * executor.limit.minutes)
    return Chunks(compute.trials_per_job, minutes)
