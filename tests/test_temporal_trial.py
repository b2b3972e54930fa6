"""Trials on temporal images: transitions, factors that are angles, and data without invariant latents."""

import numpy as np
import pytest
import torch

from harness.data import load
from harness.data.fingerprint import fingerprint
from harness.data_spec import TemporalCausal3DIdentData
from harness.latent_scoring import _Scale
from harness.model_spec import BetaVAESpec, CiteVAESpec, PerturbedVAESpec
from harness.process_spec import LinearGaussianSpec
from harness.trial import run_trial
from harness.trial_spec import EvaluateSpec, SecondStageSpec, TrainSpec, TrialSpec

SIZES = {"cells": 120, "test_cells": 50, "double_cells": 10, "doubles": 2, "image_size": 8, "samples": 1}
CITRIS = TemporalCausal3DIdentData(**SIZES, classes=(0, 1))
HELD = TemporalCausal3DIdentData(**SIZES, invariant=("hue_background", "hue_spotlight"))
LINEAR = TemporalCausal3DIdentData(
    **SIZES,
    environments=3,
    responsive=("x", "hue_object"),
    invariant=("hue_background",),
    process=LinearGaussianSpec(responsive=2, invariant=1, steps=2, lagged="diagonal"),
)
SMALL = {"latent_dim": 12, "hidden": 4, "network": "mlp"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    pytest.importorskip("mitsuba")
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(
    ("data", "model"),
    [
        (CITRIS, CiteVAESpec(responsive_dim=9, lagged="nonlinear", **SMALL)),
        (CITRIS, BetaVAESpec(**SMALL)),
        (HELD, PerturbedVAESpec(responsive_dim=7, **SMALL)),
        (LINEAR, CiteVAESpec(responsive_dim=2, **SMALL)),
    ],
    ids=["citris-cite", "citris-beta", "held-perturbed", "linear-cite"],
)
def test_a_trial_on_temporal_images_is_scored_whole(data, model, cache, tmp_path):
    spec = TrialSpec(
        model=model,
        data=data,
        train=TrainSpec(epochs=1, second_stage=SecondStageSpec(restarts=1, steps=2)),
        evaluate=EvaluateSpec(rotation_steps=0),
        data_fingerprint=fingerprint(data),
    )
    result = run_trial(spec, tmp_path / "t", cache_dir=cache)
    assert result.state == "finished", result.failure
    for name in ("mcc", "mcc_untrained", "r2_responsive"):
        assert np.isfinite(result.metrics[f"identifiability/{name}"])
    for metric in ("rmse", "pearson_delta", "latent_rmse"):
        assert np.isfinite(result.metrics.get(f"ood/double/{metric}", 0.0 if model.kind == "beta_vae" else np.nan))
        assert np.isfinite(result.baselines["baseline/control_mean/ood/double/rmse"])
    assert ("conditions/environment_sufficiency/holds_true" in result.metrics) == (data is LINEAR)


def test_angles_on_both_sides_of_the_seam_are_near_each_other(cache):
    data = load(HELD, cache)
    values = _Scale.of(data.truth, data).values
    assert values.shape[1] == 3 + 2 * 6
    phi = data.truth.responsive[:, HELD.responsive.index("phi")]
    torch.testing.assert_close(torch.from_numpy(values[:, 3]), phi.double().cos(), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.from_numpy(values[:, 4]), phi.double().sin(), atol=1e-6, rtol=0)
