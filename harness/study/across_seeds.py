"""Whether the seeds of a cell find the same latents, graph and targets: scores of a whole cell, from its trials' files.

No truth is needed, so that real data have these scores too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.evaluation.identifiability import mcc
from harness.evaluation.stability import Fit, Frequencies, frequencies, graph_stability, matches, target_stability
from harness.study.columns import GRAPH_STABILITY, MCC_ACROSS_SEEDS, TARGET_STABILITY
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
    value : mean over pairs of seeds of the MCC of one's responsive latents with the other's, in [0, 1].
    trials : trials compared.
    time : unix time at which the last of them ended.
    structure : how far graphs and targets agree, with its level by chance: flat MLflow names -> values; empty where
        trials kept neither.
    frequencies : how often each edge and target is there; None where trials kept neither.
    perturbations : rows of the targets.
    named_by : the trial by whose latents those of all are named.
    """

    cell: str
    trial_id: str
    value: float
    trials: int
    time: float
    structure: Mapping[str, float] = field(default_factory=dict)
    frequencies: Frequencies | None = None
    perturbations: tuple[str, ...] = ()
    named_by: str = ""

    @property
    def scores(self) -> dict[str, float]:
        """All scores of the cell: flat MLflow names -> values."""
        return {MCC_ACROSS_SEEDS: self.value, **self.structure}


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
    kept: dict[str, Arrays] = {}
    ended = []
    for trial in map(folder.trial, (trial.trial_id for trial in point.trials)):
        if not trial.latents.exists():
            continue
        result = trial.read_result() or {}
        if result.get("state") != TrialState.FINISHED:
            continue
        try:
            kept[trial.trial_id] = read_latents(trial.latents)
        except UserError:
            continue  # e.g. torn: the other seeds can still be compared
        ended.append(float(result.get("ended") or 0.0))
    between = _between(list(kept.values()))
    if between is None:
        return None
    found = Agreement(point.cell, point.trials[0].trial_id, _mean(between), len(kept), max(ended))
    return _with_structure(found, kept, between)


def agreement(kept: Sequence[Arrays]) -> float | None:
    """Mean over pairs of seeds of the MCC between their responsive latents, each taken as the truth of the other.

    As everywhere, latents are matched on one half of the test cells, and |correlations| are taken on the other.

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
    between = _between(kept)
    return None if between is None else _mean(between)


def _between(kept: Sequence[Arrays]) -> NDArray[np.float64] | None:
    """(seeds, seeds) MCC between each two; None where they cannot be compared."""
    if len(kept) < 2 or not all(_same_rows(kept[0], other) for other in kept[1:]):
        return None
    blocks = [arrays["responsive"] for arrays in kept]
    found = np.eye(len(blocks))
    try:
        for one, other in combinations(range(len(blocks)), 2):
            a, b = blocks[one], blocks[other]
            found[one, other] = found[other, one] = (mcc(a, b, seed=0) + mcc(b, a, seed=0)) / 2
    except ValueError:
        return None
    return found


def _mean(between: NDArray[np.float64]) -> float:
    return float(between[np.triu_indices(len(between), 1)].mean())


def _with_structure(found: Agreement, kept: Mapping[str, Arrays], between: NDArray[np.float64]) -> Agreement:
    """The agreement with what the seeds' graphs and targets say, where all kept them alike."""
    fits = [Fit(arrays["responsive"], arrays.get("graph"), arrays.get("targets")) for arrays in kept.values()]
    names = {tuple(map(str, arrays.get("perturbations", ()))) for arrays in kept.values()}
    shapes = {tuple(None if part is None else part.shape for part in (fit.graph, fit.targets)) for fit in fits}
    if len(names) > 1 or shapes == {(None, None)} or len(shapes) > 1:
        return found
    structure: dict[str, float] = {}
    matched = matches(fits)
    for name, stability in (
        (GRAPH_STABILITY, graph_stability(fits, matched)),
        (TARGET_STABILITY, target_stability(fits, matched)),
    ):
        if stability is not None:
            structure |= {name: stability.value, f"{name}_chance": stability.chance}
    often = frequencies(fits, between)
    return replace(
        found,
        structure=structure,
        frequencies=often,
        perturbations=next(iter(names)),
        named_by=list(kept)[often.named_by],
    )


def _same_rows(first: Arrays, second: Arrays) -> bool:
    """Whether two files hold the same cells, as far as their conditions and truth tell."""
    keys = {"responsive", "condition", "responsive_true"}
    if keys & set(first) != keys & set(second) or not keys - {"responsive_true"} <= set(first):
        return False
    if first["responsive"].shape != second["responsive"].shape:
        return False
    return all(np.array_equal(first[key], second[key]) for key in keys & set(first) - {"responsive"})
