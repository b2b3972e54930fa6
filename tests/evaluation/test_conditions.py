import numpy as np
import pytest
import torch

from harness.data.batch import Mechanisms
from harness.evaluation.conditions import (
    check_conditions,
    environment_sufficiency,
    intervention_sufficiency,
    natural_parameter_changes,
)
from harness.evaluation.scores import NonFiniteError


def mechanisms(environments=13, d_v=4, d_i=3, *, cut=True, seed=0, rows=None):
    """Environment k > 0 hits latent (k − 1) mod d_v: redraws its mean and variance and, if asked, cuts its row."""
    g = torch.Generator().manual_seed(seed)
    graph = torch.rand(d_v, d_v, generator=g).add(0.5).tril(-1).repeat(environments, 1, 1)
    invariant = torch.rand(d_v, d_i, generator=g).add(0.5).repeat(environments, 1, 1)
    mean, variance = torch.zeros(environments, d_v), torch.ones(environments, d_v)
    for e in range(1, environments):
        k = (e - 1) % d_v
        mean[e, k] = 1 + torch.rand((), generator=g)
        variance[e, k] = 0.2 + 2 * torch.rand((), generator=g)
        if cut and (rows is None or k in rows):
            graph[e, k], invariant[e, k] = 0, 0
    return Mechanisms(graph, invariant, torch.zeros(environments, d_v, d_v), mean, variance)


def test_natural_parameters_by_hand():
    m = Mechanisms(
        graph=torch.zeros(2, 1, 1),
        graph_invariant=torch.zeros(2, 1, 1),
        lagged=torch.zeros(2, 1, 1),
        mean=torch.tensor([[1.0], [3.0]]),
        variance=torch.tensor([[4.0], [2.0]]),
    )
    # sqrt(4) (3/2 - 1/4) and -4/2 (1/2 - 1/4)
    assert natural_parameter_changes(m).tolist() == [[2.5, -0.5]]


def test_all_conditions_hold_on_a_generator_with_cut_targets():
    found = check_conditions(mechanisms())
    assert set(found) == {"environment_sufficiency", "intervention_sufficiency"}
    assert all(v.holds for v in found.values())
    assert 0 < found["environment_sufficiency"].margin < 1
    assert found["intervention_sufficiency"].margin == pytest.approx(1.0)


@pytest.mark.parametrize(("environments", "rank"), [(1, 0), (5, 4), (8, 7), (9, 8)])
def test_rank_counts_environments(environments, rank):
    found = environment_sufficiency(mechanisms(environments))
    assert f"rank {rank} of 8" in found.reason
    assert found.holds == (rank == 8)
    assert (found.margin > 0) == found.holds


def test_mean_shifts_alone_are_not_sufficient():
    m = mechanisms(21)
    m.variance[:] = 1.0
    found = environment_sufficiency(m)
    assert not found.holds
    assert "rank 4 of 8" in found.reason


def test_margin_of_an_orthogonal_design_is_one():
    # Two environments on one latent: changes (1, 0) and (0, 1) after standardisation.
    shape = (3, 1, 1)
    variance = torch.tensor([[1.0], [1.0], [1 / 3]])  # -(3 - 1) / 2 = -1
    m = Mechanisms(*(torch.zeros(shape) for _ in range(3)), torch.tensor([[0.0], [1.0], [0.0]]), variance)
    assert environment_sufficiency(m).margin == pytest.approx(1.0)


def test_environment_margin_does_not_depend_on_the_latents_scale():
    m = mechanisms()
    scale = torch.tensor([1.0, 10.0, 0.1, 3.0])
    scaled = Mechanisms(m.graph, m.graph_invariant, m.lagged, m.mean * scale, m.variance * scale**2)
    assert environment_sufficiency(scaled).margin == pytest.approx(environment_sufficiency(m).margin, rel=1e-4)


def test_a_row_never_cut_is_named():
    found = intervention_sufficiency(
        mechanisms(rows={0, 1, 3}), environments=[f"G{k}" for k in range(12)], latents=("a", "b", "c", "d")
    )
    assert not found.holds
    assert 0 <= found.margin < 1
    assert "1 of 4 responsive latents are cut in no environment: c keeps a weight of" in found.reason
    soft = intervention_sufficiency(mechanisms(cut=False))
    assert not soft.holds
    assert "4 of 4" in soft.reason


def test_latents_without_parents_need_no_cut():
    m = mechanisms(cut=False)
    m.graph_invariant[:] = 0
    m.graph[:, 1:] = 0
    assert intervention_sufficiency(m) == intervention_sufficiency(mechanisms(1, 1, 0))
    m.graph[:, 2, 0] = 1.0
    assert not intervention_sufficiency(m).holds
    m.graph[0, 2, 0] = 0.25  # control counts as an environment, and the margin is graded
    found = intervention_sufficiency(m)
    assert found.margin == pytest.approx(0.75)
    assert "latent 3 keeps a weight of 0.25 in control (the largest weight of all is 1)" in found.reason


def test_the_environment_that_cuts_each_latent_is_named():
    found = intervention_sufficiency(
        mechanisms(), environments=[f"G{k}" for k in range(12)], latents=("a", "b", "c", "d")
    )
    assert found.reason == "each of 4 responsive latents is cut somewhere: a in G0, b in G1, c in G2, d in G3"
    m = mechanisms(5)
    m.graph_invariant[:, 0] = 0
    assert "latent 1 has no parents, latent 2 in environment 2" in intervention_sufficiency(m).reason
    many = intervention_sufficiency(mechanisms(11, 10))
    assert many.reason.endswith("latent 8 in environment 8 and 2 more")


def test_uncut_latents_are_named_worst_first():
    m = mechanisms(cut=False)
    m.graph_invariant[:] = 0
    m.graph[:] = 0
    m.graph[:, 1, 0], m.graph[:, 2, 0], m.graph[:, 3, 0] = 0.5, 2.0, 1.0
    reason = intervention_sufficiency(m).reason
    assert [reason.index(f"latent {k} keeps") for k in (3, 4, 2)] == sorted(
        reason.index(f"latent {k} keeps") for k in (2, 3, 4)
    )


def test_environments_that_change_next_to_nothing_are_not_usable():
    m = mechanisms(13)
    m.mean[5:], m.variance[5:] = m.mean[0] + 1e-4, 1.0
    reason = environment_sufficiency(m).reason
    assert "12 environments, 4 of them usable" in reason
    assert reason.endswith("at least 8 usable ones are needed")


def test_singular_values_stand_in_the_reason():
    shape = (3, 1, 1)
    m = Mechanisms(
        *(torch.zeros(shape) for _ in range(3)),
        torch.tensor([[0.0], [3.0], [0.0]]),
        torch.tensor([[1.0], [1.0], [1 / 3]]),
    )
    found = environment_sufficiency(m)
    assert "rank 2 of 2 and singular values 3, 1" in found.reason
    assert found.margin == pytest.approx(1 / 3)


def with_past(m, lagged):
    return Mechanisms(m.graph, m.graph_invariant, lagged, m.mean, m.variance)


def test_contexts_over_time_by_hand():
    # one latent, control mean 1, lag 0.5; under u mean 2, variance 2
    one = torch.ones(2, 1, 1)
    m = Mechanisms(0 * one, 0 * one, 0.5 * one, torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [2.0]]))
    # t = 0: z = 1. Control: 1 + 0.5 = 1.5, then 1 + 0.75; under u: 2 + 0.5 = 2.5, then 2 + 1.25
    expected = np.array([[0.5, 0.0], [0.25, 0.25], [0.75, 0.0], [0.625, 0.25]])
    assert natural_parameter_changes(m, steps=2) == pytest.approx(expected)
    assert natural_parameter_changes(m, steps=1) == pytest.approx(expected[:2])
    assert "4 contexts (1 environments and control, each at t = 1 to 2)" in environment_sufficiency(m, steps=2).reason
    bent = natural_parameter_changes(m, steps=2, past=lambda before: 0.5 * before)
    assert bent == pytest.approx(expected)
    m = Mechanisms(0 * one, 0 * one, 0 * one, m.mean, m.variance, lagged_tanh=0.5 * one)
    first = 1 + 0.5 * np.tanh(1.0)
    assert natural_parameter_changes(m, steps=2)[2, 0] == pytest.approx(0.5 * np.tanh(first))


def test_a_past_along_edges_goes_through_the_system():
    m = mechanisms(4, 3, 2)
    m.mean[0] = torch.tensor([0.5, -1.0, 2.0])
    lagged = 0.4 * torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(3))
    driven = natural_parameter_changes(with_past(m, lagged), steps=2)[5, :3]
    start = torch.linalg.inv(torch.eye(3) - m.graph[0]) @ m.mean[0]
    after = torch.linalg.inv(torch.eye(3) - m.graph[1]) @ (m.mean[1] + lagged[1] @ start)
    wanted = (m.mean[1] + lagged[1] @ after) / m.variance[1] - m.mean[0] / m.variance[0]
    assert driven == pytest.approx(wanted.numpy(), rel=1e-5)


def test_time_adds_contexts_but_no_variances():
    m = mechanisms(5)  # four environments: rank 4 of 8
    lagged = torch.diag(torch.tensor([0.9, 0.7, 0.5, 0.3])).repeat(5, 1, 1)
    assert "rank 4 of 8" in environment_sufficiency(with_past(m, lagged), steps=1).reason
    assert "rank 8 of 8" in environment_sufficiency(with_past(m, lagged), steps=4).reason
    few = mechanisms(4)  # three change a variance, and four means can be moved
    assert not environment_sufficiency(with_past(few, lagged[:4]), steps=8).holds
    still = environment_sufficiency(with_past(m, 0 * lagged), steps=4)
    assert still == environment_sufficiency(m)


def test_mechanisms_that_make_no_sense_are_refused():
    m = mechanisms()
    m.variance[2, 1] = 0.0
    with pytest.raises(ValueError, match="variances must be positive"):
        check_conditions(m)
    m.mean[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="noise means"):
        check_conditions(m)
