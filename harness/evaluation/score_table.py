"""Scores of every row as conditions come by: of one stratum, and averaged over strata."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np

from harness.evaluation.clouds import Cloud
from harness.evaluation.discrimination import NORMALISED, RANK, perturbation_ranks
from harness.evaluation.ood import HALVINGS, Reference
from harness.evaluation.registry import METRICS
from harness.evaluation.scores import Array

MODEL = "model"
#: The row of split-half scores.
FLOOR = "floor"
#: condition -> metric -> value
Table = dict[str, dict[str, float]]
#: condition -> metric -> its value in each bootstrap sample of the measured cells
Samples = dict[str, dict[str, Array]]


class ScoreTable:
    """Scores of every row, condition by condition.

    Attributes
    ----------
    tables : ``model``, baseline or ``floor`` -> condition -> metric -> value.
    samples : the same of ``pearson_delta`` in each bootstrap sample.
    notes : sentence -> conditions it is said of.

    Parameters
    ----------
    rows
        Baselines.
    features
        Names of the features where they are genes.
    metrics
        Names of the metrics wanted; None: all.
    """

    def __init__(self, rows: Sequence[str], features: Sequence[str], metrics: Collection[str] | None) -> None:
        self.tables: dict[str, Table] = {row: {} for row in (MODEL, *rows, FLOOR)}
        self.samples: dict[str, Samples] = {row: {} for row in (MODEL, *rows, FLOOR)}
        self.notes: dict[str, list[str]] = defaultdict(list)
        self._features = features
        self._is_ranked = metrics is None or not {RANK, NORMALISED}.isdisjoint(metrics)
        self._true: dict[str, Array] = {}
        self._predicted: dict[str, dict[str, Array]] = {row: {} for row in (MODEL, *rows)}
        self._halves: dict[str, list[tuple[Array, Array]]] = {}

    @property
    def conditions(self) -> tuple[str, ...]:
        """Those scored."""
        return tuple(self.tables[MODEL])

    def add(self, condition: str, row: str, reference: Reference, predicted: Cloud) -> None:
        """Score one row's prediction of a condition."""
        found = reference.score(predicted)
        self.tables[row][condition] = dict(found.values)
        self.samples[row][condition] = reference.correlations(predicted)
        self._predicted[row][condition] = predicted.mean
        for sentence in found.warnings:
            self.notes[f"{row}: {sentence}"].append(condition)

    def add_truth(self, condition: str, reference: Reference) -> None:
        """Keep the floor of a condition, and what the truth says of it alone."""
        floor = reference.floor()
        self.tables[FLOOR][condition] = dict(floor.values)
        self.samples[FLOOR][condition] = reference.floor_correlations()
        for sentence in floor.warnings:
            self.notes[f"floor: {sentence}"].append(condition)
        for sentence in reference.undefined:
            self.notes[sentence].append(condition)
        if self._is_ranked:
            cells = reference.true.cells
            self._true[condition] = reference.true.moments.mean
            self._halves[condition] = [(cells[a].mean(axis=0), cells[b].mean(axis=0)) for a, b in reference.halves()]

    def rank(self) -> None:
        """Add each row's ranks among the conditions, and those of halves among halves."""
        if not self._is_ranked:
            return
        for row, predicted in self._predicted.items():
            for condition, values in perturbation_ranks(predicted, self._true, self._features).items():
                self.tables[row][condition] |= values
        whole = {c: halves for c, halves in self._halves.items() if halves}
        rounds = [
            perturbation_ranks(
                {c: halves[k][0] for c, halves in whole.items()},
                {c: halves[k][1] for c, halves in whole.items()},
                self._features,
            )
            for k in range(HALVINGS)
        ]
        for condition in rounds[0]:
            for name in (RANK, NORMALISED):
                value = float(np.mean([found[condition][name] for found in rounds]))
                self.tables[FLOOR][condition][METRICS[name].floor_name] = value


def averaged(tables: Sequence[ScoreTable]) -> ScoreTable:
    """Each condition's scores, the mean over the strata that have it."""
    if len(tables) == 1:
        return tables[0]
    whole = ScoreTable([], (), ())
    whole.tables, whole.samples = {}, {}
    for row in dict.fromkeys(row for one in tables for row in one.tables):
        conditions = dict.fromkeys(c for one in tables for c in one.tables[row])
        values = {c: [one.tables[row][c] for one in tables if c in one.tables[row]] for c in conditions}
        drawn = {c: [one.samples[row][c] for one in tables if c in one.samples[row]] for c in conditions}
        whole.tables[row] = {c: _means(parts) for c, parts in values.items()}
        whole.samples[row] = {c: _mean_samples(parts) for c, parts in drawn.items()}
    for one in tables:
        for sentence, where in one.notes.items():
            whole.notes[sentence] += [c for c in where if c not in whole.notes[sentence]]
    return whole


def _means(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: float(np.mean([part[name] for part in parts if name in part])) for name in names}


def _mean_samples(parts: Sequence[dict[str, Array]]) -> dict[str, Array]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: np.mean([part[name] for part in parts if name in part], axis=0) for name in names}
