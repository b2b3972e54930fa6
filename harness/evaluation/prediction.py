"""Score one split's conditions: the model, every baseline and the floor, on the same cells and conditions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from harness.evaluation.aggregate import Interval, aggregate, intervals
from harness.evaluation.baselines import BASELINES, CONTROL, Baselines, CannotPredict
from harness.evaluation.clouds import Cloud
from harness.evaluation.measured import Measured
from harness.evaluation.ood import CORRELATION, Controls, Reference
from harness.evaluation.registry import GENE_SETS, on_set, split_half_name
from harness.evaluation.score_table import FLOOR, MODEL, ScoreTable, Table, averaged
from harness.evaluation.scores import Array, NonFiniteError
from harness.evaluation.suspicion import suspicions

__all__ = ["CONTROL", "FLOOR", "MODEL", "Comparison", "OodResult", "Predict", "evaluate_ood"]

#: Correlations of changes on any set of genes, and those between halves.
_CORRELATIONS = frozenset(
    name for genes in ("", *GENE_SETS) for one in [on_set(CORRELATION, genes)] for name in (one, split_half_name(one))
)
#: Predicts cells (n, features) of a condition from control cells (k, features); may raise ``CannotPredict``. Where n is
#: a multiple of k, so many rows after each other are taken to begin as the same control cell (see `clouds.Cloud`).
Predict = Callable[[str, Array], ArrayLike]


@dataclass(frozen=True)
class Comparison:
    """What the predictions of one split are compared with, in one stratum of its cells.

    Attributes
    ----------
    cells : condition -> cells of the split; ``control`` is skipped. Read once, one condition at a time.
    held_out : control cells that no prediction, baseline or training used; true changes are taken from them.
    starts : (k, features) training control cells that every row starts from; predicted changes are taken from them.
    baselines : estimated from training cells.
    predict : the model.
    stratum : its name, where there are several.
    """

    cells: Mapping[str, Measured]
    held_out: Measured
    starts: Array
    baselines: Baselines
    predict: Predict
    stratum: str = ""

    @property
    def conditions(self) -> tuple[str, ...]:
        """Those that are scored."""
        return tuple(name for name in self.cells if name != CONTROL)


@dataclass(frozen=True)
class OodResult:
    """Scores of one split. A metric on a gene set is named ``<metric>_<set>``.

    Attributes
    ----------
    metrics : the model's means over conditions, by the names of ``registry.METRICS``.
    intervals : ``model``, baseline or ``floor`` -> metric -> bootstrap 95 % interval; without metrics for fewer than
        two conditions. That of ``pearson_delta`` is over conditions, their cells and the control cells, all others over
        conditions alone; on the genes that change most there is none (see `ood.Reference.correlations`).
    baselines : baseline -> metric -> mean over the same conditions.
    floors : means of the split-half scores, ``<metric>_floor`` or ``<metric>_ceiling``.
    per_condition : ``model`` or baseline -> condition -> metric -> value, the mean over strata where there are some.
    floor_per_condition : condition -> ``<metric>_floor`` or ``<metric>_ceiling`` -> value.
    conditions : those scored, the same for every row.
    controls : number of control cells that the true changes are taken from, and that predictions start from.
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
    controls: tuple[int, int] = (0, 0)
    embeddings: dict[str, str] = field(default_factory=dict)
    excluded: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def evaluate_ood(
    comparisons: Sequence[Comparison],
    *,
    seed: int = 0,
    features: Sequence[str] = (),
    metrics: Collection[str] | None = None,
) -> OodResult:
    """Score a model and the baselines on the conditions of one split.

    A condition that the model, or a baseline that can predict some condition of the split, cannot predict is left
    out of *every* row and named, so that all rows stand on the same conditions. A baseline that can predict none
    of them (additive where no double has both singles seen) is left out as a row instead. Where there are several
    strata, each condition is scored within each, and its scores are averaged, every stratum with the same weight.

    Only one condition's cells are held at a time, so that cells may come from mappings that read them when asked.

    Parameters
    ----------
    comparisons
        One a stratum; a single one where cells have no strata.
    seed
        Governs pairing, halving and the bootstrap.
    features
        Names of the features where they are genes, for the metrics that need them and for gene sets.
    metrics
        Names of the metrics wanted; None: all that can be taken.

    Raises
    ------
    NonFiniteError
        NaN or infinity in an array, named with its condition: the model's predictions have diverged.
    ValueError
        Arrays that do not fit.
    """
    rows, dropped = _rows(comparisons)
    scored = [_Scored(one, rows, seed, features, metrics) for one in comparisons]
    whole = averaged([one.table for one in scored])
    excluded = {c: why for one in scored for c, why in one.excluded.items() if c not in whole.conditions}
    warnings = _warnings(whole, scored, dropped)
    means = {row: dict(aggregate(table).values) for row, table in whole.tables.items()}
    ends = {
        row: intervals(table, whole.samples.get(row, {}), seed=seed, only_sampled=_CORRELATIONS)
        for row, table in whole.tables.items()
    }
    return OodResult(
        metrics=means[MODEL],
        baselines={row: means[row] for row in rows},
        per_condition={row: table for row, table in whole.tables.items() if row != FLOOR},
        floors=means[FLOOR],
        floor_per_condition=whole.tables[FLOOR],
        intervals=ends,
        conditions=whole.conditions,
        controls=(
            sum(one.held_out.moments.count for one in comparisons),
            sum(len(one.starts) for one in comparisons),
        ),
        embeddings=_embeddings(comparisons, whole.conditions) if "linear" in rows else {},
        excluded=excluded,
        warnings=(*warnings, *suspicions(whole, means, ends, seed)),
    )


def _rows(comparisons: Sequence[Comparison]) -> tuple[list[str], dict[str, str]]:
    """Baselines that can predict some condition, and why each other one cannot."""
    rows: list[str] = []
    dropped: dict[str, str] = {}
    for row in BASELINES:
        refusals = [_refusal(one.baselines, row, c) for one in comparisons for c in one.conditions]
        if refusals and all(why is not None for why in refusals):
            dropped[row] = str(refusals[0])
        else:
            rows.append(row)
    return rows, dropped


def _refusal(baselines: Baselines, row: str, condition: str) -> str | None:
    try:
        baselines.shift(row, condition)
    except CannotPredict as refusal:
        return str(refusal)
    return None


class _Scored:
    """The scores of one comparison.

    Attributes
    ----------
    table : of its conditions.
    excluded : condition -> why it is in no row here.
    """

    def __init__(
        self,
        comparison: Comparison,
        rows: Sequence[str],
        seed: int,
        features: Sequence[str],
        metrics: Collection[str] | None,
    ) -> None:
        self.comparison = comparison
        self.excluded: dict[str, str] = {}
        self.table = ScoreTable(rows, features, metrics)
        controls = Controls(comparison.held_out, comparison.starts, seed=seed)
        for condition in comparison.conditions:
            predicted = self._predicted(condition, rows, controls)
            if predicted is None:
                continue
            true = comparison.cells[condition]
            reference = Reference(true, controls, seed=seed, genes=bool(features), metrics=metrics)
            self.table.add(condition, MODEL, reference, predicted)
            for row in rows:
                shift = comparison.baselines.shift(row, condition)
                self.table.add(condition, row, reference, controls.starts.shifted(shift))
            self.table.add_truth(condition, reference)
        self.table.rank()

    def _predicted(self, condition: str, rows: Sequence[str], controls: Controls) -> Cloud | None:
        """The model's cells of a condition; None, and the condition is excluded, where some row has no prediction."""
        for row in rows:
            if (why := _refusal(self.comparison.baselines, row, condition)) is not None:
                self.excluded[condition] = f"{row}: {why}"
                return None
        try:
            cells = _finite(self.comparison.predict(condition, controls.starts.cells), MODEL, condition)
        except CannotPredict as refusal:
            self.excluded[condition] = f"{MODEL}: {refusal}"
            return None
        each, left = divmod(len(cells), len(controls.starts))
        return Cloud(cells, kin=1 if left else max(1, each))


def _embeddings(comparisons: Sequence[Comparison], conditions: Sequence[str]) -> dict[str, str]:
    """What linear predicts each condition from, in the first stratum that has it."""
    found: dict[str, str] = {}
    for one in comparisons:
        for condition in conditions:
            if condition in one.cells:
                found.setdefault(condition, one.baselines.embedding_of(condition))
    return found


def _warnings(whole: ScoreTable, scored: Sequence[_Scored], dropped: Mapping[str, str]) -> list[str]:
    conditions = whole.conditions
    warnings = [f"baseline {row} can predict no condition of the split ({why})" for row, why in dropped.items()]
    if any(one.comparison.conditions for one in scored) and not conditions:
        warnings.append("no condition of the split can be scored")
    partly = {c: why for one in scored for c, why in one.excluded.items() if c in conditions}
    if partly:
        condition, why = next(iter(partly.items()))
        warnings.append(f"{len(partly)} conditions are not scored in every stratum (first {condition}, {why})")
    return warnings + [
        f"{sentence} ({len(where)} of {len(conditions)} conditions: "
        f"{', '.join(where[:3])}{', …' if len(where) > 3 else ''})"
        for sentence, where in whole.notes.items()
        if not sentence.startswith("control_mean: pearson_delta")
    ]


def _finite(predicted: ArrayLike, row: str, condition: str) -> Array:
    """``predicted`` as an array; names row and condition where it holds NaN."""
    array = np.asarray(predicted, dtype=np.float64)
    bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if bad:
        raise NonFiniteError(f"{row} prediction of {condition}", bad, array.size)
    return array
