"""Times held out of training: a model sees the first frames of a trajectory and is asked for a later one."""

from __future__ import annotations

from dataclasses import replace

from harness.data.batch import PerturbationData


def hold_out_later(data: PerturbationData, steps: int) -> PerturbationData:
    """Keep the last ``steps`` frames of every row from training, and make them an OOD split, ``later``.

    The split holds the test rows of perturbations. Control rows are left out: control is where a prediction starts, not
    a condition to predict. Conditions that training never saw stay in splits of their own, at their last, and so
    held-out, frame.

    Parameters
    ----------
    data
        With T frames a row.
    steps
        From 0 (nothing is held out) to T − 2.
    """
    if steps == 0:
        return data
    rows = data.splits["test"]
    perturbed = data.condition[rows] != 0
    return replace(
        data,
        splits={**data.splits, "later": rows[perturbed]},
        ood=(*data.ood, "later"),
        seen=data.index.shape[1] - steps,
    )
