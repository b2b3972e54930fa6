"""What a trial leaves behind, readable without torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

#: The file that says a trial is over; written last and atomically.
RESULT_FILE = "result.json"
#: What predictions need of the data; see `harness.kept_data`.
KEPT_DATA = "kept_data.npz"
#: What the model of a trial is made of, wherever it is taken.
MODEL_FILES = ("spec.json", RESULT_FILE, "model.pt", KEPT_DATA)


@dataclass(frozen=True)
class TrialResult:
    """The end of a trial.

    Attributes
    ----------
    state : ``finished``, ``failed`` (its own numbers or inputs) or ``pruned`` (a stop file was found).
    metrics : MLflow name -> value; empty scores are absent, never NaN.
    baselines : ``baseline/<name>/ood/<split>/<metric>`` -> value.
    warnings : one sentence each: collapsed blocks, undefined scores.
    failure : reason, quantity, epoch and traceback of a failed trial.
    epochs : epochs trained, over all its processes.
    started, ended : unix seconds of the process that ended it.
    data : fingerprint, conditions, excluded conditions, cells of each split, quality.
    environment : versions, host, device, git commit, SLURM job.
    conditions : ``<condition>_true`` and ``<condition>_learned`` -> the sentence behind the verdict in ``metrics``, or
        why there is none.
    """

    trial_id: str
    state: Literal["finished", "failed", "pruned"]
    metrics: dict[str, float] = field(default_factory=dict)
    baselines: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failure: dict[str, Any] | None = None
    epochs: int = 0
    started: float = 0.0
    ended: float = 0.0
    data: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    conditions: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """As text; refuses NaN and infinity, which no score may be."""
        return json.dumps(asdict(self), indent=1, allow_nan=False)


def read_result(folder: Path) -> TrialResult | None:
    """The result in a trial's folder, or None where the trial is not over."""
    try:
        body = json.loads((folder / RESULT_FILE).read_text())
    except FileNotFoundError:
        return None
    known = {entry.name for entry in fields(TrialResult)}
    return TrialResult(**{key: value for key, value in body.items() if key in known})
