"""Reading a study file: ``base``, ``--set``, paths, and one sentence for whatever is wrong.

Paths (``data.path``, ``data.meshes``, ``data.cache_dir``, ``compute.profile``) are taken relative to the file
they stand in where they exist there, else relative to the working directory; those of ``--set`` relative to the
working directory. They are absolute afterwards, since jobs run elsewhere.
"""

from __future__ import annotations

import copy
import difflib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.errors import UserError
from harness.study import explain, yaml12
from harness.study.axes import MODEL_KINDS, kind_of
from harness.study.explain import SpecError, did_you_mean, dotted, shown
from harness.study.plan import check
from harness.study.profile_spec import ProfileSpec
from harness.study.spec import StudySpec

#: Keys that hold paths, and whether something must be there.
_PATHS = {
    ("data", "path"): True,
    ("data", "meshes"): True,
    ("data", "cache_dir"): False,
    ("data", "split", "path"): True,
    ("data", "perturbation_features"): True,
    ("compute", "profile"): True,
}
#: How the path ends where a key may hold a word instead of one.
_PATH_OR_WORD: dict[explain.Path, str] = {("data", "perturbation_features"): ".csv"}
#: Mappings whose keys are themselves dotted.
_DOTTED_KEYS = (("grid",), ("search", "space"))
_AXIS_FIELDS = ("low", "high", "log", "step", "choices")
#: Keys that say which study a file is, and so are not inherited.
_OWN = ("name", "description")
#: Endings of study files, and how a change of one is written.
_ENDINGS, _CHANGE = (".yaml", ".yml"), "--set"
#: Key of the fields that every entry of ``models`` starts from, as far as its kind has them.
EVERY_MODEL = "every_model"


@dataclass(frozen=True)
class Override:
    """One change to a study file.

    Attributes
    ----------
    text : ``dotted.key=value``, the value in YAML.
    said : what the user wrote, for what is wrong with it.
    """

    text: str
    said: str


@dataclass
class _Draft:
    """Values gathered so far, where each key path was written, and those that ``every_model`` gave to models."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[explain.Path, str] = field(default_factory=dict)
    shared: set[explain.Path] = field(default_factory=set)

    def origin(self, path: explain.Path) -> str | None:
        """Where the key, or the nearest one above it, was written."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return None


def load_study(path: Path, overrides: Sequence[str | Override] = ()) -> StudySpec:
    """Read, complete and check a study file.

    Parameters
    ----------
    path
        The YAML file. Where it gives no ``name``, the file's own is taken.
    overrides
        Each as ``--set`` has it, ``dotted.key=value`` with the value in YAML; they come last.

    Returns
    -------
    The study, its cells checked and its files seen to exist; no data are read.

    Raises
    ------
    UserError
        With one sentence naming file and line, key, what was found and what would do.
    """
    path = Path(path)
    _refuse_name(path)
    draft = _read(path, ())
    if draft.values.get("name") is None:
        draft.values["name"] = path.stem
    for override in overrides:
        _override(draft, override if isinstance(override, Override) else Override(override, f"--set {override}"))
    try:
        _spread(draft)
        _check_paths(draft)
        study = _validated(draft.values)
        check(study)
        if study.compute.cluster == "slurm" and study.compute.profile is not None:
            load_profile(Path(study.compute.profile))
    except SpecError as error:
        raise UserError(_said(error, draft, path)) from error
    return study


def load_profile(path: Path) -> ProfileSpec:
    """Read a cluster profile.

    Raises
    ------
    UserError
        Where the file is missing, or with one sentence on what is wrong in it.
    """
    value, lines = yaml12.parse(read_text(path, "cluster profile"), str(path))
    return explain.validated(ProfileSpec, {} if value is None else value, path, lines)


def dump_study(study: StudySpec) -> str:
    """The study as YAML that ``load_study`` reads back as the same study."""
    values = study.model_dump(mode="json")
    return yaml12.dump({key: value for key, value in values.items() if key != "grid" or value})


def _validated(values: dict[str, Any]) -> StudySpec:
    if values.get("grid") == {}:
        raise SpecError(("grid",), "grid is empty; give it a field with its values, or leave grid out")
    try:
        return StudySpec.model_validate_json(json.dumps(values))
    except ValidationError as error:
        wrong = explain.explain(error, StudySpec, values)
        if wrong is None:
            raise
        if len(wrong.path) == 2 and wrong.path[0] == "grid" and not isinstance(_at(values, wrong.path), list):
            value = _at(values, wrong.path)
            wish = "a list of values" if value is None else f"a list of values, e.g. [{shown(value)}]"
            raise SpecError(wrong.path, f"{dotted(wrong.path)} is {shown(value)}, but must be {wish}") from error
        raise wrong from error


def _said(error: SpecError, draft: _Draft, path: Path) -> str:
    """Where what is wrong was written, what it is, and how what ``every_model`` says is taken back.

    What fields get wrong together is wrong at none of them: it is blamed on one that it names, and that a change set.
    """
    origin, sentence = draft.origin(error.path) or str(path), error.sentence
    named = [(*error.path, word) for word in dict.fromkeys(re.findall(r"\w+", sentence))]
    written = {place: draft.origins[place] for place in named if place in draft.origins}
    if error.path[:1] == ("models",) and len(error.path) == 2 and written:
        changes = [where for where in written.values() if where.startswith(_CHANGE)]
        origin = changes[-1] if changes else next(iter(written.values()))
        shared = next((place[-1] for place in written if place in draft.shared), None)
        if shared is not None and re.search(r"\bleave\b", sentence):
            sentence += f"; unset it with {_CHANGE} {EVERY_MODEL}.{shared}=null"
    return f"{origin}: {sentence}"


# --------------------------------------------------------------------------------------------- files, base


def _refuse_name(path: Path) -> None:
    """Say what would do where a study's name stands for its file."""
    if path.suffix in _ENDINGS or path.exists():
        return
    files = sorted(file for ending in _ENDINGS for file in Path("studies").rglob(path.name + ending))
    like = f"did you mean {files[0]}?" if files else "give the file of a study, such as studies/quickstart.yaml"
    raise UserError(f"study file {path} does not exist; {like}")


def read_text(path: Path, what: str) -> str:
    """Content of a file that a user named.

    Raises
    ------
    UserError
        Where it cannot be read, with one sentence that begins with ``what`` it is.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{what} {path} does not exist{_similar(path)}") from error
    except IsADirectoryError as error:
        raise UserError(f"{what} {path} is a folder, but must be a YAML file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{what} {path} is no text file, but must be YAML in UTF-8") from error
    except OSError as error:
        raise UserError(f"{what} {path} cannot be read ({error.strerror})") from error


def _similar(path: Path) -> str:
    """Suggests a YAML file of a near name in the same folder."""
    there = sorted(other.name for other in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, there, n=1)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


def _read(path: Path, heirs: tuple[Path, ...]) -> _Draft:
    """One file on top of the chain of files it inherits from."""
    values, lines = yaml12.parse(read_text(path, "study file"), str(path))
    if values is None:
        raise UserError(f"{path} is empty; a study file has at least models and data")
    if not isinstance(values, dict):
        raise UserError(f"{path} is {shown(values)}, but a study file is a mapping of keys such as models and data")
    own = _Draft(values, {key: f"{path}, line {line}" for key, line in lines.items()})
    base = values.pop("base", None)
    _anchor(own.values, path.parent)
    if base is None:
        return own
    if not isinstance(base, str):
        raise UserError(f"{own.origins[('base',)]}: base is {shown(base)}, but must be the path of a study file")
    chain = (*heirs, path.resolve())
    parent = (path.parent / Path(base).expanduser()).resolve()
    if parent in chain:
        names = " -> ".join(link.name for link in (*chain, parent))
        raise UserError(f"{own.origins[('base',)]}: base {base} inherits from itself ({names})")
    if not parent.is_file():
        raise UserError(f"{own.origins[('base',)]}: base {base} is no file{_similar(parent)}")
    inherited = _read(_near(parent), chain)
    for key in _OWN:
        inherited.values.pop(key, None)
    return _Draft(_merge(inherited.values, own.values), {**inherited.origins, **own.origins})


def _near(path: Path) -> Path:
    """A path as the user would write it: relative where it lies below the working directory."""
    return Path(os.path.relpath(path)) if path.is_relative_to(Path.cwd()) else path


def _merge(below: dict[str, Any], above: dict[str, Any], path: explain.Path = ()) -> dict[str, Any]:
    """Mappings are merged, lists replaced; a mapping that changes its kind starts afresh.

    Null takes away what was inherited at the top level, in every_model, and in grid and search space.
    """
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if value is None and key in merged and _is_taken_away((*path, key)):
            del merged[key]
        elif (
            isinstance(old, dict) and isinstance(value, dict) and value.get("kind", old.get("kind")) == old.get("kind")
        ):
            merged[key] = _merge(old, value, (*path, key))
        else:
            merged[key] = value
    return merged


def _is_taken_away(place: explain.Path) -> bool:
    """Whether null at a key is no value but leaves the key out."""
    return len(place) == 1 or place[:-1] in _DOTTED_KEYS or place[0] == EVERY_MODEL


def _spread(draft: _Draft) -> None:
    """Give each entry of ``models`` the fields of ``every_model`` that its kind has and it does not set itself."""
    shared = draft.values.pop(EVERY_MODEL, None)
    if shared is None:
        return
    if not isinstance(shared, dict):
        raise SpecError((EVERY_MODEL,), f"{EVERY_MODEL} is {shown(shared)}, but must be a mapping of model fields")
    models = draft.values.get("models")
    if not isinstance(models, list) or not models or not all(isinstance(entry, dict) for entry in models):
        return  # which says itself what is wrong with it
    kinds = [kind_of(entry, MODEL_KINDS, ("models", number)) for number, entry in enumerate(models)]
    known = dict.fromkeys(field for kind in kinds for field in MODEL_KINDS[kind].model_fields if field != "kind")
    for field_name, value in shared.items():
        if field_name not in known:
            raise SpecError(
                (EVERY_MODEL, field_name),
                f"{EVERY_MODEL}.{field_name} is a field of no model listed{did_you_mean(field_name, known)}",
            )
        origin = draft.origin((EVERY_MODEL, field_name))
        for number, (kind, entry) in enumerate(zip(kinds, models, strict=True)):
            if field_name not in MODEL_KINDS[kind].model_fields:
                continue
            own = entry.get(field_name)
            if field_name not in entry:
                entry[field_name] = copy.deepcopy(value)
                draft.origins[("models", number, field_name)] = origin or EVERY_MODEL
                draft.shared.add(("models", number, field_name))
            elif isinstance(own, dict) and isinstance(value, dict):
                entry[field_name] = _merge(value, own)


# -------------------------------------------------------------------------------------------------- paths


def _at(values: object, path: explain.Path) -> Any:
    for key in path:
        if isinstance(values, dict):
            values = values.get(key)
        elif isinstance(values, list) and isinstance(key, int) and key < len(values):
            values = values[key]
        else:
            return None
    return values


def _path_places(values: dict[str, Any]) -> list[tuple[explain.Path, bool]]:
    """Every place of a path in a study file, in the grid too, and whether something must be there."""
    places: list[tuple[explain.Path, bool]] = []
    for path, required in _PATHS.items():
        its: list[explain.Path] = [path]
        for head in (("grid", dotted(path)), ("search", "space", dotted(path), "choices")):
            choices = _at(values, head)
            its.extend((*head, number) for number in range(len(choices) if isinstance(choices, list) else 0))
        ending = _PATH_OR_WORD.get(path, "")
        places.extend((one, required) for one in its if str(_at(values, one)).endswith(ending))
    return [(path, required) for path, required in places if isinstance(_at(values, path), str)]


def _anchor(values: dict[str, Any], folder: Path) -> None:
    """Make paths absolute: from ``folder`` where they exist there, else from the working directory."""
    for path, required in _path_places(values):
        given = Path(_at(values, path)).expanduser()
        here, there = folder / given, Path.cwd() / given
        if here.exists() or there.exists() or not required:
            chosen = here if here.exists() else there
            _at(values, path[:-1])[path[-1]] = os.path.abspath(chosen)


def _check_paths(draft: _Draft) -> None:
    """Refuse a path at which nothing is."""
    profile_matters = _at(draft.values, ("compute", "cluster")) == "slurm"
    for path, required in _path_places(draft.values):
        value = _at(draft.values, path)
        if not required or Path(value).exists() or (path == ("compute", "profile") and not profile_matters):
            continue
        looked = "" if Path(value).is_absolute() else ", neither beside the study file nor in the working directory"
        raise SpecError(path, f"{dotted(path)} is {value}, but nothing is there{looked}{_similar(Path(value))}")


# -------------------------------------------------------------------------------------------------- --set


def _override(draft: _Draft, override: Override) -> None:
    """Work one ``dotted.key=value`` in."""
    key, equals, written = override.text.partition("=")
    name = override.said
    if not equals or not key.strip():
        raise UserError(f"{name} has no value; write --set key=value, e.g. --set train.epochs=5")
    if not all(key.strip().split(".")):
        raise UserError(f"{name}: key {key.strip()} has nothing beside one of its dots; write e.g. train.epochs")
    value, _ = yaml12.parse(written, name)
    path = _override_path(key.strip())
    draft.values, place = _replaced(draft.values, path, value, name)
    draft.origins = {at: origin for at, origin in draft.origins.items() if at[: len(place)] != place}
    for length in range(1, len(place) + 1):
        draft.origins.setdefault(place[:length], name)  # mappings on the way may be new too
    if place[0] in {path[0] for path in _PATHS} | {"grid", "search"}:
        _anchor(draft.values, Path.cwd())


def _override_path(key: str) -> list[str]:
    """Split a dotted key; below grid and search.space what follows is one key, dots and all."""
    parts = key.split(".")
    if parts[0] == "grid" and len(parts) > 1:
        return ["grid", ".".join(parts[1:])]
    if parts[:2] == ["search", "space"] and len(parts) > 2:
        rest = parts[2:]
        last = rest[-1:] if len(rest) > 1 and rest[-1] in _AXIS_FIELDS else []
        return ["search", "space", ".".join(rest[: len(rest) - len(last)]), *last]
    return parts


def _replaced(values: dict[str, Any], path: list[str], value: object, name: str) -> tuple[dict[str, Any], explain.Path]:
    """A copy with one value replaced, and the path at which it stands, with list indices as numbers."""
    changed = copy.deepcopy(values)
    place: list[str | int] = []
    here: Any = changed
    for depth, key in enumerate(path):
        last = depth == len(path) - 1
        step: str | int = key
        if isinstance(here, list):
            step = _index(key, here, dotted(place), name)
        elif not isinstance(here, dict):
            raise UserError(f"{name} reaches into {dotted(place)}, which is {shown(here)} and no mapping")
        place.append(step)
        if last:
            _set(here, step, value, tuple(place))
        elif isinstance(here, dict) and here.get(key) is None:
            here[key] = {}
        here = None if last else here[step]  # type: ignore[index]
    return changed, tuple(place)


def _set(here: Any, step: str | int, value: object, place: explain.Path) -> None:
    """Set a value; null takes the key away where `_is_taken_away` says so."""
    if value is None and isinstance(here, dict) and _is_taken_away(place):
        here.pop(step, None)
    else:
        here[step] = value


def _index(key: str, items: list[Any], at: str, name: str) -> int:
    if not key.isdecimal() or int(key) >= len(items):
        indices = ", ".join(str(number) for number in range(len(items)))
        hint = f"; its entries are {indices}" if items else "; it is empty"
        raise UserError(f"{name}: {at} is a list and has no entry {key!r}{hint}")
    return int(key)
