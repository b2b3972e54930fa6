import numpy as np
import pytest
import torch
from scipy.stats import norm

from harness.data.perturbseq.count_model import (
    draw_counts,
    draw_genes,
    expression_shares,
    library_sizes,
    negative_binomial,
)
from harness.data_spec import PerturbseqData


def genes_of(programs=5, **options):
    return draw_genes(PerturbseqData(**{"genes": 4000, **options}), programs)


@pytest.mark.parametrize("dispersion", [0.0, 0.1, 1.5])
@pytest.mark.parametrize("mean", [0.3, 4.0, 50.0])
def test_counts_have_the_negative_binomials_moments(dispersion, mean):
    n = 200_000
    counts = negative_binomial(np.full(n, mean), dispersion, np.random.default_rng(0))
    variance = mean + dispersion * mean**2
    # fourth central moment of the negative binomial: 3σ⁴ + σ² (1 + 6a σ²) (a = 0: Poisson)
    fourth = 3 * variance**2 + variance * (1 + 6 * dispersion * variance)
    assert counts.mean() == pytest.approx(mean, abs=5 * np.sqrt(variance / n))
    assert counts.var() == pytest.approx(variance, abs=5 * np.sqrt((fourth - variance**2) / n))
    zero = (1 + dispersion * mean) ** (-1 / dispersion) if dispersion else np.exp(-mean)
    assert np.mean(counts == 0) == pytest.approx(zero, abs=5 * np.sqrt(zero / n))


def test_every_gene_has_its_own_dispersion():
    dispersion = np.array([0.05, 0.5, 5.0])
    counts = negative_binomial(np.full((200_000, 3), 10.0), dispersion, np.random.default_rng(0))
    np.testing.assert_allclose(counts.mean(0), 10, rtol=0.03)
    np.testing.assert_allclose(counts.var(0), 10 + dispersion * 100, rtol=0.1)


@pytest.mark.parametrize("sd", [0.0, 0.4, 0.9])
def test_library_sizes_are_log_normal_with_the_given_mean(sd):
    n = 200_000
    sizes = library_sizes(n, 5000.0, sd, np.random.default_rng(0))
    assert sizes.mean() == pytest.approx(5000, rel=0.02)
    assert np.log(sizes).std() == pytest.approx(sd, rel=0.02, abs=1e-9)
    assert np.median(sizes) == pytest.approx(5000 * np.exp(-(sd**2) / 2), rel=0.01)


def test_shares_are_log_linear_in_the_latents():
    latents = torch.randn(2500, 3, generator=torch.Generator().manual_seed(0))
    shares = np.concatenate(list(expression_shares(genes_of(3, genes=40), latents)))
    assert shares.shape == (2500, 40)
    np.testing.assert_allclose(shares.sum(1), 1)
    # log-ratios to one gene are affine in the latents, whatever the normalisation
    ratios = np.log(shares[:, 1:] / shares[:, :1])
    design = np.column_stack([latents.double().numpy(), np.ones(len(latents))])
    fitted = design @ np.linalg.lstsq(design, ratios, rcond=None)[0]
    np.testing.assert_allclose(fitted, ratios, atol=1e-5)  # latents are float32
    # and no direction of the latents is lost, so the mixing is injective
    slopes = np.linalg.lstsq(design, np.log(shares), rcond=None)[0]
    assert np.linalg.matrix_rank(slopes[:3] - slopes[:3].mean(1, keepdims=True)) == 3


@pytest.mark.parametrize("density", [0.0, 0.05, 0.5])
def test_a_program_moves_its_share_of_genes(density):
    moved = genes_of(simulator={"loading_density": density}).loadings != 0
    assert moved.any(1).all()  # no program is silent
    np.testing.assert_allclose(moved.mean(1), density + (1 - density) / 4000, atol=5 * np.sqrt(0.25 / 4000))


def test_loadings_have_their_sd():
    drawn = genes_of(simulator={"loading_density": 1.0, "loading_sd": 0.7}).loadings
    assert drawn.std() == pytest.approx(0.7, rel=0.05)
    np.testing.assert_allclose(genes_of(simulator={"loading_density": 1.0, "loading_sd": 1.4}).loadings, 2 * drawn)


def test_genes_are_drawn_or_spread():
    drawn, again = (genes_of(simulator={"baseline_sd": 2.0}, seed=seed).baseline for seed in (0, 1))
    spread, other = (
        genes_of(simulator={"baseline": "spread", "baseline_sd": 2.0}, seed=seed).baseline for seed in (0, 1)
    )
    assert drawn.std() == pytest.approx(2, rel=0.05)
    assert not np.allclose(np.sort(drawn), np.sort(again))
    assert not np.allclose(spread, other)
    np.testing.assert_allclose(np.sort(spread), np.sort(other))
    np.testing.assert_allclose(np.quantile(spread, [0.1, 0.5, 0.99]), norm.ppf([0.1, 0.5, 0.99], scale=2), atol=0.02)


def test_dispersion_is_spread_over_genes_and_rises_where_means_fall():
    assert np.all(genes_of(dispersion=0.0).dispersion == 0)
    assert np.all(genes_of(dispersion=0.1).dispersion == 0.1)
    spread = np.log(genes_of(dispersion=0.1, simulator={"dispersion_sd": 0.5}).dispersion)
    assert spread.mean() == pytest.approx(np.log(0.1), abs=5 * 0.5 / np.sqrt(4000))
    assert spread.std() == pytest.approx(0.5, rel=0.06)
    risen = genes_of(dispersion=0.1, library_size=9000.0, simulator={"dispersion_trend": 0.3})
    share = np.exp(risen.baseline) / np.exp(risen.baseline).sum()
    np.testing.assert_allclose((risen.dispersion - 0.1) * 9000 * share, 0.3)


def test_the_trend_is_the_least_excess_of_variance_over_mean():
    """Without programs and with one library size, a gene's variance is (1 + b) m + a m²."""
    spec = PerturbseqData(
        genes=50,
        library_size=500.0,
        dispersion=0.2,
        simulator={"dispersion_trend": 0.5, "library_sd": 0.0, "loading_density": 0.0},
    )
    genes = draw_genes(spec, 1)
    # one latent that moves one gene hardly at all
    genes.loadings[:] = 0
    shares = expression_shares(genes, torch.randn(40_000, 1, generator=torch.Generator().manual_seed(0)))
    counts = np.concatenate(list(draw_counts(shares, genes.dispersion, 500.0, 0.0, 0)))
    mean = counts.mean(0)
    assert np.median(counts.var(0) / (1.5 * mean + 0.2 * mean**2)) == pytest.approx(1, abs=0.02)


def test_a_batch_shifts_genes_alike_in_all_its_cells():
    genes = genes_of(2, genes=60, simulator={"batches": 3, "batch_sd": 0.5})
    assert genes.batches.std() == pytest.approx(0.5, rel=0.2)
    latents = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    batch = np.arange(300) % 3
    with_batches = np.log(np.concatenate(list(expression_shares(genes, latents, batch))))
    without = np.log(np.concatenate(list(expression_shares(genes, latents))))
    moved = (with_batches - without) - (with_batches - without)[:, :1]
    expected = genes.batches[batch] - genes.batches[:1]
    np.testing.assert_allclose(moved, expected - expected[:, :1], atol=1e-10)


@pytest.mark.parametrize(
    "knob",
    [
        {"library_sd": 0.8},
        {"dispersion_sd": 1.0},
        {"dispersion_trend": 0.2},
        {"batches": 2},
    ],
    ids=lambda knob: next(iter(knob)),
)
def test_knobs_of_noise_leave_programs_and_baselines_alone(knob):
    plain, turned = genes_of(), genes_of(simulator=knob)
    np.testing.assert_array_equal(plain.loadings, turned.loadings)
    np.testing.assert_array_equal(plain.baseline, turned.baseline)
