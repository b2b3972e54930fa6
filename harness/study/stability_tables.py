"""How often each edge and each target is found over the seeds of a cell, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from harness.study.across_seeds import Agreement

_EDGES = ("cell", "trials", "named_by", "from", "to", "frequency", "mean_weight", "same_sign")
_TARGETS = ("cell", "trials", "named_by", "perturbation", "latent", "frequency")
Cells = Sequence[str | int | float]


def stability_tables(agreed: Iterable[Agreement]) -> dict[str, str]:
    """Tables of what at least one seed found, by file name; those without a row are left out.

    Latents are numbered as in the trial ``named_by``; weights are in sds of the latents, with its signs.
    """
    agreed = tuple(agreed)
    tables = {
        "edges_across_seeds.csv": (_EDGES, [row for one in agreed for row in _edges(one)]),
        "targets_across_seeds.csv": (_TARGETS, [row for one in agreed for row in _targets(one)]),
    }
    return {name: _csv(head, rows) for name, (head, rows) in tables.items() if rows}


def _edges(one: Agreement) -> Iterator[Cells]:
    found = one.frequencies
    if found is None or found.edges is None or found.weights is None or found.same_sign is None:
        return
    for into, source in np.argwhere(found.edges > 0).tolist():
        scores = (float(table[into, source]) for table in (found.edges, found.weights, found.same_sign))
        yield one.cell, one.trials, one.named_by, _latent(source), _latent(into), *(round(score, 4) for score in scores)


def _targets(one: Agreement) -> Iterator[Cells]:
    found = one.frequencies
    if found is None or found.targets is None or len(one.perturbations) != len(found.targets):
        return
    for which, latent in np.argwhere(found.targets > 0).tolist():
        share = round(float(found.targets[which, latent]), 4)
        yield one.cell, one.trials, one.named_by, one.perturbations[which], _latent(latent), share


def _latent(number: int) -> str:
    """The name that an export of the trial's programs gives it."""
    return f"responsive_{number + 1}"


def _csv(head: Sequence[str], rows: Iterable[Cells]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return buffer.getvalue()
