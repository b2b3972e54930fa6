"""Ground truth against the moments its equations imply."""

import pytest
import torch

from harness.data.latent_process import draw_mechanisms, make_design, mechanisms_of, sample_process
from harness.data_spec import SimulationData
from harness.process_spec import LinearGaussianSpec

NAMES = ("a", "b", "c", "d")

#: Of version 1 of the generator.
GOLDEN = {"graph": -1.1831132, "mean": -1.6250840, "variance": 16.843983, "latents": -179.00316}


def _spec(**process):
    process = {"responsive": 3, "invariant": 2, **process}
    return SimulationData(
        features=10, environments=5, doubles=3, cells=90_000, test_cells=60, process=LinearGaussianSpec(**process)
    )


def _drawn(**process):
    """Design, process and mechanisms of control and singles."""
    spec = _spec(**process)
    design = make_design(spec, NAMES[: spec.process.responsive])
    return design, spec.process, draw_mechanisms(spec.process, design.targets, 0)


def _implied(mechanisms, e):
    inverse = torch.linalg.inv(torch.eye(3) - mechanisms.graph[e])
    spread = torch.diag(mechanisms.variance[e]) + mechanisms.graph_invariant[e] @ mechanisms.graph_invariant[e].T
    return inverse @ mechanisms.mean[e], inverse @ spread @ inverse.T


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"intervention": "soft"},
        {"intervention": "none", "changes": "mean"},
        {"changes": "variance", "targets_per_perturbation": 2},
        {"background": "redrawn", "untargeted": 1},
        {"interaction": 1.0, "edge_density": 0.5},
    ],
)
def test_samples_have_the_moments_of_their_environment(knobs):
    spec = _spec(**knobs)
    design = make_design(spec, NAMES[: spec.process.responsive])
    sample = sample_process(spec.process, design, 0)
    all_mechanisms = mechanisms_of(spec.process, design, sample.mechanisms, 0)
    for e in range(6):
        z = sample.responsive[design.environment == e, 1]
        mean, covariance = _implied(all_mechanisms, e)
        scale = covariance.diagonal().sqrt()
        torch.testing.assert_close(z.mean(0) / scale, mean / scale, atol=0.05, rtol=0)
        torch.testing.assert_close(torch.cov(z.T), covariance, atol=0.06 * float(scale.max()) ** 2, rtol=0.1)


def test_twins_follow_control_and_share_only_the_invariant_part():
    spec = _spec()
    design = make_design(spec, NAMES[: spec.process.responsive])
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
    targets = make_design(spec, NAMES[: spec.process.responsive]).targets
    mechanisms = draw_mechanisms(spec.process, targets, 0)
    for k, target in enumerate(targets.int().argmax(1).tolist(), start=1):
        others = [v for v in range(3) if v != target]
        for part in (mechanisms.graph, mechanisms.graph_invariant, mechanisms.lagged):
            assert (part[k, target] == 0).all()
            assert torch.equal(part[k, others], part[0, others])
        assert mechanisms.mean[k, target] != 0
        assert (mechanisms.mean[k, others] == 0).all()


@pytest.mark.parametrize("lagged", ["diagonal", "dense", "nonlinear"])
def test_a_soft_intervention_draws_the_targets_weights_anew(lagged):
    design, process, mechanisms = _drawn(
        responsive=4, intervention="soft", edge_density=0.6, lagged=lagged, targets_per_perturbation=2
    )
    low, high = process.edge_range
    scale = process.invariant**0.5
    past = mechanisms.lagged if mechanisms.lagged_tanh is None else mechanisms.lagged_tanh
    for k, hit in enumerate(design.targets, start=1):
        for part, factor in ((mechanisms.graph, 1.0), (mechanisms.graph_invariant, scale)):
            assert torch.equal(part[k, ~hit], part[0, ~hit])
            there = part[0] != 0
            assert torch.equal(part[k] != 0, there)  # as many edges, the same ones, none of them gone
            weights = (part[k] * factor).abs()[hit[:, None] & there]
            assert ((low - 1e-6 <= weights) & (weights <= high + 1e-6)).all()
            assert (part[k] != part[0])[hit[:, None] & there].all()
        assert torch.equal(past[k, ~hit], past[0, ~hit])
        assert torch.equal(past[k] != 0, past[0] != 0)
        assert not torch.isclose(past[k, hit], past[0, hit]).all(1).any()
        if lagged != "diagonal":
            torch.testing.assert_close(past[k].norm(dim=1), past[0].norm(dim=1))
        else:
            assert ((past[k].diagonal() >= 0.3) & (past[k].diagonal() <= 0.9)).all()


def test_without_intervention_the_edges_stay():
    _, _, mechanisms = _drawn(intervention="none", lagged="dense")
    for part in (mechanisms.graph, mechanisms.graph_invariant, mechanisms.lagged):
        assert (part[0] != 0).any()
        assert (part == part[:1]).all()
    assert (mechanisms.mean[1:] != 0).sum() == 5


@pytest.mark.parametrize(("changes", "means", "variances"), [("both", 1, 1), ("mean", 1, 0), ("variance", 0, 1)])
def test_only_what_is_asked_for_changes(changes, means, variances):
    design, _, mechanisms = _drawn(changes=changes)
    assert torch.equal(mechanisms.mean[1:] != 0, design.targets & bool(means))
    assert torch.equal(mechanisms.variance[1:] != 1, design.targets & bool(variances))
    _, _, both = _drawn()
    if means:
        assert torch.equal(mechanisms.mean, both.mean)  # turning a knob leaves the other draws alone
    if variances:
        assert torch.equal(mechanisms.variance, both.variance)


def test_targets_go_round_and_leave_the_last_latents_alone():
    design, _, mechanisms = _drawn(responsive=4, untargeted=1, targets_per_perturbation=2)
    expected = [[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0], [0, 1, 1, 0]]
    assert design.targets.int().tolist() == expected
    assert design.perturbations == ("a", "b", "c", "a_2", "b_2")
    assert torch.equal(mechanisms.mean[1:] != 0, design.targets)
    assert torch.equal((mechanisms.graph_invariant[1:] == 0).all(2), design.targets)
    assert (mechanisms.graph[:, 3] == mechanisms.graph[0, 3]).all()


def test_a_redrawn_background_differs_in_every_environment_and_stays_cut():
    design, process, mechanisms = _drawn(background="redrawn")
    combined = mechanisms_of(process, design, mechanisms, 0)
    hit = torch.stack([design.targets[list(members)].any(0) for members in design.members])
    assert torch.equal((combined.graph_invariant == 0).all(2), hit)
    for row in range(3):
        kept = combined.graph_invariant[~hit[:, row], row]
        assert len(kept.unique(dim=0)) == len(kept)
    assert torch.equal(mechanisms.mean[1:] != 0, design.targets)
    _, _, shared = _drawn()
    assert torch.equal(mechanisms.graph[0], shared.graph[0])
    assert torch.equal(mechanisms.mean, shared.mean)
    assert torch.equal(mechanisms.variance, shared.variance)


def test_doubles_take_both_members_rows():
    spec = _spec()
    design = make_design(spec, NAMES[: spec.process.responsive])
    single = draw_mechanisms(spec.process, design.targets, 0)
    combined = mechanisms_of(spec.process, design, single, 0)
    for row, members in enumerate(design.members):
        if len(members) == 2:
            for k in members:
                target = int(design.targets[k].int().argmax())
                assert combined.mean[row, target] == single.mean[k + 1, target]
                assert (combined.graph[row, target] == 0).all()


@pytest.mark.parametrize("each", [1, 2])
def test_an_interaction_is_one_shift_on_all_targets_of_a_double(each):
    design, process, single = _drawn(interaction=0.5, targets_per_perturbation=each)
    combined = mechanisms_of(process, design, single, 0)
    seen = set()
    for row, members in enumerate(design.members):
        extra = combined.mean[row] - sum((single.mean[k + 1] for k in members), torch.zeros(3))
        hit = design.targets[list(members)].any(0)
        if len(members) < 2:
            assert (extra == 0).all()
            continue
        assert (extra[~hit] == 0).all()
        torch.testing.assert_close(extra[hit], extra[hit][:1].expand(int(hit.sum())))
        assert 0.5 * 1.0 <= extra[hit][0].abs() <= 0.5 * 2.5
        seen.add(round(float(extra[hit][0]), 6))
    assert len(seen) == 3
    without = mechanisms_of(process.model_copy(update={"interaction": 0.0}), design, single, 0)
    assert torch.equal(without.variance, combined.variance)
    row = design.members.index(next(members for members in design.members if len(members) == 2))
    torch.testing.assert_close(without.mean[row], sum(single.mean[k + 1] for k in design.members[row]))


def test_where_both_members_act_on_a_latent_it_takes_the_second_ones_row():
    design, process, single = _drawn(intervention="soft", targets_per_perturbation=2, lagged="nonlinear")
    combined = mechanisms_of(process, design, single, 0)
    row, (a, b) = next((row, members) for row, members in enumerate(design.members) if len(members) == 2)
    first_only, second = design.targets[a] & ~design.targets[b], design.targets[b]
    assert first_only.any()
    assert (design.targets[a] & second).any()
    for name in ("graph", "graph_invariant", "lagged_tanh"):
        found, of = getattr(combined, name)[row], getattr(single, name)
        assert torch.equal(found[second], of[b + 1, second])
        assert torch.equal(found[first_only], of[a + 1, first_only])
    torch.testing.assert_close(combined.variance[row], single.variance[a + 1] * single.variance[b + 1])


def test_splits_are_disjoint_and_hold_what_was_asked_for():
    spec = _spec()
    design = make_design(spec, NAMES[: spec.process.responsive])
    rows = torch.cat(list(design.splits.values()))
    assert len(rows.unique()) == len(rows) == len(design.environment)
    assert len(design.splits["train"]) + len(design.splits["validation"]) == spec.cells
    assert set(design.environment[design.splits["double"]].tolist()) == {6, 7, 8}
    assert design.u[design.splits["double"]].sum(1).unique().tolist() == [2.0]


def test_density_zero_gives_no_edges():
    spec = _spec(edge_density=0.0)
    mechanisms = draw_mechanisms(spec.process, make_design(spec, NAMES[: spec.process.responsive]).targets, 0)
    assert (mechanisms.graph == 0).all()
    assert (mechanisms.graph_invariant == 0).all()


def test_lagged_states_follow_their_equation():
    spec = _spec(lagged="diagonal", steps=2)
    design = make_design(spec, NAMES[: spec.process.responsive])
    sample = sample_process(spec.process, design, 0)
    mechanisms = mechanisms_of(spec.process, design, sample.mechanisms, 0)
    rows = design.environment == 2
    z = sample.responsive[rows]
    noise = z[:, 2] @ (torch.eye(3) - mechanisms.graph[2]).T - z[:, 1] @ mechanisms.lagged[2].T
    noise = noise - sample.invariant[rows] @ mechanisms.graph_invariant[2].T
    torch.testing.assert_close(noise.mean(0), mechanisms.mean[2], atol=0.08, rtol=0)
    torch.testing.assert_close(noise.var(0), mechanisms.variance[2], atol=0.02, rtol=0.05)


@pytest.mark.parametrize("intervention", ["cut", "none"])
def test_nonlinear_states_follow_their_equation(intervention):
    """Regressed on what the equation says, the noise is white, has the environment's moments, and B is absent."""
    spec = _spec(lagged="nonlinear", steps=2, intervention=intervention)
    design = make_design(spec, NAMES[:3])
    sample = sample_process(spec.process, design, 0)
    mechanisms = mechanisms_of(spec.process, design, sample.mechanisms, 0)
    assert (mechanisms.lagged == 0).all()
    assert torch.linalg.matrix_norm(mechanisms.lagged_tanh[0], ord=2) == pytest.approx(1.4, rel=1e-5)
    assert (mechanisms.lagged_tanh[2, 1] == 0).all() == (intervention == "cut")
    rows = design.environment == 2
    z = sample.responsive[rows]
    noise = z[:, 2] @ (torch.eye(3) - mechanisms.graph[2]).T - z[:, 1].tanh() @ mechanisms.lagged_tanh[2].T
    noise = noise - sample.invariant[rows] @ mechanisms.graph_invariant[2].T
    torch.testing.assert_close(noise.mean(0), mechanisms.mean[2], atol=0.08, rtol=0)
    torch.testing.assert_close(noise.var(0), mechanisms.variance[2], atol=0.02, rtol=0.05)
    together = torch.corrcoef(torch.cat([noise, z[:, 1]], dim=1).T)[:3, 3:]
    assert together.abs().max() < 0.04


def test_the_default_truth_stays_what_it_was():
    """Numbers measured on it stay comparable: knobs at their defaults draw nothing that was not drawn before."""
    _, process, mechanisms = _drawn()
    assert mechanisms.lagged_tanh is None
    assert mechanisms.graph[0, 2, 1].item() == pytest.approx(GOLDEN["graph"], rel=1e-6)
    assert mechanisms.mean.sum().item() == pytest.approx(GOLDEN["mean"], rel=1e-6)
    assert mechanisms.variance.sum().item() == pytest.approx(GOLDEN["variance"], rel=1e-6)
    small = SimulationData(features=10, environments=5, doubles=3, cells=60, test_cells=60, process=process)
    drawn = sample_process(process, make_design(small, NAMES[:3]), 0).responsive
    assert drawn.double().sum().item() == pytest.approx(GOLDEN["latents"], rel=1e-4)
