"""A trial is a pure function of its spec."""

import json

import numpy as np
import pytest

from harness.data.fingerprint import fingerprint
from harness.data_spec import SimulationData
from harness.model_spec import BetaVAESpec, CiteVAESpec, DiscrepancyVAESpec, PerturbedVAESpec
from harness.trial import run_trial
from harness.trial_result import read_result
from harness.trial_spec import EvaluateSpec, SecondStageSpec, TrainSpec, TrialSpec

DATA = SimulationData(preset="tiny")
SMALL = {"latent_dim": 4, "hidden": 8}
MODELS = [
    PerturbedVAESpec(responsive_dim=2, mechanisms="targeted", **SMALL),
    CiteVAESpec(responsive_dim=2, **SMALL),
    BetaVAESpec(**SMALL),
    DiscrepancyVAESpec(**SMALL),
]


def _spec(model=MODELS[0], data=DATA, **train):
    return TrialSpec(
        model=model,
        data=data,
        train=TrainSpec(**{"epochs": 2, "second_stage": SecondStageSpec(restarts=2, steps=10), **train}),
        evaluate=EvaluateSpec(rotation_steps=10),
        data_fingerprint=fingerprint(data),
    )


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.kind)
def test_a_trial_ends_with_scores_beside_their_nulls_and_baselines(model, tmp_path):
    result = run_trial(_spec(model), tmp_path / "t")
    assert result.state == "finished", result.failure
    for name in ("mcc", "mcc_untrained", "mcc_shuffled", "r2_responsive", "r2_invariant"):
        assert np.isfinite(result.metrics[f"identifiability/{name}"])
    for metric in ("rmse_relative", "rmse", "r2", "pearson_delta", "mmd", "energy_distance"):
        assert np.isfinite(result.metrics[f"ood/double/{metric}"])
        for baseline in ("control_mean", "mean_effect", "additive", "linear", "nearest"):
            assert np.isfinite(result.baselines[f"baseline/{baseline}/ood/double/{metric}"])
    assert result.metrics["conditions/intervention_sufficiency/holds_true"] == 1.0
    for name in ("spec.json", "metrics.jsonl", "latents.npz", "split.json", "ood.csv", "model.pt", "result.json"):
        assert (tmp_path / "t" / name).exists(), name
    assert read_result(tmp_path / "t") == result


def _numbers(result):
    return {k: v for k, v in result.metrics.items() if not k.startswith("time/")}, result.baselines


def test_the_same_spec_gives_the_same_numbers(tmp_path):
    assert _numbers(run_trial(_spec(), tmp_path / "a")) == _numbers(run_trial(_spec(), tmp_path / "b"))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.kind)
def test_a_killed_trial_resumes_to_the_same_numbers(model, tmp_path):
    spec = _spec(model, epochs=3, checkpoint_seconds=0)
    whole = run_trial(spec, tmp_path / "whole")

    def die(epoch):
        if epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        run_trial(spec, tmp_path / "torn", on_epoch=die)
    assert read_result(tmp_path / "torn") is None
    assert _numbers(run_trial(spec, tmp_path / "torn")) == _numbers(whole)


def test_a_finished_trial_is_not_run_again(tmp_path):
    first = run_trial(_spec(), tmp_path / "t")
    assert run_trial(_spec(), tmp_path / "t", on_epoch=lambda epoch: pytest.fail("trained again")) == first


def test_a_stop_file_gives_a_pruned_result_with_its_last_metrics(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "stop").touch()
    result = run_trial(_spec(), tmp_path / "t")
    assert (result.state, result.epochs) == ("pruned", 1)
    assert "validation/loss" in result.metrics


@pytest.mark.filterwarnings("ignore")
def test_a_trial_that_diverges_fails_with_quantity_and_epoch(tmp_path):
    result = run_trial(_spec(learning_rate=1e30, gradient_clip=None), tmp_path / "t")
    assert result.state == "failed"
    assert result.failure["epoch"] in (1, 2)
    assert result.failure["quantity"].startswith(("train/", "validation/"))
    assert "Traceback" in result.failure["traceback"]


def test_a_model_that_does_not_fit_the_data_fails_with_a_sentence(tmp_path):
    model = PerturbedVAESpec(latent_dim=4, responsive_dim=1, mechanisms="targeted")
    result = run_trial(_spec(model), tmp_path / "t")
    assert result.state == "failed"
    assert "each of the 2 targets" in result.failure["reason"]


def test_data_that_changed_since_planning_are_refused(tmp_path):
    spec = TrialSpec(model=MODELS[0], data=DATA, data_fingerprint="0123456789abcdef")
    result = run_trial(spec, tmp_path / "t")
    assert result.state == "failed"
    assert "changed since" in result.failure["reason"]


@pytest.mark.parametrize(("keep", "kept"), [("best", ["model.pt"]), ("none", []), ("all", ["model.pt", "weights"])])
def test_keep_says_which_weights_stay(keep, kept, tmp_path):
    run_trial(_spec(keep=keep), tmp_path / "t")
    assert [name for name in ("model.pt", "weights") if (tmp_path / "t" / name).exists()] == kept
    if keep == "all":
        assert len(list((tmp_path / "t" / "weights").iterdir())) == 2
    assert not (tmp_path / "t" / "checkpoint.pt").exists()


def test_the_id_depends_on_what_determines_the_result_and_nothing_else():
    spec = _spec()
    assert _spec(checkpoint_seconds=1, keep="none").trial_id == spec.trial_id
    moved = DATA.model_copy(update={"cache_dir": "elsewhere"})
    assert _spec(data=moved).trial_id == spec.trial_id
    assert _spec(data=DATA.model_copy(update={"noise": 0.2})).trial_id != spec.trial_id
    assert _spec(epochs=3).trial_id != spec.trial_id
    assert spec.model_copy(update={"seed": 1}).trial_id != spec.trial_id
    assert spec.model_copy(update={"results_version": 99}).trial_id != spec.trial_id
    again = TrialSpec.model_validate_json(json.dumps(spec.model_dump(mode="json")))
    assert again.trial_id == spec.trial_id
