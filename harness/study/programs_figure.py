"""Latent programs as a drawing for a paper: perturbations, the latents they act on, the graph, and each one's genes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch

from harness.evaluation.graph import EDGE, TARGET
from harness.files import write_atomic
from harness.programs import Array, Programs
from harness.programs_tables import strongest
from harness.study.canvas import BLUE, INK, MUTED, ORANGE, STYLE, new_figure, panel
from harness.words import first

# Inches.
ROW, RADIUS, WIDTH, NODE, ARCS, HEAD, FOOT = 0.5, 0.14, 7.2, 3.0, 1.6, 0.4, 0.66
#: Latents that are drawn, perturbations named beside each, and genes of either direction.
MOST_LATENTS, MOST_PERTURBATIONS, MOST_GENES = 30, 3, 4
#: Without targets a perturbation is drawn to act where it shifts a latent by at least this many sds.
SHIFT = 0.5


def draw_programs(programs: Programs, out: Path, *, title: str = "", threshold: float = EDGE) -> tuple[Path, Path]:
    """Draw ``graph.png`` and ``graph.svg`` into a folder.

    Latents stand below each other in causal order; arcs beside them are the edges of the control graph, blue where a
    latent raises another, orange where it lowers it, and as wide as they are strong. From the left point the
    perturbations that act on a latent, on its right are the genes that rise and fall most with it.

    Parameters
    ----------
    programs
        As `harness.programs.programs_of` reads them.
    out
        The folder.
    title
        Heading.
    threshold
        Least |weight| of an edge.

    Returns
    -------
    The two files.
    """
    chosen = shown_latents(programs, threshold)
    files = out / "graph.png", out / "graph.svg"
    with rc_context(STYLE | {"svg.fonttype": "none", "svg.hashsalt": "harness"}):
        figure = _draw(programs, chosen, title, threshold)
        for path, kind in zip(files, ("png", "svg"), strict=True):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata={"Software": None} if kind == "png" else {"Date": None})
            write_atomic(path, buffer.getvalue())
    return files


def shown_latents(programs: Programs, threshold: float = EDGE) -> list[int]:
    """Responsive latents that are drawn, in causal order: all, or those with most edges and perturbations."""
    count = programs.responsive
    if count <= MOST_LATENTS:
        return list(range(count))
    edges = np.zeros((count, count)) if programs.graph is None else np.abs(programs.graph) >= threshold
    busy = edges.sum(axis=0) + edges.sum(axis=1) + _acts(programs).sum(axis=0)
    return sorted(np.argsort(-busy, kind="stable")[:MOST_LATENTS].tolist())


def acting_on(programs: Programs, latent: int) -> list[str]:
    """Perturbations that act on a latent, the strongest first, each with its sign where its shift is known."""
    acts, shifts = _acts(programs)[:, latent], programs.shifts
    strength = np.zeros(len(acts)) if shifts is None else shifts[:, latent]
    order = np.argsort(-np.abs(strength), kind="stable")
    signs = np.where(strength > 0, "+", "−") if shifts is not None else np.full(len(acts), "")
    return [f"{programs.perturbations[row]} {signs[row]}".strip() for row in order.tolist() if acts[row]]


def _acts(programs: Programs) -> Array:
    """(p, d_v) 1 where a perturbation is drawn to act on a latent."""
    if programs.targets is not None:
        return (programs.targets >= TARGET).astype(float)
    if programs.shifts is not None:
        return (np.abs(programs.shifts) >= SHIFT).astype(float)
    return np.zeros((len(programs.perturbations), programs.responsive))


def _draw(programs: Programs, chosen: Sequence[int], title: str, threshold: float) -> Figure:
    height = HEAD + ROW * len(chosen) + FOOT
    figure = new_figure(WIDTH, height)
    axes = panel(figure, 0, 0, WIDTH, height)
    axes.set(xlim=(0, WIDTH), ylim=(0, height))
    axes.axis("off")
    middle = {latent: height - HEAD - ROW * (place + 0.5) for place, latent in enumerate(chosen)}
    axes.text(0.1, height - 0.12, title, va="top", size=10, weight="bold")
    for latent, y in middle.items():
        _draw_row(axes, programs, latent, y)
    _draw_edges(axes, programs, middle, threshold)
    axes.text(0.1, 0.1, "\n".join(_legend(programs, chosen, threshold)), va="bottom", size=6.5, color=MUTED)
    return figure


def _draw_row(axes: Axes, programs: Programs, latent: int, y: float) -> None:
    """One latent: its node, the perturbations that act on it, and its genes."""
    axes.add_patch(Circle((NODE, y), RADIUS, facecolor="white", edgecolor=INK, linewidth=1.0, zorder=3))
    axes.text(NODE, y, str(latent + 1), ha="center", va="center", size=7.5, zorder=4)
    names = acting_on(programs, latent)
    if names:
        axes.text(NODE - 0.62, y, first(names, MOST_PERTURBATIONS), ha="right", va="center", size=7.5)
        axes.add_patch(_arrow((NODE - 0.57, y), (NODE - RADIUS, y), MUTED, 0.9))
    for sign, mark, offset, colour in ((1.0, "▲", 0.09, BLUE), (-1.0, "▼", -0.09, ORANGE)):
        genes = [programs.genes[place] for place in strongest(sign * programs.control[latent], MOST_GENES).tolist()]
        if genes:
            axes.text(NODE + ARCS, y + offset, mark, va="center", size=6, color=colour)
            axes.text(NODE + ARCS + 0.14, y + offset, ", ".join(genes), va="center", size=7, style="italic")


def _draw_edges(axes: Axes, programs: Programs, middle: dict[int, float], threshold: float) -> None:
    for source, into, weight in shown_edges(programs, list(middle), threshold):
        start, end = (NODE + RADIUS, middle[source]), (NODE + RADIUS, middle[into])
        span = abs(start[1] - end[1])
        # an arc bulges by half its curvature times its span: never into the genes
        curvature = min(0.6, 2.0 * (ARCS - 0.4) / span)
        colour = BLUE if weight > 0 else ORANGE
        axes.add_patch(_arrow(start, end, colour, min(0.6 + 1.4 * abs(weight), 3.0), curvature))


def shown_edges(programs: Programs, chosen: Sequence[int], threshold: float) -> Iterator[tuple[int, int, float]]:
    """Edges among some latents: from, to and weight."""
    if programs.graph is None:
        return
    for into, source in np.argwhere(np.abs(programs.graph) >= threshold).tolist():
        if into in chosen and source in chosen:
            yield source, into, float(programs.graph[into, source])


def _arrow(
    start: tuple[float, float], end: tuple[float, float], colour: str, width: float, curvature: float = 0.0
) -> FancyArrowPatch:
    # from above to below, an arc with a negative radius bulges to the right
    turn = -curvature if start[1] > end[1] else curvature
    return FancyArrowPatch(
        start,
        end,
        connectionstyle=f"arc3,rad={turn}",
        arrowstyle="-|>,head_length=3.2,head_width=1.8",
        color=colour,
        linewidth=width,
        shrinkA=0,
        shrinkB=1,
        zorder=2,
    )


def _legend(programs: Programs, chosen: Sequence[int], threshold: float) -> list[str]:
    if programs.targets is not None:
        acts = f"perturbations whose target a latent is (probability at least {TARGET:g}), + where they raise it"
    elif programs.shifts is not None:
        acts = f"perturbations that shift a latent by at least {SHIFT:g} sd, + where they raise it"
    else:
        acts = "no perturbations, which this model does not know"
    cut = f"; {len(chosen)} of {programs.responsive} latents" if len(chosen) < programs.responsive else ""
    return [
        f"Left: {acts}.",
        f"{_about_arcs(programs, chosen, threshold)}{cut}.",
        "Right: genes that rise (▲) and fall (▼) most with the latent, in control cells.",
    ]


def _about_arcs(programs: Programs, chosen: Sequence[int], threshold: float) -> str:
    """What arcs mean, or why there are none."""
    if programs.graph is None:
        return "No arcs: this model has no graph"
    least = f"at least {threshold:g} sd per sd"
    if any(shown_edges(programs, chosen, threshold)):
        return f"Arcs: edges of {least}, blue where a latent raises another, orange where it lowers it"
    strongest_edge = float(np.abs(programs.graph[np.ix_(chosen, chosen)]).max(initial=0.0))
    found = f"; the strongest has {strongest_edge:.2g}" if strongest_edge else ""
    return f"No arcs: between these latents no edge of {least} was learned{found}"
