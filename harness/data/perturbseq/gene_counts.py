"""Numbers of perturbed genes that a file states beside its labels, as scPerturb's files do."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from harness.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

#: The column of obs.
COLUMN = "nperts"


def gene_counts(
    obs: pd.DataFrame, codes: npt.NDArray[np.int64], texts: Sequence[str], unnamed: Set[str], where: str
) -> dict[str, int]:
    """Number of perturbed genes of each label, where ``obs['nperts']`` says so.

    Parameters
    ----------
    obs
        One row a cell.
    codes
        (cells,) which label each cell has, negative where none.
    texts
        The labels; several may be alike.
    unnamed
        Labels that name no perturbation, of which the number says nothing.
    where
        Name of the data, for error messages.

    Raises
    ------
    UserError
        If cells of one label have several numbers.
    """
    if COLUMN not in obs.columns:
        return {}
    import pandas as pd

    numbers = pd.to_numeric(obs[COLUMN], errors="coerce").to_numpy(float)
    labels = np.array([*texts, ""], dtype=object)[codes]
    known = (codes >= 0) & np.isfinite(numbers) & ~np.isin(labels, list(unnamed))
    given = pd.DataFrame({"label": labels[known], "count": numbers[known]})
    stated = given.groupby("label")["count"].agg(["min", "max"]).astype(int)
    for label, least, most in stated.itertuples():
        if least != most:
            raise UserError(
                f"{where}: obs['{COLUMN}'] gives {label!r} both {least} and {most} genes; correct the column"
            )
    return {str(label): int(count) for label, count in stated["min"].items()}
