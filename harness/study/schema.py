"""The JSON schema of a study file, for editors."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from harness.data_spec import AnyDataSpec
from harness.model_spec import AnyModelSpec
from harness.study.spec import StudySpec


def json_schema() -> dict[str, Any]:
    """JSON schema of a study file, for editors: with ``base``, and with nothing required that may be inherited."""
    schema = StudySpec.model_json_schema()
    parts: dict[str, Any] = {}
    kinds: dict[str, Any] = {"models": AnyModelSpec, "data": AnyDataSpec}
    for key, kind in kinds.items():
        part = TypeAdapter(kind).json_schema()
        schema["$defs"].update(part.pop("$defs"))
        parts[key] = part
    for definition in schema["$defs"].values():
        # a discriminated part is recognised by its kind, which an editor should therefore ask for
        if "kind" in definition.get("properties", {}) and "const" in definition["properties"]["kind"]:
            definition["required"] = ["kind"]
    properties = schema["properties"]
    properties["models"]["items"] = parts["models"]
    properties["data"] = {**parts["data"], "description": properties["data"]["description"]}
    properties["seeds"] = {**properties["seeds"], "type": ["integer", "array"], "minimum": 1}
    objectives = properties["objective"]
    properties["objective"] = {"anyOf": [objectives["items"], objectives], "default": objectives["default"]}
    properties["every_model"] = {"type": "object", "description": "fields that every entry of models starts from"}
    properties["base"] = {"type": "string", "description": "study file to inherit from, relative to this one"}
    schema.pop("required", None)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Study"
    return schema
