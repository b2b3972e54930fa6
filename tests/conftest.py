"""What every test starts from: one thread, no settings of the caller's own, fixtures several folders share."""

import os

# Read when torch and its linear algebra are first imported, hence before any test is collected. One thread keeps
# sums, and so results, the same on every machine, and lets parallel test processes share the cores.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
# The caller's own store, root, GPUs or surrounding SLURM job are none of the tests' business.
for _name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_", "SUBMITIT_", "MLFLOW_"))]:
    del os.environ[_name]
os.environ.pop("HARNESS_ROOT", None)
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MPLBACKEND"] = "agg"

import pytest  # noqa: E402

TINY_STUDY = """\
name: tiny
models:
  - {kind: perturbed_vae, latent_dim: 4, responsive_dim: 2, hidden: 16, layers: 1}
data: {kind: simulation, preset: tiny}
seeds: 2
train: {epochs: 2, batch_size: 64, second_stage: {restarts: 2, steps: 10}}
evaluate: {rotation_steps: 10}
compute: {cluster: inline}
"""


@pytest.fixture
def tiny_study(tmp_path):
    """Path of a study file with two trials (one cell, two seeds) that take seconds."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_STUDY)
    return path


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """An MLflow database without a run, to be copied, since making one takes seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path
