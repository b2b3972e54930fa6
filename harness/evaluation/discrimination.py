"""Whether a predicted condition is told apart from the others: its rank among the true conditions of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from harness.evaluation.scores import Array

RANK, NORMALISED = "perturbation_rank", "perturbation_rank_normalised"


def perturbation_ranks(
    predicted: Mapping[str, Array], true: Mapping[str, Array], features: Sequence[str] = ()
) -> dict[str, dict[str, float]]:
    """Rank of the right condition among all true ones, by the L1 distance of means.

    As cell-eval's discrimination score: genes that the predicted condition perturbs take no part in its distances, so
    that no prediction is right for its own target alone. Conditions as near as the right one count half.

    Parameters
    ----------
    predicted, true
        condition -> (features,) mean; the same conditions.
    features
        Names of the features, of which those named as a member of the condition are left out.

    Returns
    -------
    condition -> ``perturbation_rank``: 1 where the right condition is the nearest, else 0 (1/k where k are the
    nearest together); and ``perturbation_rank_normalised``: 1 - rank / (number of conditions), the rank beginning at
    0. Empty below two conditions, where nothing is told apart.
    """
    names = list(true)
    if len(names) < 2:
        return {}
    candidates = np.stack([true[name] for name in names])
    place = {name: k for k, name in enumerate(features)}
    found = {}
    for right, name in enumerate(names):
        gaps = np.abs(candidates - predicted[name])
        distances = gaps.sum(axis=1)
        for member in name.split("+"):
            if member in place:
                distances = distances - gaps[:, place[member]]
        nearer = int((distances < distances[right]).sum())
        level = int((distances == distances[right]).sum())  # the right one is one of them
        found[name] = {
            RANK: 0.0 if nearer else 1.0 / level,
            NORMALISED: 1.0 - (nearer + 0.5 * (level - 1)) / len(names),
        }
    return found
