"""The structural layer against explicit inverses and closed forms."""

import torch

from harness.models.gaussian import Gaussian, kl_to_centred
from harness.models.mechanisms import FreeMechanisms, KnownTargets
from harness.models.scm import noise_of, solve


def _random(mechanisms, seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in mechanisms.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return mechanisms.double()


def test_solve_equals_the_explicit_inverse():
    mechanism = _random(FreeMechanisms(3, 4, 2, "dense"))(torch.eye(3).double())
    noise, invariant, before = (torch.randn(3, k).double() for k in (4, 2, 4))
    driven = noise + (mechanism.graph_invariant @ invariant[:, :, None])[:, :, 0]
    driven = driven + (mechanism.lagged @ before[:, :, None])[:, :, 0]
    expected = (torch.linalg.inv(mechanism.system) @ driven[:, :, None])[:, :, 0]
    torch.testing.assert_close(solve(mechanism, noise, invariant, before), expected)


def test_noise_of_inverts_solve():
    mechanism = _random(FreeMechanisms(3, 4, 2, "diagonal"))(torch.eye(3).double())
    noise, invariant, before = (torch.randn(3, k).double() for k in (4, 2, 4))
    latents = solve(mechanism, noise, invariant, before)
    torch.testing.assert_close(noise_of(mechanism, latents, invariant, before), noise)


def test_free_effects_of_a_pair_add_up():
    mechanisms = _random(FreeMechanisms(3, 4, 2))
    u = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]]).double()
    graph = mechanisms(u).graph
    torch.testing.assert_close(graph[3] - graph[0], (graph[1] - graph[0]) + (graph[2] - graph[0]))


def test_graph_is_strictly_lower_triangular():
    graph = _random(FreeMechanisms(3, 4, 2))(torch.eye(3).double()).graph
    assert (graph.triu() == 0).all()
    assert (graph.tril(-1) != 0).any()


def test_targeted_changes_and_cuts_only_the_targets_rows():
    targets = torch.tensor([[True, False, False], [False, False, True]])
    mechanisms = _random(KnownTargets(targets, 2, "dense"))
    control, first, last, both = (mechanisms(torch.tensor([u]).double()) for u in ([0, 0], [1, 0], [0, 1], [1, 1]))
    assert (last.graph[0, 2] == 0).all()
    assert (last.graph_invariant[0, 2] == 0).all()
    assert (last.lagged[0, 2] == 0).all()
    for part in ("graph", "graph_invariant", "lagged", "mean", "variance"):
        torch.testing.assert_close(getattr(last, part)[0, :2], getattr(control, part)[0, :2])
        torch.testing.assert_close(getattr(both, part)[0, 0], getattr(first, part)[0, 0])
        torch.testing.assert_close(getattr(both, part)[0, 2], getattr(last, part)[0, 2])
    assert last.mean[0, 2] != control.mean[0, 2]


def test_kl_equals_torch_distributions():
    mean, log_variance, variance = torch.randn(5, 3), torch.randn(5, 3), torch.rand(5, 3) + 0.1
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (0.5 * log_variance).exp()),
        torch.distributions.Normal(torch.zeros(()), variance.sqrt()),
    )
    torch.testing.assert_close(kl_to_centred(Gaussian(mean, log_variance), variance), expected)


def test_noise_space_kl_equals_the_latent_space_kl():
    """Prior and posterior are the same affine map of the noise, under which KL is invariant."""
    mechanism = _random(FreeMechanisms(1, 3, 2))(torch.ones(1, 1).double())
    posterior = Gaussian(torch.randn(1, 3).double(), torch.randn(1, 3).double())
    invariant = torch.randn(1, 2).double()
    inverse = torch.linalg.inv(mechanism.system[0])

    def pushed(mean, variance):
        return torch.distributions.MultivariateNormal(
            solve(mechanism, mean + mechanism.mean, invariant)[0], inverse @ torch.diag(variance[0]) @ inverse.T
        )

    latent_space = torch.distributions.kl_divergence(
        pushed(posterior.mean, posterior.variance), pushed(torch.zeros(1, 3).double(), mechanism.variance)
    )
    torch.testing.assert_close(kl_to_centred(posterior, mechanism.variance).sum(), latent_space)


def test_penalty_is_the_l1_norm_of_graph_and_effects():
    mechanisms = FreeMechanisms(2, 3, 2)
    assert mechanisms.penalty() == 0
    with torch.no_grad():
        mechanisms.graph[2, 0] = -2.0
        mechanisms.graph[0, 2] = 7.0  # above the diagonal: not part of the graph
        mechanisms.mean_change[1, 1] = 0.5
    torch.testing.assert_close(mechanisms.penalty(), torch.tensor(2.5))
