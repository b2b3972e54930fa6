"""A trial's model as MLflow's pyfunc has it: a table of perturbations in, a table of predicted cells out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.pyfunc.model import PythonModel
from pandas import DataFrame  # at run time too: MLflow reads the annotations

from harness.errors import UserError

if TYPE_CHECKING:
    from harness.trial_model import Fitted

#: Cells of each perturbation where the table does not say.
CELLS = 500


class TrialModel(PythonModel):  # type: ignore[misc, unused-ignore]  # MLflow may be without types
    """Predicts what ``harness predict`` predicts, from the files of the trial alone."""

    _fitted: Fitted

    def load_context(self, context: Any) -> None:
        """Load the trial from the artifacts."""
        from harness.trial_model import load_predictor

        self._fitted = load_predictor(Path(context.artifacts["spec.json"]).parent, None)

    def predict(self, context: Any, model_input: DataFrame, params: dict[str, Any] | None = None) -> DataFrame:
        """Cells of the perturbations asked for.

        Parameters
        ----------
        context
            MLflow's own.
        model_input
            A table with a row for each perturbation: ``perturbation``, a name or a combination ``A+B`` in any order, or
            ``control``; and ``cells``, how many (500 where it is left out).
        params
            ``seed`` (default 0), which governs control cells and noise.

        Returns
        -------
        A row for each cell: ``perturbation``, then one column a gene, in the units of the data.

        Raises
        ------
        UserError
            If a perturbation is missing or not known to the model, or is asked for with two numbers of cells.
        """
        return predicted_table(self._fitted, model_input, int((params or {}).get("seed", 0)))


def predicted_table(fitted: Fitted, asked: DataFrame, seed: int) -> DataFrame:
    """What `TrialModel.predict` gives."""
    import pandas as pd

    from harness.predicting import ordered, predict

    wanted: dict[str, int] = {}
    numbers = asked["cells"].fillna(CELLS) if "cells" in asked else [CELLS] * len(asked)
    for row, (name, number) in enumerate(zip(asked["perturbation"], numbers, strict=True), start=1):
        if not isinstance(name, str):
            raise UserError(f"row {row} of the table names no perturbation; give a name, a combination A+B, or control")
        cells = int(number)
        if cells < 1 or wanted.setdefault(ordered(name, fitted.data), cells) != cells:
            why = "twice, with different numbers of cells" if cells >= 1 else f"with {cells} cells"
            raise UserError(f"{name} is asked for {why}; give each perturbation one row, with at least one cell")
    if not wanted:
        raise UserError("no perturbation is asked for; give a table with a column perturbation and a row for each")
    tables = []
    for name, cells in wanted.items():
        found = predict(fitted, [name], cells=cells, seed=seed)
        table = pd.DataFrame(found.X, columns=list(found.var_names))
        table.insert(0, "perturbation", name, allow_duplicates=True)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
