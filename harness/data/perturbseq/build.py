"""From an ``.h5ad`` file, given or simulated, to the one data type: the same steps for both."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.data.batch import PerturbationData, Truth
from harness.data.cache import built_once
from harness.data.latent_process import draw_mechanisms
from harness.data.later import hold_out_later
from harness.data.partners import draw_controls
from harness.data.perturbseq.labels import CONTROL, PAIR_FORMS, Labels, members_of, read_labels
from harness.data.perturbseq.reader import CellFile, Expression, expression_matrix, read_expression
from harness.data.perturbseq.simulator import design_of, simulate
from harness.data.perturbseq.splits import TEST_SHARE, Assignment, Rows, singles_to_doubles
from harness.data_spec import PerturbseqData
from harness.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Layout:
    """Which cells of the file make which rows.

    Attributes
    ----------
    splits : name -> rows of ``index``.
    assignment : the same splits and what goes with them, numbered as all rows of the file.
    index : (n, T) cells of each row in use, positions in ``cells``.
    conditions : canonical condition of each row in use.
    cells : rows of the file that are in use, ascending.
    """

    splits: dict[str, Rows]
    assignment: Assignment
    index: Rows
    conditions: list[str]
    cells: Rows


def build(spec: PerturbseqData, fingerprint: str, cache_dir: Path) -> PerturbationData:
    """Read a file, or simulate one first, and lay out its cells.

    A file's cells are pairs of a control and a perturbed cell drawn at random (``pairs: random``), since the assay
    destroys the cell. Simulated cells come with their control twins unless ``pairs`` says otherwise, with truth and
    targets.

    Parameters
    ----------
    spec
        The study file's ``data``.
    fingerprint
        Of this data.
    cache_dir
        Where simulated counts are kept, one file a fingerprint.

    Raises
    ------
    UserError
        If the file cannot be used; see the reader, the labels and the splits.
    """
    assert isinstance(spec.seed, int), "the plan resolves data.seed: per_trial"
    with CellFile(_path(spec, fingerprint, cache_dir)) as file:
        where = str(file.path) if spec.path else "simulated counts (sizes: data.cells, data.environments)"
        labels = read_labels(file.obs, where, spec.column, spec.control)
        layout = _lay_out(spec, file, labels, where)
        expression = read_expression(file, layout.cells, spec.values)
        log.info("%s", _sentence(file, labels, expression.source, expression.held))
        truth = None if spec.path else _truth(spec, file, layout)
        genes = file.genes
    conditions = layout.assignment.conditions
    number = {name: k for k, name in enumerate(conditions)}
    condition = torch.tensor([number[name] for name in layout.conditions], dtype=torch.int64)
    data = PerturbationData(
        frames=torch.from_numpy(expression.values),
        index=torch.from_numpy(layout.index),
        u=_multi_hot(layout.assignment)[condition],
        condition=condition,
        conditions=conditions,
        perturbations=layout.assignment.perturbations,
        splits={name: torch.from_numpy(rows) for name, rows in layout.splits.items()},
        ood=layout.assignment.ood,
        pairs=spec.pairs,
        fingerprint=fingerprint,
        targets=None if spec.path else _targets(spec, layout.assignment.perturbations),
        truth=truth,
        feature_names=genes,
        excluded=layout.assignment.excluded,
        quality=_quality(labels, layout, expression),
        library=None if expression.library is None else torch.from_numpy(expression.library),
    )
    return hold_out_later(data, 0 if spec.path else spec.process.held_out_steps)


def describe(spec: PerturbseqData) -> str:
    """One sentence on what a file was found to hold, without reading its matrix whole.

    Raises
    ------
    UserError
        If ``spec.path`` is not set, or the file cannot be used.
    """
    if spec.path is None:
        raise UserError("data.path is not set: simulated counts have no file to look into; set it to an .h5ad file")
    with CellFile(Path(spec.path)) as file:
        labels = read_labels(file.obs, str(file.path), spec.column, spec.control)
        return _sentence(file, labels, *expression_matrix(file, spec.values))


def _path(spec: PerturbseqData, fingerprint: str, cache_dir: Path) -> Path:
    """The given file, or the simulated one."""
    if spec.path is not None:
        return Path(spec.path)
    if spec.values == "lognorm":
        raise UserError("data.values is lognorm, but simulated data are counts; leave it out, or set data.path")

    def write(folder: Path) -> None:
        simulate(spec).write_h5ad(folder / "cells.h5ad")

    return built_once(cache_dir, f"perturbseq-{fingerprint}", write) / "cells.h5ad"


def _lay_out(spec: PerturbseqData, file: CellFile, labels: Labels, where: str) -> _Layout:
    assert isinstance(spec.seed, int)
    if spec.path is None:
        table = _trajectories(file)
        test = spec.test_cells / (spec.cells + spec.test_cells)
    else:
        table = np.arange(len(file.obs))[:, None]
        test = TEST_SHARE
    conditions = labels.conditions[table[:, -1]].tolist()
    assignment = singles_to_doubles(
        conditions, spec.seed, validation=spec.validation, test=test, min_cells=spec.min_cells, where=where
    )
    rows = np.sort(np.concatenate(list(assignment.splits.values())))
    if spec.pairs != "true":
        seen = table[:, -1]
        is_control = np.asarray(conditions, dtype=object) == CONTROL
        own = spec.pairs == "none"
        first = np.arange(len(seen)) if own else draw_controls(is_control, assignment.splits, assignment.ood, spec.seed)
        table = np.stack([seen[first], seen], axis=1)
    cells, index = np.unique(table[rows], return_inverse=True)
    return _Layout(
        splits={name: np.searchsorted(rows, members) for name, members in assignment.splits.items()},
        assignment=assignment,
        index=index.reshape(len(rows), -1).astype(np.int64),
        conditions=[conditions[row] for row in rows],
        cells=cells,
    )


def _trajectories(file: CellFile) -> Rows:
    """(n, T) observations of each simulated cell, in order of time."""
    order = np.lexsort((file.obs["time"], file.obs["trajectory"]))
    return order.reshape(file.obs["trajectory"].nunique(), -1)


def _multi_hot(assignment: Assignment) -> Tensor:
    """(conditions, p) float32 perturbations of each condition."""
    column = {name: k for k, name in enumerate(assignment.perturbations)}
    table = torch.zeros(len(assignment.conditions), len(column))
    for row, name in enumerate(assignment.conditions):
        table[row, [column[gene] for gene in members_of(name)]] = 1.0
    return table


def _order(spec: PerturbseqData, perturbations: tuple[str, ...]) -> list[int]:
    """Positions of ``perturbations`` in the simulator's own order."""
    own = design_of(spec).perturbations
    return [own.index(name) for name in perturbations]


def _targets(spec: PerturbseqData, perturbations: tuple[str, ...]) -> Tensor:
    return design_of(spec).targets[_order(spec, perturbations)]


def _truth(spec: PerturbseqData, file: CellFile, layout: _Layout) -> Truth:
    assert isinstance(spec.seed, int)
    responsive, invariant = (
        torch.from_numpy(file.obsm(name)[layout.cells].astype(np.float32)) for name in ("responsive", "invariant")
    )
    drawn = draw_mechanisms(spec.process, design_of(spec).targets, spec.seed)
    environments = [0, *(k + 1 for k in _order(spec, layout.assignment.perturbations))]
    return Truth(
        responsive=responsive,
        invariant=invariant,
        responsive_names=tuple(f"v{k + 1}" for k in range(responsive.shape[1])),
        invariant_names=tuple(f"i{k + 1}" for k in range(invariant.shape[1])),
        mechanisms=drawn.select(environments),
    )


def _quality(labels: Labels, layout: _Layout, expression: Expression) -> dict[str, float]:
    """Numbers on what was read and what was left out."""
    seen = Counter(layout.assignment.seen.values())
    left_out = np.isin(labels.conditions, list(layout.assignment.excluded))
    return {
        "control_cells": float(layout.conditions.count(CONTROL)),
        "conditions_excluded": float(len(layout.assignment.excluded)),
        "cells_excluded": float(np.sum(left_out)),
        "double_seen1_excluded": float(seen[1]),
        "double_seen0_excluded": float(seen[0]),
        "cells_without_counts": float(np.sum(~expression.values.any(axis=1))),
    }


def _sentence(file: CellFile, labels: Labels, source: str, held: str) -> str:
    members = Counter(len(members_of(name)) for name in set(labels.conditions))
    return (
        f"{file.path}: {len(file.obs)} cells × {len(file.genes)} genes; {source} holds "
        f"{'counts' if held == 'counts' else 'log-normalised values'}; obs[{labels.column!r}] names "
        f"{members[1]} singles and {members[2]} doubles (pairs as {PAIR_FORMS[labels.grammar]}), with "
        f"{int(np.sum(labels.conditions == CONTROL))} control cells labelled {' or '.join(map(repr, labels.control))}"
    )
