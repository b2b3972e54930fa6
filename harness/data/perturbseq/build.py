"""From an ``.h5ad`` file, given or simulated, to the one data type: the same steps for both."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.data.batch import PerturbationData, Truth
from harness.data.cache import built_once
from harness.data.latent_process import draw_mechanisms
from harness.data.later import hold_out_later
from harness.data.perturbseq.gene_vectors import GeneVectors, loadings, read_vectors
from harness.data.perturbseq.labels import CONTROL, Labels, members_of, read_labels
from harness.data.perturbseq.layout import Layout, lay_out
from harness.data.perturbseq.reader import CellFile, Expression, read_expression
from harness.data.perturbseq.replay import kept_split
from harness.data.perturbseq.simulator import design_of, simulate
from harness.data.perturbseq.splits import Assignment
from harness.data.perturbseq.time_course import components, transported
from harness.data.perturbseq.uneven_columns import accounted_for, uneven_columns
from harness.data_spec import PerturbseqData
from harness.errors import UserError
from harness.words import counted, first

#: Labels that are named; the rest is counted.
_MOST_NAMED = 6


def build(spec: PerturbseqData, fingerprint: str, cache_dir: Path) -> PerturbationData:
    """Read a file, or simulate one first, and lay out its cells.

    A file's cells are pairs of a control and a perturbed cell drawn at random (``pairs: random``), since the assay
    destroys the cell; a file of several times gives rows of cells drawn time by time. Simulated cells are paired at
    random too, unless ``pairs`` asks for their control twins or they are followed over time; they come with truth and
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
    with _opened(spec, _path(spec, fingerprint, cache_dir)) as file:
        where = str(file.path) if spec.path else "simulated counts (sizes: data.cells, data.environments)"
        labels = read_labels(file.obs, where, spec, file.genes)
        given = _given_vectors(spec)
        known = frozenset(file.genes if given is None else given.genes)
        layout = lay_out(spec, file, labels, where, None if spec.perturbation_features == "onehot" else known)
        expression = read_expression(
            file,
            layout.cells,
            spec.values,
            spec.preprocess,
            training=layout.cells[layout.training],
            perturbed=labels.perturbed,
        )
        notes = _notes(spec, file, labels, layout, expression)
        read = _sentence(file, labels, layout, expression)
        truth = None if spec.path else _truth(spec, file, layout)
        genes = expression.genes
    conditions = layout.assignment.conditions
    number = {name: k for k, name in enumerate(conditions)}
    condition = torch.tensor([number[name] for name in layout.conditions], dtype=torch.int64)
    index = layout.index
    if spec.time_pairs == "ot":
        low = components(expression.values, layout.training, spec.seed)
        seen = index.shape[1] - layout.assignment.held_out
        index = transported(index, layout.splits, layout.conditions, low, seen, layout.stratum)
    vectors = _vectors(spec, given, labels, layout, expression)
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
        strata=layout.use.strata,
        stratum=None if layout.stratum is None else torch.from_numpy(layout.stratum),
        read=read,
        notes=notes,
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
) -> GeneVectors | None:
    """Vectors of genes, as u is made of them; None where u is one-hot."""
    assert isinstance(spec.seed, int)
    if spec.perturbation_features == "onehot":
        return None
    if given is None:
        is_control = labels.conditions[layout.cells[layout.training]] == CONTROL
        values = expression.values[layout.training[is_control]]
        given = loadings(values, expression.genes, spec.loading_components, spec.seed)
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
        "cells_without_label": float(np.sum(labels.conditions == "")),
        "double_seen1_excluded": float(seen[1]),
        "double_seen0_excluded": float(seen[0]),
        "cells_without_counts": float(np.sum(~expression.values.any(axis=1))),
        **expression.numbers,
    }


def _notes(
    spec: PerturbseqData, file: CellFile, labels: Labels, layout: Layout, expression: Expression
) -> tuple[str, ...]:
    """What is to be said of the data wherever their scores stand."""
    found = [*labels.notes, *expression.notes]
    if spec.path is not None:
        obs = file.obs.iloc[layout.use.rows]
        known = accounted_for(spec, labels.column, layout.times)
        found += [one.sentence for one in uneven_columns(obs, layout.use.conditions, known)]
    return tuple(found)


def _sentence(file: CellFile, labels: Labels, layout: Layout, expression: Expression) -> str:
    """What was read and what was left out, in one line."""
    use, assignment = layout.use, layout.assignment
    counts = Counter(use.conditions)
    members = Counter(len(members_of(name)) for name in counts)
    excluded = sum(counts[name] for name in assignment.excluded)
    left_out = [f"{cells:,} cells {why}" for why, cells in use.left_out.items() if cells]
    if unnamed := int(np.sum(labels.conditions == "")):
        left_out.insert(0, f"{unnamed:,} cells labelled {first([repr(name) for name in labels.left_out], _MOST_NAMED)}")
    if features := int(file.numbers["features_left_out"]):
        left_out.append(f"{features:,} features that are no genes")
    if excluded:
        left_out.append(f"{excluded:,} cells of {counted(len(assignment.excluded), 'condition')} that no split can use")
    parts = [
        f"{file.path.name}: {len(use.conditions):,} cells × {len(expression.genes):,} genes",
        f"{expression.source} holds {'counts' if expression.held == 'counts' else 'log-normalised values'} "
        f"({', '.join(expression.steps)})",
        f"obs[{labels.column!r}] names {members[1]:,} singles and {members[2]:,} pairs, written "
        f"{labels.form}, and {counts[CONTROL]:,} control cells labelled "
        f"{' or '.join(map(repr, labels.control))}",
        f"strata of obs: {', '.join(use.strata)}" if use.strata else "no strata",
        f"left out: {', '.join(left_out) if left_out else 'nothing'}",
    ]
    return "; ".join(parts)
