"""From an ``.h5ad`` file, given or simulated, to the one data type: the same steps for both."""

from __future__ import annotations

import logging
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.data.batch import PerturbationData, Truth
from harness.data.cache import built_once
from harness.data.latent_process import draw_mechanisms
from harness.data.later import hold_out_later
from harness.data.perturbseq.gene_vectors import GeneVectors, loadings, read_vectors
from harness.data.perturbseq.labels import CONTROL, PAIR_FORMS, Labels, members_of, read_labels
from harness.data.perturbseq.layout import Layout, lay_out
from harness.data.perturbseq.reader import CellFile, Expression, expression_matrix, read_expression
from harness.data.perturbseq.replay import kept_split
from harness.data.perturbseq.simulator import design_of, simulate
from harness.data.perturbseq.splits import Assignment
from harness.data.perturbseq.time_course import components, transported
from harness.data_spec import PerturbseqData
from harness.errors import UserError

log = logging.getLogger(__name__)


def build(spec: PerturbseqData, fingerprint: str, cache_dir: Path) -> PerturbationData:
    """Read a file, or simulate one first, and lay out its cells.

    A file's cells are pairs of a control and a perturbed cell drawn at random (``pairs: random``), since the assay
    destroys the cell; a file of several times gives rows of cells drawn time by time. Simulated cells come with their
    control twins unless ``pairs`` says otherwise, with truth and targets.

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
    with _opened(spec, _path(spec, fingerprint, cache_dir)) as file:
        where = str(file.path) if spec.path else "simulated counts (sizes: data.cells, data.environments)"
        labels = read_labels(file.obs, where, spec)
        given = _given_vectors(spec)
        known = frozenset(file.genes if given is None else given.genes)
        layout = lay_out(spec, file, labels, where, None if spec.perturbation_features == "onehot" else known)
        expression = read_expression(
            file,
            layout.cells,
            spec.values,
            spec.preprocess,
            training=layout.training,
            perturbed=labels.perturbed,
        )
        for note in expression.notes:
            _warn_once(f"{where}: {note}")
        log.info("%s; %s", _sentence(file, labels, expression.source, expression.held), ", ".join(expression.steps))
        truth = None if spec.path else _truth(spec, file, layout)
        genes = expression.genes
    conditions = layout.assignment.conditions
    number = {name: k for k, name in enumerate(conditions)}
    condition = torch.tensor([number[name] for name in layout.conditions], dtype=torch.int64)
    index = layout.index
    if spec.time_pairs == "ot":
        low = components(expression.values, np.searchsorted(layout.cells, layout.training), spec.seed)
        seen = index.shape[1] - layout.assignment.held_out
        index = transported(index, layout.splits, layout.conditions, low, seen)
    vectors = _vectors(spec, given, labels, layout, expression, genes)
    data = PerturbationData(
        frames=torch.from_numpy(expression.values),
        index=torch.from_numpy(index),
        u=_perturbed(layout.assignment, vectors)[condition],
        condition=condition,
        conditions=conditions,
        perturbations=layout.assignment.perturbations,
        splits={name: torch.from_numpy(rows) for name, rows in layout.splits.items()},
        ood=layout.assignment.ood,
        pairs=spec.pairs if layout.times is None else "drawn",
        fingerprint=fingerprint,
        targets=None if spec.path else _targets(spec, layout.assignment.perturbations),
        truth=truth,
        feature_names=genes,
        excluded=layout.assignment.excluded,
        quality=_quality(labels, layout, expression),
        library=None if expression.library is None else torch.from_numpy(expression.library),
        perturbation_vectors=None if vectors is None else torch.from_numpy(vectors.values).float(),
        vector_names=() if vectors is None else vectors.genes,
        split_record=kept_split(layout.assignment, layout.names, layout.file),
    )
    held_out = spec.process.held_out_steps if spec.path is None else layout.assignment.held_out
    return hold_out_later(data, held_out)


def describe(spec: PerturbseqData) -> str:
    """One sentence on what a file was found to hold, without reading its matrix whole.

    Raises
    ------
    UserError
        If ``spec.path`` is not set, or the file cannot be used.
    """
    if spec.path is None:
        raise UserError("data.path is not set: simulated counts have no file to look into; set it to an .h5ad file")
    with _opened(spec, Path(spec.path)) as file:
        labels = read_labels(file.obs, str(file.path), spec)
        return _sentence(file, labels, *expression_matrix(file, spec.values))


@cache
def _warn_once(sentence: str) -> None:
    """Say what every trial of a process would say again."""
    log.warning(sentence)


def _opened(spec: PerturbseqData, path: Path) -> CellFile:
    return CellFile(path, spec.gene_names, layer=spec.layer, features=spec.features)


def _path(spec: PerturbseqData, fingerprint: str, cache_dir: Path) -> Path:
    """The given file, or the simulated one."""
    if spec.path is not None:
        return Path(spec.path)
    if spec.values == "lognorm":
        raise UserError("data.values is lognorm, but simulated data are counts; leave it out, or set data.path")

    def write(folder: Path) -> None:
        simulate(spec).write_h5ad(folder / "cells.h5ad")

    return built_once(cache_dir, f"perturbseq-{fingerprint}", write) / "cells.h5ad"


def _perturbed(assignment: Assignment, vectors: GeneVectors | None) -> Tensor:
    """(conditions, p) float32: of each condition the sum of its members' vectors; one-hot ones where there are none."""
    genes = assignment.perturbations if vectors is None else vectors.genes
    place = {gene: k for k, gene in enumerate(genes)}
    table = torch.eye(len(genes)) if vectors is None else torch.from_numpy(vectors.values).float()
    sums = [table[[place[gene] for gene in members_of(name)]].sum(0) for name in assignment.conditions]
    return torch.stack(sums)


def _given_vectors(spec: PerturbseqData) -> GeneVectors | None:
    """The user's table of vectors, as it is; None where there is none."""
    named = spec.perturbation_features
    return None if named in ("onehot", "loadings") else read_vectors(Path(named))


def _vectors(
    spec: PerturbseqData,
    given: GeneVectors | None,
    labels: Labels,
    layout: Layout,
    expression: Expression,
    genes: tuple[str, ...],
) -> GeneVectors | None:
    """Vectors of genes, as u is made of them; None where u is one-hot."""
    assert isinstance(spec.seed, int)
    if spec.perturbation_features == "onehot":
        return None
    if given is None:
        controls = layout.training[labels.conditions[layout.training] == CONTROL]
        values = expression.values[np.searchsorted(layout.cells, controls)]
        given = loadings(values, genes, spec.loading_components, spec.seed)
    return given.standardised(layout.assignment.perturbations)


def _order(spec: PerturbseqData, perturbations: tuple[str, ...]) -> list[int]:
    """Positions of ``perturbations`` in the simulator's own order."""
    own = design_of(spec).perturbations
    return [own.index(name) for name in perturbations]


def _targets(spec: PerturbseqData, perturbations: tuple[str, ...]) -> Tensor:
    return design_of(spec).targets[_order(spec, perturbations)]


def _truth(spec: PerturbseqData, file: CellFile, layout: Layout) -> Truth:
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


def _quality(labels: Labels, layout: Layout, expression: Expression) -> dict[str, float]:
    """Numbers on what was read and what was left out."""
    seen = Counter(layout.assignment.seen.values())
    left_out = np.isin(labels.conditions, list(layout.assignment.excluded))
    return {
        "control_cells": float(sum(len(own.get(CONTROL, ())) for own in layout.names.values())),
        "conditions_excluded": float(len(layout.assignment.excluded)),
        "cells_excluded": float(np.sum(left_out)),
        "double_seen1_excluded": float(seen[1]),
        "double_seen0_excluded": float(seen[0]),
        "cells_without_counts": float(np.sum(~expression.values.any(axis=1))),
        **expression.numbers,
    }


def _sentence(file: CellFile, labels: Labels, source: str, held: str) -> str:
    members = Counter(len(members_of(name)) for name in set(labels.conditions))
    return (
        f"{file.path}: {len(file.obs)} cells × {len(file.genes)} genes; {source} holds "
        f"{'counts' if held == 'counts' else 'log-normalised values'}; obs[{labels.column!r}] names "
        f"{members[1]} singles and {members[2]} doubles (pairs as {PAIR_FORMS[labels.grammar]}), with "
        f"{int(np.sum(labels.conditions == CONTROL))} control cells labelled {' or '.join(map(repr, labels.control))}"
    )
