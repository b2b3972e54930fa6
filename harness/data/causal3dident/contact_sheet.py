"""A sheet of pictures that shows what each latent does to each class: classes down, latents across."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.causal3dident.scene import COLUMNS, OBJECT_SIZE
from harness.data.causal3dident.shapes import CLASS_NAMES
from harness.files import write_atomic
from harness.outputs import refuse_taken, writing

Pixels = NDArray[np.uint8]

#: Values each latent is shown at, above each other, while the others stay where the first column has them.
VALUES = (-0.8, 0.8)
#: The scene of the first column: object, ground and light of different hues, nothing at the end of its range.
REST = {"psi": 0.6, "spotlight": 0.4, "hue_object": 0.25, "hue_spotlight": 0.6, "hue_background": -0.7}
#: Pixels between the pictures of a cell and between cells, and around them all for words.
NARROW, WIDE, LEFT, TOP, MARGIN = 2, 8, 78, 76, 14
DPI = 100
INK = "#1b1f24"


def contact_sheet(
    out: Path,
    *,
    meshes: Path | None = None,
    mesh_up: str | Mapping[Any, str] = "z",
    image_size: int = 80,
    samples: int = 64,
    object_size: float = OBJECT_SIZE,
    classes: Sequence[int] = tuple(range(len(CLASS_NAMES))),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Draw classes at rest and with each of the ten latents at two values, as a labelled PNG.

    Parameters
    ----------
    out
        New file, ``.png``.
    meshes
        Folder of meshes in place of our shapes, as ``data.meshes``.
    mesh_up
        As ``data.mesh_up``.
    image_size
        Pixels a side of each picture, which the sheet shows one to one.
    samples
        Light paths a pixel.
    object_size
        As ``data.object_size``.
    classes
        Rows of the sheet, as ``data.classes``.
    progress
        Called with pictures done and pictures in all.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    UserError
        If ``out`` is no ``.png``, is there already or cannot be written, Mitsuba is missing or a mesh cannot be used.
    """
    refuse_taken(out, ending=".png")  # before minutes of drawing
    from harness.data.causal3dident.meshes import meshes_of
    from harness.data.causal3dident.worker import Draughtsman

    draughtsman = Draughtsman(meshes_of(meshes, classes, mesh_up), image_size, samples, object_size)
    scenes = sheet_scenes()
    total = len(classes) * len(scenes)
    rows: list[Pixels] = []
    for class_id in classes:
        progress(len(rows) * len(scenes), total)
        rows.append(draughtsman.draw(np.full(len(scenes), class_id), scenes, np.arange(len(scenes))))
    progress(total, total)
    names = [CLASS_NAMES[class_id] for class_id in classes]
    sheet = _png(_labelled(np.stack(rows), names), colours=256)
    refuse_taken(out)
    with writing(out):
        write_atomic(out, sheet)
    return out


def sheet_scenes() -> NDArray[np.float64]:
    """Latents (1 + 10 · values, 10) of a row's pictures: at rest, then each latent at each of `VALUES`."""
    rest = np.array([REST.get(name, 0.0) for name in COLUMNS])
    scenes = np.tile(rest, (1 + len(COLUMNS) * len(VALUES), 1))
    for column in range(len(COLUMNS)):
        for place, value in enumerate(VALUES):
            scenes[1 + column * len(VALUES) + place, column] = value
    return scenes


def _labelled(pictures: Pixels, names: Sequence[str]) -> Any:
    """The figure of pictures (classes, 1 + 10 · values, 3, size, size) of classes of these names."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = pictures.shape[-1]
    sheet = _arranged(pictures)
    height, width = sheet.shape[0] + TOP + MARGIN, sheet.shape[1] + LEFT + MARGIN
    with rc_context({"font.family": "DejaVu Sans", "text.color": INK}):
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        figure.figimage(sheet, LEFT, MARGIN)

        def write(text: str, x: float, y: float, **how: Any) -> None:
            figure.text(x / width, 1 - y / height, text, va="center", **how)

        write("What each latent does", MARGIN, 18, fontsize=12, fontweight="bold")
        shown = " and ".join(f"{value:g}".replace("-", "−") for value in VALUES)
        under = f"each at {shown}, from above, the others as in the first column; the range of each is −1 to 1"
        write(under, MARGIN, 38, fontsize=8)
        for column, name in enumerate(("at rest", *COLUMNS)):
            words = name.replace("_", "\n", 1)
            write(words, LEFT + column * (size + WIDE) + size / 2, TOP - 16, ha="center", fontsize=8.5)
        for row, name in enumerate(names):
            middle = TOP + row * (_cell_height(size) + WIDE) + _cell_height(size) / 2
            write(name, MARGIN, middle, fontsize=8.5)
    return figure


def _cell_height(size: int) -> int:
    return len(VALUES) * size + (len(VALUES) - 1) * NARROW


def _arranged(pictures: Pixels) -> Pixels:
    """All pictures in their places on white, (height, width, 3)."""
    classes, count, _, size, _ = pictures.shape
    down, across = _cell_height(size) + WIDE, size + WIDE
    columns = 1 + (count - 1) // len(VALUES)
    sheet = np.full((classes * down - WIDE, columns * across - WIDE, 3), 255, dtype=np.uint8)
    for row in range(classes):
        for k in range(count):
            column, place = (0, 0) if k == 0 else (1 + (k - 1) // len(VALUES), (k - 1) % len(VALUES))
            # the one picture at rest stands in the middle of its cell
            top = row * down + ((_cell_height(size) - size) // 2 if k == 0 else place * (size + NARROW))
            left = column * across
            sheet[top : top + size, left : left + size] = pictures[row, k].transpose(1, 2, 0)
    return sheet


def _png(figure: Any, colours: int | None) -> bytes:
    """The figure as PNG, in its own colours or so many: of 256, a third of the bytes and no difference to be seen."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI, metadata={"Software": None})
    if colours is None:
        return drawn.getvalue()
    small = io.BytesIO()
    image = Image.open(drawn).convert("RGB")
    image.quantize(colours, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()
