import numpy as np
import pytest
from sklearn.metrics import pairwise_distances

from harness.evaluation.discrimination import perturbation_ranks


def test_ranks_against_sorted_distances():
    random = np.random.default_rng(0)
    names = ["A", "B", "A+C", "D", "E"]
    features = ["x", "A", "B", "y", "C", "z"]
    true = {name: random.normal(size=6) for name in names}
    predicted = {name: random.normal(size=6) for name in names}
    found = perturbation_ranks(predicted, true, features)
    for right, name in enumerate(names):
        kept = [k for k, feature in enumerate(features) if feature not in name.split("+")]
        candidates = np.array([true[other][kept] for other in names])
        order = np.argsort(pairwise_distances(candidates, predicted[name][None, kept], metric="l1")[:, 0])
        rank = int(np.flatnonzero(order == right)[0])
        assert found[name]["perturbation_rank"] == float(rank == 0)
        assert found[name]["perturbation_rank_normalised"] == pytest.approx(1 - rank / 5)


def test_a_perfect_prediction_is_first_and_one_for_all_is_as_good_as_chance():
    true = {name: np.eye(4)[k] for k, name in enumerate("ABCD")}
    best = perturbation_ranks(true, true)
    assert all(set(values.values()) == {1.0} for values in best.values())
    same = perturbation_ranks(dict.fromkeys(true, np.zeros(4)), true)
    assert np.mean([values["perturbation_rank"] for values in same.values()]) == 0.25
    assert np.mean([values["perturbation_rank_normalised"] for values in same.values()]) == 0.5 + 0.5 / 4


def test_one_condition_is_told_from_nothing():
    assert perturbation_ranks({"A": np.zeros(2)}, {"A": np.zeros(2)}) == {}
