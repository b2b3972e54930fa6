"""Score one split's conditions: the model, every baseline and the floor, on the same cells and conditions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from harness.evaluation.aggregate import Interval, aggregate, intervals
from harness.evaluation.baselines import BASELINES, CONTROL, Baselines, CannotPredict
from harness.evaluation.clouds import Cloud
from harness.evaluation.discrimination import NORMALISED, RANK, perturbation_ranks
from harness.evaluation.ood import HALVINGS, Control, Reference
from harness.evaluation.registry import METRICS
from harness.evaluation.scores import Array, NonFiniteError, as_matrix

#: Predicts cells (n, features) of a condition from control cells (k, features); may raise ``CannotPredict``. Where n is
#: a multiple of k, so many rows after each other are taken to begin as the same control cell (see `clouds.Cloud`).
Predict = Callable[[str, Array], ArrayLike]
MODEL = "model"
#: The row of split-half scores.
FLOOR = "floor"
#: condition -> metric -> value
Table = dict[str, dict[str, float]]


@dataclass(frozen=True)
class OodResult:
    """Scores of one split. A metric on a gene set is named ``<metric>_<set>``.

    Attributes
    ----------
    metrics : the model's means over conditions, by the names of ``registry.METRICS``.
    intervals : ``model``, baseline or ``floor`` -> metric -> bootstrap 95 % interval over conditions; without metrics
        for fewer than two conditions.
    baselines : baseline -> metric -> mean over the same conditions.
    floors : means of the split-half scores, ``<metric>_floor`` or ``<metric>_ceiling``.
    per_condition : ``model`` or baseline -> condition -> metric -> value.
    floor_per_condition : condition -> ``<metric>_floor`` or ``<metric>_ceiling`` -> value.
    conditions : those scored, the same for every row.
    embeddings : condition -> what the linear baseline predicts it from.
    excluded : condition -> why it is in no row.
    warnings : one sentence each. That ``control_mean`` predicts no change is no news and not among them.
    """

    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]]
    per_condition: dict[str, Table]
    floors: dict[str, float]
    floor_per_condition: Table = field(default_factory=dict)
    intervals: dict[str, dict[str, Interval]] = field(default_factory=dict)
    conditions: tuple[str, ...] = ()
    embeddings: dict[str, str] = field(default_factory=dict)
    excluded: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def evaluate_ood(
    cells: Mapping[str, ArrayLike],
    train: Mapping[str, ArrayLike] | Baselines,
    control: ArrayLike,
    model_predict: Predict,
    *,
    max_cells: int = 500,
    seed: int = 0,
    features: Sequence[str] = (),
    metrics: Collection[str] | None = None,
) -> OodResult:
    """Score a model and the baselines on the conditions of one split.

    A condition that the model, or a baseline that can predict some condition of the split, cannot predict is left
    out of *every* row and named, so that all rows stand on the same conditions. A baseline that can predict none
    of them (additive where no double has both singles seen) is left out as a row instead.

    Only one condition's cells are held at a time, so that ``cells`` may be a mapping that reads them when asked.

    Parameters
    ----------
    cells
        condition -> (m, features) true cells of the split; ``control`` is skipped.
    train
        condition -> (cells, features) training cells, from which the baselines are estimated; or the baselines.
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
    features
        Names of the features where they are genes, for the metrics that need them and for gene sets.
    metrics
        Names of the metrics wanted; None: all that can be taken.

    Raises
    ------
    NonFiniteError
        NaN or infinity in an array, named with its condition: the model's predictions have diverged.
    ValueError
        Arrays that do not fit; ``max_cells`` below 1.
    """
    if max_cells < 1:
        raise ValueError(f"max_cells must be at least 1, got {max_cells}")
    start = Control(_subsample(as_matrix(control, "control cells"), max_cells, [seed, 0]))
    baselines = train if isinstance(train, Baselines) else Baselines(train, features=features)
    split = _Split(cells, baselines, model_predict, start)
    scores = _Scores([MODEL, *split.rows], features, metrics)
    for number, condition in enumerate(split.names):
        if condition in split.excluded:
            continue
        predicted = split.model_prediction(condition)
        if predicted is None:
            continue
        true = _subsample(as_matrix(cells[condition], f"true cells of {condition}"), max_cells, [seed, 1, number])
        reference = Reference(true, start, seed=seed, genes=bool(features), metrics=metrics)
        scores.add(condition, MODEL, reference, predicted)
        for row in split.rows:
            scores.add(condition, row, reference, start.cloud.shifted(baselines.shift(row, condition)))
        scores.add_truth(condition, reference)
    scores.rank()
    return _summary(scores, split, seed)


class _Split:
    """Which rows and conditions of a split can be scored, and what the model says of them."""

    def __init__(self, cells: Mapping[str, ArrayLike], baselines: Baselines, model: Predict, start: Control) -> None:
        self.names: Sequence[str] = [c for c in cells if c != CONTROL]
        self.baselines, self.model, self.start = baselines, model, start
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
                self.excluded.setdefault(condition, f"{row}: {why}")

    def _refusal(self, row: str, condition: str) -> str | None:
        try:
            self.baselines.shift(row, condition)
        except CannotPredict as refusal:
            return str(refusal)
        return None

    def model_prediction(self, condition: str) -> Cloud | None:
        """The model's cells of a condition; None, and the condition is excluded, where it has no prediction."""
        try:
            cells = _finite(self.model(condition, self.start.cloud.cells), MODEL, condition)
        except CannotPredict as refusal:
            self.excluded[condition] = f"{MODEL}: {refusal}"
            return None
        each, left = divmod(len(cells), len(self.start.cloud))
        return Cloud(cells, kin=1 if left else max(1, each))


class _Scores:
    """Scores of every row as conditions come by, and the means that are compared once all have."""

    def __init__(self, rows: Sequence[str], features: Sequence[str], metrics: Collection[str] | None) -> None:
        self.tables: dict[str, Table] = {row: {} for row in rows}
        self.floors: Table = {}
        self.notes: dict[str, list[str]] = defaultdict(list)
        self._features = features
        self._is_ranked = metrics is None or not {RANK, NORMALISED}.isdisjoint(metrics)
        self._true: dict[str, Array] = {}
        self._predicted: dict[str, dict[str, Array]] = {row: {} for row in rows}
        self._halves: dict[str, list[tuple[Array, Array]]] = {}

    def add(self, condition: str, row: str, reference: Reference, predicted: Cloud) -> None:
        """Score one row's prediction of a condition."""
        found = reference.score(predicted)
        self.tables[row][condition] = dict(found.values)
        self._predicted[row][condition] = predicted.mean
        for sentence in found.warnings:
            self.notes[f"{row}: {sentence}"].append(condition)

    def add_truth(self, condition: str, reference: Reference) -> None:
        """Keep the floor of a condition, and what the truth says of it alone."""
        floor = reference.floor()
        self.floors[condition] = dict(floor.values)
        for sentence in floor.warnings:
            self.notes[f"floor: {sentence}"].append(condition)
        for sentence in reference.undefined:
            self.notes[sentence].append(condition)
        if self._is_ranked:
            true = reference.true
            self._true[condition] = true.mean(axis=0)
            self._halves[condition] = [(true[a].mean(axis=0), true[b].mean(axis=0)) for a, b in reference.halves()]

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
                self.floors[condition][METRICS[name].floor_name] = value


def _summary(scores: _Scores, split: _Split, seed: int) -> OodResult:
    means = {row: aggregate(table) for row, table in scores.tables.items()}
    model = scores.tables[MODEL]
    return OodResult(
        metrics=dict(means[MODEL].values),
        baselines={row: dict(means[row].values) for row in split.rows},
        per_condition=scores.tables,
        floors=dict(aggregate(scores.floors).values),
        floor_per_condition=scores.floors,
        intervals={row: intervals(table, seed=seed) for row, table in (*scores.tables.items(), (FLOOR, scores.floors))},
        conditions=tuple(model),
        embeddings={c: split.baselines.embedding_of(c) for c in model} if "linear" in split.rows else {},
        excluded=dict(split.excluded),
        warnings=tuple(_warnings(scores, split)),
    )


def _warnings(scores: _Scores, split: _Split) -> list[str]:
    model = scores.tables[MODEL]
    warnings = [f"baseline {row} can predict no condition of the split ({why})" for row, why in split.dropped.items()]
    if split.names and not model:
        warnings.append("no condition of the split can be scored")
    return warnings + [
        f"{sentence} ({len(where)} of {len(model)} conditions: {', '.join(where[:3])}{', …' if len(where) > 3 else ''})"
        for sentence, where in scores.notes.items()
        if not sentence.startswith("control_mean: pearson_delta")
    ]


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
