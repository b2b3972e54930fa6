"""Predictions that need no model: control mean, mean effect, additive, linear, nearest perturbation.

They stand in every table because they often win. Each is a shift applied to control cells, so that it keeps the
cells' variance; its mean is the baseline as a mean vector. ``rmse_relative`` scores the first,
``rmse_relative_mean`` and the metrics of means score the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from harness.evaluation.embedding import FEWEST, GIVEN, ONE_HOT, Embedding, gene_loadings, one_hot
from harness.evaluation.ridge import Ridge
from harness.evaluation.scores import Array, NonFiniteError, as_matrix

CONTROL = "control"
#: Names of the baselines, in the order of a table.
BASELINES = ("control_mean", "mean_effect", "additive", "linear", "nearest")


class CannotPredict(Exception):
    """A model or baseline has no prediction for a condition; the message says why."""


class Baselines:
    """Effects of training conditions, and what they say of others.

    The effect of a condition is the mean of its training cells minus the mean of the training controls.

    - ``control_mean`` predicts no change: the control cells themselves. Its ``pearson_delta`` is 0 by definition.
    - ``mean_effect`` adds the mean effect over all training singles, each with the same weight.
    - ``additive`` adds the effects of the condition's members: for ``A+B`` both effects, for a single perturbation
      seen in training its own. A condition with a member never seen alone cannot be predicted.
    - ``linear`` is a ridge regression (`harness.evaluation.ridge`), fitted to the effects of all training conditions,
      from the embedding of a perturbation (`harness.evaluation.embedding`) to its effect: from the vectors that the
      data give; else from the loadings of the perturbed genes, with an intercept (Ahlmann-Eltze et al. 2025, without
      their second projection); and for a condition with a member that is no measured gene from one- and two-hot
      vectors, without an intercept, which can predict it where each member is in some training condition.
    - ``nearest`` repeats the effect of one training condition: that with the largest overlap of members (shared members
      over all members of the two), among level ones that with the closest embedding; without an embedding their mean.
      Without a shared member it needs an embedding of the condition.

    Parameters
    ----------
    train
        condition -> mean of its training cells, (features,); ``control`` is required. Doubles count for ``linear`` and
        ``nearest`` alone.
    features
        Names of the features, where they are genes; perturbations are found among them.
    vectors
        perturbation -> (f,), seen or not, where the data have such.

    Raises
    ------
    ValueError
        No control cells, no single perturbation, or features that disagree.
    NonFiniteError
        NaN or infinity in a condition, which it names.
    """

    def __init__(
        self,
        train: Mapping[str, Array],
        *,
        features: Sequence[str] = (),
        vectors: Mapping[str, Array] | None = None,
    ) -> None:
        if CONTROL not in train:
            raise ValueError("training cells hold no condition 'control', which every baseline starts from")
        means = {c: _finite(mean, c) for c, mean in train.items()}
        self._control = means.pop(CONTROL)
        self._every = {c: mean - self._control for c, mean in means.items()}
        self.effects = {c: effect for c, effect in self._every.items() if "+" not in c}
        if not self.effects:
            raise ValueError("training cells hold no single perturbation, so that no effect can be estimated")
        self.mean_effect: Array = np.mean(list(self.effects.values()), axis=0)
        self._features, self._vectors = tuple(features), vectors
        self._known: dict[tuple[str, str], Array] = {}

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
            ``additive`` where a member of the condition has no training cells; ``linear`` and ``nearest`` where
            nothing in training says anything of the condition.
        ValueError
            An unknown baseline.
        """
        if name == "control_mean":
            return np.zeros_like(self.mean_effect)
        if name == "mean_effect":
            return self.mean_effect
        if name == "additive":
            return self._additive(condition)
        if name in ("linear", "nearest"):
            if (name, condition) not in self._known:
                made = self._linear(condition) if name == "linear" else self._nearest(condition)
                self._known[name, condition] = made
            return self._known[name, condition]
        raise ValueError(f"unknown baseline {name!r}; known are {', '.join(BASELINES)}")

    def predict(self, name: str, condition: str, control: ArrayLike) -> Array:
        """Predicted cells, (n, features): the (n, features) control cells, shifted. Raises as ``shift``."""
        return as_matrix(control, "control cells") + self.shift(name, condition)

    def embedding_of(self, condition: str) -> str:
        """The kind of embedding that ``linear`` predicts a condition from."""
        if self._embedding is not None and not self._embedding.missing(condition):
            return self._embedding.kind
        return ONE_HOT

    # ------------------------------------------------------------------------------------------------ each

    def _additive(self, condition: str) -> Array:
        members = condition.split("+")
        unseen = [m for m in members if m not in self.effects]
        if unseen:
            raise CannotPredict(f"no training cells of {' or '.join(unseen)} alone")
        total: Array = np.sum([self.effects[m] for m in members], axis=0)
        return total

    def _linear(self, condition: str) -> Array:
        if self._on_embedding is not None and self._embedding is not None:
            vector = self._embedding(condition)
            if vector is not None:
                return self._on_embedding(vector)
        vector = self._one_hot(condition)
        if vector is None:
            raise CannotPredict(self._unheard_of(self._one_hot.missing(condition)))
        return self._on_one_hot(vector)

    def _nearest(self, condition: str) -> Array:
        members = set(condition.split("+"))
        overlap = {c: len(members & set(c.split("+"))) / len(members | set(c.split("+"))) for c in self._every}
        most = max(overlap.values())
        level = [c for c, share in overlap.items() if share == most]
        here = None if self._embedding is None else self._embedding(condition)
        if most == 0.0 and here is None:
            lacking = [m for m in sorted(members) if self._embedding is None or self._embedding.missing(m)]
            raise CannotPredict(self._unheard_of(lacking))
        if here is not None and self._embedding is not None:
            there = {c: vector for c in level if (vector := self._embedding(c)) is not None}
            if there:
                level = [min(there, key=lambda c: float(((there[c] - here) ** 2).sum()))]
        effect: Array = np.mean([self._every[c] for c in level], axis=0)
        return effect

    def _unheard_of(self, members: Sequence[str]) -> str:
        where = "has no vector" if self._vectors is not None else "is no measured gene"
        return f"no training cells of {' or '.join(members)}, which {where} either"

    # ---------------------------------------------------------------------------------------- fitted once

    @cached_property
    def _embedding(self) -> Embedding | None:
        """What embeds perturbations that were never seen too; None where nothing does for enough of training."""
        if self._vectors is not None:
            made = Embedding(GIVEN, self._vectors)
        elif self._features:
            means = np.stack([self._control, *(self._control + effect for effect in self._every.values())])
            made = gene_loadings(means, self._features)
        else:
            return None
        return made if sum(not made.missing(c) for c in self._every) >= FEWEST else None

    @cached_property
    def _on_embedding(self) -> Ridge | None:
        embed = self._embedding
        if embed is None:
            return None
        vectors = {c: vector for c in self._every if (vector := embed(c)) is not None}
        changes = np.stack([self._every[c] for c in vectors])
        return Ridge(np.stack(list(vectors.values())), changes, intercept=True)

    @cached_property
    def _one_hot(self) -> Embedding:
        return one_hot(list(self._every))

    @cached_property
    def _on_one_hot(self) -> Ridge:
        vectors = [vector for c in self._every if (vector := self._one_hot(c)) is not None]
        return Ridge(np.stack(vectors), np.stack(list(self._every.values())), intercept=False)


def _finite(mean: Array, condition: str) -> Array:
    bad = int(np.count_nonzero(~np.isfinite(mean)))
    if bad:
        raise NonFiniteError(f"mean of the training cells of {condition}", bad, mean.size)
    return mean
