"""Ground truth against the moments its equations imply."""

from pathlib import Path

import pytest
import torch

from harness.data.latent_process import draw_mechanisms, make_design, mechanisms_of, sample_process
from harness.data.simulation import build, mix
from harness.data_spec import LinearGaussianSpec, SimulationData

NAMES = ("a", "b", "c")


def _spec(**process):
    process = {"responsive": 3, "invariant": 2, **process}
    return SimulationData(
        features=10, environments=5, doubles=3, cells=90_000, test_cells=60, process=LinearGaussianSpec(**process)
    )


def _implied(mechanisms, e):
    inverse = torch.linalg.inv(torch.eye(3) - mechanisms.graph[e])
    spread = torch.diag(mechanisms.variance[e]) + mechanisms.graph_invariant[e] @ mechanisms.graph_invariant[e].T
    return inverse @ mechanisms.mean[e], inverse @ spread @ inverse.T


@pytest.mark.parametrize("intervention", ["cut", "soft"])
def test_samples_have_the_moments_of_their_environment(intervention):
    spec = _spec(intervention=intervention)
    design = make_design(spec, NAMES)
    sample = sample_process(spec.process, design, 0)
    all_mechanisms = mechanisms_of(design.members, sample.mechanisms)
    for e in range(6):
        z = sample.responsive[design.environment == e, 1]
        mean, covariance = _implied(all_mechanisms, e)
        scale = covariance.diagonal().sqrt()
        torch.testing.assert_close(z.mean(0) / scale, mean / scale, atol=0.05, rtol=0)
        torch.testing.assert_close(torch.cov(z.T), covariance, atol=0.06 * float(scale.max()) ** 2, rtol=0.1)


def test_twins_follow_control_and_share_only_the_invariant_part():
    spec = _spec()
    design = make_design(spec, NAMES)
    sample = sample_process(spec.process, design, 0)
    _, covariance = _implied(sample.mechanisms, 0)
    twin = sample.responsive[:, 0]
    torch.testing.assert_close(torch.cov(twin.T), covariance, atol=0.05, rtol=0.05)
    # given z_i, a control row's two times are independent draws of the same law
    rows = design.environment == 0
    residual = (
        sample.responsive[rows]
        - sample.invariant[rows, None]
        @ (torch.linalg.inv(torch.eye(3) - sample.mechanisms.graph[0]) @ sample.mechanisms.graph_invariant[0]).T
    )
    correlation = torch.corrcoef(torch.cat([residual[:, 0], residual[:, 1]], dim=1).T)[:3, 3:]
    assert correlation.abs().max() < 0.05


def test_a_cut_removes_the_targets_row_and_nothing_else():
    spec = _spec(lagged="dense", steps=2)
    targets = make_design(spec, NAMES).targets
    mechanisms = draw_mechanisms(spec.process, targets, 0)
    for k, target in enumerate(targets.int().argmax(1).tolist(), start=1):
        others = [v for v in range(3) if v != target]
        for part in (mechanisms.graph, mechanisms.graph_invariant, mechanisms.lagged):
            assert (part[k, target] == 0).all()
            assert torch.equal(part[k, others], part[0, others])
        assert mechanisms.mean[k, target] != 0
        assert (mechanisms.mean[k, others] == 0).all()


def test_soft_interventions_keep_the_edges():
    spec = _spec(intervention="soft")
    mechanisms = draw_mechanisms(spec.process, make_design(spec, NAMES).targets, 0)
    assert (mechanisms.graph == mechanisms.graph[:1]).all()


def test_doubles_take_both_members_rows():
    spec = _spec()
    design = make_design(spec, NAMES)
    single = draw_mechanisms(spec.process, design.targets, 0)
    combined = mechanisms_of(design.members, single)
    for row, members in enumerate(design.members):
        if len(members) == 2:
            for k in members:
                target = int(design.targets[k].int().argmax())
                assert combined.mean[row, target] == single.mean[k + 1, target]
                assert (combined.graph[row, target] == 0).all()


def test_splits_are_disjoint_and_hold_what_was_asked_for():
    spec = _spec()
    design = make_design(spec, NAMES)
    rows = torch.cat(list(design.splits.values()))
    assert len(rows.unique()) == len(rows) == len(design.environment)
    assert len(design.splits["train"]) + len(design.splits["validation"]) == spec.cells
    assert set(design.environment[design.splits["double"]].tolist()) == {6, 7, 8}
    assert design.u[design.splits["double"]].sum(1).unique().tolist() == [2.0]


def test_density_zero_gives_no_edges():
    spec = _spec(edge_density=0.0)
    mechanisms = draw_mechanisms(spec.process, make_design(spec, NAMES).targets, 0)
    assert (mechanisms.graph == 0).all()
    assert (mechanisms.graph_invariant == 0).all()


def test_lagged_states_follow_their_equation():
    spec = _spec(lagged="diagonal", steps=2)
    design = make_design(spec, NAMES)
    sample = sample_process(spec.process, design, 0)
    mechanisms = mechanisms_of(design.members, sample.mechanisms)
    rows = design.environment == 2
    z = sample.responsive[rows]
    noise = z[:, 2] @ (torch.eye(3) - mechanisms.graph[2]).T - z[:, 1] @ mechanisms.lagged[2].T
    noise = noise - sample.invariant[rows] @ mechanisms.graph_invariant[2].T
    torch.testing.assert_close(noise.mean(0), mechanisms.mean[2], atol=0.08, rtol=0)
    torch.testing.assert_close(noise.var(0), mechanisms.variance[2], atol=0.02, rtol=0.05)


def test_a_linear_mixing_is_linear():
    z = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    x = mix(z, 9, 1, 1.0, 0)
    solution = torch.linalg.lstsq(torch.cat([z, torch.ones(500, 1)], dim=1), x)
    residual = x - torch.cat([z, torch.ones(500, 1)], dim=1) @ solution.solution
    assert residual.abs().max() < 1e-4


def test_the_published_preset_has_the_published_sizes():
    spec = SimulationData(preset="published")
    data = build(spec, "f", Path())
    assert data.frame_shape == (500,)
    assert (data.truth.responsive.shape[1], data.truth.invariant.shape[1]) == (4, 7)
    assert data.u.shape[1] == 12
    assert len(data.splits["train"]) + len(data.splits["validation"]) == 3000
    assert len(data.splits["test"]) == 1000


def test_truth_and_split_depend_on_the_data_seed_only():
    spec = SimulationData(preset="tiny")
    first, again = build(spec, "f", Path()), build(spec, "f", Path())
    other = build(spec.model_copy(update={"seed": 1}), "f", Path())
    assert torch.equal(first.frames, again.frames)
    assert not torch.equal(first.frames, other.frames)


def test_the_mixing_is_injective():
    """Its Jacobian has full column rank wherever it is looked at."""
    z = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    centre = torch.randn(400, 4, generator=torch.Generator().manual_seed(1))
    for point in z:
        nudged = torch.cat([point + 1e-2 * torch.eye(4), point[None], centre])
        mixed = mix(nudged, 9, 2, 0.3, 0)
        jacobian = (mixed[:4] - mixed[4]) / 1e-2
        assert torch.linalg.svdvals(jacobian).min() > 0.05
