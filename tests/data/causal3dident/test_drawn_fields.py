"""Fields of the image data that only drawing reads: what is refused, and what the fingerprint follows."""

import json
from typing import get_args

import pytest
from pydantic import ValidationError

from harness.data.causal3dident.shapes import CLASS_NAMES
from harness.data.causal3dident.variant import renderer_variant
from harness.data.fingerprint import fingerprint
from harness.data_spec import Axis, Causal3DIdentData
from harness.errors import UserError
from harness.study.load import load_study

STUDY = """\
name: pictures
models: [{{kind: beta_vae}}]
data: {{kind: causal3dident, meshes: {folder}, mesh_up: {up}}}
"""


@pytest.fixture
def folder(tmp_path):
    pytest.importorskip("mitsuba")
    folder = tmp_path / "meshes"
    folder.mkdir()
    for name in ("teapot.obj", "cow.obj"):
        (folder / name).write_text("v 0 0 0\n")
    return str(folder)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mesh_up": "y"}, "name the folder in meshes, or leave mesh_up out"),
        ({"path": "there", "object_size": 3.0}, "object_size acts on images that we draw"),
        ({"path": "there", "meshes": "here"}, "leave out meshes or path"),
        ({"path": "there", "render_device": "cuda"}, "render_device acts on images that we draw"),
        ({"object_size": 0.5}, "greater than or equal to 1"),
        ({"object_size": 6.5}, "less than or equal to 6"),
        ({"render_device": "gpu"}, "'cpu', 'llvm' or 'cuda'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(fields, words):
    with pytest.raises(ValidationError, match=words):
        Causal3DIdentData(**fields)


@pytest.mark.parametrize("up", ["north", "'+z'", "{teapot: w}", "{kettle: y}", "[y]"])
def test_an_axis_that_is_none_is_refused_in_a_sentence(tmp_path, folder, up):
    study = tmp_path / "study.yaml"
    study.write_text(STUDY.format(folder=folder, up=up))
    with pytest.raises(UserError, match=r"study\.yaml.*data\.mesh_up") as refused:
        load_study(study)
    assert "\n" not in str(refused.value)


def test_every_axis_and_a_mapping_can_be_written_in_a_study(tmp_path, folder):
    study = tmp_path / "study.yaml"
    for up in (*get_args(Axis), {"teapot": "y", "head": "-x"}):
        study.write_text(STUDY.format(folder=folder, up=json.dumps(up)))
        data = Causal3DIdentData.model_validate_json(json.dumps(load_study(study).data))
        assert data.mesh_up == up
        assert Causal3DIdentData.model_validate_json(data.model_dump_json()) == data  # as a trial is handed on


def test_class_names_are_in_the_releases_order():
    assert CLASS_NAMES == ("teapot", "hare", "dragon", "cow", "armadillo", "horse", "head")


def test_the_fingerprint_follows_axis_size_and_device(folder):
    plain = Causal3DIdentData(meshes=folder)
    changes = [{"mesh_up": "y"}, {"mesh_up": "x"}, {"object_size": 4.0}, {"render_device": "cuda"}]
    prints = [fingerprint(plain.model_copy(update=change)) for change in ({}, *changes)]
    assert len(set(prints)) == len(prints)


def test_axes_that_come_to_the_same_are_the_same_data(folder):
    plain = Causal3DIdentData(meshes=folder)
    same = [{"mesh_up": {"teapot": "z"}}, {"mesh_up": {"cow": "y"}}]  # the cow is not drawn
    assert {fingerprint(plain.model_copy(update=change)) for change in same} == {fingerprint(plain)}
    assert renderer_variant(plain.model_copy(update={"mesh_up": {"teapot": "y"}})) == renderer_variant(
        plain.model_copy(update={"mesh_up": "y"})
    )
