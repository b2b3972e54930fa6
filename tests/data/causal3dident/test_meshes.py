"""Meshes of the user's folder: three formats, classes by name, which axis points up, named faults."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from harness.data.causal3dident.meshes import mesh_files, meshes_of, read_mesh, turned, up_axis
from harness.data.causal3dident.shapes import CLASS_NAMES, shape
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
    "element face 5\nproperty list uchar int vertex_indices\nend_header\n"
    "0 0 0\n2 0 0\n2 4 0\n0 4 0\n1 2 1\n4 3 2 1 0\n3 0 1 4\n3 1 2 4\n3 2 3 4\n3 3 0 4\n"
)
CORNERS = [(0, 0, 0), (2, 0, 0), (2, 4, 0), (0, 4, 0), (1, 2, 1)]
TRIANGLES = [(2, 1, 0), (3, 2, 0), (0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4)]
POLYGONS = [(3, 2, 1, 0), *TRIANGLES[2:]]


def binary_ply(order, faces):
    """The pyramid, with a colour and a quality that are of no use here, and an element before its faces."""
    words = {"<": "little", ">": "big"}[order]
    header = (
        f"ply\nformat binary_{words}_endian 1.0\ncomment made by hand\nelement vertex 5\nproperty double x\n"
        "property double y\nproperty double z\nproperty uchar red\nelement edge 1\nproperty int32 vertex1\n"
        f"element face {len(faces)}\nproperty float32 quality\nproperty list uint8 uint32 vertex_index\nend_header\n"
    )
    body = b"".join(struct.pack(f"{order}dddB", *corner, 200) for corner in CORNERS) + struct.pack(f"{order}i", 7)
    for face in faces:
        body += struct.pack(f"{order}fB{len(face)}I", 0.5, len(face), *face)
    return header.encode() + body


FILES = {
    "a.obj": OBJ.encode(),
    "a.OFF": OFF.encode(),
    "text.ply": PLY.encode(),
    "little.ply": binary_ply("<", TRIANGLES),
    "big.ply": binary_ply(">", TRIANGLES),
    "mixed.ply": binary_ply("<", POLYGONS),
    "carriage.ply": PLY.replace("\n", "\r\n").encode(),
}


@pytest.mark.parametrize("name", FILES)
def test_all_formats_give_the_same_normalised_mesh(tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name])
    vertices, faces = read_mesh(tmp_path / name)
    expected = (np.array(CORNERS) - [1, 2, 0.5]) / 4
    np.testing.assert_allclose(vertices, expected, atol=1e-6)
    volume = np.einsum("ij,ij->", vertices[faces[:, 0]], np.cross(vertices[faces[:, 1]], vertices[faces[:, 2]])) / 6
    assert volume == pytest.approx(8 / 3 / 64)  # a third of base times height: closed, and turned outwards
    assert len(faces) == 6


@pytest.mark.parametrize("up", ["x", "y", "z", "-x", "-y", "-z"])
def test_a_mesh_is_turned_so_that_its_axis_points_up_and_is_not_mirrored(up):
    mesh = shape(3)
    after = turned(mesh, up)
    expected = mesh.vertices[:, "xyz".index(up[-1])] * (-1 if up[0] == "-" else 1)
    np.testing.assert_array_equal(after.vertices[:, 2], expected)
    turn, *_ = np.linalg.lstsq(mesh.vertices, after.vertices, rcond=None)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(turn) == pytest.approx(1)


def test_a_model_with_y_up_that_looks_along_z_looks_at_the_camera():
    tip = turned(shape(0)._replace(vertices=np.array([[0.0, 0.0, 1.0]])), "y")
    np.testing.assert_array_equal(tip.vertices, [[1, 0, 0]])


def test_each_class_has_its_own_axis_and_z_where_none_is_named(tmp_path):
    for name in ("teapot.obj", "hare.obj", "cow.obj"):
        (tmp_path / name).write_text(OBJ)
    plain = meshes_of(tmp_path, (0, 1, 3))
    mixed = meshes_of(tmp_path, (0, 1, 3), {"teapot": "y", "cow": "-z"})
    np.testing.assert_array_equal(mixed[0].vertices, turned(plain[0], "y").vertices)
    np.testing.assert_array_equal(mixed[1].vertices, plain[1].vertices)
    np.testing.assert_array_equal(mixed[3].vertices, turned(plain[3], "-z").vertices)
    np.testing.assert_array_equal(meshes_of(tmp_path, (1,), "x")[1].vertices, turned(plain[1], "x").vertices)
    assert [up_axis("-y", 4), up_axis({"head": "y"}, 6), up_axis({"head": "y"}, 0)] == ["-y", "y", "z"]


@pytest.mark.parametrize("inwards", [False, True])
def test_faces_look_outwards_whichever_way_they_do_in_the_file(tmp_path, inwards):
    faces = ((0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3))  # counter-clockwise, seen from outside
    lines = ["v 0 0 0", "v 1 0 0", "v 0 1 0", "v 0 0 1"]
    lines += ["f " + " ".join(str(corner + 1) for corner in (face[::-1] if inwards else face)) for face in faces]
    (tmp_path / "corner.obj").write_text("\n".join(lines) + "\n")
    vertices, faces = read_mesh(tmp_path / "corner.obj")
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outwards = corners.mean(axis=1) - vertices.mean(axis=0)
    assert (np.einsum("ij,ij->i", normals, outwards) > 0).all()


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


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "header from ply to end_header"),
        (b"ply\nformat nonsense 1.0\nend_header\n", "its format is nonsense, and must be ascii"),
        (PLY.replace("float z", "float w").encode(), "it has no z"),
        (PLY.replace("element face 5", "element polygon 5").encode(), "it has no face"),
        (PLY.replace("float x", "real x").encode(), "the type real, which PLY does not have"),
        (PLY.removesuffix("0 4\n").encode(), "ends before its last row"),
        (PLY.replace("0 0 0\n", "zero 0 0\n").encode(), "could not convert"),
        (FILES["little.ply"][:-3], "cannot be read as a mesh"),
        (FILES["mixed.ply"][:-3], "cannot be read as a mesh"),
    ],
)
def test_a_broken_ply_is_refused_by_name(tmp_path, content, words):
    (tmp_path / "a.ply").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.ply: cannot be read as a mesh .*{words}|a\.ply: {words}"):
        read_mesh(tmp_path / "a.ply")


def test_a_folder_that_is_not_there_or_empty_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        mesh_files(tmp_path / "none", (0,))
    with pytest.raises(UserError, match=r"no \.obj, \.off or \.ply"):
        mesh_files(tmp_path, (0,))


def test_the_meshes_of_the_image_benchmark_can_be_read():
    folder = os.environ.get("HARNESS_MESHES")
    if not folder:
        pytest.skip("HARNESS_MESHES, the folder of the benchmark's shapes, is not set")
    meshes = meshes_of(Path(folder), tuple(range(len(CLASS_NAMES))))
    for vertices, faces in meshes.values():
        assert len(faces) > 1000
        assert np.ptp(vertices, axis=0).max() == pytest.approx(1)
