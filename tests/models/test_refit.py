"""Refitting to moments, on exact moments of a linear-Gaussian truth: where it ends, and what it leaves alone."""

import copy
import itertools

import pytest
import torch
from true_latents import mcc_between, mcc_with, mechanisms_of_truth, mixed, one, population_moments

from harness.models.mechanisms import FreeMechanisms, KnownTargets, LearnedTargets
from harness.models.moments import moment_loss, whitened
from harness.models.refit import random_starts, refit

D_V, D_I = 3, 2
TARGETS = torch.eye(D_V, dtype=torch.bool).repeat(2, 1)
P = len(TARGETS)
TRUTH = mechanisms_of_truth(TARGETS)
MIXING, MOMENTS = mixed(population_moments(TRUTH), D_V)


def _floor():
    """The least loss any mechanisms can reach: the entropy of h given z_i and u, whose noise is log|det R| away."""
    entropy = 0.5 * (TRUTH.variance.double().log().sum(1) + D_V)
    return entropy.mean() + torch.linalg.slogdet(MIXING).logabsdet


def _fitted(family, restarts, *rounds):
    found = random_starts(family, MOMENTS, restarts, torch.Generator().manual_seed(0))
    for steps in rounds:
        fit = refit(found, MOMENTS, steps=steps)
        found = fit.candidates
    return fit


def test_with_known_targets_every_restart_reaches_the_least_loss_and_the_true_latents():
    found = _fitted(KnownTargets(TARGETS, D_I), 4, 400, 250)
    torch.testing.assert_close(found.loss, _floor().expand(4), atol=1e-4, rtol=0)
    assert mcc_with(found.candidates, torch.linalg.inv(MIXING), MOMENTS).min() > 0.999
    # scales are free, so weights and variances are the truth's up to the latents' own
    family = found.candidates.families[found.best]
    assert (family.masked_graph[1:, 0].abs() > 0.05).all()


def test_free_mechanisms_reach_the_same_loss_with_other_latents_each_time():
    found = _fitted(FreeMechanisms(P, D_V, D_I), 4, 400)
    torch.testing.assert_close(found.loss, _floor().expand(4), atol=1e-3, rtol=0)
    assert mcc_between(found.candidates, MOMENTS) < 0.9
    assert mcc_with(found.candidates, torch.linalg.inv(MIXING), MOMENTS).max() < 0.95


def _learned():
    torch.manual_seed(0)
    return LearnedTargets(P, D_V, D_I)


def _starts(family, count=2, seed=0):
    return random_starts(family, MOMENTS, count, torch.Generator().manual_seed(seed))


def test_inputs_are_left_as_they_are():
    starts = _starts(_learned())
    before = copy.deepcopy((starts.unmixing, starts.across, [f.state_dict() for f in starts.families], MOMENTS))
    found = refit(starts, MOMENTS, steps=5)
    assert not torch.equal(found.candidates.unmixing, starts.unmixing)
    assert torch.equal(starts.unmixing, before[0])
    assert torch.equal(starts.across, before[1])
    for family, state in zip(starts.families, before[2], strict=True):
        for name, value in family.state_dict().items():
            assert torch.equal(value, state[name]), name
    for ours, theirs in zip(MOMENTS, before[3], strict=True):
        assert ours == theirs if isinstance(ours, int) else torch.equal(ours, theirs)


def test_candidates_do_not_see_each_other():
    starts = _starts(_learned(), 3)
    together = refit(starts, MOMENTS, steps=30)
    for k in range(3):
        alone = refit(starts.chosen([k]), MOMENTS, steps=30)
        torch.testing.assert_close(alone.loss[0], together.loss[k])
        torch.testing.assert_close(alone.candidates.unmixing[0], together.candidates.unmixing[k])


@pytest.mark.parametrize("steps", [0, 20])
def test_the_loss_is_that_of_what_is_returned_sparsity_counted(steps):
    family = KnownTargets(TARGETS, D_I)
    starts = _starts(family)
    for started in starts.families:
        with torch.no_grad():
            started.mean_change.fill_(0.5)
    found = refit(starts, MOMENTS, steps=steps, sparsity=0.1)
    for k, fitted in enumerate(found.candidates.families):
        mechanism = fitted(MOMENTS.u)
        fit = moment_loss(MOMENTS, mechanism, found.candidates.unmixing[k], found.candidates.across[k])
        assert fitted.penalty() > 0.1
        torch.testing.assert_close(found.loss[k], (fit + 0.1 * fitted.penalty()).detach())
    without = refit(starts, MOMENTS, steps=0)
    if steps == 0:
        torch.testing.assert_close(found.loss - without.loss, torch.full((2,), 0.1 * 0.5 * P).double())


def test_sparsity_makes_effects_smaller():
    starts = _starts(KnownTargets(TARGETS, D_I), 1)
    sizes = [
        refit(starts, MOMENTS, steps=100, sparsity=weight).candidates.families[0].penalty().item()
        for weight in (0.0, 0.3)
    ]
    assert sizes[1] < 0.5 * sizes[0]


def test_a_penalty_keeps_candidates_where_it_wants_them_and_is_not_counted():
    starts, wanted = _starts(KnownTargets(TARGETS, D_I)), torch.eye(D_V).double()

    def penalty(unmixing, across):
        assert unmixing.shape == (2, D_V, D_V)
        assert across.shape == (2, D_V, D_I)
        return 1e3 * ((unmixing - wanted).square().sum((1, 2)) + (across - 0.5).square().sum((1, 2)))

    found, freely = (refit(starts, MOMENTS, steps=150, penalty=chosen) for chosen in (penalty, None))
    kept, left = (penalty(fit.candidates.unmixing, fit.candidates.across) for fit in (found, freely))
    assert (kept < 0.15 * left).all()
    again = refit(found.candidates, MOMENTS, steps=0)
    torch.testing.assert_close(again.loss, found.loss)


def test_learned_targets_anneal_over_the_steps_and_stay_hard_where_asked():
    found = refit(_starts(_learned()), MOMENTS, steps=60)
    assert all(family.settled for family in found.candidates.families)
    hard = [family.assignment() for family in found.candidates.families]
    again = refit(found.candidates, MOMENTS, steps=20, annealed=True)
    for family, before in zip(again.candidates.families, hard, strict=True):
        assert torch.equal(family.assignment(), before)


def test_starts_are_random_rotations_of_whitened_features_and_fresh_families():
    family = _learned()
    family.anneal(1.0)
    state = copy.deepcopy(family.state_dict())
    starts = _starts(family, 3)
    whitener, _ = whitened(MOMENTS, D_V)
    rotations = starts.unmixing @ torch.linalg.inv(whitener)
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(D_V).double().expand(3, -1, -1))
    assert not torch.allclose(rotations[0].abs(), rotations[1].abs(), atol=0.05)
    assert not starts.across.any()
    assert all(not started.settled for started in starts.families)
    assert torch.equal(_starts(family, 3).unmixing, starts.unmixing)
    assert not torch.equal(_starts(family, 3, seed=1).unmixing, starts.unmixing)
    for name, value in family.state_dict().items():
        assert torch.equal(value, state[name])


def test_reordering_moves_latents_and_their_targets_together():
    """Without edges the order costs nothing: same loss, latents at other places."""
    found = refit(_starts(KnownTargets(TARGETS, D_I)), MOMENTS, steps=30).candidates
    for family in found.families:
        family.graph.data.zero_()
    orders = list(itertools.permutations(range(D_V)))
    moved = found.reordered(orders)
    assert len(moved) == 2 * len(orders)
    for k, order in itertools.product(range(2), range(len(orders))):
        at = k * len(orders) + order
        assert torch.equal(moved.unmixing[at], found.unmixing[k][list(orders[order])])
        assert torch.equal(moved.families[at].targets, found.families[k].targets[:, list(orders[order])])
    here, there = (refit(some, MOMENTS, steps=0).loss for some in (found, moved))
    torch.testing.assert_close(there, here.repeat_interleave(len(orders)))


def test_a_nonlinear_transition_is_refused():
    family = FreeMechanisms(P, D_V, D_I, "nonlinear")
    with pytest.raises(ValueError, match="use lagged: diagonal or dense"):
        refit(one(family, torch.eye(D_V), D_I), MOMENTS, steps=1)
