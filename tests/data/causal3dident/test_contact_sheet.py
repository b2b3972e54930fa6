"""The sheet of what each latent does: which pictures it holds, where, and how it is written."""

import numpy as np
import pytest
from PIL import Image

from harness.data.causal3dident import contact_sheet as module
from harness.data.causal3dident.contact_sheet import LEFT, NARROW, TOP, VALUES, WIDE, contact_sheet, sheet_scenes
from harness.data.causal3dident.renderer import Renderer
from harness.data.causal3dident.scene import COLUMNS
from harness.data.causal3dident.shapes import shape
from harness.errors import UserError


def test_each_latent_is_moved_alone_to_each_value():
    rest, *moved = sheet_scenes()
    assert len(moved) == len(COLUMNS) * len(VALUES)
    for k, scene in enumerate(moved):
        column = k // len(VALUES)
        assert np.flatnonzero(scene != rest).tolist() == [column]
        assert scene[column] == VALUES[k % len(VALUES)]


@pytest.fixture
def no_palette(monkeypatch):
    """Pixels as they are drawn, not the nearest of 256 colours."""
    write = module._png

    def keep(figure, colours):
        return write(figure, colours=None)

    monkeypatch.setattr(module, "_png", keep)


def test_the_picture_of_a_class_and_latent_stands_in_its_cell(tmp_path, no_palette):
    pytest.importorskip("mitsuba")
    calls = []
    out = contact_sheet(
        tmp_path / "sheet.png",
        image_size=16,
        samples=1,
        classes=(3, 5),
        progress=lambda *call: calls.append(call),
    )
    sheet = np.asarray(Image.open(out).convert("RGB"))
    scenes = sheet_scenes()
    renderer = Renderer(shape(5), 16, 1)
    psi = COLUMNS.index("psi")
    for place in range(2):
        row = 1 + psi * 2 + place
        top = TOP + (2 * 16 + NARROW + WIDE) + place * (16 + NARROW)
        left = LEFT + (1 + psi) * (16 + WIDE)
        cell = sheet[top : top + 16, left : left + 16].transpose(2, 0, 1)
        np.testing.assert_array_equal(cell, renderer.render(scenes[row], row))
    assert calls == [(0, 42), (21, 42), (42, 42)]
    assert (sheet[:TOP] < 128).any(axis=2).sum() > 100  # words, above the pictures
    assert (sheet[TOP:, :LEFT] < 128).any(axis=2).sum() > 20  # and beside them


def test_the_sheet_is_written_in_few_colours(tmp_path):
    pytest.importorskip("mitsuba")
    out = contact_sheet(tmp_path / "sheet.png", image_size=16, samples=1, classes=(0,))
    assert Image.open(out).mode == "P"


def test_a_sheet_of_a_folder_of_meshes(tmp_path):
    pytest.importorskip("mitsuba")
    corners = "".join(f"v {x} {y} {z}\n" for x, y, z in ((0, 0, 0), (1, 0, 0), (0, 2, 0), (0, 0, 3)))
    (tmp_path / "cow.obj").write_text(corners + "f 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n")
    how = {"meshes": tmp_path, "classes": (3,), "image_size": 16, "samples": 1}
    plain, turned = (
        contact_sheet(tmp_path / f"{name}.png", mesh_up=up, **how).read_bytes()
        for name, up in (("plain", "z"), ("turned", {"cow": "y"}))
    )
    assert plain != turned


def test_a_sheet_is_a_png(tmp_path):
    with pytest.raises(UserError, match=r"sheet\.jpg: what is written is \.png"):
        contact_sheet(tmp_path / "sheet.jpg")


def test_a_sheet_that_is_there_is_kept_and_its_folder_is_not_made(tmp_path):
    (tmp_path / "sheet.png").write_text("mine")
    with pytest.raises(UserError, match=r"sheet\.png: is there already"):
        contact_sheet(tmp_path / "sheet.png")
    with pytest.raises(UserError, match="its folder is not there"):
        contact_sheet(tmp_path / "new" / "sheet.png")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
