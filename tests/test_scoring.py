"""Scores of a trial under their names, and the sentences beside the verdicts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.condition_scoring import CONDITIONS, conditions_of_model, conditions_of_truth
from harness.data.fingerprint import fingerprint
from harness.data.simulation import build
from harness.data_spec import SimulationData
from harness.evaluation.conditions import Verdict
from harness.model_spec import BetaVAESpec, CiteVAESpec, PerturbedVAESpec
from harness.models import Latents, build_model
from harness.scoring import encode_split, score_conditions, score_identifiability, score_ood, target_scores
from harness.trial import run_trial
from harness.trial_spec import TrainSpec, TrialSpec

SMALL = {"latent_dim": 4, "hidden": 8}
PERTURBED = PerturbedVAESpec(responsive_dim=2, mechanisms="free", **SMALL)


def simulated(**more):
    spec = SimulationData(preset="tiny", **more)
    return build(spec, fingerprint(spec), Path())


@pytest.fixture(scope="module")
def data():
    return simulated()


def untrained(spec, data):
    """A model as it starts, its inputs standardised, and its latents of the test split."""
    fields = spec.model_dump()
    if not isinstance(spec, BetaVAESpec):
        fields["responsive_dim"] = spec.d_v
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(fields, shape=data.frame_shape, perturbations=len(data.perturbations), targets=data.targets)
    model.transform.fit(data.frames, torch.Generator().manual_seed(0))
    return model, encode_split(model, data, model.transform.prepare(data.frames), "test")


def true_latents(data):
    frames = data.index[data.splits["test"], : data.seen][:, -1]
    return Latents(data.truth.responsive[frames], data.truth.invariant[frames])


def test_every_condition_has_two_verdicts_and_two_sentences(data):
    scored = score_conditions(*_with(PERTURBED, data), seed=0, rotation=Verdict(True, 0.5, "none fits as well"))
    for name in CONDITIONS:
        for side in ("true", "learned"):
            assert scored.metrics[f"conditions/{name}/holds_{side}"] in (0.0, 1.0)
            assert 0.0 <= scored.metrics[f"conditions/{name}/margin_{side}"] <= 1.0
            assert scored.conditions[f"{name}_{side}"]
    named = (*CONDITIONS, "rotation")
    assert set(scored.conditions) == {f"{name}_{side}" for name in named for side in ("true", "learned")}
    # whether rotations fit as well is a question about the model: its truth has no side
    assert scored.metrics["conditions/rotation/margin_learned"] == 0.5
    assert scored.conditions["rotation_learned"] == "none fits as well"
    assert len(scored.metrics) == 4 * len(CONDITIONS) + 2


def _with(spec, data):
    model, latents = untrained(spec, data)
    return model, data, latents


def test_the_generator_meets_the_conditions_it_was_made_for(data):
    found = conditions_of_truth(data, 0)
    assert set(found) == set(CONDITIONS)
    assert all(verdict.holds for verdict in found.values()), found
    assert found["alignment"].margin == 1.0
    assert "v1 in v1" in found["intervention_sufficiency"].reason


@pytest.mark.parametrize(
    ("knob", "condition"),
    [
        ({"injective": False}, "mixing"),
        ({"pairs": "random"}, "alignment"),
        ({"pairs": "none"}, "alignment"),
        ({"environments": 2}, "environment_sufficiency"),
        ({"process": {"intervention": "soft"}}, "intervention_sufficiency"),
    ],
)
def test_each_knob_breaks_its_condition_and_no_other(knob, condition):
    found = conditions_of_truth(simulated(**knob), 0)
    assert [name for name in CONDITIONS if not found[name].holds] == [condition], found


def test_where_the_truth_is_unknown_only_the_model_is_judged(data):
    blind = replace(data, truth=None, pairs="random")
    scored = score_conditions(*_with(PERTURBED, blind), seed=0, rotation=None)
    for name in CONDITIONS:
        assert f"conditions/{name}/holds_true" not in scored.metrics
        assert f"conditions/{name}/holds_learned" in scored.metrics
        assert "only the fitted model is judged" in scored.conditions[f"{name}_true"]
    assert "only the classifier speaks" in scored.conditions["alignment_learned"]


def test_a_truth_known_in_part_is_judged_in_part(data):
    part = replace(data, truth=replace(data.truth, mixing=None, mechanisms=None))
    assert set(conditions_of_truth(part, 0)) == {"alignment"}


def test_a_model_without_mechanisms_is_not_judged(data):
    scored = score_conditions(*_with(BetaVAESpec(**SMALL), data), seed=0, rotation=None)
    assert not any(name.endswith("_learned") for name in scored.metrics)
    assert "has no mechanisms" in scored.conditions["mixing_learned"]


@pytest.mark.parametrize("posterior", ["unmixed", "noise"])
def test_a_fitted_model_is_judged_by_its_own_mechanisms(posterior, data):
    model, latents = untrained(PERTURBED.model_copy(update={"posterior": posterior}), data)
    before = conditions_of_model(model, data, latents, 0)
    assert not before["environment_sufficiency"].holds  # every environment starts as control
    with torch.no_grad():
        for parameter in model.mechanisms.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    after = conditions_of_model(model, data, latents, 0)
    assert after["environment_sufficiency"].margin > 0
    assert not after["intervention_sufficiency"].holds
    assert after["mixing"] == before["mixing"]


def test_the_learned_decoder_is_the_one_that_is_judged(data):
    model, latents = untrained(PERTURBED, data)
    assert conditions_of_model(model, data, latents, 0)["mixing"].margin > 0
    forgetful = model.decoder

    class Blind(torch.nn.Module):
        def forward(self, z):
            return forgetful(torch.cat([z[:, :3], torch.zeros_like(z[:, 3:])], dim=1))

    model.decoder = Blind()
    assert not conditions_of_model(model, data, latents, 0)["mixing"].holds


def test_contexts_of_a_model_over_time_count_the_past():
    data = simulated(process={"lagged": "diagonal", "steps": 2})
    model, latents = untrained(CiteVAESpec(responsive_dim=2, **SMALL), data)
    with torch.no_grad():
        for parameter in model.mechanisms.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    for found in (conditions_of_model(model, data, latents, 0), conditions_of_truth(data, 0)):
        assert "10 contexts (4 environments and control, each at t = 1 to 2)" in found["environment_sufficiency"].reason


def test_true_latents_score_as_the_truth(data):
    latents = true_latents(data)
    noise = Latents(*(torch.randn(part.shape, generator=torch.Generator().manual_seed(2)) for part in latents))
    found = score_identifiability(
        data, latents, noise, data.truth.mechanisms.graph[0], 0, targets=data.targets.float()
    ).metrics
    assert found["identifiability/mcc"] == pytest.approx(1.0)
    assert found["identifiability/r2_invariant_linear"] == pytest.approx(1.0)
    assert found["identifiability/graph_f1"] == 1.0
    assert found["identifiability/graph_shd"] == 0.0
    assert found["identifiability/target_accuracy"] == 1.0
    assert np.isfinite(found["identifiability/leakage_invariant"])
    assert found["identifiability/mcc_untrained"] < 0.5
    wrong = score_identifiability(data, latents, noise, None, 0, targets=1.0 - data.targets.float()).metrics
    assert wrong["identifiability/target_accuracy"] == 0.0
    assert "identifiability/graph_shd" not in wrong


def test_only_models_with_targets_have_an_accuracy(data):
    assert target_scores(untrained(PERTURBED, data)[0]) is None
    assert target_scores(untrained(BetaVAESpec(**SMALL), data)[0]) is None
    targeted = PerturbedVAESpec(responsive_dim=2, mechanisms="targeted", **SMALL)
    assert target_scores(untrained(targeted, data)[0]).shape == data.targets.shape


def test_times_held_out_of_training_are_not_scored():
    data = simulated(process={"lagged": "diagonal", "steps": 3})
    model = CiteVAESpec(responsive_dim=2, **SMALL)
    short = replace(data, seen=3)
    changed = replace(short, frames=short.frames.clone())
    changed.frames[data.index[:, 3]] += 100.0
    (fitted, latents), (_, others) = untrained(model, short), untrained(model, changed)
    again = encode_split(fitted, changed, fitted.transform.prepare(changed.frames), "test")
    assert torch.equal(latents.responsive, again.responsive)
    assert not torch.equal(others.responsive, again.responsive)  # the change would show in the inputs' scale
    assert conditions_of_model(fitted, short, latents, 0) == conditions_of_model(fitted, changed, latents, 0)
    assert "each at t = 1 to 2" in conditions_of_truth(short, 0)["environment_sufficiency"].reason


def test_baselines_do_not_see_times_held_out_of_training():
    data = simulated(process={"lagged": "diagonal", "steps": 3, "held_out_steps": 1})
    changed = replace(data, frames=data.frames.clone())
    changed.frames[data.index[data.splits["train"], 3]] += 100.0
    model, latents = untrained(CiteVAESpec(responsive_dim=2, **SMALL), data)
    first, second = (score_ood(model, which, latents, 40, 0) for which in (data, changed))
    assert any(name.startswith("ood/later/") for name in first.metrics)
    assert (first.metrics, first.baselines) == (second.metrics, second.baselines)


def test_a_trial_keeps_the_sentences(tmp_path):
    spec = SimulationData(preset="tiny")
    trial = TrialSpec(model=PERTURBED, data=spec, train=TrainSpec(epochs=1), data_fingerprint=fingerprint(spec))
    result = run_trial(trial, tmp_path / "t")
    assert result.state == "finished", result.failure
    for name in CONDITIONS:
        assert result.conditions[f"{name}_true"]
        assert result.conditions[f"{name}_learned"]
