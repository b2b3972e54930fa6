"""The second stage on true latents: it finds them, their targets and their order, and says how far restarts agree."""

import json
from pathlib import Path

import pytest
import torch
from true_latents import mcc_with, sampled_moments

from harness.data.fingerprint import fingerprint
from harness.data.simulation import build
from harness.data_spec import SimulationData
from harness.model_spec import BetaVAESpec, CiteVAESpec, PerturbedVAESpec
from harness.models import build_model
from harness.models.moments import latent_correlations, moment_loss, moments_of
from harness.models.refit import Candidates
from harness.training import second_stage as stage
from harness.training.second_stage import applies_to, candidate_of, posterior_moments, second_stage
from harness.trial import run_trial
from harness.trial_result import read_result
from harness.trial_spec import EvaluateSpec, SecondStageSpec, TrainSpec, TrialSpec

D_V, D_I, P = 3, 2, 6
SMALL = {"latent_dim": D_V + D_I, "responsive_dim": D_V, "hidden": 4, "layers": 1}


@pytest.fixture(scope="module")
def cells():
    spec = SimulationData(preset="tiny", environments=P, cells=2500, process={"responsive": D_V, "invariant": D_I})
    return build(spec, "f", Path())


@pytest.fixture(scope="module")
def moments(cells):
    return sampled_moments(cells)


def _model(cells, kind=PerturbedVAESpec, seed=0, **options):
    """A model that reads the true latents as features, its W scrambled."""
    torch.manual_seed(seed)
    fields = kind(**SMALL, **options).model_dump()
    model = build_model(fields, shape=cells.frame_shape, perturbations=P, targets=cells.targets)
    with torch.no_grad():
        model.posterior.unmixing.copy_(torch.linalg.qr(torch.randn(D_V, D_V)).Q)
    return model


def _found(model):
    held = candidate_of(model)
    return Candidates(held.unmixing.double(), held.across.double(), held.families)


def _mcc(model, moments):
    return mcc_with(_found(model), torch.eye(D_V).double(), moments)[0]


def _places(model, moments):
    """Which true latent stands at each place of the model's causal order."""
    found = _found(model)
    maps = torch.cat([found.unmixing, found.across], dim=2)[0]
    return latent_correlations(moments, maps, torch.eye(D_V, D_V + D_I).double()).argmax(1).tolist()


def _loss(model, moments):
    found = _found(model)
    return moment_loss(moments, found.families[0].double()(moments.u), found.unmixing[0], found.across[0]).item()


def _run(model, moments, restarts=4, steps=250):
    random = torch.Generator().manual_seed(0)
    return second_stage(model, moments, restarts=restarts, steps=steps, generator=random)


def test_a_scrambled_model_finds_the_true_latents_and_its_restarts_agree(cells, moments):
    model = _model(cells, targets="known")
    before = _loss(model, moments)
    assert _mcc(model, moments) < 0.95
    found = _run(model, moments)
    assert _mcc(model, moments) > 0.999
    assert found.before == pytest.approx(before, rel=1e-5)
    assert found.after == pytest.approx(_loss(model, moments), abs=1e-4)
    assert found.after < found.before - 1
    assert found.equal >= 2
    assert found.agreement > 0.999


def test_free_mechanisms_reach_one_loss_with_latents_that_do_not_agree(cells, moments):
    model = _model(cells, mechanisms="free")
    found = _run(model, moments)
    assert found.equal >= 2
    assert found.agreement < 0.9
    assert _mcc(model, moments) < 0.95


@pytest.mark.parametrize("most_orders", [24, 2], ids=["all orders", "exchanges of neighbours"])
def test_the_order_is_found_where_targets_are_known_unordered(cells, moments, monkeypatch, most_orders):
    monkeypatch.setattr(stage, "MOST_ORDERS", most_orders)
    model = _model(cells, targets="known_unordered", seed=2)
    given = model.mechanisms.targets.argmax(1)
    assert not torch.equal(given, cells.targets.int().argmax(1))
    found = _run(model, moments, restarts=3)
    assert _mcc(model, moments) > 0.999
    assert _places(model, moments) == [0, 1, 2]
    assert torch.equal(model.mechanisms.targets, cells.targets.float())
    assert found.after == pytest.approx(_loss(model, moments), abs=1e-4)


def test_targets_and_order_are_learned(cells, moments):
    model = _model(cells, targets="learned")
    _run(model, moments, restarts=6)
    assert _mcc(model, moments) > 0.999
    assert _places(model, moments) == [0, 1, 2]
    assert model.settled
    assert torch.equal(model.mechanisms.assignment(), cells.targets.float())


def test_the_present_solution_is_kept_where_no_start_beats_it(cells, moments):
    model = _model(cells, targets="known")
    _run(model, moments)
    here = _loss(model, moments)
    again = second_stage(model, moments, restarts=1, steps=100, generator=torch.Generator().manual_seed(5))
    assert again.after == pytest.approx(here, abs=1e-4)
    assert again.equal == 1
    assert again.agreement is None
    assert _mcc(model, moments) > 0.999


def test_without_restarts_only_the_present_solution_is_fitted(cells, moments):
    model = _model(cells, targets="known_unordered")
    found = second_stage(model, moments, restarts=0, steps=20, generator=torch.Generator())
    assert found.after < found.before


def test_it_applies_where_the_loss_is_a_function_of_moments(cells):
    assert applies_to(_model(cells))
    assert applies_to(_model(cells, CiteVAESpec, lagged="dense"))
    assert not applies_to(_model(cells, CiteVAESpec, lagged="nonlinear"))
    for spec in (PerturbedVAESpec(posterior="noise", **SMALL), BetaVAESpec(latent_dim=5, hidden=4)):
        other = build_model(spec.model_dump(), shape=cells.frame_shape, perturbations=P, targets=cells.targets)
        assert not applies_to(other)
    noise = PerturbedVAESpec(posterior="noise", **SMALL).model_dump()
    with pytest.raises(ValueError, match="use posterior: unmixed"):
        candidate_of(build_model(noise, shape=cells.frame_shape, perturbations=P, targets=cells.targets))


@pytest.mark.parametrize("kind", [PerturbedVAESpec, CiteVAESpec])
def test_posterior_moments_gather_rows_by_condition_in_pieces(cells, monkeypatch, kind):
    model, rows = _model(cells, kind), cells.splits["validation"]
    index, u, condition = cells.index[rows], cells.u[rows], cells.condition[rows]
    with torch.no_grad():
        expected = moments_of(
            [
                context
                for which in range(P + 1)
                for context in model.contexts(
                    cells.frames[index[condition == which]], torch.eye(P + 1, P + 1)[which, 1:]
                )
            ]
        )
    monkeypatch.setattr(stage, "CHUNK", 7)
    shuffled = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    found = posterior_moments(model, cells.frames, index[shuffled], u[shuffled], condition[shuffled])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert found.frames == 2 * len(rows)


# -- in a trial -----------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def _numbers(result):
    return {name: value for name, value in result.metrics.items() if not name.startswith("time/")}, result.baselines


@pytest.mark.parametrize(
    ("killed_after", "targets"),
    [(1, "known"), (2, "known"), (2, "learned"), (4, "learned")],
    ids=["before it", "just after it", "just after it, targets hard", "before it comes again"],
)
def test_a_trial_killed_around_its_second_stage_resumes_to_the_same_numbers(tmp_path, killed_after, targets):
    data = SimulationData(preset="tiny")
    train = TrainSpec(epochs=4, checkpoint_seconds=0, second_stage=SecondStageSpec(restarts=2, steps=20, after=0.5))
    model = PerturbedVAESpec(latent_dim=4, responsive_dim=2, hidden=8, targets=targets)
    only_latents = EvaluateSpec(ood=False, conditions=False)
    spec = TrialSpec(model=model, data=data, train=train, evaluate=only_latents, data_fingerprint=fingerprint(data))
    whole = run_trial(spec, tmp_path / "whole")
    assert whole.state == "finished", whole.failure

    def die(epoch):
        if epoch == killed_after:
            raise Killed

    with pytest.raises(Killed):
        run_trial(spec, tmp_path / "torn", on_epoch=die)
    assert read_result(tmp_path / "torn") is None
    resumed = run_trial(spec, tmp_path / "torn")
    assert _numbers(resumed) == _numbers(whole)
    assert resumed.metrics["train/second_stage_after"] < resumed.metrics["train/second_stage_before"] + 1e-3
    for folder in ("whole", "torn"):
        lines = (tmp_path / folder / "metrics.jsonl").read_text().splitlines()
        came = [entry["epoch"] for entry in map(json.loads, lines) if "train/second_stage_after" in entry["metrics"]]
        assert came == [2]
