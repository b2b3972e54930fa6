"""The folder of the trial that a user means: by path, by its id, or by the id of its run in MLflow."""

from __future__ import annotations

import re
from pathlib import Path

from harness.errors import UserError
from harness.study.folder import default_root
from harness.words import first

#: Shortest beginning of a trial's id that is looked for.
SHORTEST = 3


def find_run(wanted: str, root: Path) -> Path:
    """Folder of a trial.

    Parameters
    ----------
    wanted
        A trial's folder, its id or an unambiguous beginning of it, or the id of its run in the root's MLflow store.
    root
        Folder of all studies.

    Raises
    ------
    UserError
        If there is no such trial, or more than one.
    """
    if (Path(wanted) / "spec.json").is_file():
        return Path(wanted)
    if re.fullmatch(r"[0-9a-f]{32}", wanted):
        wanted = _trial_of_run(wanted, root)
    at_all = re.fullmatch(r"[0-9a-f]+", wanted) is not None and len(wanted) >= SHORTEST
    found = sorted(root.glob(f"*/trials/{wanted}*")) if at_all else []
    if len({path.name for path in found}) == 1:
        return found[0]  # the same trial in two studies is the same trial
    if found:
        raise UserError(f"{wanted!r} may mean {first([path.name for path in found], 5)}; give more of the id")
    where = "" if root.absolute() != default_root().absolute() else "; say where with --root"
    raise UserError(
        f"no trial {wanted!r} in {root}{where}; give a trial's folder, its id (trial_id in MLflow), or "
        "the id of its run in MLflow"
    )


def _trial_of_run(run: str, root: Path) -> str:
    """Id of the trial whose run in the root's store this is; the run's own id where there is none."""
    from mlflow.exceptions import MlflowException

    from harness.study.mlflow_store import connect, default_uri

    if not (root / "mlflow.db").exists():
        return run
    try:
        tags = connect(default_uri(root)).get_run(run).data.tags
    except MlflowException:
        return run
    if "trial_id" not in tags:
        raise UserError(f"run {run} is a launch, and no trial; choose one of the runs below it")
    return str(tags["trial_id"])
