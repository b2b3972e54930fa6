"""Latent programs as CSV files, which pandas and R read as they are."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from harness import __version__
from harness.evaluation.graph import EDGE
from harness.predicting import units_of
from harness.programs import Array, Programs
from harness.trial_spec import TrialSpec

Cell = str | int | float
_TOP = ("latent", "cells", "direction", "rank", "gene", "change_per_sd")
_EFFECTS = ("perturbation", "latent", "shift_sd", "target_probability")


def tables_of(programs: Programs, spec: TrialSpec, *, top: int, threshold: float = EDGE) -> dict[str, str]:
    """Every table, by file name, and ``about.json``, which says what is in them.

    Parameters
    ----------
    programs
        As `harness.programs.programs_of` reads them.
    spec
        Of the trial.
    top
        Genes listed of each latent and direction.
    threshold
        Least |weight|, in sds, of what counts as an edge.

    Returns
    -------
    ``top_genes.csv``, ``loadings_control.csv``, ``loadings_perturbed.csv``; ``effects.csv`` where the model knows
    perturbations, ``graph.csv`` where it has a graph.
    """
    kinds = {"control": programs.control, "perturbed": programs.perturbed}
    listed = (row for name, loadings in kinds.items() for row in _top(programs, name, loadings, top))
    tables = {"top_genes.csv": _csv(_TOP, listed)}
    for name, loadings in kinds.items():
        tables[f"loadings_{name}.csv"] = _csv(("gene", *programs.latents), _loadings(programs, loadings))
    if programs.shifts is not None:
        tables["effects.csv"] = _csv(_EFFECTS, _effects(programs, programs.shifts))
    if programs.graph is not None:
        tables["graph.csv"] = _csv(("from", "to", "weight", "threshold"), _edges(programs, threshold))
    tables["about.json"] = json.dumps(_about(programs, spec, threshold), indent=1, ensure_ascii=False) + "\n"
    return tables


def strongest(loadings: Array, top: int) -> NDArray[np.intp]:
    """Places of the ``top`` largest values, largest first, without those that are not positive; (k,) int."""
    order = np.argsort(-loadings, kind="stable")[:top]
    kept: NDArray[np.intp] = order[loadings[order] > 0]
    return kept


def _loadings(programs: Programs, loadings: Array) -> Iterator[Sequence[Cell]]:
    for gene, changes in zip(programs.genes, loadings.T, strict=True):
        yield gene, *_rounded(changes)


def _top(programs: Programs, cells: str, loadings: Array, top: int) -> Iterator[Sequence[Cell]]:
    for latent, changes in zip(programs.latents, loadings, strict=True):
        for direction, sign in (("up", 1.0), ("down", -1.0)):
            places = strongest(sign * changes, top).tolist()
            for rank, place in enumerate(places, start=1):
                yield latent, cells, direction, rank, programs.genes[place], *_rounded(changes[[place]])


def _effects(programs: Programs, shifts: Array) -> Iterator[Sequence[Cell]]:
    targets = programs.targets
    for row, perturbation in enumerate(programs.perturbations):
        for column, latent in enumerate(programs.latents[: programs.responsive]):
            surely: Cell = "" if targets is None else _rounded(targets[row, [column]])[0]
            yield perturbation, latent, *_rounded(shifts[row, [column]]), surely


def _edges(programs: Programs, threshold: float) -> Iterator[Sequence[Cell]]:
    """Edges, strongest first."""
    graph = np.zeros((0, 0)) if programs.graph is None else programs.graph
    places = np.argwhere(np.abs(graph) >= threshold)
    strength = np.abs(graph[places[:, 0], places[:, 1]])
    for into, source in places[np.argsort(-strength, kind="stable")].tolist():
        yield programs.latents[source], programs.latents[into], *_rounded(graph[into, [source]]), threshold


def _about(programs: Programs, spec: TrialSpec, threshold: float) -> dict[str, object]:
    cells = ", ".join(f"{count:,} {name}" for name, count in programs.cells.items())
    return {
        "trial_id": spec.trial_id,
        "model": spec.model.kind,
        "data_fingerprint": spec.data_fingerprint,
        "version": __version__,
        "units": units_of(spec),
        "cells": programs.cells,
        "sd_of_latents": dict(zip(programs.latents, _rounded(programs.spread), strict=True)),
        "edge_threshold": threshold,
        "files": {
            "top_genes.csv": "of each latent the genes that rise and fall most with it; changes as in the loadings",
            "loadings_control.csv, loadings_perturbed.csv": (
                "change of each gene's expression, in the units above, as a latent rises by one sd, all others held: "
                f"the decoder's Jacobian, mean over cells of the training split ({cells}). The sd of a latent is that "
                "among control cells of the training split; a latent's sign and order mean nothing by themselves"
            ),
            "effects.csv": (
                "shift_sd: mean of a responsive latent under the perturbation less that under none, predicted from the "
                "same control cells, in the same sds; target_probability: how surely the perturbation acts on the "
                "latent itself, empty where the model has no targets"
            ),
            "graph.csv, graph.png, graph.svg": (
                "edges among responsive latents without a perturbation, |weight| at least edge_threshold; weights in "
                "sds of the latents among test cells, as identifiability/graph_f1 reads them"
            ),
        },
    }


def _rounded(values: Array) -> list[float]:
    """Six significant digits."""
    return [float(f"{value:.6g}") for value in values.tolist()]


def _csv(head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return buffer.getvalue()
