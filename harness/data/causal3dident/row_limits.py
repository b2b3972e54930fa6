"""How many rows a release serves: no split draws more rows than it has images.

Rows are drawn freely and then served by stored images. With more rows than images some image must be the cell of two
rows, so that a split shows fewer cells than it counts. Up to there repeats are chance, and are counted. Classes are
drawn evenly, so that the smallest class bounds a split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from harness.data.causal3dident.release import Pool, make_pools
from harness.data_spec import Causal3DIdentData
from harness.errors import UserError

#: Fewest cells of a double, as many as can be halved for its floor.
FEWEST_OF_DOUBLE = 4
#: Fewest rows of a condition, to train on and to test.
FEWEST_OF_CONDITION = 2


def as_served(spec: Causal3DIdentData, pools: Mapping[str, Pool] | None = None) -> Causal3DIdentData:
    """The spec with as many rows as its release can serve; unchanged where it can serve all, or images are rendered.

    Parameters
    ----------
    spec
        The data; the numbers of rows come out lowered, below the least a study file may ask for if need be.
    pools
        Of its release; default: read here.

    Raises
    ------
    UserError
        If the release cannot be read, or serves too few rows of a condition or double.
    """
    if spec.path is None:
        return spec
    if pools is None:
        pools = make_pools(Path(spec.path), spec.classes, spec.validation, np.random.default_rng(0))
    most = {split: _most_rows(pool, spec.classes) for split, pool in pools.items()}
    sizes = {"cells": _cells(spec, most), "test_cells": min(spec.test_cells, most["test"])}
    _refuse_few_of_condition(spec, sizes)
    if spec.doubles:
        sizes["double_cells"] = min(spec.double_cells, most["test"] // spec.doubles)
        if sizes["double_cells"] < FEWEST_OF_DOUBLE:
            raise UserError(
                f"{Path(spec.path) / 'testset'}: has images for {most['test']} rows, too few for {spec.doubles} "
                f"doubles of {FEWEST_OF_DOUBLE} cells; set data.doubles={most['test'] // FEWEST_OF_DOUBLE}"
            )
    return spec.model_copy(update={name: size for name, size in sizes.items() if size != getattr(spec, name)})


def _refuse_few_of_condition(spec: Causal3DIdentData, sizes: Mapping[str, int]) -> None:
    """Refuse lowered numbers of rows that leave a condition too few."""
    sets = {"cells": "trainset", "test_cells": "testset"}
    lowered = {which: sizes[name] for name, which in sets.items() if sizes[name] < getattr(spec, name)}
    if not lowered:
        return
    which, rows = min(lowered.items(), key=lambda item: item[1])
    most = rows // FEWEST_OF_CONDITION - 1
    if spec.environments > most:
        remedy = f"set data.environments={most}, or give a larger release" if most > 0 else "give a larger release"
        raise UserError(
            f"{Path(str(spec.path)) / which}: has images for {rows} rows, fewer than {FEWEST_OF_CONDITION} for each of "
            f"the {spec.environments + 1} conditions that data.environments makes with control; {remedy}"
        )


def lowered_words(asked: Causal3DIdentData, served: Causal3DIdentData) -> str | None:
    """What was lowered and why, in a sentence; None where nothing was."""
    changed = [
        f"data.{name} is {getattr(served, name):,} instead of {getattr(asked, name):,}"
        for name in ("cells", "test_cells", "double_cells")
        if getattr(served, name) != getattr(asked, name)
    ]
    if not changed:
        return None
    return (
        "the release in data.path has fewer images than rows were asked for, and no split draws more rows than its "
        f"smallest class has images for: {', '.join(changed)}"
    )


def _most_rows(pool: Pool, classes: Sequence[int]) -> int:
    """Rows at which the smallest class, drawn as often as ``classes`` names it, needs each of its images once."""
    return min(len(pool.rows[c]) * len(classes) // classes.count(c) for c in set(classes))


def _cells(spec: Causal3DIdentData, most: Mapping[str, int]) -> int:
    """The largest number of cells, divided between training and validation, that is served."""
    cells = min(spec.cells, most["train"] + most["validation"])
    while (validating := round(spec.validation * cells)) > most["validation"] or cells - validating > most["train"]:
        cells -= 1
    return cells
