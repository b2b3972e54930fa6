"""The objectives against Monte Carlo and independent densities; predictions against the prior they come from."""

import pytest
import torch

from harness.model_spec import BetaVAESpec, CiteVAESpec, PerturbedVAESpec
from harness.models import build_model
from harness.models.gaussian import mmd, negative_log_likelihood

TARGETS = torch.eye(3, dtype=torch.bool)


def _model(spec, shape=(6,), targets=TARGETS):
    torch.manual_seed(0)
    fields = spec.model_dump()
    if hasattr(spec, "d_v"):
        fields["responsive_dim"] = spec.d_v
    return build_model(fields, shape=shape, perturbations=3, targets=targets)


def _scatter(model, scale=0.3):
    with torch.no_grad():
        for parameter in model.mechanism_parameters():
            parameter.add_(torch.randn_like(parameter) * scale)
    return model


SPECS = [
    PerturbedVAESpec(latent_dim=5, responsive_dim=3, hidden=16, posterior=posterior, mechanisms=mechanisms)
    for posterior in ("unmixed", "noise")
    for mechanisms in ("free", "targeted")
] + [
    CiteVAESpec(latent_dim=5, responsive_dim=3, hidden=16, posterior=posterior, lagged=lagged)
    for posterior in ("unmixed", "noise")
    for lagged in ("diagonal", "dense")
]
SPECS.append(BetaVAESpec(latent_dim=5, hidden=16))


@pytest.mark.parametrize("spec", SPECS, ids=repr)
@pytest.mark.parametrize("shape", [(6,), (3, 12, 12)])
def test_every_model_trains_encodes_and_predicts(spec, shape):
    model = _model(spec, shape)
    frames, u = torch.rand(8, 2, *shape), torch.eye(3)[torch.arange(8) % 3]
    model.transform.fit(frames.flatten(0, 1), torch.Generator().manual_seed(0))
    prepared = model.transform.prepare(frames.flatten(0, 1)).unflatten(0, (8, 2))
    loss = model.loss(prepared, u, 1.0, torch.Generator().manual_seed(0))
    loss.total.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(gradients) > 4
    assert all(torch.isfinite(g).all() for g in gradients)
    latents = model.encode(prepared, u)
    assert latents.responsive.shape == (8, 5 if spec.kind == "beta_vae" else 3)
    predicted = model.predict(prepared[:, 0], u, 1, torch.Generator().manual_seed(0))
    assert predicted.shape == (8, *shape)


def test_likelihood_equals_torch_distributions():
    x, mean = torch.randn(4, 3, 2), torch.randn(4, 3, 2)
    expected = -torch.distributions.Normal(mean, 0.3**0.5).log_prob(x).sum((1, 2))
    torch.testing.assert_close(negative_log_likelihood(x, mean, 0.3), expected)


def test_alignment_of_a_pair_is_the_squared_distance():
    model = _model(SPECS[0])
    a, b = torch.randn(7, 2), torch.randn(7, 2)
    torch.testing.assert_close(model._misalignment([a, b]), (a - b).square().sum(1).mean())


def test_mmd_is_zero_for_equal_samples_and_grows_with_distance():
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    assert mmd(x, x).abs() < 1e-6
    assert mmd(x, x + 3) > mmd(x, x + 0.5) > 0


@pytest.mark.parametrize(
    "family",
    [
        {"mechanisms": "free"},
        {"mechanisms": "diagonal"},
        {"mechanisms": "group_sparse"},
        {"targets": "known"},
        {"targets": "known_unordered", "intervention": "soft"},
        {"targets": "learned", "intervention": "soft"},
    ],
    ids=str,
)
def test_sparsity_zero_is_none_and_weight_is_linear(family):
    losses = []
    for weight in (0.0, 1.0, 2.0):
        spec = PerturbedVAESpec(latent_dim=5, responsive_dim=3, hidden=16, sparsity=weight, **family)
        model = _scatter(_model(spec))
        loss = model.loss(torch.ones(4, 2, 6), torch.eye(3)[[0, 1, 2, 0]], 1.0, None)
        losses.append(loss.total.item())
        penalty = loss.terms["sparsity_penalty"].item()
        terms = {name: value.item() for name, value in loss.terms.items()}
    assert losses[0] == pytest.approx(terms["bound"] + 100.0 * terms["alignment"], rel=1e-5)
    assert penalty > 1
    assert losses[1] - losses[0] == pytest.approx(penalty, rel=1e-3)
    assert losses[2] - losses[0] == pytest.approx(2 * penalty, rel=1e-3)


@pytest.mark.parametrize("posterior", ["unmixed", "noise"])
def test_decoding_inverts_encoding_of_the_structural_layer(posterior):
    """What the decoder reads is recovered from z_v, whatever the rotation."""
    model = _scatter(_model(PerturbedVAESpec(latent_dim=5, responsive_dim=3, hidden=16, posterior=posterior)))
    h, z_i = torch.randn(4, 3), torch.randn(4, 2)
    mechanism = model.mechanisms(torch.zeros(4, 3))
    z_v = model.posterior.latents(h, z_i, mechanism, None)
    read = torch.cat([h if posterior == "unmixed" else z_v, z_i], dim=1)
    torch.testing.assert_close(model.decode_latents(z_v, z_i), model.decoder(read), atol=1e-4, rtol=1e-4)


def test_draws_have_the_prior_moments():
    model = _scatter(_model(PerturbedVAESpec(latent_dim=5, responsive_dim=3, hidden=16)), 0.5)
    n = 100_000
    mechanism = model.mechanisms(torch.eye(3)[:1].expand(n, -1))
    z_i = torch.randn(1, 2).expand(n, -1)
    draws = model.draw_latents(mechanism, z_i, None, torch.Generator().manual_seed(0)).detach()
    inverse = torch.linalg.inv(mechanism.system[0]).detach()
    mean = inverse @ (mechanism.graph_invariant[0] @ z_i[0] + mechanism.mean[0]).detach()
    covariance = inverse @ torch.diag(mechanism.variance[0]).detach() @ inverse.T
    torch.testing.assert_close(draws.mean(0), mean, atol=0.02, rtol=0.02)
    torch.testing.assert_close(torch.cov(draws.T), covariance, atol=0.03, rtol=0.03)


@pytest.mark.parametrize(
    ("spec", "shape", "targets", "words"),
    [
        (
            PerturbedVAESpec(mechanisms="targeted", targets="known", latent_dim=5, responsive_dim=3),
            (6,),
            None,
            "needs known targets",
        ),
        (PerturbedVAESpec(mechanisms="targeted", latent_dim=5, responsive_dim=2), (6,), TARGETS, "each of the 3"),
        (PerturbedVAESpec(network="conv"), (6,), None, "needs images"),
        (PerturbedVAESpec(input_pca=7), (6,), None, "exceeds the 6 features"),
    ],
)
def test_impossible_models_are_refused_with_a_sentence(spec, shape, targets, words):
    with pytest.raises(ValueError, match=words):
        _model(spec, shape, targets)


@pytest.mark.parametrize("mechanisms", ["free", "diagonal", "group_sparse"])
@pytest.mark.parametrize("field", [{"targets": "known"}, {"targets": "learned"}, {"intervention": "soft"}])
def test_targets_and_interventions_are_refused_where_mechanisms_know_none(mechanisms, field):
    with pytest.raises(ValueError, match="needs mechanisms: targeted"):
        PerturbedVAESpec(mechanisms=mechanisms, **field)
    assert PerturbedVAESpec(mechanisms="targeted", **field)
