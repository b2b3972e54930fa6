"""What predictions of unseen conditions are compared with, stratum by stratum: the seam from rows of data to arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.data.batch import PerturbationData
from harness.evaluation.baselines import CONTROL, Baselines
from harness.evaluation.measured import Measured
from harness.evaluation.prediction import Comparison
from harness.predictor import Predictor
from harness.split_cells import SplitCells

#: A condition with fewer cells in a stratum is not scored there.
FEWEST_IN_STRATUM = 5

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sides:
    """What every split is compared with in one stratum.

    Attributes
    ----------
    stratum : its number; None where cells have none.
    held_out : control cells of the test split.
    starts : (k, features) control cells of the training split that rows start from.
    baselines : estimated from all training cells.
    """

    stratum: int | None
    held_out: Measured
    starts: Array
    baselines: Baselines


def sides_of(data: PerturbationData, cells: int, seed: int, genes: Sequence[str]) -> tuple[list[Sides], list[str]]:
    """Both sides of each stratum, and a sentence on each that cannot be scored.

    Parameters
    ----------
    data
        The trial's.
    cells
        Most control cells that are drawn.
    seed
        Governs which.
    genes
        Names of the features where they are genes.
    """
    found, missing = [], []
    for stratum in data.each_stratum:
        train = SplitCells(data, "train", cells, seed=seed, seen=data.seen, stratum=stratum)
        test = SplitCells(data, "test", cells, seed=seed, seen=data.seen, stratum=stratum)
        singles = [name for name in train if name != CONTROL and "+" not in name]
        lacking = [
            what
            for what, there in (
                ("training control cells", train.count(CONTROL)),
                ("held-out control cells", test.count(CONTROL)),
                ("training cells of a single perturbation", len(singles)),
            )
            if not there
        ]
        if lacking and stratum is not None:
            missing.append(f"stratum {data.strata[stratum]} is not scored, since it has no {' and no '.join(lacking)}")
            continue
        means = {name: train.moments(name).mean for name in train}
        baselines = Baselines(means, features=genes, vectors=_vectors(data))
        found.append(Sides(stratum, test[CONTROL], train.drawn(CONTROL), baselines))
    return found, missing


def comparisons(
    data: PerturbationData, split: str, sides: Sequence[Sides], predictor: Predictor, cells: int, seed: int
) -> list[Comparison]:
    """The conditions of one split beside both sides of each stratum.

    Parameters
    ----------
    data, cells, seed
        As in `sides_of`.
    split
        Name of the split.
    sides
        As `sides_of` gives them.
    predictor
        Of the model.
    """
    return [
        Comparison(
            cells=_enough(SplitCells(data, split, cells, seed=seed, stratum=one.stratum), one.stratum),
            held_out=one.held_out,
            starts=one.starts,
            baselines=one.baselines,
            predict=predictor.within(one.stratum),
            stratum="" if one.stratum is None else data.strata[one.stratum],
        )
        for one in sides
    ]


def _enough(cells: SplitCells, stratum: int | None) -> Mapping[str, Measured]:
    """The conditions that have cells enough where they are parted into strata."""
    return cells if stratum is None else cells.only(lambda name: cells.count(name) >= FEWEST_IN_STRATUM)


def _vectors(data: PerturbationData) -> dict[str, Array] | None:
    """Vectors of perturbations, seen or not, where the data have such."""
    if data.perturbation_vectors is None:
        return None
    return dict(zip(data.vector_names, data.perturbation_vectors.double().numpy(), strict=True))
