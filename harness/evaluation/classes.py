"""Accuracy with which the class of the object is read from learned latents."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.factors import random_halves
from harness.evaluation.regression import Standard
from harness.evaluation.scores import Array, as_matrix


def class_accuracy(learned: Array, classes: NDArray[np.int64], *, seed: int) -> float:
    """Share of cells whose class logistic regression names from the learned latents.

    Fitted on one random half of the cells, latents standardised there, and scored on the other. An L2 penalty of 1/2,
    as published (scikit-learn's default).

    Parameters
    ----------
    learned
        (n, a) latents of both blocks.
    classes
        (n,) class of each cell.
    seed
        Governs the halves.

    Returns
    -------
    In [0, 1]; that of `majority_accuracy` where no latent varies, or where the half that is fitted has one class.

    Raises
    ------
    NonFiniteError
        NaN or infinity in the latents.

    Notes
    -----
    Source: von Kügelgen et al. 2021.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    learned = as_matrix(learned, "learned latents")
    fit, score = random_halves(len(classes), seed)
    scale = Standard(learned[fit])
    if not scale.kept.any() or len(np.unique(classes[fit])) == 1:
        return majority_accuracy(classes, seed=seed)
    model = LogisticRegression(max_iter=1000)
    with warnings.catch_warnings():
        # separable classes are fitted ever better: where it stops the predictions have long settled
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(scale(learned[fit]), classes[fit])
    return float(np.mean(model.predict(scale(learned[score])) == classes[score]))


def majority_accuracy(classes: NDArray[np.int64], *, seed: int) -> float:
    """Accuracy of naming the class that is most frequent in one half of the cells, on the other half.

    Parameters
    ----------
    classes
        (n,) class of each cell.
    seed
        Governs the halves, which are those of `class_accuracy`.
    """
    fit, score = random_halves(len(classes), seed)
    names, counts = np.unique(classes[fit], return_counts=True)
    return float(np.mean(classes[score] == names[np.argmax(counts)]))
