"""A root with an empty MLflow database, made once and copied, since making one takes seconds."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    from mlflow import MlflowClient

    from harness.study.tracking import default_uri

    root = tmp_path_factory.mktemp("empty")
    MlflowClient(tracking_uri=default_uri(root)).search_experiments()
    return root / "mlflow.db"


@pytest.fixture
def driving(tmp_path, empty_database, monkeypatch):
    from driving import Driving

    # workers are processes of their own, which must find the trial that costs nothing
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("MPLBACKEND", os.environ.get("MPLBACKEND", "agg"))
    return Driving(tmp_path, empty_database)
