"""The counter-example: two parameter sets of the free family with equal likelihood and different latents.

The rotated set reads z̃ = R z_v. Under each u its covariance R Σ(u) Rᵀ factorises as L D Lᵀ with L unit lower
triangular and D > 0, which are mechanisms again: I − L⁻¹ is strictly lower triangular, and D are variances. So, with
mechanisms free in every environment, conditions (ii) and, depending on where it is asked for, (iv) of Theorem 1
(arXiv 2605.19343, as this project knows it) hold, and the responsive latents are not identified. This says nothing of
what the paper's full text may assume beyond them.
"""

from dataclasses import dataclass

import pytest
import torch
from true_latents import free_family, mcc_with, mechanisms_of_truth, one, population_moments

from harness.data.batch import Mechanisms
from harness.evaluation.conditions import (
    environment_sufficiency,
    intervention_sufficiency,
    natural_parameter_changes,
)
from harness.models.mechanisms import FreeMechanisms
from harness.models.moments import moment_loss
from harness.models.scm import noise_of

D_V = 3
TARGETS = torch.eye(D_V, dtype=torch.bool).repeat(2, 1)
P = len(TARGETS)


def _cut_in_the_truth(d_i):
    """Each perturbation cuts one row, shifts its mean and scales its variance; control has all edges."""
    return mechanisms_of_truth(TARGETS, invariant=d_i)


def _cut_in_control_only(d_i):
    """Control has no edges and equal variances; each environment has all edges, and all means and variances anew."""
    random = torch.Generator().manual_seed(1)

    def normals(*shape):
        return torch.randn(*shape, generator=random)

    graph = (0.5 * normals(P + 1, D_V, D_V) + normals(P + 1, D_V, D_V).sign()).tril(-1)
    graph_invariant, mean = normals(P + 1, D_V, d_i), normals(P + 1, D_V)
    graph[0], graph_invariant[0], mean[0] = 0, 0, 0
    variance = normals(P + 1, D_V).exp()
    variance[0] = 1.5
    return Mechanisms(graph, graph_invariant, torch.zeros_like(graph), mean, variance)


def _rotation():
    drawn = torch.randn(D_V, D_V, generator=torch.Generator().manual_seed(0)).double()
    return torch.linalg.qr(drawn).Q


def _rotated(truth, rotation):
    """Mechanisms of R z_v in every environment."""
    undo = torch.linalg.inv(torch.eye(D_V).double() - truth.graph.double())  # z_v = undo (L_vi z_i + n)
    covariance = rotation @ undo @ torch.diag_embed(truth.variance.double()) @ undo.mT @ rotation.T
    lower = torch.linalg.cholesky(covariance)
    deviations = lower.diagonal(dim1=1, dim2=2)
    system = torch.linalg.inv(lower / deviations.unsqueeze(1))
    onto = system @ rotation @ undo  # noise of z_v to noise of R z_v
    graph = torch.eye(D_V).double() - system
    assert graph.triu().abs().max() < 1e-12
    return Mechanisms(
        graph.tril(-1),
        onto @ truth.graph_invariant.double(),
        torch.zeros_like(graph),
        (onto @ truth.mean.double().unsqueeze(2)).squeeze(2),
        deviations.square(),
    )


@dataclass(frozen=True)
class Pair:
    """The truth and what its rotation makes of it, as mechanisms and as parameters of the family."""

    rotation: torch.Tensor
    truth: Mechanisms
    rotated: Mechanisms
    families: tuple[FreeMechanisms, FreeMechanisms]


CASES = {"in the truth only": _cut_in_the_truth, "through control only": _cut_in_control_only}


@pytest.fixture(params=[(case, d_i) for case in CASES for d_i in (1, 4)], ids=lambda p: f"{p[0]}, d_i = {p[1]}")
def pair(request):
    case, d_i = request.param
    truth, rotation = CASES[case](d_i), _rotation()
    rotated = _rotated(truth, rotation)
    return Pair(rotation, truth, rotated, (free_family(truth), free_family(rotated)))


def _environments():
    return torch.cat([torch.zeros(1, P), torch.eye(P)]).double()


def test_the_family_holds_both_parameter_sets(pair):
    for family, mechanisms in zip(pair.families, (pair.truth, pair.rotated), strict=True):
        ours = family(_environments())
        for name in ("graph", "graph_invariant", "mean", "variance"):
            torch.testing.assert_close(getattr(ours, name), getattr(mechanisms, name).double(), atol=1e-12, rtol=1e-9)


@torch.no_grad()
def test_the_likelihood_of_any_latents_is_equal(pair):
    random = torch.Generator().manual_seed(2)
    n, d_i = 200, pair.truth.graph_invariant.shape[2]
    z_v, z_i = (3 * torch.randn(n, k, generator=random).double() for k in (D_V, d_i))
    for u in _environments():
        densities = []
        for family, latents in zip(pair.families, (z_v, z_v @ pair.rotation.T), strict=True):
            mechanism = family(u.expand(n, -1))
            noise = torch.distributions.Normal(mechanism.mean, mechanism.variance.sqrt())
            # the structural map has determinant 1, and so has the rotation
            densities.append(noise.log_prob(noise_of(mechanism, latents, z_i)).sum(1))
        torch.testing.assert_close(*densities, atol=1e-9, rtol=1e-9)


@torch.no_grad()
def test_the_models_own_objective_is_equal(pair):
    moments, across = population_moments(pair.truth), torch.zeros(D_V, pair.truth.graph_invariant.shape[2]).double()
    losses = [
        moment_loss(moments, family(moments.u), unmixing, across)
        for family, unmixing in zip(pair.families, (torch.eye(D_V).double(), pair.rotation), strict=True)
    ]
    torch.testing.assert_close(*losses, atol=1e-9, rtol=0)


def test_the_latents_are_different(pair):
    moments = population_moments(pair.truth)
    candidate = one(pair.families[1], pair.rotation, pair.truth.graph_invariant.shape[2])
    assert mcc_with(candidate, torch.eye(D_V).double(), moments)[0] < 0.85


def test_environments_suffice_for_both(pair):
    for mechanisms in (pair.truth, pair.rotated):
        assert environment_sufficiency(mechanisms).holds
        assert torch.linalg.matrix_rank(torch.from_numpy(natural_parameter_changes(mechanisms))) == 2 * D_V


@pytest.mark.parametrize("d_i", [1, 4])
def test_interventions_suffice_in_the_truth_and_not_in_its_rotation(d_i):
    truth = _cut_in_the_truth(d_i)
    rotated = _rotated(truth, _rotation())
    assert intervention_sufficiency(truth).holds
    assert not intervention_sufficiency(rotated).holds
    # among responsive latents, the first has no parents in any environment, and every other has some in each
    assert not rotated.graph[:, 0].any()
    assert (rotated.graph[:, 1:].abs().amax(2) > 1e-3).all()


@pytest.mark.parametrize("d_i", [1, 4])
def test_through_control_interventions_suffice_in_both(d_i):
    truth = _cut_in_control_only(d_i)
    for mechanisms in (truth, _rotated(truth, _rotation())):
        assert intervention_sufficiency(mechanisms).holds
        # and through control alone: without it no row is ever cut
        assert not intervention_sufficiency(mechanisms.select(range(1, P + 1))).holds
