"""A real one-machine SLURM, brought up once for the tests of this folder and taken down after them."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "slurm" / "local-cluster"
PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd")


@pytest.fixture(scope="session")
def cluster_folder():
    """Folder of a running cluster."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if missing:
        pytest.skip(f"no SLURM here: {', '.join(missing)} not installed (see slurm/local-cluster)")
    # Sockets lie in the folder and their paths must be short, which pytest's own temporary folders are not.
    folder = Path(tempfile.mkdtemp(prefix="harness-slurm-"))
    try:
        subprocess.run([SCRIPT, "up", folder], check=True, timeout=180)
        yield folder
    finally:
        subprocess.run([SCRIPT, "down", folder], check=True, timeout=120)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(cluster_folder, monkeypatch):
    """The cluster, with the environment a user of it would have."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_CONF", str(cluster_folder / "slurm.conf"))
    return cluster_folder
