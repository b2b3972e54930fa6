"""From latents to frames: injective unless asked otherwise."""

from pathlib import Path

import pytest
import torch
from torch.func import jacrev, vmap

from harness.data.mixing import draw_mixing
from harness.data.simulation import build
from harness.data_spec import SimulationData


def _latents(rows=400, columns=4, seed=0):
    return 3.0 + 2.0 * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def _latents_behind(mixing, hidden):
    """The latents whose leaky layers give ``hidden``: each layer undone, last first."""
    for rotation in reversed(mixing.rotations):
        hidden = torch.where(hidden < 0, hidden / mixing.slope, hidden) @ rotation.T
    return hidden * mixing.scale + mixing.location


def test_a_linear_mixing_is_linear():
    z = _latents(500)
    x = draw_mixing(z, features=9, layers=1, slope=1.0, seed=0)(z)
    design = torch.cat([z, torch.ones(500, 1)], dim=1)
    residual = x - design @ torch.linalg.lstsq(design, x).solution
    assert residual.abs().max() < 1e-4


@pytest.mark.parametrize(("layers", "slope"), [(0, 0.5), (1, 0.5), (2, 0.3)])
def test_the_mixing_is_injective(layers, slope):
    """Its Jacobian has full column rank wherever it is looked at, and latents can be had back."""
    z = _latents()
    mixing = draw_mixing(z, features=9, layers=layers, slope=slope, seed=0)
    jacobians = vmap(jacrev(lambda row: mixing(row[None])[0]))(z[:20])
    assert jacobians.shape == (20, 9, 4)
    # each layer and direction shrinks by the slope at most; the sds of the latents are about 2
    assert torch.linalg.svdvals(jacobians).min() > slope**layers * (9 / 4) ** 0.5 / 2.5
    hidden = mixing(z) @ mixing.lift / (9 / 4) ** 0.5
    torch.testing.assert_close(_latents_behind(mixing, hidden), z, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("layers", "d", "folded"), [(0, 4, 1), (1, 4, 1), (2, 11, 4), (1, 1, 1)])
def test_a_fold_maps_two_latents_to_one_frame(layers, d, folded):
    z = _latents(columns=d)
    mixing = draw_mixing(z, features=15, layers=layers, slope=0.5, injective=False, seed=0)
    assert len(mixing.fold.centre) == folded
    rotated = mixing.before_fold(z) @ mixing.fold.rotation
    for k in range(folded):
        mirrored = rotated.clone()
        mirrored[:, k] = 2 * mixing.fold.centre[k] - mirrored[:, k]
        others = _latents_behind(mixing, mirrored @ mixing.fold.rotation.T)
        assert (others - z).norm(dim=1).median() > 0.5
        torch.testing.assert_close(mixing(others), mixing(z), atol=1e-4, rtol=1e-4)
        # both sides of the centre are inhabited: the fold does forget something
        above = (rotated[:, k] > mixing.fold.centre[k]).float().mean()
        assert 0.2 < above < 0.8


def test_a_fold_changes_nothing_else():
    z = _latents()
    plain, folded = (
        draw_mixing(z, features=9, layers=1, slope=0.5, injective=injective, seed=0) for injective in (True, False)
    )
    assert torch.equal(plain.before_fold(z), folded.before_fold(z))
    assert torch.equal(plain.lift, folded.lift)
    assert not torch.allclose(plain(z), folded(z))


@pytest.mark.parametrize("injective", [True, False])
@pytest.mark.parametrize("pairs", ["true", "random", "none"])
def test_the_truths_mixing_gives_the_frames_up_to_the_noise(injective, pairs):
    spec = SimulationData(preset="tiny", injective=injective, pairs=pairs, noise=0.05)
    data = build(spec, "f", Path())
    latents = torch.cat([data.truth.responsive, data.truth.invariant], dim=1)
    noise = data.frames - data.truth.mixing(latents)
    assert noise.std() == pytest.approx(0.05, rel=0.03)
    assert noise.mean().abs() < 2e-3
    clean = build(spec.model_copy(update={"noise": 0.0}), "f", Path())
    torch.testing.assert_close(clean.truth.mixing(latents), clean.frames, atol=1e-6, rtol=1e-6)


def test_frames_have_about_unit_variance():
    data = build(SimulationData(preset="published_sizes", noise=0.0), "f", Path())
    assert data.frames.var(0).mean() == pytest.approx(1.0, abs=0.5)
