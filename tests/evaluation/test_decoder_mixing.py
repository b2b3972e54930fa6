import numpy as np
import pytest
import torch
from torch import nn

from harness.evaluation.mixing import LOCAL, mixing
from harness.evaluation.scores import NonFiniteError


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def orthonormal(rows, columns, seed=0):
    return torch.linalg.qr(normal(rows, columns, seed=seed)).Q


def leaky(d, layers, slope, *, folded=0, seed=0):
    """Rotations and leaky layers, ``folded`` rotated coordinates made absolute, then a lift to 30 features."""
    turns = [orthonormal(d, d, seed=seed * 100 + k) for k in range(layers + 1)]
    lift = orthonormal(30, d, seed=seed * 100 + 50)

    def mix(z):
        for turn in turns[:-1]:
            z = nn.functional.leaky_relu(z @ turn, slope)
        z = z @ turns[-1]
        return torch.cat([z[:, :folded].abs(), z[:, folded:]], dim=1) @ lift.T

    return mix


def test_singular_values_of_a_linear_mixing():
    # latents with sds 1, 2, 4 exactly; in units of these the singular values are 6, 3 and 1.5
    z = normal(400, 3)
    z = (z - z.mean(0)) / z.std(0) * torch.tensor([1.0, 2.0, 4.0])
    basis = orthonormal(20, 3)
    scale = torch.tensor([6.0, 1.5, 0.375])
    found = mixing(lambda x: (x * scale) @ basis.T + 7.0, z, seed=0)
    assert found.holds
    assert found.margin == pytest.approx(0.25, rel=1e-4)
    assert (
        "0.25 of the largest in the median of 200 cells, 0.25 at the 5 % quantile and 0.25 at the least" in found.reason
    )
    assert "no cell of 40" in found.reason


def test_singular_values_of_a_curved_mixing():
    # one latent, its features z and z²: a single singular value, so that the ratio is 1 everywhere; with a second,
    # linear latent the ratio is 1 / sqrt(1 + 4 z²) in units of sd, smallest far out
    z = normal(200, 2)
    z = (z - z.mean(0)) / z.std(0)
    found = mixing(lambda x: torch.stack([x[:, 0], x[:, 0] ** 2, x[:, 1]], dim=1), z, seed=0)
    expected = np.quantile(1 / np.sqrt(1 + 4 * z[:, 0].numpy() ** 2), 0.05)
    assert found.holds
    assert found.margin == pytest.approx(expected, rel=1e-4)


def test_a_latent_that_frames_do_not_show():
    z, basis = normal(300, 3), orthonormal(10, 2)
    flat = mixing(lambda x: x[:, :2] @ basis.T, z, seed=0)
    assert not flat.holds
    assert flat.margin < LOCAL
    constant = mixing(leaky(3, 1, 0.5), z * torch.tensor([1.0, 1.0, 0.0]), seed=0)
    assert not constant.holds
    narrow = mixing(lambda x: x[:, :2], z, seed=0)
    assert not narrow.holds


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_fold_is_found(layers, seed):
    found = mixing(leaky(6, layers, 0.2, folded=2, seed=seed), normal(1000, 6, seed=seed), seed=seed)
    assert not found.holds
    assert "share their frame with other latents" in found.reason
    assert found.margin < 0.6 * mixing(leaky(6, layers, 0.2, seed=seed), normal(1000, 6, seed=seed), seed=seed).margin


def test_where_the_fold_leads_is_known():
    # |z| of one latent: every cell has its mirror image as twin, 2 |z| away
    z, basis = normal(1000, 1), orthonormal(5, 1)
    found = mixing(lambda x: x.abs() @ basis.T, z, seed=0)
    assert not found.holds
    far = float((2 * z.abs() >= 0.5).float().mean())  # nearer cells and their mirror images count as one
    share = float(found.reason.split("but ")[1].split("%")[0]) / 100
    # one of three starts at least lies on the far side for 7 of 8 cells; 40 cells leave a standard error of 0.07
    assert share == pytest.approx(7 / 8 * far, abs=0.2)
    assert found.margin == pytest.approx(1 - share, abs=0.01)


@pytest.mark.parametrize(("layers", "slope"), [(1, 0.5), (1, 0.2), (2, 0.5), (2, 0.2)])
@pytest.mark.parametrize("seed", range(3))
def test_no_false_alarm_on_leaky_layers(layers, slope, seed):
    z = normal(1000, 11, seed=seed) @ (torch.eye(11) + 0.3 * normal(11, 11, seed=seed + 7))
    found = mixing(leaky(11, layers, slope, seed=seed), z, seed=seed)
    assert found.holds
    # each leaky layer stretches by its slope at the least
    assert found.margin > 0.3 * slope**layers


def test_a_fold_where_no_cell_lies_is_not_counted():
    # folded at 40 sds: second preimages lie 80 sds away
    z = normal(500, 2)
    assert mixing(lambda x: torch.stack([(x[:, 0] - 40).abs(), x[:, 1]], dim=1), z, seed=0).holds


def test_a_smooth_network_is_judged_too():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 12))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(3))
    found = mixing(net, normal(400, 3), seed=0)
    assert found.holds
    assert all(parameter.grad is None for parameter in net.parameters())
    assert mixing(net, normal(400, 3), seed=0) == found


def test_images_and_few_cells():
    basis = orthonormal(48, 2)
    found = mixing(lambda x: (x @ basis.T).reshape(-1, 3, 4, 4), normal(5, 2), seed=0)
    assert found.holds
    assert "of 5 cells" in found.reason
    with pytest.raises(ValueError, match="too few"):
        mixing(lambda x: x, normal(1, 2), seed=0)
    with pytest.raises(NonFiniteError, match="latents"):
        mixing(lambda x: x, torch.full((5, 2), float("nan")), seed=0)
