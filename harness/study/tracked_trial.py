"""One trial in MLflow's terms: the points, params and tags that stand for what its folder holds."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.helps import Help, tags

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, RunTag

#: The longest value kept of a parameter and of a tag.
LONGEST_PARAM, LONGEST_TAG = 6000, 5000


@dataclass(frozen=True)
class TrackedTrial:
    """What MLflow is told about one trial.

    Attributes
    ----------
    trial_id, cell, seed, model : identity, as tags.
    params : the flattened spec.
    epochs : lines of ``metrics.jsonl``: ``{"epoch", "time" (unix), "metrics"}``, by epoch.
    result : content of ``result.json``; None while the trial runs.
    first_of_cell : whether the cell's baselines are logged here.
    fingerprint : of the data.
    helps : what its scores rest on and no user with her own cells has; as tags.
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
    helps: Sequence[Help]
    artifacts: Mapping[Path, str] = field(default_factory=dict)

    @property
    def started(self) -> float:
        """Unix time at which the trial began, as far as its folder tells; else now."""
        if self.result and "started" in self.result:
            return float(self.result["started"])
        return float(self.epochs[0]["time"]) if self.epochs else time.time()


def epoch_points(epochs: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    """Points of the curves, each with the time at which its epoch ended; what is not finite has none."""
    from mlflow.entities import Metric

    for line in epochs:
        for name, value in line["metrics"].items():
            if _is_finite(value):  # MLflow would store infinity as 1.8e308
                yield Metric(name, float(value), milliseconds(line["time"]), int(line["epoch"]))


def final_points(trial: TrackedTrial, result: Mapping[str, Any]) -> list[Metric]:
    """Points of the final scores that the curves do not end with, at the time at which the trial ended."""
    from mlflow.entities import Metric

    ended = milliseconds(result["ended"])
    last = {name: value for line in trial.epochs for name, value in line["metrics"].items()}
    values = {name: value for name, value in result["metrics"].items() if last.get(name) != value}
    if trial.first_of_cell:
        values.update(result["baselines"])
    # a final value beside a curve (the weights kept are the best, not the last) stands after its end
    step = 1 + max((line["epoch"] for line in trial.epochs), default=-1)
    return [
        Metric(name, float(value), ended, step if name in last else 0)
        for name, value in values.items()
        if _is_finite(value)
    ]


def params_of(trial: TrackedTrial) -> list[Param]:
    """The flattened spec, each value as text."""
    from mlflow.entities import Param

    return [Param(key, _text(value)) for key, value in trial.params.items()]


def identity_tags(trial: TrackedTrial) -> dict[str, str]:
    """Tags that a run has from its beginning."""
    return {
        "cell": trial.cell,
        "seed": str(trial.seed),
        "trial_id": trial.trial_id,
        "model": trial.model,
        "data_fingerprint": trial.fingerprint,
        **tags(trial.helps),
    }


def result_tags(result: Mapping[str, Any]) -> list[RunTag]:
    """Tags that a result brings."""
    from mlflow.entities import RunTag

    environment = result.get("environment") or {}
    failure = result.get("failure") or {}
    data = result.get("data") or {}
    sides = data.get("controls") or {}
    tags = {
        "state": result["state"],
        "git_commit": environment.get("git_commit"),
        "host": environment.get("host"),
        "device": environment.get("device"),
        "slurm_job_id": environment.get("slurm_job_id"),
        "data_read": data.get("read"),
        "control_cells": ", ".join(f"{cells} for {side} changes" for side, cells in sides.items()),
        "failure": failure.get("reason"),
        "warnings": "\n".join(result.get("warnings", [])),
    }
    return [RunTag(key, str(value)[:LONGEST_TAG]) for key, value in tags.items() if value]


def end_mark(result: Mapping[str, Any] | None) -> str:
    """What tells one result of a trial from another: a retried failure ends at another time; empty for none."""
    return "" if result is None else f"{result['state']} {result['ended']}"


def milliseconds(seconds: float) -> int:
    """Unix time as MLflow has it."""
    return round(seconds * 1000)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _text(value: object) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:LONGEST_PARAM]
