"""Results as records, and the one query object from which every table and figure is made.

A failed or pruned trial is a record too: it is counted and named, and never averaged in.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from harness.helps import Help, united
from harness.study.statistics import Estimate, estimate

AxisValue = str | int | float | bool | None

FINISHED = "finished"
#: The axis that every study has, beside those of its grid.
MODEL = "model"


@dataclass(frozen=True)
class Record:
    """One trial and what is known of it.

    Attributes
    ----------
    trial_id : sixteen hex digits.
    cell : readable name of the point (model and setting) that the trial's seeds share.
    model : label of the model, unique among the models of a study.
    axes : value on each axis of the grid that this model has; a data axis is named ``data.<field>``.
    seed : of initialisation and batches.
    state : waiting, running, finished, failed or pruned.
    metrics : flat MLflow names -> final values.
    baselines : ``baseline/<name>/ood/<split>/<metric>`` -> values.
    warnings : sentences the evaluation left, e.g. about collapsed latents.
    failure : why the trial failed or was stopped.
    excluded : condition -> why it could not be scored.
    fingerprint : of the data, which baselines belong to.
    of_cell : flat MLflow names -> values of the cell as a whole, the same in each of its trials.
    helps : what its scores rest on and no user with her own cells has.
    read : what was read of a file of cells, in one sentence.
    controls : numbers of control cells that ``true`` changes are taken from, and that ``predicted`` ones are.
    """

    trial_id: str
    cell: str
    model: str
    axes: Mapping[str, AxisValue]
    seed: int
    state: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    baselines: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    failure: str | None = None
    excluded: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    of_cell: Mapping[str, float] = field(default_factory=dict)
    helps: tuple[Help, ...] = ()
    read: str = ""
    controls: Mapping[str, int] = field(default_factory=dict)

    @property
    def data_axes(self) -> dict[str, AxisValue]:
        """The axes that change the data, hence the baselines."""
        return {axis: value for axis, value in self.axes.items() if is_data_axis(axis)}


def is_data_axis(axis: str) -> bool:
    """Whether an axis of the grid changes the data rather than the model or its training."""
    return axis.startswith("data.")


class Records:
    """An immutable list of records with the questions a table asks of it; answers are kept, since tables repeat them.

    Parameters
    ----------
    records
        In the order in which rows shall appear.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = tuple(records)
        self._estimates: dict[tuple[str, str], Estimate | None] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def where(self, **fields: object) -> Records:
        """Records whose named fields equal the given values; axes are asked for with ``on``."""
        return self.filter(lambda record: all(getattr(record, name) == value for name, value in fields.items()))

    def on(self, axis: str, value: AxisValue) -> Records:
        """Records at one value of an axis, or of ``model``; a model without the axis has the value None."""
        if axis == MODEL:
            return self.where(model=value)
        return self.filter(lambda record: record.axes.get(axis) == value)

    def filter(self, keep: Callable[[Record], bool]) -> Records:
        """Records for which ``keep`` is true, in order."""
        return Records(record for record in self._records if keep(record))

    def group(self, key: Callable[[Record], Hashable]) -> dict[Hashable, Records]:
        """Records by key; groups and records stay in order of first appearance."""
        groups: dict[Hashable, list[Record]] = {}
        for record in self._records:
            groups.setdefault(key(record), []).append(record)
        return {name: Records(members) for name, members in groups.items()}

    @cached_property
    def cells(self) -> Mapping[str, Records]:
        """Records by cell, in order of first appearance."""
        return {str(name): members for name, members in self.group(lambda record: record.cell).items()}

    @cached_property
    def by_data(self) -> Mapping[Hashable, Records]:
        """Records by their data axes, in order of first appearance."""
        return self.group(lambda record: tuple(record.data_axes.items()))

    @cached_property
    def finished(self) -> Records:
        """Records that ran to their end; only these have scores."""
        return self.filter(lambda record: record.state == FINISHED)

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Labels of the models, in order of first appearance."""
        return tuple(dict.fromkeys(record.model for record in self._records))

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """Axes that any model has, in order of first appearance."""
        return tuple(dict.fromkeys(axis for record in self._records for axis in record.axes))

    @cached_property
    def helps(self) -> tuple[Help, ...]:
        """The helps of all records, each once."""
        return united(one for record in self._records for one in record.helps)

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Seeds, rising."""
        return tuple(sorted({record.seed for record in self._records}))

    def axis_values(self, axis: str) -> tuple[AxisValue, ...]:
        """Values seen on an axis, or labels of the models: numbers rising, then words as they first appear."""
        if axis == MODEL:
            return self.models
        seen = dict.fromkeys(record.axes[axis] for record in self._records if axis in record.axes)
        numbers = sorted(v for v in seen if isinstance(v, int | float) and not isinstance(v, bool))
        return (*numbers, *(v for v in seen if not isinstance(v, int | float) or isinstance(v, bool)))

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Names of metrics in any finished record, in order of first appearance; those of whole cells last."""
        done = self.finished
        names = (name for record in done for name in record.metrics)
        return tuple(dict.fromkeys([*names, *(name for record in done for name in record.of_cell)]))

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """Splits with OOD scores in any finished record, in order of first appearance."""
        return tuple(dict.fromkeys(name.split("/")[1] for name in self.metrics if name.startswith("ood/")))

    def estimate(self, metric: str) -> Estimate | None:
        """Mean and interval of a metric over the finished records that have it; of a cell's own, over cells."""
        return self._kept("metric", metric, self._estimate)

    def _kept(self, kind: str, name: str, answer: Callable[[str], Estimate | None]) -> Estimate | None:
        if (kind, name) not in self._estimates:
            self._estimates[kind, name] = answer(name)
        return self._estimates[kind, name]

    def _estimate(self, metric: str) -> Estimate | None:
        cells = {record.cell: record.of_cell[metric] for record in self.finished if metric in record.of_cell}
        if cells:
            return estimate(cells.values())
        return estimate(record.metrics[metric] for record in self.finished if metric in record.metrics)

    @cached_property
    def baseline_names(self) -> tuple[str, ...]:
        """Baselines in any finished record, in order of first appearance."""
        names = (name.split("/")[1] for record in self.finished for name in record.baselines)
        return tuple(dict.fromkeys(names))

    def baseline(self, name: str, metric: str) -> Estimate | None:
        """Mean and interval over data sets of a baseline's metric, e.g. ``ood/<split>/rmse_relative``."""
        return self._kept(
            "baseline", f"baseline/{name}/{metric}", lambda key: self._once_per_data(lambda one: one.baselines.get(key))
        )

    def floor(self, metric: str) -> Estimate | None:
        """Mean and interval over data sets of what a perfect model would score: one half of the cells for the other."""
        names = (f"{metric}_floor", f"{metric}_ceiling")
        return self._once_per_data(lambda record: next((record.metrics[n] for n in names if n in record.metrics), None))

    def _once_per_data(self, value: Callable[[Record], float | None]) -> Estimate | None:
        """Estimate of what belongs to the data, not to a model or seed: trials that share a data set count once."""
        groups = self.finished.group(lambda record: record.fingerprint).values()
        means = (estimate(v for record in group if (v := value(record)) is not None) for group in groups)
        return estimate(mean.mean for mean in means if mean is not None)
