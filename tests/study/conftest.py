"""Studies whose trials cost nothing."""

import os
from pathlib import Path

import pytest

from harness.study.folder import StudyFolder


@pytest.fixture
def driving(tmp_path, empty_database, monkeypatch):
    from driving import Driving

    # workers are processes of their own, which must find the trial that costs nothing
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("MPLBACKEND", os.environ.get("MPLBACKEND", "agg"))
    return Driving(tmp_path, empty_database)


@pytest.fixture
def folder(tmp_path):
    """The folder of a study named ``sample``, nothing in it yet."""
    made = StudyFolder(tmp_path, "sample")
    made.create()
    return made
