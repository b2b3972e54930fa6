"""From a study to its trials: points (grid cells or search proposals) times seeds, each with a stable id."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.data_spec import AnyDataSpec, SimulationData
from harness.errors import UserError
from harness.study.axes import (
    MODEL_AXIS,
    Parts,
    Setting,
    Target,
    build,
    check_alone,
    model_kinds,
    model_labels,
    target,
    targets,
    worded,
)
from harness.study.expectation import check_expectation
from harness.study.explain import Path, SpecError, did_you_mean
from harness.study.spec import AxisSpec, StudySpec
from harness.trial_spec import Identities, TrialSpec

Fingerprint = Callable[[AnyDataSpec], str]


@dataclass(frozen=True)
class PlannedTrial:
    """One point with one seed."""

    trial_id: str
    cell: str
    seed: int
    spec: TrialSpec

    @property
    def name(self) -> str:
        """For people: cell and seed."""
        return f"{self.cell} · seed {self.seed}"


@dataclass(frozen=True)
class Point:
    """One setting, a grid cell or a search proposal, with a trial for each seed.

    Attributes
    ----------
    cell : readable name, e.g. ``perturbed_vae · sparsity=0.01 · latent_dim=8``.
    model : name of the entry of ``models``: its kind, and what sets it apart from others of that kind.
    kind : the model's kind.
    model_index : index into ``StudySpec.models``.
    values : value of each grid or search key that concerns this model, in the file's order.
    trials : one a seed, in the order of ``seeds``; empty for a grid cell that is searched, which is no point
        yet but where proposals start from.
    space : search axes that concern this model, for a grid cell that is searched; else empty.
    """

    cell: str
    model: str
    kind: str
    model_index: int
    values: dict[str, Any]
    trials: tuple[PlannedTrial, ...]
    space: dict[str, AxisSpec] = field(default_factory=dict)

    @property
    def setting(self) -> dict[str, Any]:
        """``values`` with the model's name, as ``point_for`` takes it."""
        return {MODEL_AXIS: self.model, **self.values}


@dataclass(frozen=True)
class Plan:
    """All grid cells of a study; what a search will propose in them is only counted.

    A search runs in each grid cell by itself, so that every model and setting gets the same budget. A cell
    whose model has none of the searched keys runs as it is.

    Attributes
    ----------
    points : grid cells, models outermost, then grid keys in the file's order.
    seeds : number of seeds.
    proposals : points that the search adds, over all cells.
    trials_per_job : most trials in one job; 1 where that is measured, so that jobs are counted from above.
    """

    points: tuple[Point, ...]
    seeds: int
    proposals: int
    trials_per_job: int

    @property
    def trials(self) -> tuple[PlannedTrial, ...]:
        """Every enumerated trial."""
        return tuple(trial for point in self.points for trial in point.trials)

    def jobs(self) -> tuple[tuple[PlannedTrial, ...], ...]:
        """The enumerated trials as jobs."""
        return into_jobs(self.trials, self.trials_per_job)

    def preview(self) -> Preview:
        """How much the study is, before anything runs."""
        return Preview(
            cells=len(self.points),
            proposals=self.proposals,
            trials=len(self.trials) + self.proposals * self.seeds,
            jobs=len(self.jobs()) + self.proposals * -(-self.seeds // self.trials_per_job),
        )


@dataclass(frozen=True)
class Preview:
    """Size of a study: grid cells, search proposals, trials and jobs (of both)."""

    cells: int
    proposals: int
    trials: int
    jobs: int

    def estimate(self, seconds_per_trial: float) -> float:
        """Device-hours, where one trial takes this many seconds."""
        return self.trials * seconds_per_trial / 3600.0


def into_jobs(trials: Sequence[PlannedTrial], trials_per_job: int) -> tuple[tuple[PlannedTrial, ...], ...]:
    """Cut trials into jobs, in order, never two datasets that are read in one job: each is then read once a job.

    Vectors are not read but generated in each trial, so that its seeds share a job also where each has its own truth.
    """
    jobs: list[tuple[PlannedTrial, ...]] = []
    by_data: dict[str, list[PlannedTrial]] = {}
    for trial in trials:
        generated = isinstance(trial.spec.data, SimulationData)
        by_data.setdefault("" if generated else trial.spec.data_fingerprint, []).append(trial)
    for group in by_data.values():
        jobs.extend(tuple(group[start : start + trials_per_job]) for start in range(0, len(group), trials_per_job))
    return tuple(jobs)


# ------------------------------------------------------------------------------------------------ cells


@dataclass(frozen=True)
class _Cell:
    model_index: int
    model: str
    values: dict[str, Any]
    places: dict[str, Path]
    targets: dict[str, Target]
    name: str


def _name(model: str, words: Iterable[str]) -> str:
    return " · ".join([model, *words])


def _word(key: str, value: Any) -> str:
    return f"{key.removeprefix('models.')}={worded(value)}"


def _cells(study: StudySpec) -> Iterator[_Cell]:
    """Every combination of the grid, for each model over the keys that concern it."""
    places: dict[str, Path] = {key: ("grid", key) for key in study.grid}
    for number, label in enumerate(model_labels(study)):
        its = targets(study, number, places)
        choices = [[(("grid", key, n), v, _word(key, v)) for n, v in enumerate(study.grid[key])] for key in its]
        for chosen in itertools.product(*choices):
            yield _Cell(
                model_index=number,
                model=label,
                values={key: value for key, (_, value, _) in zip(its, chosen, strict=True)},
                places={key: place for key, (place, _, _) in zip(its, chosen, strict=True)},
                targets=its,
                name=_name(label, (word for _, _, word in chosen)),
            )


def check(study: StudySpec) -> None:
    """Check every key, value and cell of a study; reads no data.

    Raises
    ------
    SpecError
        With the key path and one sentence on the first thing wrong.
    """
    _check_keys(study)
    for cell in _cells(study):
        _check_cell(study, cell)
    _check_rest(study)


def _check_keys(study: StudySpec) -> None:
    model_labels(study)
    check_alone(study)
    for key, values in study.grid.items():
        target(study, key, ("grid", key))
        _refuse_repeats(("grid", key), values)


def _check_rest(study: StudySpec) -> None:
    if study.search is not None:
        _check_search(study)
    check_expectation(study)


def _check_cell(study: StudySpec, cell: _Cell) -> None:
    """Build a cell; where it is searched, what only its combination gets wrong is left to the proposals."""
    try:
        _parts(study, cell)
    except SpecError as error:
        is_of_one_value = any(error.path[: len(place)] == place for place in cell.places.values())
        if is_of_one_value or not _space(study, cell.model_index):
            raise


def _parts(study: StudySpec, cell: _Cell) -> Parts:
    return build(study, cell.model_index, cell.values, cell.places, cell.name, cell.targets)


def _space(study: StudySpec, model: int) -> dict[str, AxisSpec]:
    """Search axes that concern one model."""
    if study.search is None:
        return {}
    space = study.search.space
    keys = targets(study, model, {key: ("search", "space", key) for key in space})
    return {key: space[key] for key in keys}


def _refuse_repeats(place: Path, values: Sequence[Any]) -> None:
    seen: set[str] = set()
    for value in values:
        word = worded(value)
        if word in seen:
            raise SpecError(place, f"{'.'.join(map(str, place))} lists {word} twice; each cell runs once")
        seen.add(word)


def _check_search(study: StudySpec) -> None:
    """Try the ends, or every choice, of each axis alone: what only a combination gets wrong is met when it comes."""
    search = study.search
    for key, axis in search.space.items() if search else ():
        place: Path = ("search", "space", key)
        its = target(study, key, place)
        if key in study.grid:
            raise SpecError(place, f"{'.'.join(map(str, place))} is in the grid too; leave it in one of the two")
        ends: list[tuple[str | int, Any]] = [("low", axis.low), ("high", axis.high)]
        if axis.choices is not None:
            _refuse_repeats((*place, "choices"), axis.choices)
            ends = list(enumerate(axis.choices))
        for number, kind in enumerate(model_kinds(study)):
            for end, value in ends if kind in its.kinds else ():
                where: Path = (*place, end) if isinstance(end, str) else (*place, "choices", end)
                try:
                    build(study, number, {key: value}, {key: where}, key)
                except SpecError as error:
                    if error.path[: len(place)] == place:
                        raise


# ------------------------------------------------------------------------------------------------- plan


def plan(study: StudySpec, fingerprint: Fingerprint | None = None) -> Plan:
    """Enumerate a study's grid.

    Parameters
    ----------
    fingerprint
        Names the content of a dataset; default: ``harness.data.fingerprint``. Called once for each dataset.

    Raises
    ------
    SpecError
        Where a cell is impossible, or two cells are the same trial.
    UserError
        Where a data file cannot be read.
    """
    _check_keys(study)
    known = _Known(fingerprint)
    points = tuple(_searched(study, cell) or _point(study, cell, known) for cell in _cells(study))
    _check_rest(study)
    owner: dict[str, str] = {}
    for trial in (trial for point in points for trial in point.trials):
        if owner.setdefault(trial.trial_id, trial.cell) != trial.cell:
            raise SpecError(
                ("grid",), f"grid: the cells {owner[trial.trial_id]} and {trial.cell} are the same trial; remove one"
            )
    return Plan(
        points=points,
        seeds=len(study.seeds),
        proposals=sum(study.search.trials for point in points if point.space) if study.search else 0,
        trials_per_job=1 if study.compute.trials_per_job == "auto" else study.compute.trials_per_job,
    )


def point_for(study: StudySpec, setting: Setting, fingerprint: Fingerprint | None = None) -> Point:
    """The point of one setting, as a search proposes it.

    Parameters
    ----------
    setting
        A cell's ``setting`` with the proposed values on top. ``model`` names the entry of ``models`` and may be
        left out where there is only one; keys that do not concern that model are passed over.

    Raises
    ------
    SpecError
        Where the setting is impossible, which ranges that are each possible may give together.
    """
    labels = model_labels(study)
    model = setting.get(MODEL_AXIS, labels[0] if len(labels) == 1 else None)
    if model not in labels:
        raise UserError(f"model {model!r} is none of this study's{did_you_mean(str(model), labels)}")
    number = labels.index(model)
    places: dict[str, Path] = {
        key: ("grid", key) if key in study.grid else ("search", "space", key) for key in setting if key != MODEL_AXIS
    }
    its = targets(study, number, places)
    values = {key: setting[key] for key in its}
    name = _name(model, (_word(key, value) for key, value in values.items()))
    return _point(study, _Cell(number, model, values, places, its, name), _Known(fingerprint))


class _Known:
    """What trials of a plan have in common, found out once: fingerprints of datasets, and the parts of ids."""

    def __init__(self, fingerprint: Fingerprint | None) -> None:
        if fingerprint is None:
            from harness.data.fingerprint import fingerprint as of_harness

            fingerprint = of_harness
        self._take = fingerprint
        self._fingerprints: dict[str, str] = {}
        self._of_same: dict[int, tuple[AnyDataSpec, str]] = {}
        self.ids = Identities()

    def fingerprint(self, data: AnyDataSpec) -> str:
        """Fingerprint of a dataset, taken once for all that read alike."""
        same = self._of_same.get(id(data))
        if same is not None:
            return same[1]
        key = data.model_dump_json()
        if key not in self._fingerprints:
            self._fingerprints[key] = self._take(data)
        self._of_same[id(data)] = data, self._fingerprints[key]  # held, so that its id stays its own
        return self._fingerprints[key]


def _searched(study: StudySpec, cell: _Cell) -> Point | None:
    """The cell as a search starts from it; None where nothing of it is searched."""
    space = _space(study, cell.model_index)
    if not space:
        return None
    _check_cell(study, cell)
    kind = model_kinds(study)[cell.model_index]
    return Point(cell.name, cell.model, kind, cell.model_index, cell.values, trials=(), space=space)


def _point(study: StudySpec, cell: _Cell, known: _Known) -> Point:
    parts = _parts(study, cell)
    return Point(
        cell=cell.name,
        model=cell.model,
        kind=parts.model.kind,
        model_index=cell.model_index,
        values=cell.values,
        trials=tuple(_trial(study, cell.name, parts, seed, known) for seed in study.seeds),
    )


def _trial(study: StudySpec, cell: str, parts: Parts, seed: int, known: _Known) -> PlannedTrial:
    data = parts.data
    if data.seed == "per_trial":
        data = data.model_copy(update={"seed": seed})
    spec = TrialSpec(
        model=parts.model,
        data=data,
        train=parts.train,
        evaluate=parts.evaluate,
        seed=seed,
        precision=study.compute.precision,
        threads=study.compute.threads,
        data_fingerprint=known.fingerprint(data),
    )
    return PlannedTrial(trial_id=known.ids.of(spec), cell=cell, seed=seed, spec=spec)


def axes_of(points: Sequence[Point]) -> dict[str, list[Any]]:
    """Values that each axis takes over some points, in order of appearance: the sides of a heat map."""
    axes: dict[str, list[Any]] = {}
    for point in points:
        for key, value in point.values.items():
            seen = axes.setdefault(key, [])
            if worded(value) not in [worded(other) for other in seen]:
                seen.append(value)
    return axes


def find(points: Sequence[Point], wanted: Mapping[str, Any]) -> tuple[Point, ...]:
    """Points whose setting has all wanted values."""
    return tuple(
        point for point in points if all(point.setting.get(key, _ABSENT) == value for key, value in wanted.items())
    )


_ABSENT = object()
