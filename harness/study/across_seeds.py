"""Whether the seeds of a cell find the same latents: a score of a whole cell, from the latents its trials kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.evaluation.identifiability import mcc
from harness.study.folder import StudyFolder, TrialState
from harness.study.latents_file import read_latents
from harness.study.plan import Point

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Agreement:
    """How far the seeds of one cell agree.

    Attributes
    ----------
    cell : readable name of the point.
    trial_id : the cell's first trial, which stands for the cell in MLflow.
    value : mean over pairs of seeds, in [0, 1].
    trials : trials compared.
    time : unix time at which the last of them ended.
    """

    cell: str
    trial_id: str
    value: float
    trials: int
    time: float


def agreements(folder: StudyFolder, points: Iterable[Point]) -> list[Agreement]:
    """Agreement of every point of which two trials or more have finished on the same data.

    A trial whose latents cannot be read is left out; a point whose seeds have data of their own has no agreement.

    Parameters
    ----------
    folder
        Where the trials are.
    points
        The study's points.
    """
    found = (_agreement(folder, point) for point in points)
    return [one for one in found if one is not None]


def _agreement(folder: StudyFolder, point: Point) -> Agreement | None:
    if len({trial.spec.data_fingerprint for trial in point.trials}) != 1:
        return None  # data.seed: per_trial
    kept: list[Arrays] = []
    ended = []
    for trial in map(folder.trial, (trial.trial_id for trial in point.trials)):
        if not trial.latents.exists():
            continue
        result = trial.read_result() or {}
        if result.get("state") != TrialState.FINISHED:
            continue
        try:
            kept.append(read_latents(trial.latents))
        except UserError:
            continue  # e.g. torn: the other seeds can still be compared
        ended.append(float(result.get("ended") or 0.0))
    value = agreement(kept)
    if value is None:
        return None
    return Agreement(point.cell, point.trials[0].trial_id, value, len(kept), max(ended))


def agreement(kept: Sequence[Arrays]) -> float | None:
    """Mean over pairs of seeds of the MCC between their responsive latents, each taken as the truth of the other.

    Parameters
    ----------
    kept
        Content of the seeds' ``latents.npz``: ``responsive`` (n, a) and ``condition`` (n,) of the same test cells in
        the same order, and ``responsive_true`` (n, d_v) where there is a truth.

    Returns
    -------
    float or None
        In [0, 1]. None with fewer than two seeds, where their rows are not the same, or where the latents cannot be
        compared (too few rows, no responsive latent, not finite).
    """
    if len(kept) < 2 or not all(_same_rows(kept[0], other) for other in kept[1:]):
        return None
    blocks = [arrays["responsive"] for arrays in kept]
    try:
        pairs = [(mcc(a, b, seed=0) + mcc(b, a, seed=0)) / 2 for a, b in combinations(blocks, 2)]
    except ValueError:
        return None
    return float(np.mean(pairs))


def _same_rows(first: Arrays, second: Arrays) -> bool:
    """Whether two files hold the same cells, as far as their conditions and truth tell."""
    keys = {"responsive", "condition", "responsive_true"}
    if keys & set(first) != keys & set(second) or not keys - {"responsive_true"} <= set(first):
        return False
    if first["responsive"].shape != second["responsive"].shape:
        return False
    return all(np.array_equal(first[key], second[key]) for key in keys & set(first) - {"responsive"})
