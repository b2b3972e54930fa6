"""Where MLflow keeps a study: a database of the root's own, or the store a study names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_QUIET = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
#: File stores are none of them: MLflow no longer writes to them.
_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks")


def default_uri(root: Path) -> str:
    """Tracking URI of a root's own database."""
    return f"sqlite:///{root.absolute()}/mlflow.db"


def has_server(uri: str) -> bool:
    """Whether a server stands behind a URI, rather than a database that we open ourselves."""
    return uri.startswith(("http://", "https://", "databricks"))


def create_default_store(root: Path) -> None:
    """Make a root's own database, if it is not there.

    Under a lock and under another name first: processes that open an empty database together all fail in its
    migration, and one that is killed there would leave a database that nobody can open.
    """
    from filelock import FileLock

    database = root / "mlflow.db"
    if database.exists():
        return
    with FileLock(root / ".mlflow.lock"):
        if database.exists():
            return
        unfinished = root / f".mlflow.{os.getpid()}.db"
        unfinished.unlink(missing_ok=True)
        connect(f"sqlite:///{unfinished}").search_experiments(max_results=1)
        unfinished.rename(database)


def connect(uri: str) -> MlflowClient:
    """A client for ``uri``; MLflow itself is kept quiet."""
    import logging

    for key, value in _QUIET.items():
        os.environ.setdefault(key, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # it prints the traceback of an error that it then raises, and that we say in a sentence
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def check_uri(uri: str | None) -> None:
    """Refuse a tracking URI that cannot work, before anything runs.

    Raises
    ------
    UserError
        If MLflow knows no such store.
    """
    if uri is None or uri.split("://")[0].split("+")[0] in _SCHEMES or uri == "databricks":
        return
    raise UserError(
        f"tracking.uri is {uri!r}, which is no store of MLflow's; use sqlite:///FILE, postgresql://... "
        "or http://HOST:PORT, or leave it out"
    )
