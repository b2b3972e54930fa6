"""The folder of the trial that a user means: by path, by its id, or by the id of its run in MLflow."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

from harness.errors import UserError
from harness.study.folder import default_root
from harness.study.tracked_book import BOOK
from harness.words import first

#: Shortest beginning of a trial's id that is looked for.
SHORTEST = 3


def find_run(wanted: str, root: Path) -> Path:
    """Folder of a trial.

    Parameters
    ----------
    wanted
        A trial's folder, its id or an unambiguous beginning of it, or the id of its run in MLflow: in the root's store,
        or in the store that its study names.
    root
        Folder of all studies.

    Raises
    ------
    UserError
        If there is no such trial, or more than one.
    """
    if (Path(wanted) / "spec.json").is_file():
        return Path(wanted)
    unasked: list[str] = []
    if re.fullmatch(r"[0-9a-f]{32}", wanted):
        wanted = _trial_of_run(wanted, root, unasked)
    at_all = re.fullmatch(r"[0-9a-f]+", wanted) is not None and len(wanted) >= SHORTEST
    found = sorted(root.glob(f"*/trials/{wanted}*")) if at_all else []
    if len({path.name for path in found}) == 1:
        return found[0]  # the same trial in two studies is the same trial
    if found:
        raise UserError(f"{wanted!r} may mean {first([path.name for path in found], 5)}; give more of the id")
    where = "" if root.absolute() != default_root().absolute() else "; say where with --root"
    also = "".join(f"; MLflow at {uri} could not be asked" for uri in unasked)
    raise UserError(
        f"no trial {wanted!r} in {root}{where}; give a trial's folder, its id (trial_id in MLflow), or "
        f"the id of its run in MLflow{also}"
    )


def _trial_of_run(run: str, root: Path, unasked: list[str]) -> str:
    """Id of the trial whose run this is; the run's own id where no store knows it.

    Parameters
    ----------
    run, root
        As in `find_run`.
    unasked
        Stores that did not answer are added to it.

    Raises
    ------
    UserError
        If it is the run of a launch.
    """
    from mlflow.exceptions import MlflowException

    from harness.study.mlflow_store import connect

    noted = _noted(run, root)
    if noted is not None:
        return noted
    for uri in _stores(root):
        try:
            tags = connect(uri).get_run(run).data.tags
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                unasked.append(uri)
            continue
        if "trial_id" not in tags:
            raise UserError(f"run {run} is a launch, and no trial; choose one of the runs below it")
        return str(tags["trial_id"])
    return run


def _noted(run: str, root: Path) -> str | None:
    """Trial of a run that a driver noted when it brought it to a server; no server is asked."""
    for book in sorted(root.glob(f"*/{BOOK}")):
        for line in book.read_bytes().splitlines():
            if run.encode() in line:
                with contextlib.suppress(ValueError, KeyError, TypeError):  # torn where a machine went down
                    entry = json.loads(line)
                    if entry["run"] == run:
                        return str(entry["trial_id"])
    return None


def _stores(root: Path) -> list[str]:
    """Stores that may know a run: the root's own where it is there, then those that its studies name."""
    from harness.study import yaml12
    from harness.study.mlflow_store import default_uri

    found = [default_uri(root)] if (root / "mlflow.db").exists() else []
    for study in sorted(root.glob("*/study.yaml")):
        with contextlib.suppress(OSError, UserError, AttributeError):
            uri = (yaml12.parse(study.read_text(), str(study))[0].get("tracking") or {}).get("uri")
            if isinstance(uri, str) and not _is_missing_file(uri):
                found.append(uri)
    return list(dict.fromkeys(found))


def _is_missing_file(uri: str) -> bool:
    """Whether a store is a database file that is not there: asking for it would make it."""
    return uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists()
