"""Predictions that need no model: control mean, mean effect, additive.

They stand in every table because they often win. Each is a shift applied to control cells, so that it keeps the
cells' variance; its mean is the baseline as a mean vector. ``rmse_relative`` scores the first,
``rmse_relative_mean`` and the metrics of means score the second.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from harness.evaluation.scores import Array, as_matrix

CONTROL = "control"
#: Names of the baselines, in the order of a table.
BASELINES = ("control_mean", "mean_effect", "additive")


class CannotPredict(Exception):
    """A model or baseline has no prediction for a condition; the message says why."""


class Baselines:
    """Effects of single perturbations, estimated from training cells.

    The effect of a perturbation is the mean of its training cells minus the mean of the training controls.

    - ``control_mean`` predicts no change: the control cells themselves. Its ``pearson_delta`` is 0 by definition.
    - ``mean_effect`` adds the mean effect over all training singles, each with the same weight.
    - ``additive`` adds the effects of the condition's members: for ``A+B`` both effects, for a single perturbation
      seen in training its own. A condition with a member never seen alone cannot be predicted.

    Parameters
    ----------
    train
        condition -> (cells, features) training cells; ``control`` is required. Doubles are ignored.

    Raises
    ------
    ValueError
        No control cells, no single perturbation, empty arrays, or features that disagree.
    NonFiniteError
        NaN or infinity in a condition, which it names.
    """

    def __init__(self, train: Mapping[str, ArrayLike]) -> None:
        if CONTROL not in train:
            raise ValueError("training cells hold no condition 'control', which every baseline starts from")
        control = _mean(train[CONTROL], CONTROL)
        self.effects = {c: _mean(cells, c) - control for c, cells in train.items() if c != CONTROL and "+" not in c}
        if not self.effects:
            raise ValueError("training cells hold no single perturbation, so that no effect can be estimated")
        self.mean_effect: Array = np.mean(list(self.effects.values()), axis=0)

    def shift(self, name: str, condition: str) -> Array:
        """What a baseline adds to every control cell, (features,).

        Parameters
        ----------
        name
            One of ``BASELINES``.
        condition
            A single perturbation or ``A+B``.

        Raises
        ------
        CannotPredict
            ``additive`` where a member of the condition has no training cells.
        ValueError
            An unknown baseline.
        """
        if name == "control_mean":
            return np.zeros_like(self.mean_effect)
        if name == "mean_effect":
            return self.mean_effect
        if name == "additive":
            members = condition.split("+")
            unseen = [m for m in members if m not in self.effects]
            if unseen:
                raise CannotPredict(f"no training cells of {' or '.join(unseen)} alone")
            total: Array = np.sum([self.effects[m] for m in members], axis=0)
            return total
        raise ValueError(f"unknown baseline {name!r}; known are {', '.join(BASELINES)}")

    def predict(self, name: str, condition: str, control: ArrayLike) -> Array:
        """Predicted cells, (n, features): the (n, features) control cells, shifted. Raises as ``shift``."""
        return as_matrix(control, "control cells") + self.shift(name, condition)


def _mean(cells: ArrayLike, condition: str) -> Array:
    array = as_matrix(cells, f"training cells of {condition}")
    if len(array) == 0:
        raise ValueError(f"training cells of {condition} are empty")
    mean: Array = array.mean(axis=0)
    return mean
