"""Brings the model of one trial to its run in MLflow, between launches."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path

from harness.errors import UserError
from harness.study.child_runs import MODEL
from harness.study.exported import export_to_folder, note_exported
from harness.study.folder import TrialFolder
from harness.study.lease import Lease
from harness.study.past import launched
from harness.study.tracked_trial import end_mark
from harness.study.tracking import Tracker


def export_to_run(trial: Path, root: Path) -> str:
    """Bring a trial's model to its run, and note it, so that a later launch can do so again.

    Parameters
    ----------
    trial
        The trial's folder, in the folder of its study.
    root
        Folder of all studies.

    Returns
    -------
    The model's URI, ``runs:/RUN_ID/model``.

    Raises
    ------
    UserError
        If the trial has no model or no run in MLflow, MLflow cannot be written, or another process drives the study.
    """
    own = trial.absolute().parent.parent
    study, folder = launched(own.name, own.parent)
    with tempfile.TemporaryDirectory() as scratch, Lease(folder.lock, study.name) as lease:
        made = Path(scratch) / MODEL
        export_to_folder(trial, made, root / "cache")
        tracker = Tracker(
            folder.root,
            study.name,
            experiment=study.experiment,
            uri=study.tracking.uri,
            check=lease.check,
        )
        run = tracker.log_model(trial.name, end_mark(TrialFolder(trial).read_result()), partial(shutil.copytree, made))
        if run is None and tracker.error:
            raise UserError(f"MLflow at {tracker.uri} cannot be written ({tracker.error}); try again, or give --out")
        if run is None:
            again = folder.command("resume")
            raise UserError(
                f"trial {trial.name} has no run in MLflow at {tracker.uri}; bring it there with: {again}, or give --out"
            )
        note_exported(folder, [trial.name])
    return f"runs:/{run}/{MODEL}"
