"""The models of trials as MLflow has them: written as pyfunc models, and noted, so that MLflow can be rebuilt.

Every finished trial's model could be brought to MLflow, at the price of all weights twice and of a second a trial. A
launch therefore brings the best trial of each model; any other is brought when asked for.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import harness
from harness.errors import UserError
from harness.outputs import new_folder
from harness.study.folder import StudyFolder, TrialFolder, read_json, write_atomic
from harness.study.mlflow_store import keep_quiet
from harness.trial_result import KEPT_DATA, MODEL_FILES

#: Packages whose versions an exported model names; this one is not published, and has to be there.
_NEEDED = ("torch", "numpy", "pandas", "anndata", "pydantic", "scikit-learn", "mlflow")
_DESCRIPTION = "Predicted cells of perturbations, seen or not; needs the package harness, version {version}."


def is_exportable(trial: TrialFolder) -> bool:
    """Whether a trial's folder holds all that its model is made of."""
    return all((trial.path / name).is_file() for name in MODEL_FILES)


def write_model(trial: Path, out: Path) -> None:
    """Write a trial's model as MLflow has models, into a new or empty folder.

    Parameters
    ----------
    trial
        The trial's folder, which holds all of `harness.trial_result.MODEL_FILES`.
    out
        The folder.
    """
    keep_quiet()
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    inputs = Schema([ColSpec("string", "perturbation"), ColSpec("long", "cells", required=False)])
    params = ParamSchema([ParamSpec("seed", "long", 0)])
    spec = read_json(trial / "spec.json") or {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no type hints and no example: there is a signature
        save_model(
            str(out),
            python_model=str(Path(harness.__file__).with_name("pyfunc_code.py")),
            artifacts={name: (trial / name).absolute().as_uri() for name in MODEL_FILES},
            signature=ModelSignature(inputs=inputs, params=params),
            pip_requirements=_requirements(),
            metadata={
                "trial_id": trial.name,
                "data_fingerprint": spec.get("data_fingerprint", ""),
                "description": _DESCRIPTION.format(version=harness.__version__),
            },
        )


def export_to_folder(trial: Path, out: Path, cache_dir: Path) -> None:
    """Write the model of any finished trial; for one that kept no control cells, its data are read.

    Raises
    ------
    UserError
        If the trial has not finished, kept no weights, or predicts no cells; or ``out`` is there or cannot be written.
    """
    from harness.kept_data import write_kept
    from harness.models.supervised import NO_DECODER, Supervised
    from harness.trial_model import load_predictor

    fitted = load_predictor(trial, cache_dir)
    if isinstance(fitted.model, Supervised):
        raise UserError(f"{NO_DECODER}; choose a trial of another model")
    if is_exportable(TrialFolder(trial)):
        with new_folder(out) as unfinished:
            write_model(trial, unfinished)
        return
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / trial.name
        whole.mkdir()
        for name in MODEL_FILES:
            if name != KEPT_DATA:
                shutil.copy(trial / name, whole / name)  # MLflow follows no links
        write_kept(whole / KEPT_DATA, fitted.data)
        with new_folder(out) as unfinished:
            write_model(whole, unfinished)


def exported(folder: StudyFolder) -> list[str]:
    """Ids of the trials whose models were brought to MLflow."""
    noted: Any = read_json(_noted_in(folder))
    return [str(one) for one in noted] if isinstance(noted, list) else []


def note_exported(folder: StudyFolder, trials: Iterable[str]) -> list[str]:
    """Add to `exported`, which this gives; only who holds the study's lease may."""
    before = exported(folder)
    now = list(dict.fromkeys([*before, *trials]))
    if now != before:
        write_atomic(_noted_in(folder), json.dumps(now))
    return now


def _noted_in(folder: StudyFolder) -> Path:
    return folder.path / "exported.json"


def _requirements() -> list[str]:
    from importlib.metadata import version

    return [f"{name}=={version(name).partition('+')[0]}" for name in _NEEDED]
