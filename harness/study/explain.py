"""One sentence for what is wrong in a study file, out of the validators' many lines."""

from __future__ import annotations

import difflib
import functools
import json
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from harness.errors import UserError

Path = tuple[str | int, ...]


class SpecError(UserError):
    """Something is wrong at one key of a study.

    Parameters
    ----------
    path
        Key path in the study file, e.g. ``("models", 0, "latent_dim")``; ``grid`` and ``search.space`` keys are
        one element, dots included.
    sentence
        What is wrong and what would do; it names the key.
    """

    def __init__(self, path: Path, sentence: str) -> None:
        super().__init__(sentence)
        self.path = path
        self.sentence = sentence


Spec = TypeVar("Spec", bound=BaseModel)


def validated(
    kind: type[Spec], values: Mapping[str, object], file: os.PathLike[str], lines: Mapping[Path, int]
) -> Spec:
    """The spec of a whole file's values.

    Parameters
    ----------
    kind
        What it must be.
    values
        Of the file.
    file, lines
        Where it stands, and the line of each key path, for errors.

    Raises
    ------
    UserError
        With file, line and one sentence.
    """
    try:
        return kind.model_validate_json(json.dumps(values))
    except ValidationError as error:
        wrong = explain(error, kind, values)
        if wrong is None:
            raise
        line = f", line {lines[wrong.path]}" if wrong.path in lines else ""
        raise UserError(f"{file}{line}: {wrong.sentence}") from error


def dotted(path: Iterable[str | int]) -> str:
    """``models.0.latent_dim``."""
    return ".".join(str(part) for part in path)


def shown(value: object) -> str:
    """A value as YAML would have it on one line, cut to a readable length."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean sparsity?``, or the known words where none is near and they are few, or nothing."""
    words = list(dict.fromkeys(known))
    same_end = [candidate for candidate in words if candidate.rsplit(".", 1)[-1] == word.rsplit(".", 1)[-1]]
    near = same_end[:1] or difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known are {', '.join(words)}" if 0 < len(words) <= 30 else ""


# ------------------------------------------------------------------------------------ the types' own shape


def parts_in(annotation: object) -> list[type[BaseModel]]:
    """Every model class an annotation allows: itself, members of a union, items of a tuple or values of a dict."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        arguments = arguments[:1]
    found: list[type[BaseModel]] = []
    for argument in arguments:
        found.extend(part for part in parts_in(argument) if part not in found)
    return found


def _is_container(annotation: object) -> bool:
    """Whether a key below this annotation names an item of it, and not a field."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _is_container(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return any(_is_container(argument) for argument in get_args(annotation))
    return origin in (tuple, list, dict)


@functools.cache
def _hints(part: type[BaseModel]) -> dict[str, object]:
    return typing.get_type_hints(part, include_extras=True)


def parts_at(root: type[BaseModel], path: Sequence[str | int]) -> list[type[BaseModel]]:
    """The types a value at a path below ``root`` may have; empty where the path leads to no part."""
    parts = [root]
    inside = False
    for key in path:
        if inside:
            inside = False
            continue
        annotations = [_hints(part)[str(key)] for part in parts if str(key) in part.model_fields]
        inside = any(_is_container(annotation) for annotation in annotations)
        parts = [found for annotation in annotations for found in parts_in(annotation)]
    return parts


def fields_at(root: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Names of the keys that are known at a path below ``root``."""
    return list(dict.fromkeys(name for part in parts_at(root, path) for name in part.model_fields))


def _what_it_is(root: type[BaseModel], path: Path) -> str:
    """``; give one of minimize, maximize``, or the field's description, for a key that is missing."""
    for part in parts_at(root, path[:-1]):
        field = part.model_fields.get(str(path[-1]))
        if field is not None and get_origin(field.annotation) is Literal:
            return f"; give one of {', '.join(map(str, get_args(field.annotation)))}"
        if field is not None and field.description:
            return f"; give {field.description}"
    return ""


def has_field(root: type[BaseModel], path: Sequence[str]) -> bool:
    """Whether a dotted field exists below ``root``, in any member of a union on the way."""
    return path[-1] in fields_at(root, path[:-1])


def all_fields(root: type[BaseModel]) -> list[str]:
    """Every dotted field below ``root``, parts included."""
    names = []
    for name in root.model_fields:
        names.append(name)
        for part in parts_in(_hints(root)[name]):
            names.extend(f"{name}.{below}" for below in all_fields(part))
    return list(dict.fromkeys(names))


# -------------------------------------------------------------------------------------------- sentences

_WORDS = {
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "int_parsing": "must be an integer",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "finite_number": "must be finite",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "literal_error": "must be {expected}",
    "string_too_short": "must not be empty",
}


def _demand(error: dict[str, Any]) -> str:
    """What a value must be, for the second half of a sentence."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in _WORDS:
        return _WORDS[kind].format(**context).replace("at least 1 entries", "at least 1 entry")
    text: str = error["msg"]
    return "is refused: " + text[0].lower() + text[1:]


def _holds(raw: object, key: str | int) -> bool:
    if isinstance(raw, dict):
        return key in raw
    return isinstance(raw, list | tuple) and isinstance(key, int) and key < len(raw)


def _clean(loc: Sequence[str | int], raw: object, is_missing: bool) -> Path:
    """The key path of an error, without the union members that pydantic puts between the keys."""
    path: list[str | int] = []
    for number, key in enumerate(loc):
        if _holds(raw, key):
            raw = raw[key]  # type: ignore[index]
        elif not (is_missing and number == len(loc) - 1):
            continue
        path.append(key)
    return tuple(path)


def _rank(error: Any) -> int:
    """A misspelt key explains what is missing, so it comes first; what is missing comes last."""
    return {"extra_forbidden": 0, "missing": 2}.get(error["type"], 1)


def _echoes(error: Any) -> bool:
    """Whether a list is called too short only because its wrong entries were left out."""
    return error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]


def _tags(context: dict[str, Any]) -> list[str]:
    return [tag.strip().strip("'") for tag in str(context.get("expected_tags", "")).split(",") if tag.strip()]


def explain(
    error: ValidationError,
    root: type[BaseModel],
    raw: object,
    locate: Callable[[Path], Path] = lambda path: path,
    skip: Sequence[str] = (),
) -> SpecError | None:
    """The first thing wrong, as a sentence.

    Parameters
    ----------
    error
        What pydantic raised for ``raw``.
    root
        The type that was asked for.
    raw
        The value that was given, as plain lists and mappings.
    locate
        Maps a path below ``raw`` to the place in the study file that set it.
    skip
        Types of errors to overlook; None is returned where nothing else is wrong.
    """
    errors: list[Any] = sorted(
        (entry for entry in error.errors(include_url=False) if entry["type"] not in skip and not _echoes(entry)),
        key=_rank,
    )
    if not errors:
        return None
    first = errors[0]
    kind = first["type"]
    path = _clean(first["loc"], raw, kind == "missing")
    where = dotted(locate(path))
    found = _value_at(raw, path)
    # a union reports each member's complaint about one value: all of them say what would do
    same = [entry for entry in errors if _rank(entry) == 1 and _clean(entry["loc"], raw, False) == path]
    if kind == "extra_forbidden":
        sentence = f"key {where} is unknown{did_you_mean(str(path[-1]), fields_at(root, path[:-1]))}"
    elif kind == "missing" and isinstance(path[-1], int):
        whole = _value_at(raw, path[:-1])
        sentence = f"{dotted(locate(path[:-1]))} is {shown(whole)}, but must have at least {path[-1] + 1} entries"
    elif kind == "missing":
        sentence = f"key {where} is missing{_what_it_is(root, path)}"
    elif kind == "union_tag_not_found":
        sentence = f"{where} needs a kind"
    elif kind == "union_tag_invalid":
        tag = str(first["ctx"]["tag"])
        sentence = f"{where}.kind {tag!r} is unknown{did_you_mean(tag, _tags(first['ctx']))}"
    elif kind == "literal_error":
        sentence = f"{where} is {shown(found)}, but must be {first['ctx']['expected']}{_nearest(found, first)}"
    elif kind == "value_error":
        reason = str(first["ctx"]["error"])
        says_where = not where or reason.startswith(where)
        sentence = reason if says_where else f"{where}: {reason}"
    else:
        demands = list(dict.fromkeys(_demand(entry) for entry in same)) or [_demand(first)]
        sentence = f"{where} is {shown(found)}, but {demands[0]}"
        sentence += "".join(" or " + demand.removeprefix("must be ") for demand in demands[1:])
    return SpecError(locate(path), sentence)


def _nearest(found: object, entry: Any) -> str:
    if not isinstance(found, str):
        return ""
    allowed = [word.strip("'") for word in str(entry["ctx"]["expected"]).replace(" or ", ", ").split(", ")]
    near = difflib.get_close_matches(found, allowed, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _value_at(raw: Any, path: Path) -> object:
    for key in path:
        raw = raw[key] if _holds(raw, key) else None
    return raw
