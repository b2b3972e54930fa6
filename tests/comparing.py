"""Predictions and true cells put beside each other by hand, as scores of trials do."""

import numpy as np

from harness.evaluation.baselines import Baselines
from harness.evaluation.measured import Measured
from harness.evaluation.ood import Controls, Reference
from harness.evaluation.prediction import Comparison, evaluate_ood
from harness.evaluation.scores import Scores


def controls_of(held_out, starts=None, *, seed=0):
    """Control cells of both sides; the same on both where ``starts`` are left out, for formulas by hand."""
    starts = held_out if starts is None else starts
    return Controls(Measured.of(held_out, "control cells"), starts, seed=seed)


def reference(true, held_out, starts=None, *, seed, **options):
    measured = Measured.of(true, "true cells")
    return Reference(measured, controls_of(held_out, starts, seed=seed), seed=seed, **options)


def score_condition(predicted, true, held_out, starts=None, *, seed, genes=False):
    """Every metric of one condition, with what the truth leaves undefined among the warnings."""
    prepared = reference(true, held_out, starts, seed=seed, genes=genes)
    found = prepared.score(predicted)
    return Scores(found.values, (*found.warnings, *prepared.undefined))


def means(train):
    return {name: np.mean(cells, axis=0) for name, cells in train.items()}


def evaluate(cells, train, held_out, model, *, starts=None, max_cells=None, seed=0, features=(), **options):
    """One stratum: true cells by condition, training cells by condition, held-out control cells and a model."""
    measured = {name: Measured.of(of, name, max_cells, seed) for name, of in cells.items()}
    comparison = Comparison(
        measured,
        Measured.of(held_out, "control", max_cells, seed),
        train["control"] if starts is None else starts,
        Baselines(means(train), features=features),
        model,
    )
    return evaluate_ood([comparison], seed=seed, features=features, **options)
