"""Condition (iii) of the theorem: a perturbed cell and its control agree in the invariant latents.

Measured on latents, in two ways: how far partners of a pair are from each other beside random cells, and whether the
perturbation can be read off the invariant latents at all. The second needs no pairs.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from harness.evaluation.conditions import Verdict
from harness.evaluation.scores import Array, Index, Mask, as_matrix, is_constant

#: Pairs are aligned if their mean squared distance is at most this share of that of random cells.
ALIGNED = 0.05
#: A latent whose sd is under this share of the block's largest has collapsed and takes no part in distances.
COLLAPSED = 0.01
#: Folds of the classifier; an environment needs this many cells of each.
FOLDS, CELLS_A_FOLD = 4, 2
#: Most cells the classifier sees.
CELLS = 2000
#: The classifier beats chance if its accuracy is this many standard errors above it.
ERRORS = 3.0


@dataclass(frozen=True)
class TwoSample:
    """Outcome of the classifier test: can the environment be told from the latents?

    Attributes
    ----------
    accuracy : cross-validated share of cells whose environment is told right.
    chance : share of the most frequent environment, which is what a classifier that sees nothing answers.
    cells, environments : on which it was tried; fewer than two environments leave nothing to tell apart.
    """

    accuracy: float
    chance: float
    cells: int
    environments: int

    @property
    def at_chance(self) -> bool:
        """Whether the accuracy is within ``ERRORS`` standard errors of chance."""
        error = (self.chance * (1.0 - self.chance) / max(self.cells, 1)) ** 0.5
        return self.accuracy <= self.chance + ERRORS * error

    @property
    def excess(self) -> float:
        """What the accuracy gains over chance, as a share of what there is to gain; at least 0."""
        return max(0.0, self.accuracy - self.chance) / (1.0 - self.chance) if self.chance < 1.0 else 0.0

    @property
    def sentence(self) -> str:
        """The outcome in words, to follow a comma."""
        if self.environments < 2:
            return "too few cells are left to test whether invariant latents tell the environment"
        tells = "do not tell" if self.at_chance else "tell"
        return (
            f"invariant latents {tells} the {self.environments} environments apart "
            f"(accuracy {self.accuracy:.2f}, chance {self.chance:.2f}, {self.cells} cells)"
        )


def alignment(
    invariant: ArrayLike, partners: ArrayLike | None, environment: ArrayLike, *, seed: int, offered: bool | None = None
) -> Verdict:
    """Theorem 1 (iii): f_i(x) of a perturbed cell is f_i of the control cell that shares its invariant noise.

    Parameters
    ----------
    invariant
        (n, d_i) invariant latents of held-out cells: the truth's, or an encoder's.
    partners
        (n, d_i) of the control cell each is paired with; None where the data have no true pairs.
    environment
        (n,) integers, the perturbation of each cell; control is one of them.
    seed
        Governs the classifier's folds.
    offered
        Said of a truth: whether the data offer true pairs, which the condition takes for granted. False: it does not
        hold, and its margin is 0. None: an encoder is judged, and by what there is.

    Returns
    -------
    With partners it holds if ``pair_ratio`` is at most ``ALIGNED`` and ``two_sample`` at chance; the margin is
    1 − ``pair_ratio``, within [0, 1]. Without, the classifier alone speaks: it holds at chance, and the margin is
    1 − its ``excess``. That is a weaker statement: independence of u does not make latents agree cell by cell.
    A block that is empty or constant agrees with itself in everything and says nothing: it does not hold, margin 0.

    Raises
    ------
    NonFiniteError, ValueError
        NaN or infinity in the latents; rows that disagree.
    """
    latents = as_matrix(invariant, "invariant latents")
    paired = None if partners is None else as_matrix(partners, "invariant latents of the paired controls")
    labels = np.asarray(environment, dtype=np.int64)
    if len(labels) != len(latents) or (paired is not None and paired.shape != latents.shape):
        raise ValueError(
            f"invariant latents of {len(latents)} cells need an environment and a partner for each, got {len(labels)} "
            f"environments and {len(latents) if paired is None else len(paired)} partners"
        )
    if not _active(latents).any():
        return Verdict(False, 0.0, "the invariant block is empty or constant, so that nothing can be aligned")
    test = two_sample(latents, labels, seed=seed)
    if offered is False:
        return Verdict(False, 0.0, f"these data offer no true pairs of perturbed cell and control; {test.sentence}")
    if paired is None:
        where = "these data offer no true pairs, so that only the classifier speaks"
        return Verdict(test.environments > 1 and test.at_chance, 1.0 - test.excess, f"{where}: {test.sentence}")
    ratio = pair_ratio(latents, paired)
    margin = float(np.clip(1.0 - ratio, 0.0, 1.0))
    reason = f"partners are {ratio:.2g} times as far apart as random cells (mean squared distance); {test.sentence}"
    return Verdict(ratio <= ALIGNED and test.at_chance, margin, reason)


def pair_ratio(latents: Array, partners: Array) -> float:
    """Mean squared distance of partners over that of random cells, each latent in units of its sd.

    Parameters
    ----------
    latents, partners
        (n, d) of a cell and of the cell paired with it. Latents whose sd over both is under ``COLLAPSED`` of the
        largest are left out; one at least must vary.

    Returns
    -------
    0 for partners that agree, about 1 for cells paired at random. Where both sides have the same mean and variance
    it is 1 − the mean over latents of the correlation within pairs.
    """
    both = np.concatenate([latents, partners])
    active = _active(both)
    variance = both[:, active].var(axis=0)
    apart = ((latents - partners)[:, active] ** 2).mean(axis=0)
    # two independent draws lie 2 variances apart
    return float((apart / (2.0 * variance)).mean())


def two_sample(latents: Array, environment: Index, *, seed: int) -> TwoSample:
    """Classifier two-sample test: cross-validated logistic regression of the environment on the latents.

    It is linear and sees shifts of the means; a change of spread alone it does not see.

    Parameters
    ----------
    latents
        (n, d); at most ``CELLS`` of them, drawn at random, are used.
    environment
        (n,). Environments with fewer than ``FOLDS * CELLS_A_FOLD`` cells are left out.
    seed
        Governs the draw and the folds.

    Notes
    -----
    Lopez-Paz & Oquab 2017.
    """
    rows = np.sort(np.random.default_rng([seed, 1]).permutation(len(latents))[:CELLS])
    latents, labels = latents[rows], environment[rows]
    names, counts = np.unique(labels, return_counts=True)
    kept = np.isin(labels, names[counts >= FOLDS * CELLS_A_FOLD])
    latents, labels = latents[kept], labels[kept]
    names, counts = np.unique(labels, return_counts=True)
    if len(names) < 2:
        return TwoSample(0.0, 0.0, len(labels), len(names))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        # a classifier stopped before it converged is a classifier still, and its accuracy is measured on other cells
        warnings.simplefilter("ignore", ConvergenceWarning)
        told = cross_val_predict(classifier, latents, labels, cv=folds)
    return TwoSample(float((told == labels).mean()), float(counts.max() / len(labels)), len(labels), len(names))


def _active(latents: Array) -> Mask:
    """Mask (d,) of latents that vary: sd above ``COLLAPSED`` of the block's largest, and above rounding."""
    if latents.shape[1] == 0:
        return np.zeros(0, dtype=bool)
    spread = latents.std(axis=0)
    active: Mask = (spread > COLLAPSED * spread.max()) & ~is_constant(latents)
    return active
