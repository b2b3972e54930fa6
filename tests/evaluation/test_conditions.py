import pytest
import torch

from harness.data.batch import Mechanisms
from harness.evaluation.conditions import (
    alignment,
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
    found = check_conditions(mechanisms(), pairs=True)
    assert set(found) == {"environment_sufficiency", "intervention_sufficiency", "alignment"}
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
    assert "1 of 4 responsive latents" in found.reason
    assert "c comes closest in" in found.reason
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
    assert "closest in control" in found.reason


def test_alignment_and_data_without_mechanisms():
    assert alignment(True).holds
    assert alignment(True).margin == 1.0
    assert alignment(False).margin == 0.0
    assert set(check_conditions(None, pairs=False)) == {"alignment"}


def test_mechanisms_that_make_no_sense_are_refused():
    m = mechanisms()
    m.variance[2, 1] = 0.0
    with pytest.raises(ValueError, match="variances must be positive"):
        check_conditions(m, pairs=True)
    m.mean[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="noise means"):
        check_conditions(m, pairs=True)
