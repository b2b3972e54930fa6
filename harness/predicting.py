"""Cells of perturbations, seen or not, predicted by a trained model and written as an AnnData file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness import __version__
from harness.data.batch import PerturbationData
from harness.data.perturbseq.conditions import canonical, in_condition, members_asked
from harness.data.perturbseq.control_words import CONTROL, control_word
from harness.data.perturbseq.label_texts import listed
from harness.data.seeding import derive, generator
from harness.data_spec import PerturbseqData
from harness.errors import UserError
from harness.evaluation.baselines import CannotPredict
from harness.kept_data import kept
from harness.latent_scoring import u_of
from harness.models.supervised import NO_DECODER, Supervised
from harness.outputs import refuse_taken, writing
from harness.predictor import CellPredictor
from harness.trial_model import Fitted
from harness.trial_spec import TrialSpec
from harness.words import first

if TYPE_CHECKING:
    from anndata import AnnData

#: Perturbations that are named where one is not known.
_MOST_NAMED = 10
#: Ending of files of predicted cells.
ENDING = ".h5ad"


def predict(fitted: Fitted, perturbations: Sequence[str], *, cells: int = 500, seed: int = 0) -> AnnData:
    """Predict cells of each perturbation.

    Each begins as a control cell of the training split, one of those that `harness.kept_data` keeps, drawn with
    replacement where more are asked for.

    Parameters
    ----------
    fitted
        As `harness.trial_model.load_predictor` gives it, or `load_fitted`, of whose data no more is used.
    perturbations, cells, seed
        As in `harness.api.predict_run`.

    Returns
    -------
    As `harness.api.predict_run` does, ``X`` in the units of the data.

    Raises
    ------
    UserError
        If a member was never seen in training, a name is empty, or the model predicts no cells.
    """
    import anndata
    import pandas as pd

    if isinstance(fitted.model, Supervised):
        raise UserError(f"{NO_DECODER}; choose a trial of another model")
    fitted = replace(fitted, data=kept(fitted.data))
    asked = dict.fromkeys(ordered(name, fitted.data) for name in perturbations)
    under = {name: _u_of(name, fitted) for name in asked}
    control = _control(fitted, cells, seed)
    predictor = CellPredictor(fitted.model, fitted.data, fitted.spec.cell_noise)
    parts = [_predicted(predictor, fitted, control, u, derive(seed, "predict", name)) for name, u in under.items()]
    names = [name for name in under for _ in range(cells)]
    obs = pd.DataFrame({"perturbation": pd.Categorical(names)}, index=[f"predicted{k}" for k in range(len(names))])
    features = fitted.data.feature_names or tuple(f"x{k}" for k in range(parts[0]["X"].shape[1]))
    data = anndata.AnnData(np.concatenate([part["X"] for part in parts]), obs, pd.DataFrame(index=list(features)))
    for block in sorted(set(parts[0]) - {"X"}):
        data.obsm[block] = np.concatenate([part[block] for part in parts])
    data.uns["harness"] = {
        "version": __version__,
        "trial_id": fitted.spec.trial_id,
        "data_fingerprint": fitted.spec.data_fingerprint,
        "trial": fitted.spec.model_dump_json(),
        "seed": seed,
        "units": units_of(fitted.spec),
    }
    return data


def write_predicted(data: AnnData, out: Path) -> None:
    """Write as ``.h5ad``, under a temporary name first.

    Raises
    ------
    UserError
        As `harness.outputs.refuse_taken`, or if it cannot be written.
    """
    refuse_taken(out, ending=ENDING)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    with writing(out):
        try:
            data.write_h5ad(unfinished)
            unfinished.rename(out)
        finally:
            unfinished.unlink(missing_ok=True)


def ordered(name: str, data: PerturbationData) -> str:
    """A combination with its members sorted, each once, as conditions are named; ``A+ctrl`` is ``A``, as GEARS has it.

    A name that holds a ``+`` itself, or a list of drugs and doses, is taken as the file of the data has it.

    Raises
    ------
    UserError
        If it names nothing, or nothing beside one of its ``+``.
    """
    known = {*data.perturbations, *data.vector_names}
    items = listed(name.strip())
    if items is not None:
        return canonical(item for item in items if in_condition(item) in known or control_word(item) is None)
    members = members_asked(name, known)
    if "" in members:
        what = "names nothing beside a +" if name.strip(" +") else "is no name"
        raise UserError(f"perturbation {name!r} {what}; give a name, a combination A+B, or {CONTROL}")
    return canonical(members)


def _u_of(name: str, fitted: Fitted) -> torch.Tensor:
    try:
        return u_of(name, fitted.data)
    except CannotPredict as refusal:
        seen = first(fitted.data.perturbations, _MOST_NAMED)
        raise UserError(f"{name}: {refusal}; perturbations seen are {seen}") from None


def _control(fitted: Fitted, cells: int, seed: int) -> torch.Tensor:
    """Frames (cells,) that predictions begin from, int64."""
    data = fitted.data
    control = data.control_rows("train")
    random = generator(seed, "predict", "control cells")
    if len(control) >= cells:
        chosen = torch.randperm(len(control), generator=random)[:cells]
    else:
        chosen = torch.randint(len(control), (cells,), generator=random)
    return data.start_frames(control[chosen])


def _predicted(
    predictor: CellPredictor, fitted: Fitted, chosen: torch.Tensor, u: torch.Tensor, seed: int
) -> dict[str, Any]:
    """Predicted cells that began as the frames ``chosen``, (n,) int64, and their latents where there are some."""
    data = fitted.data
    library = None if data.library is None else data.library[chosen]
    found = predictor(data.as_float(data.frames[chosen]), library, u, generator(seed, "noise"))
    arrays = {"X": found.cells.flatten(1).float(), "responsive": found.responsive, "invariant": found.invariant}
    return {name: value.numpy() for name, value in arrays.items() if value is not None}


def units_of(spec: TrialSpec) -> str:
    """Units of a trial's features, for people."""
    return "log(1 + counts per 10,000)" if isinstance(spec.data, PerturbseqData) else "as the data"
