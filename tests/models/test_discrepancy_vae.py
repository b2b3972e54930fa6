"""The discrepancy-VAE against its equations written out again, by hand or in NumPy."""

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from harness.data.fingerprint import fingerprint
from harness.data_spec import SimulationData
from harness.model_spec import DiscrepancyVAESpec, PerturbedVAESpec
from harness.models import build_model
from harness.models.discrepancy_vae import mmd, ramp
from harness.trial import run_trial
from harness.trial_spec import EvaluateSpec, TrainSpec, TrialSpec

SPEC = DiscrepancyVAESpec(latent_dim=3, hidden=16, discrepancy=7.0, kl=1.5, sparsity=0.3, bandwidth=50.0)


def _model(spec=SPEC, shape=(6,), perturbations=4):
    torch.manual_seed(0)
    model = build_model(spec.model_dump(), shape=shape, perturbations=perturbations, targets=None)
    with torch.no_grad():  # away from the small weights it starts with, under which little differs
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def _batch(n=12, perturbations=4, seed=1):
    """Frames (n, 2, 6) and u; the first two rows are controls."""
    random = torch.Generator().manual_seed(seed)
    u = torch.eye(perturbations)[torch.arange(n) % perturbations]
    u[:2] = 0.0
    return torch.randn(n, 2, 6, generator=random), u


def _slow_mmd(x, y, bandwidth):
    """Squared MMD, kernel by kernel and pair by pair."""
    total = 0.0
    for k in range(10):
        width = bandwidth / 32 * 2**k
        for a, sign_a in [(row, 1 / len(x)) for row in x] + [(row, -1 / len(y)) for row in y]:
            for b, sign_b in [(row, 1 / len(x)) for row in x] + [(row, -1 / len(y)) for row in y]:
                total += sign_a * sign_b * np.exp(-((a - b) ** 2).sum() / width)
    return total


def test_mmd_equals_a_sum_over_pairs():
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(7, 3, generator=random), 2 * torch.randn(7, 3, generator=random) + 1
    together = mmd(x, y, torch.zeros(7, dtype=torch.int64), 20.0)
    assert together.item() == pytest.approx(_slow_mmd(x.double().numpy(), y.double().numpy(), 20.0), rel=1e-4)
    assert mmd(x, x, torch.zeros(7, dtype=torch.int64), 20.0).abs() < 1e-5


def test_mmd_of_groups_is_the_mean_over_their_cells():
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(7, 3, generator=random), torch.randn(7, 3, generator=random) + 1
    group = torch.tensor([1, 0, 1, 1, 0, 2, 1])
    expected = 0.0
    for g in range(3):
        own = (group == g).numpy()
        expected += own.sum() / 7 * _slow_mmd(x.double().numpy()[own], y.double().numpy()[own], 20.0)
    assert mmd(x, y, group, 20.0).item() == pytest.approx(expected, rel=1e-4)


def test_only_groups_can_tell_which_perturbation_did_what():
    """With two perturbations' predictions exchanged, the batch as a whole looks the same."""
    x = torch.cat([torch.zeros(4, 2), torch.ones(4, 2)])
    swapped = torch.cat([torch.ones(4, 2), torch.zeros(4, 2)])
    one, own = torch.zeros(8, dtype=torch.int64), torch.arange(8) // 4
    assert mmd(swapped, x, one, 1.0).abs() < 1e-5
    assert mmd(swapped, x, own, 1.0) > 0.1


@pytest.mark.parametrize(
    ("epoch", "temperature", "alpha", "beta"),
    [
        (1, 1.0, 0.0, 0.0),
        (6, 1.0, 0.0, 0.0),  # the published schedule counts epochs from 0: its entry 5 is the first of the rise
        (11, 1 + 4 * 5 / 94, 10 * 5 / 44, 0.0),
        (50, 1 + 4 * 44 / 94, 10.0, 2 * 39 / 89),
        (75, 1 + 4 * 69 / 94, 10.0, 2 * 64 / 89),
        (100, 5.0, 10.0, 2.0),
    ],
)
def test_a_hundred_epochs_follow_the_published_schedule(epoch, temperature, alpha, beta):
    model = _model(DiscrepancyVAESpec(latent_dim=3, hidden=8))
    model.begin_epoch(epoch, 100)
    assert model.temperature.item() == pytest.approx(temperature)
    assert model.discrepancy * model.discrepancy_share == pytest.approx(alpha)
    assert model.kl * model.kl_share == pytest.approx(beta)


@pytest.mark.parametrize("epochs", [2, 3, 7, 20, 300])
def test_shorter_and_longer_trainings_keep_the_shape(epochs):
    for start, stop in [(0.05, 1.0), (0.05, 0.5), (0.1, 1.0)]:
        values = [ramp(epoch, epochs, start, stop) for epoch in range(1, epochs + 1)]
        assert (values[0], values[-1]) == (0.0, 1.0)
        assert values == sorted(values)
        rising = [epoch / epochs for epoch, value in enumerate(values, 1) if 0 < value < 1]
        assert all(start < share <= stop for share in rising)
    assert ramp(1, 1, 0.05, 1.0) == 0.0


def test_targets_sharpen_with_temperature_and_follow_the_network():
    model = _model()
    logits = model.targeting(torch.eye(4)).detach()
    for tau in (1.0, 5.0):
        model.temperature.fill_(tau)
        weights = (tau * logits).exp()
        torch.testing.assert_close(model.targets().detach(), weights / weights.sum(1, keepdim=True))
    model.temperature.fill_(1e4)
    assert torch.equal(model.targets().argmax(1), logits.argmax(1))
    assert model.targets().max(1).values.min() > 0.999


def test_predictions_may_have_a_temperature_of_their_own_as_in_the_published_notebook():
    model = _model(SPEC.model_copy(update={"prediction_temperature": 1.0}))
    model.temperature.fill_(5.0)
    trained = model.targets()
    predicted = model.eval().targets()
    logits = model.targeting(torch.eye(4))
    torch.testing.assert_close(trained, torch.softmax(5.0 * logits, dim=1))
    torch.testing.assert_close(predicted, torch.softmax(logits, dim=1))
    other = _model().eval()
    other.temperature.fill_(5.0)
    torch.testing.assert_close(other.targets(), torch.softmax(5.0 * logits, dim=1))


def test_the_published_rule_keeps_the_weights_of_least_unweighted_training_loss(tmp_path):
    data = SimulationData(preset="tiny")
    spec = TrialSpec(
        model=DiscrepancyVAESpec(latent_dim=4, hidden=8),
        data=data,
        train=TrainSpec(epochs=6, monitor="train/unweighted"),
        evaluate=EvaluateSpec(ood=False, conditions=False),
        data_fingerprint=fingerprint(data),
    )
    result = run_trial(spec, tmp_path / "trial", device="cpu", cache_dir=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "trial" / "metrics.jsonl").read_text().splitlines()]
    best = min(lines, key=lambda line: line["metrics"]["train/unweighted"])
    assert result.metrics["train/best_epoch"] == best["epoch"]
    with pytest.raises(ValidationError, match="is a sum of discrepancy_vae's terms, and perturbed_vae has others"):
        TrialSpec.model_validate(spec.model_dump() | {"model": PerturbedVAESpec()})


def test_the_temperature_is_kept_with_the_weights():
    model = _model()
    model.begin_epoch(70, 100)
    fresh = _model()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.targets(), model.targets())
    assert not torch.equal(_model().targets(), model.targets())


def test_graph_row_holds_the_weights_into_a_latent():
    """G has 0 -> 1 of weight 2 and 1 -> 2 of weight 3: noise (1, 0, 0) gives z = (1, 2, 6)."""
    model = _model()
    with torch.no_grad():
        model.edges.copy_(torch.tensor([[9.0, 2.0, 0.0], [9.0, 9.0, 3.0], [9.0, 9.0, 9.0]]))
    expected = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    assert torch.equal(model.learned_graph(), expected)
    z = model.solve(torch.eye(3)).detach()
    assert torch.equal(z, torch.tensor([[1.0, 2.0, 6.0], [0.0, 1.0, 3.0], [0.0, 0.0, 1.0]]))
    upper = model.edges.detach().triu(1)
    noise = torch.randn(5, 3)
    torch.testing.assert_close(model.solve(noise).detach(), noise @ torch.linalg.inv(torch.eye(3) - upper))


def test_doubles_add():
    model = _model()
    a, b, both = model.shifts(torch.tensor([[1.0, 0, 0, 0], [0, 0, 1.0, 0], [1.0, 0, 1.0, 0]])).detach()
    torch.testing.assert_close(both, a + b)
    torch.testing.assert_close(a.sum(), model.strength[0].detach())
    assert torch.equal(model.shifts(torch.zeros(1, 4)), torch.zeros(1, 3))


def _written_out(model, frames, u, groups):
    """Terms of the objective without noise, from the equations, in NumPy where it is not a network."""
    x, y = frames[:, 0], frames[:, -1]
    mean, raw = model.encoder(x).detach().chunk(2, dim=1)
    variance = np.log1p(np.exp(raw.double().numpy()))
    inverse = np.linalg.inv(np.eye(3) - np.triu(model.edges.detach().numpy(), 1))

    def decoded(noise):
        return model.decoder(torch.tensor(noise @ inverse, dtype=torch.float32)).detach().numpy()

    noise = mean.numpy()
    kl = 0.5 * (variance + noise**2 - 1 - np.log(variance)).sum(1).mean()
    shift = u.numpy() @ (model.strength.detach()[:, None] * model.targets().detach()).numpy()
    generated = decoded(noise + shift)
    discrepancy = 0.0
    for rows in groups:
        discrepancy += len(rows) / 10 * _slow_mmd(generated[rows], y.numpy()[rows], 50.0)
    return {
        "reconstruction": ((decoded(noise) - x.numpy()) ** 2).mean(),
        "kl": kl,
        "discrepancy": discrepancy,
        "sparsity_penalty": np.abs(np.triu(model.edges.detach().numpy(), 1)).sum(),
    }


@pytest.mark.parametrize("over", ["perturbation", "batch"])
def test_the_objective_is_the_published_one(over):
    """Controls alone are reconstructed; perturbed cells alone are matched, and rows of u = 0 are not among them."""
    model = _model(SPEC.model_copy(update={"discrepancy_over": over}))
    model.begin_epoch(30, 100)
    frames, u = _batch()
    groups = [[4, 8], [5, 9], [2, 6, 10], [3, 7, 11]] if over == "perturbation" else [list(range(2, 12))]
    expected = _written_out(model, frames, u, groups)
    loss = model.loss(frames, u, 0.5, None)
    for name, value in expected.items():
        assert loss.terms[name].item() == pytest.approx(value, rel=1e-3), name
    alpha, beta = 7.0 * (29 - 5) / 44, 0.5 * 1.5 * (29 - 10) / 89
    total = expected["reconstruction"] + alpha * expected["discrepancy"] + beta * expected["kl"]
    assert loss.total.item() == pytest.approx(total + 0.3 * expected["sparsity_penalty"], rel=1e-3)
    bound = expected["reconstruction"] + 7.0 * expected["discrepancy"] + 1.5 * expected["kl"]
    assert loss.terms["bound"].item() == pytest.approx(bound, rel=1e-3)
    assert loss.terms["unweighted"].item() == pytest.approx(sum(expected.values()), rel=1e-3)


def test_the_bound_does_not_depend_on_the_schedule_of_weights():
    model = _model()
    frames, u = _batch()
    found = []
    for epoch in (1, 30, 100):
        model.begin_epoch(epoch, 100)
        model.temperature.fill_(2.0)
        found.append(model.loss(frames, u, 1.0, None).terms["bound"].item())
    assert found[0] == found[1] == found[2]


def test_a_batch_of_controls_has_no_discrepancy():
    model = _model()
    frames, u = _batch()
    loss = model.loss(frames, torch.zeros_like(u), 1.0, torch.Generator().manual_seed(0))
    assert loss.terms["discrepancy"] == 0.0
    loss.total.backward()
    assert torch.isfinite(model.edges.grad).all()


def test_every_parameter_learns():
    model = _model()
    frames, u = _batch()
    model.loss(frames, u, 1.0, torch.Generator().manual_seed(0)).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("network", ["auto", "mlp"])
def test_it_works_on_images(network):
    model = _model(DiscrepancyVAESpec(latent_dim=3, hidden=4, network=network), shape=(3, 12, 12))
    frames, u = torch.rand(8, 2, 3, 12, 12), torch.eye(4)[torch.arange(8) % 4]
    loss = model.loss(frames, u, 1.0, torch.Generator().manual_seed(0))
    assert torch.isfinite(loss.total)
    assert model.predict(frames[:, 0], u, 1, torch.Generator().manual_seed(0)).shape == (8, 3, 12, 12)


def test_prediction_decodes_shifted_noise_of_the_control():
    model = _model()
    model.transform.fit(5 * torch.randn(50, 6) + 3, torch.Generator().manual_seed(0))
    control, u = torch.randn(5, 6), torch.tensor([[1.0, 1.0, 0, 0]]).expand(5, -1)
    predicted = model.predict(control, u, 1, torch.Generator().manual_seed(3)).detach()
    noise = model.infer(control).sample(torch.Generator().manual_seed(3)).detach()
    shift = (model.strength[:, None] * model.targets())[:2].sum(0).detach()
    latents = (noise + shift) @ torch.linalg.inv(torch.eye(3) - model.edges.detach().triu(1))
    expected = model.decoder(latents).detach() * model.transform.scale + model.transform.centre
    torch.testing.assert_close(predicted, expected)


def test_latents_are_noise_and_shift_through_the_graph_and_stand_for_both_blocks():
    model = _model()
    frames, u = _batch()
    latents = model.encode(frames, u)
    shifted = model.infer(frames[:, -1]).mean + u @ (model.strength[:, None] * model.targets())
    z = shifted @ torch.linalg.inv(torch.eye(3) - model.edges.triu(1))
    torch.testing.assert_close(latents.responsive, z)
    assert torch.equal(latents.responsive, latents.invariant)
    moved = model.encode(frames, torch.zeros_like(u)).responsive - latents.responsive
    assert torch.equal((moved.abs() > 1e-6).any(1), u.any(1))  # controls have no shift


def test_half_precision_leaves_the_discrepancy_exact():
    x, y = 30 + torch.randn(6, 5), 30 + torch.randn(6, 5)
    group = torch.zeros(6, dtype=torch.int64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = mmd(x, y, group, 50.0)
    assert torch.equal(half, mmd(x, y, group, 50.0))


def test_it_needs_a_control():
    with pytest.raises(ValidationError, match="generates from control cells: pairing: none is not possible"):
        DiscrepancyVAESpec(pairing="none")
