"""Posteriors: KL terms with full covariances against joint Gaussians in closed form, and against Monte Carlo."""

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from harness.model_spec import CiteVAESpec, PerturbedVAESpec
from harness.models import build_model
from harness.models.posterior import Features, Frame, Invariant, UnmixedPosterior, apply
from harness.models.scm import noise_of

D_V, D_I = 3, 2
TARGETS = torch.eye(3, dtype=torch.bool)
U = torch.eye(3).double()[:1]


def _model(spec):
    """A model with every parameter drawn at random, in double precision."""
    torch.manual_seed(0)
    fields = {**spec.model_dump(), "responsive_dim": D_V}
    model = build_model(fields, shape=(6,), perturbations=3, targets=TARGETS).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def _spec(kind, **options):
    return kind(latent_dim=D_V + D_I, responsive_dim=D_V, hidden=16, **options)


def _triangular(size):
    return (0.4 * torch.randn(1, size, size)).tril(-1).double() + torch.diag(torch.rand(size).double() + 0.2)


def _posterior():
    features = Features(torch.randn(1, D_V).double(), torch.randn(1, D_V, D_I).double(), _triangular(D_V))
    return features, Invariant(torch.randn(1, D_I).double(), _triangular(D_I))


def _joint_posterior(responsive, invariant):
    """q over (z_i, h_0, h_1, ...), one trajectory."""
    blocks = [invariant.factor[0], *(features.factor[0] for features in responsive)]
    factor = torch.block_diag(*blocks)
    for time, features in enumerate(responsive):
        start = D_I + time * D_V
        factor[start : start + D_V, :D_I] = features.across[0]
    mean = torch.cat([invariant.mean[0], *(features.mean[0] for features in responsive)])
    return MultivariateNormal(mean, scale_tril=factor)


def _joint_prior(model, mechanisms):
    """p over (z_i, h_0, h_1, ...): latents in terms of normals by recursion, then h = W⁻¹(z_v − C z_i)."""
    times = len(mechanisms)
    z_i = torch.eye(D_I, D_I + times * D_V).double()
    maps, means, latents, mean = [z_i], [torch.zeros(D_I).double()], None, None
    undo = torch.linalg.inv(model.posterior.unmixing)
    for time, mechanism in enumerate(mechanisms):
        system = torch.linalg.inv(mechanism.system[0])
        noise = torch.zeros(D_V, D_I + times * D_V).double()
        noise[:, D_I + time * D_V : D_I + (time + 1) * D_V] = mechanism.variance[0].sqrt().diag()
        driven, shift = noise + mechanism.graph_invariant[0] @ z_i, mechanism.mean[0]
        if latents is not None:
            driven, shift = driven + mechanism.lagged[0] @ latents, shift + mechanism.lagged[0] @ mean
        latents, mean = system @ driven, system @ shift
        maps.append(undo @ (latents - model.posterior.from_invariant @ z_i))
        means.append(undo @ mean)
    joint = torch.cat(maps)
    return MultivariateNormal(torch.cat(means), joint @ joint.T)


CITE = [
    _spec(CiteVAESpec, lagged=lagged, covariance=covariance, mechanisms=mechanisms)
    for lagged in ("none", "diagonal", "dense")
    for covariance, mechanisms in (("full", "targeted"), ("diagonal", "free"))
]


@pytest.mark.parametrize("spec", CITE, ids=lambda spec: f"{spec.lagged} {spec.covariance}")
@torch.no_grad()
def test_the_kl_of_a_trajectory_is_that_of_the_joint_gaussians(spec):
    model, frames = _model(spec), torch.randn(1, 3, 6).double()
    responsive, invariants, _ = model._infer_trajectory(frames, U)
    mechanisms = model._mechanisms_over_time(U, 3)
    _, kl_v, kl_i = model.trajectory_bound(frames, responsive, invariants, mechanisms, None)
    exact = kl_divergence(_joint_posterior(responsive, invariants[0]), _joint_prior(model, mechanisms))
    torch.testing.assert_close((kl_v + kl_i)[0], exact)


@torch.no_grad()
def test_strangers_beside_each_other_share_no_invariant_part_and_no_past():
    """Of a cell and a control drawn for it, CITE-VAE's bound is that of two frames, each with a z_i of its own."""
    model = _model(_spec(CiteVAESpec, pairing="random", mechanisms="free"))
    assert model.mechanisms.lagged == "none"
    frames = torch.randn(4, 2, 6).double()
    exact = []
    for row in frames:
        for x, u in zip(row, torch.cat([torch.zeros_like(U), U]), strict=True):
            features, invariant = model.infer(x[None], u[None])
            prior = _joint_prior(model, [model.mechanisms(u[None])])
            exact.append(kl_divergence(_joint_posterior([features], invariant), prior))
    terms = model.loss(frames, U.expand(4, -1), 1.0, None).terms
    torch.testing.assert_close(terms["kl_responsive"] + terms["kl_invariant"], torch.stack(exact).mean())
    # the latents of a cell do not depend on the stranger
    other = torch.cat([torch.randn(4, 1, 6).double(), frames[:, 1:]], dim=1)
    under = U.expand(4, -1)
    for block, same in zip(model.encode(frames, under), model.encode(other, under), strict=True):
        torch.testing.assert_close(block, same)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@torch.no_grad()
def test_the_kl_of_a_snapshot_is_that_of_the_joint_gaussians(covariance):
    model = _model(_spec(PerturbedVAESpec, covariance=covariance, mechanisms="free"))
    frames = torch.randn(5, 2, 6).double()
    under = torch.cat([U, torch.zeros_like(U)])  # perturbed frame, then control
    exact = []
    for row in frames:
        for x, u in zip(row.flip(0), under, strict=True):
            features, invariant = model.infer(x[None], u[None])
            mechanisms = [model.mechanisms(u[None])]
            exact.append(kl_divergence(_joint_posterior([features], invariant), _joint_prior(model, mechanisms)))
    terms = model.loss(frames, U.expand(5, -1), 1.0, None).terms
    torch.testing.assert_close(terms["kl_responsive"] + terms["kl_invariant"], torch.stack(exact).mean())


@pytest.mark.parametrize("with_past", [False, True])
@pytest.mark.parametrize("lagged", ["dense", "nonlinear"])
@torch.no_grad()
def test_responsive_kl_equals_monte_carlo(lagged, with_past):
    """E_q log q(h | z_i) − log p(h | z_i, h', u) from samples and densities of the pushed-forward prior.

    Under a nonlinear transition the KL is itself sampled, and its mean must be right.
    """
    model, draws = _model(_spec(CiteVAESpec, lagged=lagged)), 100_000
    (features, invariant), (past, _) = _posterior(), _posterior()
    mechanism = model.mechanisms(torch.zeros_like(U))
    random = torch.Generator().manual_seed(1)
    shared, own, earlier = (torch.randn(draws, k, generator=random).double() for k in (D_I, D_V, D_V))
    h, z_i = features.at(shared, own), invariant.mean + shared @ invariant.factor[0].T
    z_v = model.posterior.latents(h, z_i, mechanism, None)
    before = model.posterior.latents(past.at(shared, earlier), z_i, mechanism, None) if with_past else None
    many = type(mechanism)(
        *(part if part is mechanism.bends else part.expand(draws, *part.shape[1:]) for part in mechanism)
    )
    noise = noise_of(many, z_v, z_i, before)
    # det A = 1, so that noise and latents have one density
    log_prior = torch.distributions.Normal(mechanism.mean, mechanism.variance.sqrt()).log_prob(noise).sum(1)
    log_prior = log_prior + torch.linalg.slogdet(model.posterior.unmixing).logabsdet
    log_posterior = MultivariateNormal(features.mean + apply(features.across, shared), scale_tril=features.factor)
    sampled = log_posterior.log_prob(h) - log_prior
    kl = model.responsive_kl(Frame(features, invariant, mechanism, past if with_past else None, shared, before))
    if lagged == "nonlinear":
        assert kl.std() > 0.1
    else:
        assert len(kl) == 1
    assert abs(sampled.mean() - kl.mean()) < 5 * (sampled - kl).std() / draws**0.5


@torch.no_grad()
def test_a_full_posterior_has_the_covariance_its_factors_say():
    posterior, encoded = UnmixedPosterior(D_V, D_I, "full").double(), torch.randn(1, 20).double()
    assert posterior.width == 20
    features, invariant = posterior(encoded, U)
    size = D_V + D_I
    factor = torch.diag((0.5 * (encoded[0, size : 2 * size] - 3.0)).exp())
    below = iter(encoded[0, 2 * size :])
    for row in range(size):
        for column in range(row):
            factor[row, column] = next(below) * factor[row, row]
    normals = torch.randn(size).double()
    value = encoded[0, :size] + factor @ normals
    z_i = invariant.mean[0] + invariant.factor[0] @ normals[:D_I]
    h = features.at(normals[None, :D_I], normals[None, D_I:])[0]
    torch.testing.assert_close(torch.cat([z_i, h]), value)


@torch.no_grad()
def test_a_diagonal_posterior_has_independent_latents():
    posterior = UnmixedPosterior(D_V, D_I, "diagonal").double()
    features, invariant = posterior(torch.randn(4, posterior.width).double(), U)
    assert not features.across.any()
    for factor in (features.factor, invariant.factor):
        torch.testing.assert_close(factor, torch.diag_embed(factor.diagonal(dim1=1, dim2=2)))


def test_the_noise_posterior_sees_u_and_the_unmixed_does_not():
    frames, u = torch.randn(1, 6).double(), torch.eye(3).double()
    for posterior, sees in (("noise", True), ("unmixed", False)):
        model = _model(_spec(PerturbedVAESpec, posterior=posterior))
        means = [model.infer(frames, one[None])[0].mean for one in u]
        assert torch.equal(means[0], means[1]) != sees
        invariant = [model.infer(frames, one[None])[1].mean for one in u]
        assert torch.equal(invariant[0], invariant[1])


@torch.no_grad()
def test_the_kl_of_a_noise_posterior_is_that_of_latents_pushed_from_it():
    model = _model(_spec(PerturbedVAESpec, posterior="noise", mechanisms="free"))
    features, invariant = model.infer(torch.randn(1, 6).double(), U)
    mechanism = model.mechanisms(U)
    inverse, z_i = torch.linalg.inv(mechanism.system[0]), torch.randn(1, D_I).double()

    def pushed(mean, spread):
        latents = model.posterior.latents(mean, z_i, mechanism, None)[0]
        return MultivariateNormal(latents, inverse @ spread @ inverse.T)

    factor = features.factor[0]
    expected = kl_divergence(
        pushed(features.mean, factor @ factor.T), pushed(torch.zeros(1, D_V).double(), mechanism.variance[0].diag())
    )
    kl = model.responsive_kl(Frame(features, invariant, mechanism, None, torch.zeros(1, D_I).double(), None))
    torch.testing.assert_close(kl[0], expected)
