"""What a grid or search key means, and the parts of a trial that a setting of such keys gives."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from harness.data_spec import AnyDataSpec
from harness.model_spec import AnyModelSpec
from harness.study.explain import Path, SpecError, all_fields, did_you_mean, dotted, explain, has_field, parts_in, shown
from harness.study.matching import mismatch
from harness.study.spec import StudySpec
from harness.trial_spec import EvaluateSpec, TrainSpec

Setting = Mapping[str, Any]

#: Name of the axis over ``models``, in a point's setting and in ``expect.axis``.
MODEL_AXIS = "model"


def _by_kind(union: object) -> dict[str, type[BaseModel]]:
    return {str(part.model_fields["kind"].default): part for part in parts_in(get_args(union)[0])}


MODEL_KINDS = _by_kind(AnyModelSpec)
DATA_KINDS = _by_kind(AnyDataSpec)


@dataclass(frozen=True)
class Target:
    """Where a key's value goes.

    Attributes
    ----------
    part : ``model``, ``data``, ``train`` or ``evaluate``.
    path : keys below that part.
    kinds : kinds of models it concerns; every kind of the study unless ``part`` is ``model``.
    """

    part: str
    path: tuple[str, ...]
    kinds: frozenset[str]


@dataclass(frozen=True)
class Parts:
    """The checked parts of one setting."""

    model: Any
    data: Any
    train: TrainSpec
    evaluate: EvaluateSpec


def kind_of(raw: Mapping[str, Any], known: Mapping[str, type[BaseModel]], path: Path) -> str:
    """The kind a mapping names; refused in a sentence where it is missing or unknown."""
    words = ", ".join(known)
    name = dotted(path)
    if "kind" not in raw:
        raise SpecError(path, f"{name} needs a kind: one of {words}")
    kind = raw["kind"]
    if not isinstance(kind, str) or kind not in known:
        raise SpecError((*path, "kind"), f"{name}.kind {shown(kind)} is unknown{did_you_mean(str(kind), known)}")
    return kind


def model_kinds(study: StudySpec) -> tuple[str, ...]:
    """Kind of each entry of ``models``."""
    return tuple(kind_of(model, MODEL_KINDS, ("models", number)) for number, model in enumerate(study.models))


def model_labels(study: StudySpec) -> tuple[str, ...]:
    """A name for each entry of ``models``: its kind, and what sets it apart from others of that kind."""
    kinds = model_kinds(study)
    labels: list[str] = []
    for number, (kind, model) in enumerate(zip(kinds, study.models, strict=True)):
        others = [other for other, its in zip(study.models, kinds, strict=True) if its == kind]
        own = [key for key in model if any(other.get(key) != model[key] for other in others)]
        label = " · ".join([kind, *(f"{key}={worded(model[key])}" for key in own)])
        if label in labels:
            first = labels.index(label)
            raise SpecError(("models", number), f"models.{number} repeats models.{first}; remove one of the two")
        labels.append(label)
    return tuple(labels)


def kind_of_label(label: str) -> str:
    """The kind with which a model's label begins."""
    return label.partition(" ")[0]


def worded(value: object) -> str:
    """A value as it stands in the name of a cell."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


# ------------------------------------------------------------------------------------------------- keys


def _data_root(study: StudySpec) -> type[BaseModel]:
    return DATA_KINDS[kind_of(study.data, DATA_KINDS, ("data",))]


def _known_keys(study: StudySpec) -> list[str]:
    keys = [key for kind in dict.fromkeys(model_kinds(study)) for key in all_fields(MODEL_KINDS[kind])]
    for head, root in (("data", _data_root(study)), ("train", TrainSpec), ("evaluate", EvaluateSpec)):
        keys.extend(f"{head}.{key}" for key in all_fields(root))
    return [key for key in dict.fromkeys(keys) if key != "kind"]


def target(study: StudySpec, key: str, place: Path) -> Target:
    """What a grid or search key means in this study.

    Parameters
    ----------
    key
        E.g. ``sparsity``, ``alignment.weight``, ``data.environments``, ``models.cite_vae.lagged``.
    place
        Where the key stands in the study file.

    Raises
    ------
    SpecError
        Where no model, or not the part, has such a field.
    """
    kinds = model_kinds(study)
    head, *rest = key.split(".")
    roots: dict[str, type[BaseModel]] = {"data": _data_root(study), "train": TrainSpec, "evaluate": EvaluateSpec}
    if head in roots and rest:
        if has_field(roots[head], rest):
            return Target(head, tuple(rest), frozenset(kinds))
    elif head == "models" and len(rest) >= 2:
        kind, *path = rest
        if kind not in kinds:
            raise SpecError(
                place, f"{dotted(place)} is about {kind!r}, which models does not list{did_you_mean(kind, kinds)}"
            )
        if path != ["kind"] and has_field(MODEL_KINDS[kind], path):
            return Target("model", tuple(path), frozenset([kind]))
    elif key != "kind":
        having = frozenset(kind for kind in kinds if has_field(MODEL_KINDS[kind], key.split(".")))
        if having:
            return Target("model", (head, *rest), having)
    raise SpecError(place, _unknown(study, key, place))


def _unknown(study: StudySpec, key: str, place: Path) -> str:
    elsewhere = [kind for kind, root in MODEL_KINDS.items() if has_field(root, key.split("."))]
    if key == "kind":
        return f"{dotted(place)} is no axis; list the kinds under models instead"
    if elsewhere:
        return f"{dotted(place)} is a field of {', '.join(elsewhere)}, and models lists none of these"
    hint = did_you_mean(key, _known_keys(study))
    hint = hint or "; give a field of a model, such as sparsity, or of another part, such as data.environments"
    return f"{dotted(place)} is over an unknown field{hint}"


def targets(study: StudySpec, model: int, keys: Mapping[str, Path]) -> dict[str, Target]:
    """Targets of those keys that concern one model; two keys for one field are refused."""
    kind = model_kinds(study)[model]
    found: dict[str, Target] = {}
    taken: dict[tuple[str, ...], str] = {}
    for key, place in keys.items():
        its = target(study, key, place)
        if kind not in its.kinds:
            continue
        field = (its.part, *its.path)
        if field in taken:
            raise SpecError(
                place, f"{dotted(place)} sets the same field of {kind} as {taken[field]}; keep one of the two"
            )
        taken[field] = key
        found[key] = its
    return found


# ---------------------------------------------------------------------------------------------- settings


def _put(raw: dict[str, Any], path: tuple[str, ...], value: object, place: Path) -> None:
    for key in path[:-1]:
        below = raw.get(key)
        if below is not None and not isinstance(below, dict):
            raise SpecError(place, f"{dotted(place)} reaches into {key}, which is {shown(below)} and no mapping")
        raw[key] = dict(below or {})
        raw = raw[key]
    raw[path[-1]] = value


def build(
    study: StudySpec,
    model: int,
    setting: Setting,
    places: Mapping[str, Path],
    label: str,
    its: Mapping[str, Target] | None = None,
) -> Parts:
    """The parts of a trial that one setting of one model gives.

    Parameters
    ----------
    model
        Index into ``study.models``.
    setting
        Values of grid or search keys; keys that do not concern this model are passed over.
    places
        Where each value stands in the study file.
    label
        Name of the cell, for what is wrong with a combination.
    its
        Where each value goes, if that is known already: ``targets`` of the setting.

    Raises
    ------
    SpecError
        Where a value, or the combination, is impossible.
    """
    if its is None:
        its = targets(study, model, {key: places[key] for key in setting})
    raw: dict[str, dict[str, Any]] = {"model": dict(study.models[model]), "data": dict(study.data)}
    checked: dict[str, Any] = {"train": study.train, "evaluate": study.evaluate}  # whole already, unless a key says so
    for part in dict.fromkeys(one.part for one in its.values() if one.part in checked):
        raw[part] = checked.pop(part).model_dump(mode="json")
    set_by: dict[str, dict[Path, Path]] = {part: {} for part in raw}
    for key, one in its.items():
        _put(raw[one.part], one.path, setting[key], places[key])
        set_by[one.part][one.path] = places[key]
    homes: dict[str, Path] = {part: (part,) for part in raw} | {"model": ("models", model)}
    roots: dict[str, type[BaseModel]] = {
        "model": MODEL_KINDS[kind_of(raw["model"], MODEL_KINDS, homes["model"])],
        "data": DATA_KINDS[kind_of(raw["data"], DATA_KINDS, homes["data"])],
        "train": TrainSpec,
        "evaluate": EvaluateSpec,
    }
    for part, values in raw.items():
        root = roots[part]
        try:
            checked[part] = validated(root, values)
        except ValidationError as error:
            wrong = explain(error, root, values, _locator(homes[part], set_by[part]))
            if wrong is None:  # nothing is skipped here, so that something is always left to say
                raise
            if wrong.path == homes[part] and set_by[part]:
                raise SpecError(wrong.path, f"{wrong.sentence} (in the cell {label})") from error
            raise wrong from error
    its_wrong = mismatch(checked["model"], checked["data"], checked["evaluate"])
    if its_wrong is not None:
        home = homes[its_wrong.part]
        sentence = f"{dotted((*home, its_wrong.field))} {its_wrong.says}"
        if set_by["model"] or set_by["data"]:
            raise SpecError(home, f"{sentence} (in the cell {label})")
        raise SpecError((*home, its_wrong.field), sentence)
    return Parts(**checked)


def check_alone(study: StudySpec) -> None:
    """Refuse a wrong key or value in ``models`` or ``data`` as they stand, before the grid covers it up.

    What only a combination gets wrong is left to the cells, which may well put it right.
    """
    written: list[tuple[Path, Mapping[str, Any], Mapping[str, type[BaseModel]]]] = [
        (("models", number), model, MODEL_KINDS) for number, model in enumerate(study.models)
    ]
    written.append((("data",), study.data, DATA_KINDS))
    for home, raw, known in written:
        root = known[kind_of(raw, known, home)]
        try:
            validated(root, raw)
        except ValidationError as error:
            wrong = explain(
                error, root, raw, _locator(home, {}), skip=("value_error", "missing", "union_tag_not_found")
            )
            if wrong is not None:
                raise wrong from error


def _locator(home: Path, set_by: Mapping[Path, Path]) -> Callable[[Path], Path]:
    def locate(path: Path) -> Path:
        for field, place in set_by.items():
            if path[: len(field)] == field:
                return place + path[len(field) :]
        return home + path

    return locate


def validated(root: type[BaseModel], raw: Mapping[str, Any]) -> Any:
    """``raw`` as ``root``; the same object for the same text, since a grid repeats most of its parts."""
    return _validated(root, json.dumps(raw))


@functools.lru_cache(maxsize=4096)
def _validated(root: type[BaseModel], text: str) -> Any:
    return root.model_validate_json(text)
