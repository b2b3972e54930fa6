"""Fields of temporal images: what they default to, and sentences about what cannot be."""

import pytest
from pydantic import TypeAdapter, ValidationError

from harness.data.fingerprint import fingerprint
from harness.data_spec import AnyDataSpec, Causal3DIdentData, TemporalCausal3DIdentData
from harness.errors import UserError
from harness.process_spec import MOVING, CitrisSpec, LinearGaussianSpec

OVER_TIME = LinearGaussianSpec(responsive=2, invariant=1, steps=3, lagged="diagonal")
NAMES = {"responsive": ("x", "y"), "invariant": ("hue_background",)}


def test_all_that_can_move_moves_but_what_is_held():
    assert TemporalCausal3DIdentData().responsive == MOVING
    held = TemporalCausal3DIdentData(invariant=("psi", "y"))
    assert held.responsive == tuple(name for name in MOVING if name != "y")
    assert held.environments == len(held.variables) == 8


def test_variables_may_be_wholes_and_the_shape_is_one():
    spec = TemporalCausal3DIdentData(process=CitrisSpec(grouped=True), classes=(0, 3), invariant=("y",))
    assert list(spec.variables) == [
        "position",
        "rotation",
        "spotlight",
        "hue_object",
        "hue_spotlight",
        "hue_background",
        "shape",
    ]
    assert spec.variables["position"] == ("x", "z")
    assert spec.variables["shape"] == ()


def test_a_spec_written_out_reads_back_as_itself():
    for spec in (TemporalCausal3DIdentData(classes=(0, 1)), TemporalCausal3DIdentData(**NAMES, process=OVER_TIME)):
        assert TypeAdapter(AnyDataSpec).validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"environments": 4}, "environments is 4, but process.kind: citris has one for each of its 9 variables"),
        ({"doubles": 37}, "doubles is 37, but 9 variables have 36 pairs; give less"),
        ({"responsive": ("x", "psi")}, "psi does not move under process.kind: citris"),
        ({"responsive": ("x", "nose")}, "latent 'nose' is unknown"),
        ({"responsive": ("x", "y"), "invariant": ("y",), "doubles": 1}, "named twice"),
        ({"pairs": "random"}, "pairs: random would replace the frame before a transition"),
        ({"process": {"kind": "linear_gaussian"}}, "process.steps: 1 makes no trajectory"),
        ({**NAMES, "process": OVER_TIME, "path": "r"}, "path names finished ones; leave out path"),
        ({"process": OVER_TIME}, "process.responsive/invariant must be 9/0"),
        ({**NAMES, "process": OVER_TIME, "pairs": "none"}, "the same cell earlier"),
        ({"path": "r", "meshes": "m"}, "leave out meshes or path"),
        ({"process": {"kind": "native"}}, "citris"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(fields, sentence):
    with pytest.raises(ValidationError, match=sentence.replace("(", r"\(")):
        TemporalCausal3DIdentData.model_validate(fields)


def test_static_images_take_time_steps():
    spec = Causal3DIdentData(**NAMES, process=OVER_TIME)
    assert spec.process.steps == 3
    with pytest.raises(ValidationError, match="the same cell earlier"):
        Causal3DIdentData(**NAMES, process=OVER_TIME, pairs="random")


def test_a_release_is_named_by_its_content_and_the_rows_asked_for(tmp_path):
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.npz").write_bytes(content)
    a, b, c = (fingerprint(TemporalCausal3DIdentData(path=str(tmp_path / name))) for name in "abc")
    assert a == b != c
    assert fingerprint(TemporalCausal3DIdentData(path=str(tmp_path / "a"), cells=2000)) != a
    with pytest.raises(UserError, match=r"train\.npz: there is no such file"):
        fingerprint(TemporalCausal3DIdentData(path=str(tmp_path)))


def test_what_we_draw_is_named_by_what_determines_its_pixels():
    pytest.importorskip("mitsuba")
    names = {
        fingerprint(spec)
        for spec in (
            TemporalCausal3DIdentData(),
            TemporalCausal3DIdentData(samples=4),
            TemporalCausal3DIdentData(process=CitrisSpec(grouped=True)),
            TemporalCausal3DIdentData(**NAMES, doubles=1),
            TemporalCausal3DIdentData(**NAMES, process=OVER_TIME),
            Causal3DIdentData(**NAMES, process=OVER_TIME),
        )
    }
    assert len(names) == 6
