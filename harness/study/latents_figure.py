"""Latents against truth, drawn from a trial's ``latents.npz``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from harness.study.canvas import BLUE, FAINT, INK, MUTED, ORANGE, STYLE, new_figure, panel, write
from harness.study.latents_file import read_latents

Array = NDArray[np.float64]

# Inches.
SIDE, GAP, LEFT, RIGHT, TOP, HEAD, LABELS = 1.45, 0.42, 0.62, 0.2, 0.42, 0.62, 0.58
ACROSS = 4
#: Latents of one block that are drawn; a larger block is cut, and the figure says so.
MOST = 12


@dataclass(frozen=True)
class Points:
    """One panel: a true latent against what the model says of it, in sds; NaN is not drawn."""

    name: str
    score: str
    true: Array
    learned: Array
    below: str


def latents_figure(npz_path: Path, out_png: Path, *, title: str = "") -> Path | None:
    """Draw each true latent against the learned one.

    A responsive latent stands against the learned responsive latent matched to it, one to one, by the largest sum of
    |Pearson r|; an invariant latent, of which only the block is identified, against its least-squares prediction
    from the learned invariant block, fitted on one half of the cells and drawn on the other.

    Parameters
    ----------
    npz_path
        With ``responsive_true`` (n, d_v), ``responsive`` (n, a), ``invariant`` (n, b), ``condition`` (n,) where 0 is
        control, ``names_responsive`` and optionally ``invariant_true`` (n, d_i) and ``names_invariant``.
    out_png
        PNG file to write.
    title
        Heading, e.g. the cell and seed.

    Returns
    -------
    Path or None
        ``out_png``; None where the file holds no true latents.

    Raises
    ------
    UserError
        If the file is missing or is not such a file.
    """
    arrays = read_latents(npz_path)
    if "responsive_true" not in arrays or arrays["responsive_true"].size == 0:
        return None
    control = np.asarray(arrays["condition"]) == 0
    responsive, invariant = _responsive(arrays), _invariant(arrays)
    with rc_context(STYLE):
        return write(_draw(responsive, invariant, control, title), out_png, dpi=130)


def match(true: Array, learned: Array) -> tuple[list[int | None], Array]:
    """Match true to learned latents one to one by the largest sum of |Pearson r|.

    Parameters
    ----------
    true
        (n, d).
    learned
        (n, a).

    Returns
    -------
    partners : of each true latent, the learned column, or None where a < d leaves none.
    correlation : (d, a) signed Pearson r; 0 where a column is constant.
    """
    centred = [x - x.mean(0) for x in (true, learned)]
    spread = [np.sqrt((x**2).sum(0)) for x in centred]
    product = np.outer(*spread)
    correlation = np.divide(centred[0].T @ centred[1], product, out=np.zeros_like(product), where=product > 1e-12)
    rows, columns = linear_sum_assignment(-np.abs(correlation))
    found = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    return [found.get(row) for row in range(true.shape[1])], correlation


def _responsive(arrays: dict[str, NDArray[np.generic]]) -> list[Points]:
    true, learned = _standardised(_matrix(arrays, "responsive_true")), _standardised(_matrix(arrays, "responsive"))
    names = _names(arrays, "names_responsive", true.shape[1])
    partners, correlation = match(true, learned)
    points = []
    for k, partner in enumerate(partners[:MOST]):
        if partner is None:
            points.append(Points(names[k], "unmatched", true[:, k], np.full(len(true), np.nan), "no latent left"))
            continue
        score = f"|r| = {abs(correlation[k, partner]):.2f}"
        points.append(Points(names[k], score, true[:, k], learned[:, partner], f"learned latent {partner}"))
    return points


def _invariant(arrays: dict[str, NDArray[np.generic]]) -> list[Points]:
    if "invariant_true" not in arrays or arrays["invariant_true"].size == 0:
        return []
    # Only the truth is standardised, so that a prediction that explains little stays flat.
    true, learned = _standardised(_matrix(arrays, "invariant_true")), _matrix(arrays, "invariant")
    if learned.size == 0:
        return []
    names = _names(arrays, "names_invariant", true.shape[1])
    fit = np.arange(len(true)) % 2 == 0
    design = np.column_stack([np.ones(len(true)), learned])
    predicted = design @ np.linalg.lstsq(design[fit], true[fit], rcond=None)[0]
    predicted[fit] = np.nan
    points = []
    for k in range(min(true.shape[1], MOST)):
        rest = true[~fit, k]
        variance = float(((rest - rest.mean()) ** 2).sum())
        residual = float(((rest - predicted[~fit, k]) ** 2).sum())
        score = f"R² = {1 - residual / variance:.2f}" if variance > 0 else "constant"
        points.append(Points(names[k], score, true[:, k], predicted[:, k], "linear prediction"))
    return points


def _matrix(arrays: dict[str, NDArray[np.generic]], name: str) -> Array:
    return np.asarray(arrays[name], dtype=float).reshape(len(arrays["condition"]), -1)


def _names(arrays: dict[str, NDArray[np.generic]], key: str, count: int) -> list[str]:
    stored = [str(name) for name in arrays[key]] if key in arrays else []
    return stored if len(stored) == count else [str(index) for index in range(count)]


def _draw(responsive: list[Points], invariant: list[Points], control: NDArray[np.bool_], title: str) -> Figure:
    blocks = [
        ("Responsive latents", "each against the learned latent matched to it", responsive, BLUE),
        ("Invariant latents", "each against its linear prediction from the learned invariant block", invariant, ORANGE),
    ]
    blocks = [block for block in blocks if block[2]]
    across = max(3, min(ACROSS, max(len(points) for _, _, points, _ in blocks)))  # 3: room for the headings
    rows = [math.ceil(len(points) / across) for _, _, points, _ in blocks]
    line = SIDE + LABELS
    width = LEFT + across * SIDE + (across - 1) * GAP + RIGHT
    height = (TOP if title else 0.1) + sum(HEAD + count * line for count in rows)
    figure = new_figure(width, height)
    if title:
        figure.text(0.2 / width, 1 - 0.24 / height, title, fontsize=11, fontweight="bold", va="center")
    y = height - (TOP if title else 0.1)
    for (name, under, points, colour), count in zip(blocks, rows, strict=True):
        figure.text(0.2 / width, (y - 0.14) / height, name, fontsize=10, fontweight="bold", va="center", color=colour)
        cut = f"; the first {MOST} are drawn" if len(points) == MOST else ""
        figure.text(
            0.2 / width,
            (y - 0.32) / height,
            f"{under}; in sds, control cells dark{cut}",
            fontsize=7.5,
            va="center",
            color=MUTED,
        )
        for index, one in enumerate(points):
            row, column = divmod(index, across)
            top = y - HEAD - row * line
            axes = panel(figure, LEFT + column * (SIDE + GAP), top - SIDE, SIDE, SIDE)
            _scatter(axes, one, control, colour)
        y -= HEAD + count * line
    return figure


def _scatter(axes: Axes, one: Points, control: NDArray[np.bool_], colour: str) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=2, color=FAINT, labelsize=6.5)
    axes.set_xlim(-3.4, 3.4)
    axes.set_ylim(-3.4, 3.4)
    axes.set_xticks([-2, 0, 2])
    axes.set_yticks([-2, 0, 2])
    for chosen, shade, strength in ((~control, colour, 0.35), (control, INK, 0.25)):
        axes.plot(
            one.true[chosen], one.learned[chosen], ".", ms=2.2, mew=0, alpha=strength, color=shade, rasterized=True
        )
    axes.set_title(f"{one.name[:16]}   {one.score}", fontsize=8.2, loc="left", pad=4, fontweight="bold")
    axes.set_xlabel("true", fontsize=7, labelpad=1, color=MUTED)
    axes.set_ylabel(one.below, fontsize=7, labelpad=1, color=MUTED)


def _standardised(values: Array) -> Array:
    """Columns in sds about their mean; a constant column stays at zero."""
    centred = values - values.mean(0)
    spread = values.std(0)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-12)
