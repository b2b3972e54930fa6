"""Conditions on real cells, whose truth nobody knows: the fitted model alone is judged, and its structure is kept."""

import os
from pathlib import Path

import numpy as np
import pytest

from harness.data.fingerprint import fingerprint
from harness.data_spec import PerturbseqData
from harness.model_spec import PerturbedVAESpec
from harness.scoring import CONDITIONS
from harness.trial import run_trial
from harness.trial_spec import EvaluateSpec, TrainSpec, TrialSpec

FOLDER = os.environ.get("HARNESS_REAL_DATA")


@pytest.mark.skipif(FOLDER is None, reason="HARNESS_REAL_DATA is not set: real cells are not there")
def test_margins_graph_and_targets_of_a_model_on_real_cells(tmp_path):
    data = PerturbseqData(path=str(Path(FOLDER) / "norman19_subset.h5ad"))
    spec = TrialSpec(
        model=PerturbedVAESpec(latent_dim=6, responsive_dim=3, hidden=8, input_pca=8),
        data=data,
        train=TrainSpec(epochs=1, second_stage={"restarts": 1, "steps": 2}),
        evaluate=EvaluateSpec(ood=False, rotation_steps=2),
        data_fingerprint=fingerprint(data),
    )
    result = run_trial(spec, tmp_path / "trial", cache_dir=tmp_path / "cache", device="cpu")
    assert result.state == "finished", result.failure
    for name in (*CONDITIONS, "rotation"):
        assert np.isfinite(result.metrics[f"conditions/{name}/margin_learned"])
        assert f"conditions/{name}/margin_true" not in result.metrics
    kept = np.load(tmp_path / "trial" / "latents.npz")
    assert "responsive_true" not in kept
    assert kept["graph"].shape == (3, 3)
    assert kept["targets"].shape == (len(kept["perturbations"]), 3)
