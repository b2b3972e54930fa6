"""Columns of obs that conditions are unevenly spread over, so that a difference between their values looks like effect.

Cell lines, batches, donors and days are spread over conditions by whoever made the screen. Where one condition lies
mostly in one of them and control mostly in another, the difference of their means is part of the condition's change.
Doses are another matter: they vary within a perturbation and not within control, and a label that leaves them out
stands for all of them together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from harness.data.perturbseq.cells_in_use import MISSING, values_of
from harness.data.perturbseq.labels import CONTROL, members_of
from harness.data.perturbseq.time_points import TimePoints
from harness.data_spec import PerturbseqData
from harness.words import first

if TYPE_CHECKING:
    import pandas as pd

#: Columns with more values than this hold measurements or names of cells, not a design.
MOST_VALUES = 50
#: Cramér's V from which a column counts as unevenly spread, where chance does not explain it.
LEAST_V = 0.1
#: Chance below which it does not.
_CHANCE = 1e-3
#: Fewest cells of a condition, or of one of its values, that are looked at.
_FEWEST = 5
#: What a perturbation does to cells, not what was done to them.
_OUTCOMES = frozenset({"leiden", "louvain", "cluster", "clusters", "phase", "seurat_clusters", "cell_cycle_phase"})
_MOST_NAMED = 6


@dataclass(frozen=True)
class UnevenColumn:
    """A column and how uneven it is.

    Attributes
    ----------
    column : its name.
    v : Cramér's V between condition and value, corrected for chance (Bergsma 2013); 1 where the value follows from the
        condition. None for values that control cells do not have.
    sentence : what it means and what would do.
    """

    column: str
    v: float | None
    sentence: str


def uneven_columns(obs: pd.DataFrame, conditions: Collection[str], taken: Collection[str]) -> Iterator[UnevenColumn]:
    """Columns that conditions are unevenly spread over, in the file's order.

    Parameters
    ----------
    obs
        One row a cell.
    conditions
        Canonical condition of each.
    taken
        Columns that the study accounts for: that of the perturbation, of times, of strata, those selected by.
    """
    of = np.asarray(conditions, dtype=object)
    for column in (str(name) for name in obs.columns):
        if column in taken or column.lower() in _OUTCOMES or not 2 <= obs[column].nunique() <= MOST_VALUES:
            continue
        found = _judged(column, of, values_of(obs, column, "obs", "the file"))
        if found is not None:
            yield found


def accounted_for(spec: PerturbseqData, column: str, times: TimePoints | None) -> set[str]:
    """Columns that a study accounts for.

    Parameters
    ----------
    spec
        The study file's ``data``.
    column
        Of the perturbation.
    times
        Of a time course.
    """
    selected = {name for name, values in (spec.where or {}).items() if len(values) == 1}
    known = {column, "nperts", *selected, spec.strata, None if times is None else times.column}
    return {name for name in known if name is not None}


def _judged(column: str, conditions: npt.NDArray[np.object_], values: npt.NDArray[np.object_]) -> UnevenColumn | None:
    names, rows = np.unique(conditions.astype(str), return_inverse=True)
    words, columns = np.unique(values.astype(str), return_inverse=True)
    table = np.zeros((len(names), len(words)), dtype=np.int64)
    np.add.at(table, (rows, columns), 1)
    control = table[names == CONTROL].sum(axis=0)
    perturbed = table[names != CONTROL]
    if not control.any() or not perturbed.any():
        return None
    if _follows_from_size(names, table):
        return None
    both = (control > 0) & (perturbed.sum(axis=0) > 0) & (words != MISSING)
    if not both.any():
        return _within_conditions(column, words, control, perturbed, names[names != CONTROL])
    v, chance = cramers_v(table)
    if v < LEAST_V or chance > _CHANCE:
        return None
    return UnevenColumn(column, v, _spread_sentence(column, v, words, control, perturbed, names[names != CONTROL]))


def _follows_from_size(names: npt.NDArray[np.str_], table: npt.NDArray[np.int64]) -> bool:
    """Whether each condition has one value, the same for all of as many members: a number of guides, or of doses."""
    if np.any(np.count_nonzero(table, axis=1) > 1):
        return False
    sizes = [len(members_of(name)) for name in names.tolist()]
    return len(set(zip(sizes, table.argmax(axis=1).tolist(), strict=True))) == len(set(sizes))


def _spread_sentence(
    column: str,
    v: float,
    words: npt.NDArray[np.str_],
    control: npt.NDArray[np.int64],
    perturbed: npt.NDArray[np.int64],
    names: npt.NDArray[np.str_],
) -> str:
    shares = perturbed / perturbed.sum(axis=1, keepdims=True)
    apart = np.abs(shares - control / control.sum())
    apart[perturbed.sum(axis=1) < _FEWEST] = 0.0
    condition, value = np.unravel_index(int(apart.argmax()), apart.shape)
    selected = words[int(np.argmax(control))]
    return (
        f"obs[{column!r}] is unevenly spread over conditions (Cramér's V {v:.2f}): {words[value]} holds "
        f"{control[value] / control.sum():.0%} of the control cells and {shares[condition, value]:.0%} of "
        f"{names[condition]}, so that a difference between its values looks like an effect; score within each value "
        f"with data.strata: {column}, or read one of them with data.where: {{{column}: [{selected}]}}"
    )


def _within_conditions(
    column: str,
    words: npt.NDArray[np.str_],
    control: npt.NDArray[np.int64],
    perturbed: npt.NDArray[np.int64],
    names: npt.NDArray[np.str_],
) -> UnevenColumn | None:
    """Values that control cells do not have, and that one perturbation has several of, such as doses."""
    own = (perturbed >= _FEWEST) & (control == 0)
    shared = own & (own.sum(axis=0) > 1)  # what one condition alone has is its own name in other words
    several = np.flatnonzero(shared.sum(axis=1) > 1)
    if not len(several):
        return None
    name, held = names[several[0]], words[shared[several[0]]]
    with_control = [word for word in words[control > 0] if word != MISSING]
    selected = ", ".join([*with_control, str(held[-1])])
    return UnevenColumn(
        column,
        None,
        f"obs[{column!r}] has {len(held)} values within {name} ({first(list(map(str, held)), _MOST_NAMED)}) that no "
        f"control cell has, and conditions pool them; read one of them, and control's, with data.where: "
        f"{{{column}: [{selected}]}}, or name another column of perturbations that tells them apart",
    )


def cramers_v(table: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Cramér's V of a table of counts, and how probable as much association is by chance.

    Parameters
    ----------
    table : (conditions, values), each row and column with a cell

    Returns
    -------
    tuple
        V in [0, 1], corrected for its bias (Bergsma 2013, Journal of the Korean Statistical Society 42), and p of the
        chi-squared test.
    """
    n = table.sum()
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / n
    squares = float(((table - expected) ** 2 / expected).sum())
    freedom = [size - 1 for size in table.shape]
    corrected = max(0.0, squares / n - freedom[0] * freedom[1] / (n - 1))
    sizes = [size - (size - 1) ** 2 / (n - 1) for size in table.shape]
    least = min(sizes) - 1
    v = float(np.sqrt(corrected / least)) if least > 0 else 0.0
    return min(v, 1.0), float(chi2.sf(squares, freedom[0] * freedom[1]))
