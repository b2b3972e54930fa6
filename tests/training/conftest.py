"""Data to train on."""

from pathlib import Path

import pytest

from harness.data.fingerprint import fingerprint
from harness.data.simulation import build
from harness.data_spec import SimulationData


@pytest.fixture(scope="session")
def data():
    """Vectors of the smallest preset, with true pairs."""
    spec = SimulationData(preset="tiny")
    return build(spec, fingerprint(spec), Path())
