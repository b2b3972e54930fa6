"""Whole trials on cells: every pairing with every alignment, counts, batches, best weights by prediction."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from harness.data import load
from harness.data.fingerprint import fingerprint
from harness.data_spec import PerturbseqData
from harness.model_spec import CiteVAESpec, PerturbedVAESpec
from harness.predicting import predict
from harness.trial import run_trial
from harness.trial_model import load_fitted
from harness.trial_spec import EvaluateSpec, TrainSpec, TrialSpec

DATA = PerturbseqData(
    environments=3,
    doubles=2,
    cells=240,
    test_cells=100,
    double_cells=30,
    genes=15,
    process={"responsive": 2, "invariant": 2},
    min_cells=5,
    pairs="random",
)
SMALL = {"latent_dim": 4, "responsive_dim": 2, "hidden": 8, "layers": 1, "mechanisms": "free"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def _run(folder, cache, model, train=None, data=DATA, **evaluate):
    asked = {"identifiability": False, "conditions": False, "ood": True, **evaluate}
    spec = TrialSpec(
        model=model,
        data=data,
        train=TrainSpec(**{"epochs": 3, "second_stage": {"restarts": 0}, **(train or {})}),
        evaluate=EvaluateSpec(**asked),
        data_fingerprint=fingerprint(data),
    )
    return run_trial(spec, folder / spec.trial_id, cache_dir=cache, device="cpu"), folder / spec.trial_id


@pytest.mark.parametrize("kind", ["mean", "mmd"])
@pytest.mark.parametrize("pairing", ["random", "ot", "none"])
def test_every_pairing_works_with_every_alignment_and_logs_its_blocks(tmp_path, cache, pairing, kind):
    model = PerturbedVAESpec(**SMALL, pairing=pairing, alignment={"kind": kind, "weight": 1.0})
    result, folder = _run(tmp_path, cache, model, ood=False)
    assert result.state == "finished", result.failure
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        metrics = json.loads(line)["metrics"]
        for block in ("responsive", "invariant"):
            assert metrics[f"validation/active_{block}"] <= 2
            assert metrics[f"train/kl_{block}"] >= 0
            assert metrics[f"validation/kl_{block}"] >= 0
        # without a control beside it there is nothing to align a cell with
        assert (metrics["train/alignment"] == 0) == (pairing == "none")


def test_a_collapse_is_named_in_the_trials_warnings(tmp_path, cache):
    model = PerturbedVAESpec(
        **SMALL, pairing="random", alignment={"kind": "mean", "weight": 1e6}, kl_invariant=1e3, likelihood_variance=9.0
    )
    result, _ = _run(tmp_path, cache, model, {"epochs": 25, "learning_rate": 1e-2}, ood=False)
    assert any("invariant block collapsed" in sentence for sentence in result.warnings)


@pytest.mark.parametrize("model", [PerturbedVAESpec, CiteVAESpec])
def test_counts_are_trained_on_scored_and_predicted(tmp_path, cache, model):
    asked = {"batches": "balanced", "monitor": "validation/pearson_delta", "epochs": 8, "patience": 4}
    result, folder = _run(tmp_path, cache, model(**SMALL, likelihood="nb", pairing="random"), asked)
    assert result.state == "finished", result.failure
    assert np.isfinite([result.metrics[name] for name in ("validation/rmse", "validation/pearson_delta")]).all()
    assert any(name.startswith("ood/double_seen2/") for name in result.metrics)
    fitted = load_fitted(folder, cache)
    pair = "+".join(fitted.data.perturbations[:2])
    cells = predict(fitted, [pair], cells=40).X
    data = load(DATA, cache)
    observed = data.frames[data.last_frames(data.splits["test"])]
    # cells vary at least about as observed ones do: a likelihood's mean would have a fraction of it
    assert cells.var(0).mean() > 0.5 * observed.var(0).mean().item()


def test_counts_without_library_sizes_are_refused(tmp_path, cache, monkeypatch):
    data = load(DATA, cache)
    lacking = dataclasses.replace(data, library=None)
    monkeypatch.setattr("harness.trial.load", lambda spec, cache: lacking)
    result, _ = _run(tmp_path, cache, PerturbedVAESpec(**SMALL, likelihood="nb"))
    assert result.state == "failed"
    assert "likelihood: nb needs each cell's total counts" in result.failure["reason"]


def test_predicted_cells_vary_as_evaluate_says(tmp_path, cache):
    model = PerturbedVAESpec(**SMALL, pairing="random")
    found = {}
    for noise in ("none", "residual", "likelihood"):
        result, folder = _run(tmp_path, cache, model, cell_noise=noise)
        assert result.state == "finished", result.failure
        fitted = load_fitted(folder, cache)
        found[noise] = predict(fitted, [fitted.data.perturbations[0]], cells=60).X
    assert found["residual"].var(0).sum() > found["none"].var(0).sum()
    assert not torch.equal(torch.tensor(found["likelihood"]), torch.tensor(found["none"]))
