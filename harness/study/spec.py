"""The study file as types: what is compared, how it is searched, where it runs, what it expects.

``models`` and ``data`` stay as the mappings the file gives: the grid completes them, and only a completed
setting can be judged (``latent_dim: 4`` alone leaves no room for the default ``responsive_dim``, with a grid
over ``responsive_dim`` it does). ``harness.study.plan`` turns them into checked ``TrialSpec`` objects.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from harness.data_spec import AnyDataSpec
from harness.evaluation.registry import direction_of
from harness.helps import is_file_of_cells
from harness.spec_part import Part
from harness.trial_spec import PREDICTED_METRICS, EvaluateSpec, TrainSpec

Scalar = bool | int | float | str | None

#: Names that the root folder uses itself, so that no study's folder may have them.
RESERVED_NAMES = ("cache", "mlartifacts", "mlruns")

#: Largest count of seeds; more is a slip of the finger.
MOST_SEEDS = 10_000

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
_BETTER = {"minimize": "smaller it is", "maximize": "larger it is"}
_ORACLE_METRICS = ("identifiability/", "ood/", "conditions/")


# -------------------------------------------------------------------------------------------- objective


class ObjectiveSpec(Part):
    """What a search optimises and a running best is judged by."""

    metric: str = Field(description="validation/...; a metric of truth or test needs oracle: true")
    direction: Literal["minimize", "maximize"]
    oracle: bool = Field(False, description="select on truth or test; every table is then marked so")

    @model_validator(mode="after")
    def _selects_on_validation(self) -> ObjectiveSpec:
        if self.metric.startswith("validation/"):
            if self.oracle:
                raise ValueError(f"oracle: true belongs to a metric of truth or test, and {self.metric} is neither")
        elif not self.metric.startswith(_ORACLE_METRICS):
            raise ValueError(
                f"metric {self.metric!r} cannot select; use validation/..., or with oracle: true one of "
                f"{', '.join(prefix + '...' for prefix in _ORACLE_METRICS)}"
            )
        elif not self.oracle:
            raise ValueError(
                f"metric {self.metric!r} looks at truth or test cells; use validation/loss, "
                "or say oracle: true to mark the study as selected by an oracle"
            )
        known = direction_of(self.metric)
        if known is not None and known != self.direction:
            raise ValueError(f"{self.metric} is the better the {_BETTER[known]}; say direction: {known}")
        return self


def _as_list(value: object) -> object:
    """One objective may be written without the list."""
    return [value] if isinstance(value, dict) else value


Objectives = Annotated[tuple[ObjectiveSpec, ...], Field(strict=False, min_length=1), BeforeValidator(_as_list)]


# ----------------------------------------------------------------------------------------------- search


class AxisSpec(Part):
    """One axis of a search: a range (``low``, ``high``) or a list of ``choices``.

    A range is over integers where ``low``, ``high`` and ``step`` are integers, else over floats.
    """

    low: int | float | None = None
    high: int | float | None = None
    log: bool = Field(False, description="uniform in the logarithm")
    step: int | float | None = Field(None, gt=0)
    choices: Annotated[tuple[Scalar, ...], Field(strict=False, min_length=1)] | None = None

    @property
    def is_integer(self) -> bool:
        """Whether the range is over integers."""
        ends = (self.low, self.high, 1 if self.step is None else self.step)
        return self.choices is None and all(isinstance(end, int) for end in ends)

    @model_validator(mode="after")
    def _range_or_choices(self) -> AxisSpec:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.step is not None or self.log:
                raise ValueError("give either choices or low and high, not both")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give both low and high, or choices")
        if not self.low < self.high:
            raise ValueError(f"low {self.low} must lie below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log: true needs low above 0, found {self.low}")
        if self.log and self.step is not None:
            raise ValueError("log: true and step exclude each other")
        return self


class SearchSpec(Part):
    """A search by Optuna, in each grid cell by itself; one proposal is a point, run with every seed."""

    sampler: Literal["tpe", "nsga2", "random"] = Field("tpe", description="default: nsga2 for several objectives")
    trials: int = Field(ge=1, description="proposals in each grid cell; each runs once a seed")
    space: dict[str, AxisSpec] = Field(min_length=1)
    pruner: Literal["median", "hyperband", "none"] = Field(
        "none",
        description="stops points that lag behind on validation, their seeds taken together; never a grid cell",
    )


# ---------------------------------------------------------------------------------------------- compute


class ComputeSpec(Part):
    """Where and how trials run; apart from ``precision`` and ``threads`` no part of a trial's identity."""

    cluster: Literal["inline", "local", "slurm"] = "local"
    profile: str | None = Field(None, description="YAML profile of the cluster, used with cluster: slurm")
    workers: int | None = Field(None, ge=1, description="processes at once with cluster: local; default: all CPUs")
    retries: int = Field(1, ge=0, description="times a trial is run again after its process died")
    trials_per_job: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        1, description="trials one job runs, one after another; auto: as many as last job_minutes, once it is measured"
    )
    job_minutes: float | None = Field(
        None, gt=0, description="how long a job should last with trials_per_job: auto; default: 10"
    )
    max_failures: int | None = Field(None, ge=0, description="stop submitting after more failed trials than this")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: int = Field(1, ge=1, description="CPU threads a trial uses; part of its result")
    pack: int = Field(1, ge=1, description="trials in one batched model; only 1 is available")

    @field_validator("pack")
    @classmethod
    def _nothing_to_pack_with(cls, pack: int) -> int:
        if pack != 1:
            raise ValueError(
                "batched packing is not available, so pack can only be 1; "
                "trials_per_job runs several trials in one job, one after another"
            )
        return pack

    @model_validator(mode="after")
    def _minutes_need_auto(self) -> ComputeSpec:
        if self.job_minutes is not None and self.trials_per_job != "auto":
            raise ValueError("job_minutes sizes the jobs of trials_per_job: auto; set that, or leave job_minutes out")
        return self

    @model_validator(mode="after")
    def _slurm_needs_profile(self) -> ComputeSpec:
        if self.cluster == "slurm" and self.profile is None:
            raise ValueError("cluster: slurm needs profile, the YAML file that describes the cluster")
        return self


# --------------------------------------------------------------------------------- tracking, expectation


class TrackingSpec(Part):
    """Where MLflow keeps the study."""

    uri: str | None = Field(None, description="MLflow tracking URI; default: a database in the study root")
    experiment: str | None = Field(None, min_length=1, description="default: the study's name")


_COMPARISON = re.compile(r"\s*(<=|>=|==|!=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


Where = str | Annotated[tuple[Scalar, ...], Field(strict=False)]


def predicts(where: Where, value: object) -> bool:
    """Whether a value of an axis satisfies a comparison, or is in a list."""
    if not isinstance(where, str):
        return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in where)
    match = _COMPARISON.fullmatch(where)
    if match is None or not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return _OPERATORS[match[1]](value, float(match[2]))


class ExpectSpec(Part):
    """A study's prediction, stated before it runs: where on one axis the latents should be recovered.

    The prediction may differ between models: each key of a mapping then names one or more entries of ``models`` by
    words of theirs (``targeted``, ``targeted learned``, ``cite_vae``, ``intervention=soft``), and, as ``key=value``,
    settings of further grid axes. A control such as ``beta_vae`` is predicted never to identify.
    """

    axis: str = Field(description="a grid key, or model")
    identifies_where: Where | dict[str, Where] = Field(
        description='a comparison, ">= 4", or a list of values; or {words of a model: either of these}'
    )

    @model_validator(mode="after")
    def _are_comparisons(self) -> ExpectSpec:
        given = self.identifies_where
        places = {"": given} if not isinstance(given, dict) else {f".{words}": each for words, each in given.items()}
        for place, where in places.items():
            if isinstance(where, str) and _COMPARISON.fullmatch(where) is None:
                raise ValueError(
                    f'identifies_where{place} {where!r} is neither a comparison such as ">= 4" nor a list of values'
                )
        if self.axis == "model" and isinstance(given, str | dict):
            raise ValueError("identifies_where must be a list of models where axis is model, e.g. [perturbed_vae]")
        return self


# ------------------------------------------------------------------------------------------------ study


def _count_or_list(value: object) -> object:
    """``seeds: 5`` means 0 to 4."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise ValueError(f"seeds is {value}, but at least one seed is needed: a count from 1 on, or a list")
        if value > MOST_SEEDS:
            raise ValueError(f"seeds is {value}, but a count is at most {MOST_SEEDS}; a list names single seeds")
        return list(range(value))
    if not isinstance(value, list | tuple):
        raise ValueError(f"seeds is {json.dumps(value)}, but must be a count such as 3, or a list such as [0, 1, 2]")
    return value


Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1), BeforeValidator(_count_or_list)
]
SettingsBy = Literal["truth", "simulation", "validation", "published", "none"]
GridValues = Annotated[tuple[Any, ...], Field(strict=False, min_length=1)]


def checked_name(name: str) -> str:
    """The name, where it can be that of a study's folder; else a ``ValueError`` says what would do."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(
            f"name {name!r} is no safe folder name; use up to 64 letters, digits, dots, dashes and underscores, "
            "beginning with a letter or digit"
        )
    if name.lower() in RESERVED_NAMES:
        raise ValueError(f"name {name!r} is a folder of the study root's own; choose another")
    return name


class StudySpec(Part):
    """One study, from its YAML file; ``harness.study.load`` reads it, ``harness.study.plan`` checks its cells.

    Grid and search keys: a bare key (``sparsity``, ``alignment.weight``) is that field of every model that has
    it, ``models.<kind>.<field>`` of one kind only; ``data.``, ``train.`` and ``evaluate.`` name those parts.
    """

    name: str = Field(
        description="name of the study's folder; default: the file's", json_schema_extra={"pattern": _NAME.pattern}
    )
    description: str = ""
    models: tuple[dict[str, Any], ...] = Field(
        strict=False, min_length=1, description="each a kind and any of its fields"
    )
    data: dict[str, Any] = Field(description="a kind and any of its fields")
    grid: dict[str, GridValues] = Field({}, description="{field: [values]}; cells are all combinations")
    search: SearchSpec | None = None
    seeds: Seeds = Field((0, 1, 2), description="a count, or a list")
    train: TrainSpec = TrainSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    objective: Objectives = (ObjectiveSpec(metric="validation/loss", direction="minimize"),)
    compute: ComputeSpec = ComputeSpec()
    tracking: TrackingSpec = TrackingSpec()
    expect: ExpectSpec | None = None
    settings_by: SettingsBy = Field(
        "none",
        description="how the fixed settings of this file were chosen: by scores that need the truth; on a simulation, "
        "by its truth; by validation scores; as published; or none: by no score. A file with base inherits it; truth "
        "is named as a help, and simulation is where the data have a truth",
    )

    @property
    def oracle_selection(self) -> bool:
        """Whether an objective looks at truth or test; such a study is tagged and its tables are marked."""
        return any(objective.oracle for objective in self.objective)

    def selected_by_truth(self, data: AnyDataSpec) -> bool:
        """Whether an objective, or whoever wrote the file, chose settings for ``data`` by truth or test."""
        by_simulation = self.settings_by == "simulation" and not is_file_of_cells(data)
        return self.oracle_selection or self.settings_by == "truth" or by_simulation

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment."""
        return self.tracking.experiment or self.name

    @field_validator("name")
    @classmethod
    def _name_is_a_free_folder(cls, name: str) -> str:
        return checked_name(name)

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("seeds names a seed twice; each runs once")
        return seeds

    @model_validator(mode="before")
    @classmethod
    def _sampler_for_objectives(cls, value: Any) -> Any:
        search = value.get("search") if isinstance(value, dict) else None
        objective = value.get("objective") if isinstance(value, dict) else None
        if isinstance(search, dict) and "sampler" not in search and isinstance(objective, list) and len(objective) > 1:
            return {**value, "search": {**search, "sampler": "nsga2"}}
        return value

    @model_validator(mode="after")
    def _what_is_selected_on_is_measured(self) -> StudySpec:
        swept = "train.monitor" in self.grid or (self.search is not None and "train.monitor" in self.search.space)
        for objective in self.objective:
            if objective.metric in PREDICTED_METRICS and self.train.monitor not in PREDICTED_METRICS and not swept:
                raise ValueError(
                    f"objective {objective.metric} is only measured where training goes by it; "
                    f"set train.monitor: {objective.metric}"
                )
        return self

    @model_validator(mode="after")
    def _pruner_has_one_curve(self) -> StudySpec:
        if self.search is None or self.search.pruner == "none":
            return self
        pruner = f"search.pruner: {self.search.pruner}"
        if len(self.objective) > 1:
            raise ValueError(f"{pruner} needs a single objective; with several use pruner: none")
        if self.oracle_selection:
            raise ValueError(f"{pruner} needs a validation/ objective, since truth is not measured while training")
        if self.search.pruner == "hyperband":
            for key in ("train.epochs", "train.validate_every"):
                if key in self.search.space:
                    raise ValueError(
                        f"{pruner} compares trials of one length, but search.space has {key}; "
                        "put it into grid, or use pruner: median"
                    )
        return self

    @model_validator(mode="after")
    def _pruner_sees_enough(self) -> StudySpec:
        if self.search is None or self.search.pruner == "none":
            return self
        epochs = min(self._values_of("train.epochs", self.train.epochs))
        every = max(self._values_of("train.validate_every", self.train.validate_every))
        if epochs <= every:
            raise ValueError(
                f"search.pruner: {self.search.pruner} judges by validations before the last epoch, but with "
                f"train.epochs {epochs} and train.validate_every {every} there is none; train longer, validate more "
                "often, or use pruner: none"
            )
        return self

    def _values_of(self, key: str, otherwise: int) -> list[int]:
        """What a whole number of ``train`` may be in this study; what is wrong with it is said elsewhere."""
        values = list(self.grid.get(key, ()))
        if self.search is not None and key in self.search.space:
            axis = self.search.space[key]
            values += [axis.low, axis.high] if axis.choices is None else axis.choices
        return [value for value in values if isinstance(value, int) and value > 0] or [otherwise]

    @model_validator(mode="after")
    def _expectation_names_an_axis(self) -> StudySpec:
        if self.expect is None:
            return self
        axes = ("model", *self.grid, *(self.search.space if self.search else ()))
        if self.expect.axis not in axes:
            raise ValueError(
                f"expect.axis {self.expect.axis!r} is no axis of this study; its axes are {', '.join(axes)}"
            )
        return self
