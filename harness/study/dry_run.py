"""What a launch would run and cost, found without writing anything below the root.

The cost is that of a finished trial where there is one. Else one trial of each model is warmed up: a few
epochs in a temporary folder, on as many cells as the study has - or, where the data would first have to be
rendered, on a small slice of them, whose time is then scaled.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.data_spec import Causal3DIdentData, ImageData
from harness.helps import Help, footnotes
from harness.study.again import stands
from harness.study.chunks import JOB_MINUTES, fitting
from harness.study.data_stage import cache_of, check_files, needs_building
from harness.study.folder import StudyFolder, read_json
from harness.study.job import imported
from harness.study.mlflow_store import check_uri
from harness.study.plan import PlannedTrial, Point, Preview, plan
from harness.study.planned_helps import example, help_words, helps_of_all
from harness.study.running import Runner, executor_for
from harness.study.spec import ComputeSpec, StudySpec
from harness.trial_spec import TrialSpec
from harness.words import clock_words, counted

#: Epochs of a warm-up: the first compiles and allocates, the others are timed.
WARM_EPOCHS = 3
#: Most cells a dry run names; a study of thousands is counted.
SHOWN_CELLS = 40
#: Cells of a slice of rendered data: training and validation, and test.
SLICE_CELLS, SLICE_TEST, SLICE_DOUBLE = 96, 50, 10


@dataclass(frozen=True)
class DryRun:
    """What a launch would run.

    Attributes
    ----------
    preview : size of the whole study.
    to_run : trials without a finished result.
    jobs : jobs for those.
    cluster : where they would run.
    seconds : device-seconds of what is to run; data that must be built first included.
    basis : where the seconds come from.
    cells : a line for each cell: its name, its trials, how many of them are to run, and its helps.
    left : trials that failed or were cancelled before, and that only a retry runs again.
    helps : what the study's scores will rest on and no user with her own cells has.
    """

    preview: Preview
    to_run: int
    jobs: int
    cluster: str
    seconds: float
    basis: str
    cells: tuple[str, ...] = ()
    left: int = 0
    helps: tuple[Help, ...] = ()

    def __str__(self) -> str:
        size = f"{counted(self.preview.cells, 'cell')}, {counted(self.preview.trials, 'trial')}"
        done = self.preview.trials - self.to_run - self.left
        kept = [f"{done} there already"] if done else []
        kept += [f"{self.left} failed or cancelled before, which only a retry runs again"] if self.left else []
        there = f" ({', '.join(kept)})" if kept else ""
        hours = self.seconds / 3600
        return "\n".join(
            [
                *(f"  {line}" for line in self.cells[:SHOWN_CELLS]),
                *([f"  ... and {more} more"] if (more := len(self.cells) - SHOWN_CELLS) > 0 else []),
                *footnotes(self.helps),
                f"{size}{there}; {self.to_run} to run in {counted(self.jobs, 'job')} on cluster: {self.cluster}",
                f"estimated cost: {hours:.2g} device-hours ({clock_words(self.seconds)}), from {self.basis}",
                "nothing was run or written",
            ]
        )


#: Seconds of warmed-up trials, by what they depend on: studies of a suite need not warm up the same model again.
Warmed = dict[str, float]


def dry_run(study: StudySpec, root: Path, runner: Runner | None = None, warmed: Warmed | None = None) -> DryRun:
    """Say what `launch` would run.

    Parameters
    ----------
    study, root
        As `launch` takes them.
    runner
        Runs the trials that are warmed up.
    warmed
        What earlier dry runs have warmed up; it is added to.

    Raises
    ------
    UserError
        Whatever `launch` would refuse before it begins, except a folder that cannot be written.
    """
    runner = runner or Runner()
    folder = StudyFolder(root.absolute(), study.name)
    check_uri(study.tracking.uri)
    planned = plan(study)
    _check_cluster(study)
    trials = str(folder.trials_folder)
    there = {trial.trial_id: _there(f"{trials}/{trial.trial_id}") for trial in planned.trials}
    missing = [trial for trial in planned.trials if there[trial.trial_id].is_to_run]
    cache = root.absolute() / "cache"
    check_files(missing, cache, runner.load, lambda sentence: print(sentence, flush=True))
    preview = planned.preview()
    searched = planned.proposals * planned.seeds
    to_run = len(missing) + searched
    seconds, basis = 0.0, "nothing being left to run"
    if to_run:
        representatives = missing or [example(study, point) for point in planned.points if point.space]
        warm = _Warm(cache, runner, study.compute.device, {} if warmed is None else warmed)
        known = [one.seconds for one in there.values() if one.seconds is not None]
        seconds, basis = _cost(known, representatives, warm)
    per_job = _per_job(study.compute, seconds)
    jobs = -(-len(missing) // per_job) + planned.proposals * -(-planned.seeds // per_job)
    seconds *= to_run
    ids = {trial.trial_id for trial in missing}
    cells = tuple(_cell_line(study, point, planned.seeds, ids) for point in planned.points)
    left = sum(one.is_left for one in there.values())
    helps = helps_of_all(study, planned.points)
    return DryRun(preview, to_run, jobs, study.compute.cluster, seconds, basis, cells, left, helps)


def _per_job(compute: ComputeSpec, seconds: float) -> int:
    """Trials a job, where a trial takes some seconds."""
    if compute.trials_per_job != "auto":
        return compute.trials_per_job
    return fitting(JOB_MINUTES if compute.job_minutes is None else compute.job_minutes, seconds)


def _cell_line(study: StudySpec, point: Point, seeds: int, missing: set[str]) -> str:
    if point.space and study.search is not None:
        size = f"{counted(study.search.trials, 'proposal')} of {counted(seeds, 'seed')}"
        return f"{point.cell}: {size}; {help_words(study, point)}"
    to_run = sum(trial.trial_id in missing for trial in point.trials)
    named = ", ".join(str(trial.seed) for trial in point.trials)
    missing_words = "" if to_run == len(point.trials) else f"; {to_run} to run"
    return f"{point.cell}: seeds {named}{missing_words}; {help_words(study, point)}"


def _check_cluster(study: StudySpec) -> None:
    """Refuse a cluster that is not there; the executor's folder is a temporary one."""
    with tempfile.TemporaryDirectory() as temporary:
        executor_for(study, StudyFolder(Path(temporary), study.name))


@dataclass(frozen=True, slots=True)
class _There:
    """What is there of a trial: whether a launch runs it or leaves its failure, and the seconds it took."""

    is_to_run: bool = True
    is_left: bool = False
    seconds: float | None = None


def _there(folder: str) -> _There:
    """What a trial's folder holds; the path is text, since there may be ten thousand."""
    result = read_json(f"{folder}/result.json")
    result = result if isinstance(result, dict) else None
    if result is not None and result.get("state") == "finished":
        seconds = result.get("metrics", {}).get("time/total_seconds")
        return _There(is_to_run=False, seconds=None if seconds is None else float(seconds))
    left = stands(result) or os.path.exists(f"{folder}/cancelled")
    return _There(is_to_run=not left, is_left=left)


@dataclass(frozen=True)
class _Warm:
    """How trials are warmed up, and what has been."""

    cache: Path
    runner: Runner
    device: str
    known: Warmed

    def seconds(self, spec: TrialSpec) -> float:
        """Estimated seconds of a trial; of one that differs only in its truth, those of the first."""
        data = spec.data
        size = [data.kind, data.cells, data.test_cells, getattr(data.process, "steps", 1)]
        parts = [spec.model.model_dump_json(), spec.train.model_dump_json(), spec.evaluate.model_dump_json()]
        key = json.dumps([*parts, *size, str(getattr(data, "path", None))])
        if key not in self.known:
            self.known[key] = _warmed(spec, self.cache, self.runner, self.device)
        return self.known[key]


def _cost(timed: Sequence[float], missing: Sequence[PlannedTrial], warm: _Warm) -> tuple[float, str]:
    """Mean seconds of a trial that is to run, from those of finished ones where there are any, and from where."""
    if timed:
        return sum(timed) / len(timed), f"{counted(len(timed), 'finished trial')} of this study"
    one_each = {trial.spec.model.kind: trial for trial in reversed(missing)}
    seconds = {kind: warm.seconds(trial.spec) for kind, trial in one_each.items()}
    mean = sum(seconds[trial.spec.model.kind] for trial in missing) / len(missing)
    datasets = {trial.spec.data_fingerprint: trial.spec for trial in missing}
    built = any(_is_slow(spec, warm.cache) for spec in datasets.values())
    epochs = min(WARM_EPOCHS, *(trial.spec.train.epochs for trial in one_each.values()))
    basis = f"a warm-up of {counted(epochs, 'epoch')} of each model on this machine"
    return mean, basis + (", on a slice of the data; building them comes on top, once" if built else "")


def _is_slow(spec: TrialSpec, cache: Path) -> bool:
    """Whether images would first have to be rendered, or copied from a release."""
    data = spec.data
    return isinstance(data, ImageData) and needs_building(data, spec.data_fingerprint, cache)


def _warmed(spec: TrialSpec, cache: Path, runner: Runner, device: str) -> float:
    """Estimated seconds of one trial, from a few epochs in a temporary folder."""
    from harness.data.causal3dident.row_limits import as_served
    from harness.data.fingerprint import fingerprint

    with tempfile.TemporaryDirectory() as temporary:
        where = Path(temporary)
        data, scale, spare = spec.data, 1.0, cache_of(spec.data, cache)
        if needs_building(data, spec.data_fingerprint, cache):
            spare = where / "cache"  # built there and thrown away
            data = data.model_copy(update={"cache_dir": None})
        if _is_slow(spec, cache):
            scale = (as_served(data) if isinstance(data, Causal3DIdentData) else data).cells / SLICE_CELLS
            sizes = {"cells": SLICE_CELLS, "test_cells": SLICE_TEST, "double_cells": SLICE_DOUBLE}
            data = data.model_copy(update=sizes)
        epochs = min(WARM_EPOCHS, spec.train.epochs)
        train = spec.train.model_copy(update={"epochs": epochs, "patience": None})
        short = spec.model_copy(update={"data": data, "train": train, "data_fingerprint": fingerprint(data)})
        imported(runner.load)(data, spare)
        begun = time.monotonic()
        result = imported(runner.run)(short, where / short.trial_id, device=device, cache_dir=spare)
        whole = time.monotonic() - begun
    # the second stage takes the same time however many epochs there are
    training = float(result.metrics.get("time/train_seconds", whole))
    training -= float(result.metrics.get("time/second_stage_seconds", 0.0))
    return training / epochs * spec.train.epochs * scale + (whole - training)
