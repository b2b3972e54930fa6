"""Meshes of the user's folder: three formats, classes by name, named faults."""

import os
from pathlib import Path

import numpy as np
import pytest

from harness.data.causal3dident.meshes import mesh_files, meshes_of, read_mesh
from harness.data.causal3dident.shapes import CLASS_NAMES
from harness.errors import UserError

OBJ = """# a pyramid, its base a quadrilateral, with textures, normals and a negative index
v 0 0 0
v 2 0 0
v 2 4 0
v 0 4 0
v 1 2 1
vn 0 0 1
f 4/1/1 3/2/1 2/3/1 1/4/1
f 1 2 -1
f 2//1 3//1 5//1
f 3 4 5
f 4 1 5
"""
OFF = """OFF
# a pyramid
5 5 0
0 0 0
2 0 0
2 4 0
0 4 0
1 2 1
4 3 2 1 0
3 0 1 4
3 1 2 4
3 2 3 4
3 3 0 4
"""
PLY = (
    "ply\nformat ascii 1.0\nelement vertex 5\nproperty float x\nproperty float y\nproperty float z\n"
    "element face 6\nproperty list uchar int vertex_indices\nend_header\n"
    "0 0 0\n2 0 0\n2 4 0\n0 4 0\n1 2 1\n3 3 2 1\n3 3 1 0\n3 0 1 4\n3 1 2 4\n3 2 3 4\n3 3 0 4\n"
)


@pytest.mark.parametrize(("name", "text"), [("a.obj", OBJ), ("a.OFF", OFF), ("a.ply", PLY)])
def test_all_formats_give_the_same_normalised_mesh(tmp_path, name, text):
    if name.endswith("ply"):
        pytest.importorskip("mitsuba")
    (tmp_path / name).write_text(text)
    vertices, faces = read_mesh(tmp_path / name)
    expected = (np.array([[0, 0, 0], [2, 0, 0], [2, 4, 0], [0, 4, 0], [1, 2, 1]]) - [1, 2, 0.5]) / 4
    np.testing.assert_allclose(vertices, expected, atol=1e-6)
    volume = np.einsum("ij,ij->", vertices[faces[:, 0]], np.cross(vertices[faces[:, 1]], vertices[faces[:, 2]])) / 6
    assert volume == pytest.approx(8 / 3 / 64)  # a third of base times height: closed, and turned outwards
    assert len(faces) == 6


def test_files_are_known_by_the_names_in_them(tmp_path):
    for name in ("big_bunny.off", "spot.obj", "maxplanck.obj", "notes.txt"):
        (tmp_path / name).write_text(OFF)
    assert {c: path.name for c, path in mesh_files(tmp_path, (1, 3, 6)).items()} == {
        1: "big_bunny.off",
        3: "spot.obj",
        6: "maxplanck.obj",
    }
    with pytest.raises(UserError, match=r"no mesh for class 0 \(teapot\)"):
        mesh_files(tmp_path, (0, 1))


def test_files_of_other_names_are_counted_through(tmp_path):
    for name in ("b.off", "a.off"):
        (tmp_path / name).write_text(OFF)
    assert [path.name for path in mesh_files(tmp_path, (0, 1)).values()] == ["a.off", "b.off"]
    with pytest.raises(UserError, match="at least 3 meshes"):
        mesh_files(tmp_path, (2,))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "does not begin with OFF"),
        ("OFF 5 5 0 1 2", "cannot be read as a mesh"),
        (OFF.replace("3 3 0 4", "3 3 0 9"), "names vertex 9, but there are 5"),
        (OFF.replace("1 2 1", "1 2 nan"), "not finite"),
        ("OFF 3 1 0 0 0 0 1 0 0 0 1 0 3 0 1 2", "at least 4 vertices"),
    ],
)
def test_a_broken_mesh_is_refused_by_name(tmp_path, text, words):
    (tmp_path / "a.off").write_text(text)
    with pytest.raises(UserError, match=rf"a\.off: .*{words}"):
        read_mesh(tmp_path / "a.off")


def test_a_broken_ply_is_refused_by_name(tmp_path):
    pytest.importorskip("mitsuba")
    (tmp_path / "a.ply").write_text("ply\nformat nonsense\n")
    with pytest.raises(UserError, match=r"a\.ply: cannot be read as a mesh"):
        read_mesh(tmp_path / "a.ply")


def test_a_folder_that_is_not_there_or_empty_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        mesh_files(tmp_path / "none", (0,))
    with pytest.raises(UserError, match=r"no \.obj, \.off or \.ply"):
        mesh_files(tmp_path, (0,))


def test_the_meshes_of_the_image_benchmark_can_be_read():
    pytest.importorskip("mitsuba")
    folder = os.environ.get("HARNESS_MESHES")
    if not folder:
        pytest.skip("HARNESS_MESHES, the folder of the benchmark's shapes, is not set")
    meshes = meshes_of(Path(folder), tuple(range(len(CLASS_NAMES))))
    for vertices, faces in meshes.values():
        assert len(faces) > 1000
        assert np.ptp(vertices, axis=0).max() == pytest.approx(1)
