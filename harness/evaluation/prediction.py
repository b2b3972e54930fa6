"""Score one split's conditions: the model, every baseline and the floor, on the same cells and conditions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from harness.evaluation.baselines import BASELINES, CONTROL, Baselines, CannotPredict
from harness.evaluation.ood import Reference, aggregate, bootstrap_interval
from harness.evaluation.regression import squared_distances
from harness.evaluation.scores import Array, NonFiniteError, as_matrix

#: Predicts cells (n, features) of a condition from control cells (k, features); may raise ``CannotPredict``.
Predict = Callable[[str, Array], ArrayLike]
MODEL = "model"
#: condition -> metric -> value
Table = dict[str, dict[str, float]]


@dataclass(frozen=True)
class OodResult:
    """Scores of one split.

    Attributes
    ----------
    metrics : the model's means over conditions, by the names of ``ood.METRICS``.
    intervals : their bootstrap 95 % intervals over conditions; absent for fewer than two conditions.
    baselines : baseline -> metric -> mean over the same conditions.
    floors : means of the split-half scores, ``<metric>_floor`` or ``<metric>_ceiling``.
    per_condition : ``model`` or baseline -> condition -> metric -> value.
    conditions : those scored, the same for every row.
    excluded : condition -> why it is in no row.
    warnings : one sentence each. That ``control_mean`` predicts no change is no news and not among them.
    """

    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]]
    per_condition: dict[str, Table]
    floors: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    conditions: tuple[str, ...] = ()
    excluded: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def evaluate_ood(
    cells: Mapping[str, ArrayLike],
    train: Mapping[str, ArrayLike],
    control: ArrayLike,
    model_predict: Predict,
    *,
    max_cells: int = 500,
    seed: int = 0,
) -> OodResult:
    """Score a model and the baselines on the conditions of one split.

    A condition that the model, or a baseline that can predict some condition of the split, cannot predict is left
    out of *every* row and named, so that all rows stand on the same conditions. A baseline that can predict none
    of them (additive where no double has both singles seen) is left out as a row instead.

    Parameters
    ----------
    cells
        condition -> (m, features) true cells of the split; ``control`` is skipped.
    train
        condition -> (cells, features) training cells, from which the baselines are estimated.
    control
        (k, features) control cells: every row starts from the same at most ``max_cells`` of them, and changes are
        taken from their mean.
    model_predict
        (condition, control cells) -> (n, features) predicted cells; raises ``CannotPredict`` for a condition it has
        no prediction for.
    max_cells
        Most cells of a condition, true and control; more are subsampled.
    seed
        Governs subsampling, pairing, halving and the bootstrap.

    Raises
    ------
    NonFiniteError
        NaN or infinity in an array, named with its condition: the model's predictions have diverged.
    ValueError
        Arrays that do not fit; ``max_cells`` below 1.
    """
    if max_cells < 1:
        raise ValueError(f"max_cells must be at least 1, got {max_cells}")
    start = _subsample(as_matrix(control, "control cells"), max_cells, [seed, 0])
    baselines = Baselines(train)
    split = _Split(cells, baselines, model_predict, start)
    tables: dict[str, Table] = {row: {} for row in (MODEL, *split.rows)}
    floors: Table = {}
    notes: dict[str, list[str]] = defaultdict(list)
    for number, condition in enumerate(split.names):
        predictions = split.predict(condition)
        if predictions is None:
            continue
        true = _subsample(as_matrix(cells[condition], f"true cells of {condition}"), max_cells, [seed, 1, number])
        reference = Reference(true, start, seed=seed)
        for row, predicted in predictions.items():
            within = None if row == MODEL else split.within  # a baseline shifts all cells together
            found = reference.score(_finite(predicted, row, condition), within=within)
            tables[row][condition] = dict(found.values)
            for sentence in found.warnings:
                notes[f"{row}: {sentence}"].append(condition)
        floor = reference.floor()
        floors[condition] = dict(floor.values)
        for sentence in floor.warnings:
            notes[f"floor: {sentence}"].append(condition)
    return _summary(tables, floors, split, notes, seed)


class _Split:
    """Which rows and conditions of a split can be scored, and their predictions."""

    def __init__(self, cells: Mapping[str, ArrayLike], baselines: Baselines, model: Predict, start: Array) -> None:
        self.names: Sequence[str] = [c for c in cells if c != CONTROL]
        self.baselines, self.model, self.start = baselines, model, start
        self.within = squared_distances(start, start)
        self.excluded: dict[str, str] = {}
        self.dropped: dict[str, str] = {}
        self.rows: list[str] = []
        for row in BASELINES:
            refusals = {c: why for c in self.names if (why := self._refusal(row, c)) is not None}
            if self.names and len(refusals) == len(self.names):
                self.dropped[row] = next(iter(refusals.values()))
                continue
            self.rows.append(row)
            for condition, why in refusals.items():
                self.excluded[condition] = f"{row}: {why}"

    def _refusal(self, row: str, condition: str) -> str | None:
        try:
            self.baselines.shift(row, condition)
        except CannotPredict as refusal:
            return str(refusal)
        return None

    def predict(self, condition: str) -> dict[str, ArrayLike] | None:
        """Predicted cells of every row, or None where the condition is excluded."""
        if condition in self.excluded:
            return None
        try:
            predictions: dict[str, ArrayLike] = {MODEL: self.model(condition, self.start)}
        except CannotPredict as refusal:
            self.excluded[condition] = f"{MODEL}: {refusal}"
            return None
        return predictions | {row: self.start + self.baselines.shift(row, condition) for row in self.rows}


def _summary(
    tables: dict[str, Table], floors: Table, split: _Split, notes: dict[str, list[str]], seed: int
) -> OodResult:
    means = {row: aggregate(table) for row, table in tables.items()}
    model = tables[MODEL]
    intervals = {}
    for name in means[MODEL].values:
        interval = bootstrap_interval([values[name] for values in model.values()], seed=seed)
        if interval is not None:
            intervals[name] = interval
    warnings = [f"baseline {row} can predict no condition of the split ({why})" for row, why in split.dropped.items()]
    if split.names and not model:
        warnings.append("no condition of the split can be scored")
    warnings += [
        f"{sentence} ({len(where)} of {len(model)} conditions: {', '.join(where[:3])}{', …' if len(where) > 3 else ''})"
        for sentence, where in notes.items()
        if not sentence.startswith("control_mean: pearson_delta")
    ]
    return OodResult(
        metrics=dict(means[MODEL].values),
        baselines={row: dict(means[row].values) for row in split.rows},
        per_condition=tables,
        floors=dict(aggregate(floors).values),
        intervals=intervals,
        conditions=tuple(model),
        excluded=dict(split.excluded),
        warnings=tuple(warnings),
    )


def _subsample(cells: Array, most: int, seed: Sequence[int]) -> Array:
    """At most ``most`` rows, drawn without replacement."""
    if len(cells) <= most:
        return cells
    return cells[np.sort(np.random.default_rng(seed).choice(len(cells), most, replace=False))]


def _finite(predicted: ArrayLike, row: str, condition: str) -> Array:
    """``predicted`` as an array; names row and condition where it holds NaN."""
    array = np.asarray(predicted, dtype=np.float64)
    bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if bad:
        raise NonFiniteError(f"{row} prediction of {condition}", bad, array.size)
    return array
