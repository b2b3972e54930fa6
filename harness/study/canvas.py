"""What every figure shares: a canvas without global state, type, colours, and how it is saved."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure

from harness.files import write_atomic

INK = "#1b1f24"
#: Relative luminance of a ground below which white contrasts more than INK: where (L + 0.05)² = 1.05 (L_ink + 0.05).
INK_BELOW = 0.209
MUTED = "#6b7280"
FAINT = "#d9dde3"
EMPTY = "#f1f3f5"
#: Two hues that stay apart under every common colour-vision deficiency (Okabe and Ito).
BLUE = "#0072b2"
ORANGE = "#d55e00"

#: DejaVu comes with matplotlib: the same picture on every machine, with every sign the tables use.
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.parse_math": False,  # a $ in a name is a $
}
DPI = 200


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of the given size in inches, with its own Agg canvas."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def panel(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches from the figure's lower left corner."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def write(figure: Figure, out: Path, *, dpi: int = DPI) -> Path:
    """Save as PNG, whole or not at all, so that a reader never sees half a picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    write_atomic(out, buffer.getvalue())
    return out


def sequential(reverse: bool = False) -> Colormap:
    """A perceptually uniform map, safe for colour-blind readers and in grey; brighter is better."""
    colours = colormaps["viridis"]([0.08 + 0.9 * step / 255 for step in range(256)])
    return LinearSegmentedColormap.from_list("score", colours[::-1] if reverse else colours)


def ink_on(colour: object) -> str:
    """Black or white, whichever is easier to read on a colour (WCAG relative luminance)."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]  # type: ignore[arg-type]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "white" if luminance < INK_BELOW else INK
