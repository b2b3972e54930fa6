"""`harness check`: the truth of each dataset, and what the finished trials' models make of the conditions."""

import pytest
from report_samples import planned, study, write_result

from harness.data_spec import SimulationData
from harness.study import conditions
from harness.study.conditions import conditions_of
from harness.study.folder import StudyFolder
from harness.study.plan import plan

TINY = {
    "models": [{"kind": "perturbed_vae", "latent_dim": 4, "responsive_dim": 2}],
    "seeds": 3,
    "grid": {"sparsity": [0]},
}


def tiny(**changes):
    return study(**{**TINY, "data": {"kind": "simulation", "preset": "tiny"}, **changes})


def judged(margin, *, holds=1.0, name="rotation"):
    return {f"conditions/{name}/holds_learned": holds, f"conditions/{name}/margin_learned": margin}


def test_before_anything_has_run_only_the_truth_is_judged(tmp_path):
    said = conditions_of(tiny(), tmp_path).splitlines()
    assert said[0].startswith("data ")
    assert any(line.startswith("  truth: intervention_sufficiency holds, margin 1") for line in said)
    assert said[-1] == "learned: no trial has finished yet; launch the study to judge its models"


def test_finished_trials_bring_the_learned_side(tmp_path):
    spec = tiny()
    folder = StudyFolder(tmp_path, spec.name)
    first, second, third = plan(spec).trials
    write_result(folder, first.trial_id, metrics=judged(0.2), conditions={"rotation_learned": "no rotation fits."})
    write_result(folder, second.trial_id, metrics=judged(0.4, holds=0.0))
    write_result(folder, third.trial_id, state="failed", metrics=judged(9.0))
    *_, cell, line = conditions_of(spec, tmp_path).splitlines()
    assert cell == "learned by perturbed_vae · sparsity=0 (2 of 3 trials)"
    assert line == "  learned: rotation holds in 1 of 2 trials, mean margin 0.3; in the first: no rotation fits."


def test_a_model_that_cannot_be_judged_says_so(tmp_path):
    spec = tiny(models=[{"kind": "beta_vae", "latent_dim": 4}], grid={"latent_dim": [4]}, seeds=1)
    folder = StudyFolder(tmp_path, spec.name)
    write_result(folder, plan(spec).trials[0].trial_id, metrics={"identifiability/mcc": 0.5})
    assert conditions_of(spec, tmp_path).endswith("no mechanisms and blocks of latents to judge it by")


def test_where_the_truth_is_unknown_only_the_learned_side_is_reported(monkeypatch, tmp_path):
    monkeypatch.setattr("harness.condition_scoring.conditions_of_truth", lambda data, seed: {})
    (line,) = conditions._true_side(SimulationData(preset="tiny"), tmp_path)
    assert line == "unknown on these data, so that only the learned side can be reported"


@pytest.mark.parametrize("seed", [0, "per_trial"])
def test_each_dataset_is_judged_once(tmp_path, seed):
    spec = tiny(data={"kind": "simulation", "preset": "tiny", "seed": seed}, grid={"sparsity": [0, 1]})
    heads = [line for line in conditions_of(spec, tmp_path).splitlines() if line.startswith("data ")]
    assert len(heads) == len({trial.spec.data_fingerprint for trial in planned(spec).trials}) == (1 if seed == 0 else 3)
