"""YAML as its version 1.2 reads it, with the line of every key: ``1e-3`` is a number, ``no`` is a word."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any, ClassVar

import yaml

from harness.errors import UserError
from harness.study.explain import Path, dotted

_FLOAT = re.compile(
    r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
)
_INT = re.compile(r"^[-+]?[0-9]+$|^0o[0-7]+$|^0x[0-9a-fA-F]+$")
_RESOLVERS = (
    ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("tag:yaml.org,2002:int", _INT, "-+0123456789"),
    ("tag:yaml.org,2002:float", _FLOAT, "-+.0123456789"),
    ("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:merge", re.compile(r"^<<$"), "<"),
)


#: Types of YAML 1.1 that version 1.2 has no more; JSON has none of them.
_GONE = ("timestamp", "binary", "set", "omap", "pairs")


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - replaces the parent's table of YAML 1.1
    yaml_constructors: ClassVar[dict[str | None, Any]] = {
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if str(tag).rpartition(":")[2] not in _GONE
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[object, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} must be text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key} stands here a second time, first in line {seen[key]}", key_node.start_mark
                )
            seen[key] = line
        return super().construct_mapping(node, deep=deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)  # type: ignore[no-untyped-call]
        except (ValueError, KeyError) as error:
            word = node.tag.rpartition(":")[2]
            shown = str(node.value) if len(str(node.value)) <= 60 else str(node.value)[:57] + "..."
            raise yaml.constructor.ConstructorError(
                None, None, f"{shown} cannot be read as {word}", node.start_mark
            ) from error

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        text = str(node.value)
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)

    def construct_text(self, node: yaml.ScalarNode) -> str:
        text = str(node.value)
        text.encode()  # an escape can spell half a character, which no file can hold
        return text


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - so that a word is quoted exactly where the loader needs it

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _table in (_Loader, _Dumper):
    for _tag, _pattern, _first in _RESOLVERS:
        _table.add_implicit_resolver(_tag, _pattern, list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)
_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.construct_text)


def _text_node(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # the emitter takes these for line breaks, and folds them to a space unless they are escaped
    style = '"' if any(mark in text for mark in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text_node)


def _lines(node: yaml.Node | None, path: Path, lines: dict[Path, int], parents: tuple[int, ...] = ()) -> None:
    """Record the line of every key below a node; an alias of its own parent is left to the loader to refuse."""
    if node is None or id(node) in parents:
        return
    parents = (*parents, id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*path, str(key.value))
            lines[below] = key.start_mark.line + 1
            _lines(value, below, lines, parents)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            lines[(*path, number)] = item.start_mark.line + 1
            _lines(item, (*path, number), lines, parents)


def parse(text: str, name: str) -> tuple[Any, dict[Path, int]]:
    """Read one YAML document.

    Returns
    -------
    The value, and the line (from 1) of each key path.

    Raises
    ------
    UserError
        On a syntax error, a key given twice or a key that is no text, with line and column.
    """
    lines: dict[Path, int] = {}
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()  # type: ignore[no-untyped-call]
            _lines(node, (), lines)
            value = None if node is None else loader.construct_document(node)  # type: ignore[no-untyped-call]
        finally:
            loader.dispose()  # type: ignore[no-untyped-call]
        _refuse_loops(value, name)
    except RecursionError as error:
        raise UserError(f"{name}: brackets or mappings are nested too deeply to be read") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{name}{place}: {error.problem or error.context or 'this is not YAML'}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{name}: this is not YAML ({' '.join(str(error).split())})") from error
    return value, lines


def _refuse_loops(value: object, name: str, path: Path = (), parents: tuple[int, ...] = ()) -> None:
    if id(value) in parents:
        raise UserError(f"{name}: {dotted(path)} is an alias of a mapping or list that contains it; write it out")
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        _refuse_loops(item, name, (*path, key), (*parents, id(value)))


def dump(value: object) -> str:
    """Write a value as YAML that ``parse`` reads back as the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
