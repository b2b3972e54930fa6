"""Both models on real cells: a few epochs, doubles held out, scores beside the baselines on the same conditions."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = os.environ.get("HARNESS_REAL_DATA")
pytestmark = pytest.mark.skipif(not FOLDER, reason="HARNESS_REAL_DATA (folder of norman19_subset.h5ad) is not set")

STUDY = """\
models:
  - {kind: perturbed_vae, input_pca: 20, latent_dim: 12, responsive_dim: 8}
  - {kind: cite_vae, input_pca: 20, latent_dim: 12, responsive_dim: 8}
data: {kind: perturbseq}
seeds: 1
train: {epochs: 3}
compute: {cluster: inline}
"""
#: The five doubles of the subset of which both members are there as singles.
HELD_OUT = {"double_seen2"}
METRICS = {"rmse_relative", "rmse", "r2", "pearson_delta", "mmd", "energy_distance"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of the trials in MLflow after a launch on the real cells."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("real")
    (folder / "cells.yaml").write_text(STUDY)
    path = Path(FOLDER) / "norman19_subset.h5ad"
    command = [sys.executable, "-m", "harness", "launch", str(folder / "cells.yaml"), "--root", str(folder / "runs")]
    done = subprocess.run(
        [*command, "--set", f"data.path={path}"], capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr
    client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("cells")
    return client.search_runs([experiment.experiment_id], "tags.trial_id != ''")


def scores(run, prefix):
    """Metrics below a prefix: (split, metric) -> value."""
    found = {name.removeprefix(prefix): value for name, value in run.data.metrics.items() if name.startswith(prefix)}
    return {tuple(name.split("/")): value for name, value in found.items()}


def test_both_models_were_trained(runs):
    assert {run.data.tags["model"] for run in runs} == {"perturbed_vae", "cite_vae"}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all(math.isfinite(run.data.metrics["validation/loss"]) for run in runs)


def test_the_held_out_doubles_have_finite_scores(runs):
    for run in runs:
        found = scores(run, "ood/")
        assert {split for split, _ in found} >= HELD_OUT
        for split in HELD_OUT:
            assert {metric for s, metric in found if s == split} >= METRICS
        assert all(math.isfinite(value) for value in found.values())


def test_the_baselines_stand_beside_them(runs):
    for baseline in ("control_mean", "mean_effect", "additive"):
        logged = [found for run in runs if (found := scores(run, f"baseline/{baseline}/ood/"))]
        assert logged
        for found in logged:
            assert {(split, metric) for split in HELD_OUT for metric in ("rmse_relative", "rmse")} <= set(found)
            assert all(math.isfinite(value) for value in found.values())


def test_real_cells_have_no_truth_to_be_scored_against(runs):
    assert all("identifiability/mcc" not in run.data.metrics for run in runs)
