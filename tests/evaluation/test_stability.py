"""Stability of edges and targets over fits: exact renaming, noise, chance against simulation, and what has none."""

import numpy as np
import pytest

from harness.evaluation.stability import (
    Fit,
    frequencies,
    graph_stability,
    matches,
    target_stability,
)

ORDER, SIGN, SCALE = [2, 0, 3, 1], np.array([-1.0, 1.0, 1.0, -1.0]), np.array([0.1, 3.0, 7.0, 1.0])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def chain(weight=0.8):
    """0 → 1 → 2 → 3, row k the weights into latent k."""
    return np.diag([weight] * 3, -1)


def fit(rng, graph=None, targets=None, cells=400):
    return Fit(rng.standard_normal((cells, 4)), graph, targets)


def renamed(one, *, graph=None):
    """The same fit, its latents in another order, sign and scale."""
    factor = SIGN * SCALE
    latents = one.latents[:, ORDER] * factor + 2
    weights = one.graph if graph is None else graph
    moved = None if weights is None else weights[np.ix_(ORDER, ORDER)] * factor[:, None] / factor[None, :]
    return Fit(latents, moved, None if one.targets is None else one.targets[:, ORDER])


def stability(*fits):
    return graph_stability(fits, matches(fits)), target_stability(fits, matches(fits))


def test_the_same_structure_under_another_name_agrees_entirely(rng):
    one = fit(rng, chain(), np.eye(4))
    graph, targets = stability(one, renamed(one))
    assert (graph.value, targets.value) == (1.0, 1.0)
    assert graph.chance == pytest.approx(3 / 12)
    assert targets.chance == pytest.approx(1 / 4)


def test_another_structure_agrees_as_far_as_it_does(rng):
    one = fit(rng, chain(), np.eye(4))
    reversed_last = chain()
    reversed_last[3, 2], reversed_last[2, 3] = 0.0, 0.8
    other = renamed(one, graph=reversed_last)
    swapped = Fit(other.latents, other.graph, other.targets[[1, 0, 2, 3]])
    graph, targets = stability(one, swapped)
    assert graph.value == pytest.approx(2 / 3)
    assert targets.value == pytest.approx(0.5)


def test_chance_is_what_random_renamings_give(rng):
    dense = np.tril(np.ones((4, 4)), -1)
    one, other = fit(rng, chain(), np.eye(4)[[0, 0, 1, 2, 3]]), fit(rng, dense, np.eye(4)[[0, 1, 1, 1, 3]])
    drawn = []
    for _ in range(400):
        order = rng.permutation(4)
        noise = 0.01 * rng.standard_normal(other.latents.shape)
        shuffled = Fit(one.latents + noise, dense[np.ix_(order, order)], other.targets[:, order])
        graph, targets = stability(one, shuffled)
        drawn.append((graph.value, targets.value))
    assert np.mean(drawn, axis=0) == pytest.approx([graph.chance, targets.chance], abs=0.03)


def test_numbers_of_targets_that_differ_agree_by_chance_never(rng):
    both = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    one = fit(rng, targets=both)
    _, targets = stability(one, Fit(one.latents, None, both[:, [1, 0, 2, 3]]))
    assert targets.value == 0.5
    assert targets.chance == pytest.approx((1 / 6 + 1 / 4) / 2)
    _, targets = stability(one, Fit(one.latents, None, both[::-1]))
    assert (targets.value, targets.chance) == (0.0, 0.0)


def test_graphs_without_an_edge_agree_and_so_does_chance(rng):
    one = fit(rng, 1e-3 * chain())  # weights that a penalty has made small
    graph, targets = stability(one, renamed(one))
    assert (graph.value, graph.chance, targets) == (1.0, 1.0, None)
    graph, _ = stability(one, Fit(one.latents, chain()))
    assert (graph.value, graph.chance) == (0.0, 0.0)


def test_one_fit_one_latent_or_no_structure_have_none(rng):
    assert stability(fit(rng, chain(), np.eye(4))) == (None, None)
    assert stability(fit(rng), fit(rng)) == (None, None)
    assert stability(fit(rng, np.zeros((4, 4))), fit(rng, np.zeros((4, 4)))) == (None, None)  # a family without edges
    single = [Fit(rng.standard_normal((50, 1)), np.zeros((1, 1))) for _ in range(2)]
    assert graph_stability(single, matches(single)) is None


def test_frequencies_are_named_by_the_fit_that_agrees_best(rng):
    one = fit(rng, chain(), np.eye(4))
    without = chain()
    without[1, 0] = 0.0
    against = chain()
    against[2, 1] = -0.8
    fits = [renamed(one, graph=without), one, renamed(one, graph=against)]
    agreement = np.array([[1.0, 0.9, 0.2], [0.9, 1.0, 0.9], [0.2, 0.9, 1.0]])
    found = frequencies(fits, agreement)
    assert found.named_by == 1
    np.testing.assert_allclose(found.edges, np.array(chain() > 0) * [[1.0], [2 / 3], [1.0], [1.0]])
    spread = one.latents.std(axis=0)
    assert found.weights[1, 0] == pytest.approx(0.8 * spread[0] / spread[1] * 2 / 3)
    assert found.weights[2, 1] == pytest.approx(0.8 * spread[1] / spread[2] / 3)
    assert (found.same_sign[1, 0], found.same_sign[2, 1]) == (1.0, pytest.approx(2 / 3))
    assert np.isnan(found.same_sign[0, 1])
    np.testing.assert_array_equal(found.targets, np.eye(4))
