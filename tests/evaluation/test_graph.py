import itertools

import numpy as np
import pytest
from sklearn.metrics import f1_score

from harness.evaluation.graph import graph_f1, graph_shd, target_accuracy
from harness.evaluation.scores import NonFiniteError


def test_graph_f1_follows_the_matching():
    true = np.array([[0, 0, 0], [0.9, 0, 0], [0, -1.2, 0]])
    order = [2, 0, 1]  # learned latent j is true latent order[j]
    assignment = tuple(order.index(k) for k in range(3))
    learned = true[np.ix_(order, order)]
    assert graph_f1(learned, true, assignment) == 1.0
    assert graph_f1(learned.T, true, assignment) == 0.0
    assert graph_f1(0.2 * learned, true, assignment) == 0.0
    assert graph_f1(0.2 * learned, true, assignment, threshold=0.1) == pytest.approx(1.0)


def test_graph_f1_by_hand():
    true = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0]])
    learned = np.array([[0, 0, 0], [1, 0, 0], [0, 0.1, 0]])  # one hit, two missed
    assert graph_f1(learned, true, (0, 1, 2)) == pytest.approx(2 * 1 / (1 + 3))
    assert graph_f1(learned, true, (0, -1, 2)) == 0.0
    empty = np.zeros((3, 3))
    assert graph_f1(empty, empty, (0, 1, 2)) == 1.0
    assert graph_f1(np.stack([empty, learned]), true, (0, 1, 2)) == pytest.approx(0.5)


def test_graph_f1_in_units_of_the_latents():
    true = np.array([[0, 0], [1.0, 0]])
    learned = np.array([[0, 0], [0.01, 0]])  # the same graph with latent 1 measured in hundreds
    assert graph_f1(learned, true, (0, 1)) == 0.0
    assert graph_f1(learned, true, (0, 1), learned_scale=[1.0, 0.01], true_scale=[1.0, 1.0]) == 1.0
    with pytest.raises(ValueError, match="assignment"):
        graph_f1(learned, true, (0, 5))


def test_graph_f1_against_sklearn():
    rng = np.random.default_rng(0)
    for _ in range(10):
        learned, true = (rng.uniform(-0.6, 0.6, (4, 4)) * np.tri(4, k=-1) for _ in range(2))
        expected = f1_score((abs(true) >= 0.25).ravel(), (abs(learned) >= 0.25).ravel(), zero_division=1.0)
        assert graph_f1(learned, true, range(4)) == pytest.approx(expected)


def graphs_of(d):
    """All directed graphs of d latents without pairs of opposite edges, as sets of (child, parent)."""
    pairs = list(itertools.combinations(range(d), 2))
    for kinds in itertools.product(range(3), repeat=len(pairs)):
        yield frozenset((a, b) if kind == 1 else (b, a) for kind, (a, b) in zip(kinds, pairs, strict=True) if kind)


def edits(graph, d):
    """Graphs one addition, removal or reversal away."""
    for a, b in itertools.permutations(range(d), 2):
        if (a, b) in graph:
            yield graph - {(a, b)}
            yield graph - {(a, b)} | {(b, a)}
        elif (b, a) not in graph:
            yield graph | {(a, b)}


def weights_of(graph, d):
    weights = np.zeros((d, d))
    for child, parent in graph:
        weights[child, parent] = -0.7
    return weights


def test_hamming_distance_is_the_least_number_of_edits():
    start = frozenset({(1, 0), (2, 1)})
    distance, frontier = {start: 0}, [start]
    while frontier:
        graph = frontier.pop(0)
        for other in edits(graph, 3):
            if other not in distance:
                distance[other] = distance[graph] + 1
                frontier.append(other)
    assert set(distance) == set(graphs_of(3))
    for graph, steps in distance.items():
        assert graph_shd(weights_of(graph, 3), weights_of(start, 3), (0, 1, 2)) == steps


def test_hamming_distance_follows_the_matching_and_the_scales():
    true = np.array([[0, 0, 0], [0.9, 0, 0], [0.4, -1.2, 0]])
    order = [2, 0, 1]
    assignment = tuple(order.index(k) for k in range(3))
    learned = true[np.ix_(order, order)]
    assert graph_shd(learned, true, assignment) == 0
    assert graph_shd(learned, true, (0, 1, 2)) > 0
    assert graph_shd(learned, true, (-1, *assignment[1:])) == 2  # both edges of the latent without match
    small = learned * np.array([0.01, 1, 1])[:, None] / np.array([0.01, 1, 1])[None, :]
    scaled = {"learned_scale": [0.01, 1.0, 1.0], "true_scale": [1.0, 1.0, 1.0]}
    assert graph_shd(small, true, assignment, **scaled) == 0
    with pytest.raises(ValueError, match="assignment"):
        graph_shd(learned, true, (0, 1, 7))


def test_target_accuracy_by_hand():
    true = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], dtype=bool)
    learned = np.array([[0.1, 0.9, 0.0], [0.6, 0.2, 0.0], [0.7, 0.8, 0.1], [0.1, 0.4, 0.9]])
    # learned latent 1 is true latent 0, learned 0 is true 1; the last perturbation acts on a latent without match
    assert target_accuracy(learned, true, (1, 0)) == pytest.approx(3 / 4)
    assert target_accuracy(learned >= 0.5, true, (1, 0)) == pytest.approx(3 / 4)
    assert target_accuracy(learned, true, (0, 1)) == pytest.approx(1 / 4)
    assert target_accuracy(learned, true, (1, -1)) == pytest.approx(1 / 4)  # only the first names matched latents alone
    assert target_accuracy(np.zeros((1, 3)), np.zeros((1, 2)), (-1, -1)) == 1.0


def test_target_accuracy_does_not_depend_on_the_order_of_learned_latents():
    rng = np.random.default_rng(1)
    true = np.eye(4, dtype=bool)[rng.integers(0, 4, 30)]
    learned = np.where(rng.random((30, 1)) < 0.7, true, np.roll(true, 1, axis=1)).astype(float)
    share = (learned == true).all(axis=1).mean()
    order = rng.permutation(4)
    assert 0.4 < share < 1
    assert target_accuracy(learned[:, order], true, tuple(np.argsort(order))) == pytest.approx(share)


def test_targets_that_make_no_sense_are_refused():
    true = np.eye(2, dtype=bool)
    with pytest.raises(ValueError, match="same perturbations"):
        target_accuracy(np.eye(3), true, (0, 1))
    with pytest.raises(ValueError, match="lie in"):
        target_accuracy(3.0 * np.eye(2), true, (0, 1))
    with pytest.raises(ValueError, match="assignment"):
        target_accuracy(np.eye(2), true, (0, 2))
    with pytest.raises(NonFiniteError, match="learned targets"):
        target_accuracy(np.full((2, 2), np.nan), true, (0, 1))
