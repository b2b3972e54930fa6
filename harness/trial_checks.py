"""Whether a trial can be run on the data it names, as far as the data themselves tell, before anything is written."""

from __future__ import annotations

from harness.data.batch import PerturbationData
from harness.errors import UserError
from harness.factor_scoring import check_published_r2
from harness.model_spec import ModelSpec
from harness.training.pairing import Pairing
from harness.trial_model import asked_pairing
from harness.trial_spec import TrialSpec


def check_fits(spec: TrialSpec, data: PerturbationData) -> None:
    """Refuse what a trial asks of its data and they do not offer.

    Raises
    ------
    UserError
        If its model cannot be paired so, has more components than the data have features, fits counts that are not
        there, or a score needs more cells.
    """
    if spec.evaluate.published_r2:
        check_published_r2(data)
    Pairing(data, asked_pairing(spec), spec.seed)
    if isinstance(spec.model, ModelSpec) and spec.model.likelihood == "nb" and data.library is None:
        raise UserError(
            "likelihood: nb needs each cell's total counts, and these data have none: their values are log-normalised; "
            "use likelihood: mse, or a file with counts"
        )
    features = data.frames[0].numel()
    if spec.model.input_pca is not None and spec.model.input_pca > features:
        raise UserError(
            f"input_pca is {spec.model.input_pca}, but a cell of these data has {features} features; use fewer"
        )
