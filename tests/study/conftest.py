"""Studies whose trials cost nothing."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def driving(tmp_path, empty_database, monkeypatch):
    from driving import Driving

    # workers are processes of their own, which must find the trial that costs nothing
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("MPLBACKEND", os.environ.get("MPLBACKEND", "agg"))
    return Driving(tmp_path, empty_database)
