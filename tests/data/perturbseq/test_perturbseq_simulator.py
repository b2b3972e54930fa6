import numpy as np
import pytest
import torch

from harness.data import load
from harness.data.fingerprint import fingerprint
from harness.data.perturbseq import describe
from harness.data.perturbseq.simulator import (
    LIBRARY_SD,
    design_of,
    expression_shares,
    library_sizes,
    negative_binomial,
    simulate,
)
from harness.data_spec import PerturbseqData
from harness.errors import UserError
from harness.process_spec import LinearGaussianSpec


def small(**options):
    process = {"responsive": 2, "invariant": 3, **options.pop("process", {})}
    sizes = {"environments": 4, "doubles": 2, "cells": 600, "test_cells": 200, "double_cells": 50, "genes": 80}
    return PerturbseqData(**{**sizes, **options}, process=LinearGaussianSpec(**process))


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


def test_library_sizes_are_log_normal_with_the_given_mean():
    n = 200_000
    sizes = library_sizes(n, 5000.0, np.random.default_rng(0))
    assert sizes.mean() == pytest.approx(5000, rel=5 * LIBRARY_SD / np.sqrt(n))
    assert np.log(sizes).std() == pytest.approx(LIBRARY_SD, rel=0.02)
    assert np.median(sizes) == pytest.approx(5000 * np.exp(-(LIBRARY_SD**2) / 2), rel=0.01)


def test_shares_are_log_linear_in_the_latents():
    latents = torch.randn(2500, 3, generator=torch.Generator().manual_seed(0))
    shares = np.concatenate(list(expression_shares(latents, 40, 0)))
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


def test_simulated_cells_look_like_a_file():
    adata = simulate(small())
    assert adata.shape == (2 * (600 + 200 + 2 * 50), 80)
    assert adata.X.dtype == np.int32
    assert set(adata.obs["condition"].unique()) == {"control", *design_of(small()).conditions}
    assert adata.obs.loc[adata.obs["time"] == 0, "condition"].eq("control").all()
    assert adata.obsm["responsive"].shape == (1800, 2)
    assert adata.obsm["invariant"].shape == (1800, 3)
    depth = np.asarray(adata.X.sum(1)).ravel()
    assert depth.mean() == pytest.approx(5000, rel=0.05)


def test_simulated_data_carry_their_truth(tmp_path):
    spec = small()
    data = load(spec, tmp_path)
    design = design_of(spec)
    assert data.pairs == "true"
    assert data.ood == ("double_seen2",)
    assert sorted(data.conditions) == sorted(design.conditions)
    assert data.index.shape == (900, 2)
    assert {name: len(rows) for name, rows in data.splits.items()} == {
        "train": 540,
        "validation": 60,
        "test": 200,
        "double_seen2": 100,
    }
    # a pair shares its invariant latents
    assert torch.equal(data.truth.invariant[data.index[:, 0]], data.truth.invariant[data.index[:, 1]])
    assert data.excluded == {}
    for name, target in zip(data.perturbations, data.targets, strict=True):
        assert torch.equal(target, design.targets[design.perturbations.index(name)])


def test_mechanisms_belong_to_their_perturbations(tmp_path):
    data = load(small(cells=40_000, environments=3, doubles=0, genes=2, library_size=10.0), tmp_path)
    last = data.index[:, 1]
    mechanisms = data.truth.mechanisms.select(range(1, len(data.conditions)))
    for k, name in enumerate(data.perturbations):
        rows = data.condition == data.conditions.index(name)
        z, z_i = data.truth.responsive[last[rows]], data.truth.invariant[last[rows]]
        noise = z - z @ mechanisms.graph[k].T - z_i @ mechanisms.graph_invariant[k].T
        error = 5 * (mechanisms.variance[k] / rows.sum()).sqrt()
        assert torch.all((noise.mean(0) - mechanisms.mean[k]).abs() < error), name
        torch.testing.assert_close(noise.var(0), mechanisms.variance[k], rtol=0.1, atol=0)


def test_no_frame_of_test_or_ood_is_trained_on(tmp_path):
    data = load(small(), tmp_path)
    trained = set(data.index[data.splits["train"]].flatten().tolist())
    for name in ("validation", "test", *data.ood):
        assert not trained & set(data.index[data.splits[name]].flatten().tolist())


def test_expression_tells_the_latents(tmp_path):
    """With many counts and no dispersion the latents can be read off linearly: the counts carry them."""
    data = load(small(library_size=50_000.0, dispersion=0.0), tmp_path)
    truth = torch.cat([data.truth.responsive, data.truth.invariant], 1).numpy()
    x = np.column_stack([data.frames.numpy(), np.ones(len(data.frames))])
    half = len(x) // 2
    fitted = x[half:] @ np.linalg.lstsq(x[:half], truth[:half], rcond=None)[0]
    r2 = 1 - ((fitted - truth[half:]) ** 2).sum(0) / ((truth[half:] - truth[half:].mean(0)) ** 2).sum(0)
    assert np.all(r2 > 0.85)


def test_time_steps_make_longer_rows(tmp_path):
    data = load(small(process={"steps": 3, "lagged": "diagonal"}), tmp_path)
    assert data.index.shape == (900, 4)
    assert len(data.frames) == 3600
    assert data.truth.mechanisms.lagged.any()


def test_built_once_and_the_same_again(tmp_path):
    spec = small()
    first = load(spec, tmp_path)
    (folder,) = tmp_path.glob("perturbseq-*")
    assert folder.name.endswith(fingerprint(spec))
    again, elsewhere = load(spec, tmp_path), load(spec, tmp_path / "other")
    other = load(small(seed=1), tmp_path)
    for data in (again, elsewhere):
        assert torch.equal(first.frames, data.frames)
        assert all(torch.equal(rows, data.splits[name]) for name, rows in first.splits.items())
    assert not torch.equal(first.frames, other.frames)


def test_the_users_labels_are_written_and_read(tmp_path):
    plain, named = load(small(), tmp_path), load(small(column="guide", control="NT"), tmp_path)
    assert named.conditions == plain.conditions
    assert torch.equal(named.frames, plain.frames)
    assert simulate(small(column="guide", control="NT")).obs["guide"].iloc[0] == "NT"


def test_refusals(tmp_path):
    with pytest.raises(UserError, match=r"data\.values is lognorm, but simulated data are counts"):
        load(small(values="lognorm"), tmp_path)
    with pytest.raises(UserError, match=r"simulated counts .* conditions have fewer than 20 cells"):
        load(small(cells=50, test_cells=50, environments=8), tmp_path)
    with pytest.raises(UserError, match=r"data\.path is not set"):
        describe(small())
