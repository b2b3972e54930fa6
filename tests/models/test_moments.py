"""The second stage's objective is the model's own, and what is read off moments is what samples say."""

import itertools

import numpy as np
import pytest
import torch

from harness.model_spec import CiteVAESpec, PerturbedVAESpec
from harness.models import build_model
from harness.models.moments import Context, latent_correlations, moment_loss, moments_of, pooled_moments, whitened
from harness.models.posterior import Features, Invariant, log_determinant

D_V, D_I, P = 3, 2, 3
SPECS = [
    PerturbedVAESpec(latent_dim=5, responsive_dim=D_V, hidden=16),
    PerturbedVAESpec(latent_dim=5, responsive_dim=D_V, hidden=16, pairing="none", mechanisms="free"),
    *(
        CiteVAESpec(latent_dim=5, responsive_dim=D_V, hidden=16, lagged=lagged, mechanisms=mechanisms)
        for lagged, mechanisms in itertools.product(("none", "diagonal", "dense"), ("targeted", "free"))
    ),
]


def _model(spec):
    torch.manual_seed(0)
    model = build_model(spec.model_dump(), shape=(6,), perturbations=P, targets=torch.eye(P, dtype=torch.bool)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def _cells():
    """(u, frames) of control and each perturbation, of different numbers of cells."""
    random = torch.Generator().manual_seed(1)
    every = torch.cat([torch.zeros(1, P), torch.eye(P)]).double()
    return [(u, torch.randn(5 + 3 * k, 3, 6, generator=random).double()) for k, u in enumerate(every)]


def _loss(model, moments):
    return moment_loss(moments, model.mechanisms(moments.u), model.posterior.unmixing, model.posterior.from_invariant)


@pytest.mark.parametrize("spec", SPECS, ids=repr)
@torch.no_grad()
def test_moment_loss_is_the_models_kl_but_for_the_entropy_of_q(spec):
    model = _model(spec)
    contexts, kl, cells = [], 0.0, 0
    for u, frames in _cells():
        contexts += model.contexts(frames, u)
        kl += len(frames) * model.loss(frames, u.expand(len(frames), -1), 1.0, None).terms["kl_responsive"]
        cells += len(frames)
    moments = moments_of(contexts)
    negative_entropy = torch.cat([-log_determinant(context.features.factor) for context in contexts]).mean()
    torch.testing.assert_close(_loss(model, moments) + negative_entropy - D_V / 2, kl / cells)
    assert moments.frames == sum(len(context.features.mean) for context in contexts)


@torch.no_grad()
def test_moments_do_not_depend_on_how_cells_are_batched():
    model = _model(SPECS[4])
    whole = moments_of([context for u, frames in _cells() for context in model.contexts(frames, u)])
    torn = moments_of(
        [context for u, frames in _cells() for part in frames.split(4) for context in model.contexts(part, u)]
    )
    for ours, theirs in zip(whole, torn, strict=True):
        torch.testing.assert_close(ours, theirs)
    # control at t = 0, then each u, control too: mechanisms are the same, but only the latter have a past
    assert whole.past.tolist() == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert len(whole.u.unique(dim=0)) == 4


def _drawn_moments(*, spread):
    """Moments of contexts with and without a past, and the features (n, d_v + d_i) behind them with their weights."""
    random = torch.Generator().manual_seed(0)

    def normals(*shape):
        return torch.randn(*shape, generator=random).double()

    contexts, values, covariances = [], [], []
    for k, n in enumerate((40, 25, 60)):
        across, factor = (spread * normals(n, D_V, size) for size in (D_I, D_V))
        features = Features(normals(n, D_V) @ normals(D_V, D_V) + k, across, factor.tril())
        invariant = Invariant(normals(n, D_I) + 0.5 * features.mean[:, :D_I], spread * normals(n, D_I, D_I).tril())
        past = features._replace(mean=normals(n, D_V)) if k == 1 else None
        contexts.append(Context(torch.eye(P).double()[k], features, past, invariant))
        values.append(torch.cat([features.mean, invariant.mean], dim=1))
        rows = (
            torch.cat([across, features.factor], dim=2),
            torch.cat([invariant.factor, torch.zeros(n, D_I, D_V)], dim=2),
        )
        covariances.append(torch.cat(rows, dim=1))
    factors = torch.cat(covariances)
    return moments_of(contexts), torch.cat(values).numpy(), (factors @ factors.mT).numpy()


@pytest.mark.parametrize("spread", [0.0, 0.7])
def test_latent_correlations_are_those_of_the_latents(spread):
    """Over frames and posteriors: the covariance of the means and the mean of the covariances."""
    moments, values, covariances = _drawn_moments(spread=spread)
    first, second = torch.randn(2, 4, D_V + D_I).double(), torch.randn(2, 2, D_V + D_I).double()
    found = latent_correlations(moments, first, second).numpy()
    total = np.cov(values.T, bias=True) + covariances.mean(0)
    for k in range(2):
        maps = np.concatenate([first[k].numpy(), second[k].numpy()])
        covariance = maps @ total @ maps.T
        scale = np.sqrt(np.diag(covariance))
        np.testing.assert_allclose(found[k], np.abs(covariance / np.outer(scale, scale))[:4, 4:], rtol=1e-9)
        if spread == 0:
            np.testing.assert_allclose(found[k], np.abs(np.corrcoef(values @ maps.T, rowvar=False))[:4, 4:], rtol=1e-9)


@torch.no_grad()
def test_whitening_gives_unit_features_and_the_same_loss():
    model, (moments, *_) = _model(SPECS[7]), _drawn_moments(spread=0.5)
    whitener, white = whitened(moments, D_V)
    pooled = pooled_moments(white)
    covariance = pooled[:D_V, :D_V] - torch.outer(pooled[:D_V, -1], pooled[:D_V, -1])
    torch.testing.assert_close(covariance, torch.eye(D_V).double())
    mechanism, across = model.mechanisms(moments.u), model.posterior.from_invariant
    unmixing = model.posterior.unmixing
    here = moment_loss(moments, mechanism, unmixing, across)
    there = moment_loss(white, mechanism, unmixing @ torch.linalg.inv(whitener), across)
    torch.testing.assert_close(here, there - torch.linalg.slogdet(whitener).logabsdet)
    assert (here - there).abs() > 0.1
