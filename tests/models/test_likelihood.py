"""The negative binomial against scipy, its draws against its moments, and training on counts against their truth."""

import numpy as np
import pytest
import torch
from scipy.stats import nbinom, spearmanr

from harness.model_spec import BetaVAESpec, CiteVAESpec, DiscrepancyVAESpec, ModelSpec, PerturbedVAESpec
from harness.models import build_model
from harness.models.likelihood import NegativeBinomial, counts_of, log_negative_binomial
from harness.models.networks import InputTransform

GENES = 12


def _random(seed=0):
    return torch.Generator().manual_seed(seed)


def _frames(counts, library):
    return torch.log1p(counts * (1e4 / library[:, None]))


def _counted(cells=40, genes=GENES, seed=0):
    """Counts of cells whose libraries hold genes beyond those kept."""
    random = np.random.default_rng(seed)
    library = torch.tensor(random.lognormal(8, 0.4, cells), dtype=torch.float32).round()
    counts = torch.tensor(
        random.poisson(library[:, None] * random.dirichlet(np.ones(genes)) * 0.3), dtype=torch.float32
    )
    return counts, library


def test_log_likelihood_is_scipys():
    random = np.random.default_rng(1)
    counts = random.integers(0, 400, (30, GENES)).astype(float)
    mean, dispersion = random.lognormal(2, 2, (30, GENES)), random.lognormal(-1, 1, GENES)
    expected = nbinom.logpmf(counts, 1 / dispersion, 1 / (1 + dispersion * mean))
    found = log_negative_binomial(*map(torch.tensor, (counts, mean, dispersion)))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)


def test_log_likelihood_and_its_gradients_are_finite_at_the_ends():
    counts = torch.tensor([0.0, 0.0, 5e4, 3.0])
    mean = torch.tensor([0.0, 1e5, 1e-6, 3.0], requires_grad=True)
    dispersion = torch.tensor([1e-3, 20.0, 1.0, 1e-3], requires_grad=True)
    found = log_negative_binomial(counts, mean, dispersion)
    found.sum().backward()
    assert all(torch.isfinite(t).all() for t in (found, mean.grad, dispersion.grad))


def test_counts_come_back_from_log_normalised_frames():
    counts, library = _counted()
    assert torch.equal(counts_of(_frames(counts, library), library), counts)


def test_it_starts_at_the_training_cells_mean_shares():
    counts, library = _counted(400)
    likelihood = NegativeBinomial(GENES)
    likelihood.fit(_frames(counts, library), library)
    shares = likelihood.shares(torch.zeros(1, GENES + 1))[0]
    torch.testing.assert_close(shares, counts.sum(0) / library.sum(), rtol=1e-3, atol=1e-6)
    assert shares.sum() < 0.4  # most of a library is genes that were not kept
    assert torch.isfinite(likelihood.log_dispersion).all()


def test_the_likelihood_of_a_prepared_cell_is_that_of_its_counts():
    counts, library = _counted()
    transform = InputTransform((GENES,), 3, counts=True)
    transform.fit(_frames(counts, library), _random())
    likelihood = NegativeBinomial(GENES)
    likelihood.fit(_frames(counts, library), library)
    outputs = torch.randn(len(counts), GENES + 1, generator=_random())
    prepared = transform.prepare(_frames(counts, library), library)
    found = likelihood.negative_log(transform, prepared, outputs).detach()
    mean = (library[:, None] * likelihood.shares(outputs)).double()
    expected = -log_negative_binomial(counts.double(), mean, likelihood.log_dispersion.detach().double().exp()).sum(1)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-3)
    assert transform.inputs(prepared).shape == (len(counts), 3)
    torch.testing.assert_close(
        transform.inputs(prepared), transform.inputs(transform.prepare(_frames(counts, library)))
    )
    with pytest.raises(ValueError, match="library size of every cell"):
        likelihood.negative_log(transform, transform.prepare(_frames(counts, library)), outputs)


def test_draws_have_the_moments_of_the_distribution_and_leave_the_global_stream_alone():
    n, library = 20_000, 3000.0
    likelihood = NegativeBinomial(2)
    with torch.no_grad():
        likelihood.log_dispersion.copy_(torch.tensor([0.5, 2.0]).log())
        likelihood.baseline.copy_(torch.tensor([0.01, 0.002, 0.988]).log())
    transform = InputTransform((2,), None, counts=True)
    prepared = transform.prepare(torch.zeros(n, 2), torch.full((n,), library))
    before = torch.random.get_rng_state()
    with torch.no_grad():
        cells = likelihood.draw(transform, torch.zeros(n, 3), prepared, _random(3))
        again = likelihood.draw(transform, torch.zeros(n, 3), prepared, _random(3))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(cells, again)
    counts = counts_of(cells, prepared[:, -1])
    mean, dispersion = torch.tensor([30.0, 6.0]), torch.tensor([0.5, 2.0])
    torch.testing.assert_close(counts.mean(0), mean, rtol=0.03, atol=0)
    torch.testing.assert_close(counts.var(0), mean + dispersion * mean**2, rtol=0.08, atol=0)


@pytest.mark.parametrize("spec", [PerturbedVAESpec, CiteVAESpec, BetaVAESpec])
def test_training_on_counts_finds_the_mean_shares_of_each_condition(spec):
    """Two conditions whose genes differ: predicted shares must follow their own condition, not the pooled one."""
    random = np.random.default_rng(0)
    base = random.dirichlet(np.ones(GENES)) * 0.5
    fold = np.exp(random.normal(0, 1.0, GENES))
    n = 300
    library = torch.tensor(random.lognormal(8, 0.3, 2 * n), dtype=torch.float32).round()
    shares = np.where(np.arange(2 * n)[:, None] < n, base, base * fold / (base * fold).sum() * 0.5)
    mean = library.numpy()[:, None] * shares
    frames = _frames(torch.tensor(random.poisson(random.gamma(5, mean / 5)), dtype=torch.float32), library)
    own = {} if spec is BetaVAESpec else {"responsive_dim": 2, "mechanisms": "free"}
    described = spec(latent_dim=3, hidden=16, layers=1, likelihood="nb", **own)
    torch.manual_seed(0)
    model = build_model(described.model_dump() | own, shape=(GENES,), perturbations=1, targets=None)
    model.transform.fit(frames, _random())
    model.likelihood.fit(frames, library)
    prepared = model.transform.prepare(frames, library)
    pairs = torch.stack([prepared[:n], prepared[n:]], dim=1)
    u, optimizer, noise = torch.ones(n, 1), torch.optim.Adam(model.parameters(), 1e-2), _random()
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = model.loss(pairs, u, 1.0, noise)
        loss.total.backward()
        optimizer.step()
        losses.append(loss.total.item())
    assert losses[-1] < losses[0]
    with torch.no_grad():
        outputs = model.predict_outputs(prepared[:n], u, 1, noise)
        change = model.likelihood.shares(outputs).mean(0).log() - torch.tensor(base).log()
        drawn = model.likelihood.draw(model.transform, outputs, prepared[:n], noise)
    assert drawn.shape == (n, GENES)
    if spec is not BetaVAESpec:  # which knows no perturbation
        assert spearmanr(change.numpy(), np.log(shares[-1] / base)).statistic > 0.9
        torch.testing.assert_close(drawn.mean(0), frames[n:].mean(0), rtol=0.15, atol=0.15)


@pytest.mark.parametrize(
    ("kind", "fields", "sentence"),
    [
        (ModelSpec, {"likelihood_variance": 0.5}, "leave it out"),
        (ModelSpec, {"network": "conv"}, "images have none"),
        (DiscrepancyVAESpec, {}, "leave likelihood out"),
    ],
)
def test_what_counts_cannot_be_combined_with_is_refused(kind, fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        kind(likelihood="nb", **fields)


def test_images_have_no_counts():
    with pytest.raises(ValueError, match="use mse"):
        build_model(BetaVAESpec(likelihood="nb").model_dump(), shape=(3, 8, 8), perturbations=1, targets=None)
