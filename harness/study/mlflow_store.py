"""Where MLflow keeps a study: a database of the root's own, or the store a study names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: A request that the client repeats by itself may be carried out twice, and so make two runs: we repeat it, knowing.
_FORCED = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
_QUIET = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
#: Runs in one answer of a search, which brings all their metrics and params along.
PAGE = 50
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
    os.environ.update(_FORCED)
    keep_quiet()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def keep_quiet() -> None:
    """Have MLflow print neither progress nor what it then raises; to be called before it is imported."""
    import logging

    for key, value in _QUIET.items():
        os.environ.setdefault(key, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # it prints the traceback of an error that it then raises, and that we say in a sentence
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def all_runs(client: MlflowClient, experiment_id: str, wanted: str) -> Iterator[Any]:
    """Every run that a search finds, over all its pages; a page is small enough to be answered in time."""
    token = None
    while True:
        page = client.search_runs([experiment_id], filter_string=wanted, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def tagged_runs(
    uri: str, experiment_id: str, study: str, keys: Sequence[str]
) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The id and some tags of each of a study's runs in a database that we open ourselves.

    MLflow's own search brings every run's metrics and params along, which takes a hundred times as long.
    """
    import sqlalchemy
    from mlflow.store.tracking.dbmodels.models import SqlRun, SqlTag

    of_study: Any = sqlalchemy.select(SqlTag.run_uuid).where(SqlTag.key == "study", SqlTag.value == study)
    query: Any = (
        sqlalchemy.select(SqlTag.run_uuid, SqlTag.key, SqlTag.value)
        .join(SqlRun, SqlRun.run_uuid == SqlTag.run_uuid)
        .where(SqlRun.experiment_id == int(experiment_id), SqlRun.lifecycle_stage == "active")
        .where(SqlTag.key.in_(keys), SqlTag.run_uuid.in_(of_study))
    )
    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.connect() as connection:
            rows = connection.execute(query).all()
    finally:
        engine.dispose()
    found: dict[str, dict[str, str]] = {}
    for run_id, key, value in rows:
        found.setdefault(run_id, {})[key] = value
    yield from found.items()


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
