"""The JSON schema of a study file."""

import json

from harness.study.schema import json_schema


def test_schema_knows_models_data_and_base():
    schema = json_schema()
    text = json.dumps(schema)
    assert "base" in schema["properties"]
    assert "required" not in schema
    for definition in ("PerturbedVAESpec", "BetaVAESpec", "SimulationData", "PerturbseqData", "LinearGaussianSpec"):
        assert f"#/$defs/{definition}" in text
        assert definition in schema["$defs"]
    assert schema["$defs"]["CiteVAESpec"]["additionalProperties"] is False


def test_schema_has_no_dangling_reference():
    schema = json_schema()
    referred = {part.split('"')[0] for part in json.dumps(schema).split("#/$defs/")[1:]}
    assert referred <= set(schema["$defs"])


def test_schema_says_what_settings_by_means():
    said = json_schema()["properties"]["settings_by"]
    assert said["enum"] == ["truth", "simulation", "validation", "published", "none"]
    assert said["default"] == "none"
    assert "how the fixed settings of this file were chosen" in said["description"]
