import numpy as np
import pytest

from harness.evaluation.aggregate import aggregate, bootstrap_interval, intervals


def test_aggregate_means_over_conditions_and_names_what_it_leaves_out():
    found = aggregate({"A": {"r2": 0.5, "l2": 1.0}, "B": {"r2": 1.5, "l2": float("nan")}})
    assert found.values == {"r2": 1.0, "l2": 1.0}
    assert found.warnings == ("l2 of B is nan and left out of the mean",)
    assert aggregate({}).values == {}


def test_bootstrap_interval_approaches_the_normal_one():
    values = np.random.default_rng(5).normal(2.0, 1.0, 400)
    low, high = bootstrap_interval(values, seed=0)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)
    assert bootstrap_interval([1.0], seed=0) is None
    assert bootstrap_interval([1.0, 1.0], seed=0) == (1.0, 1.0)


def test_intervals_of_all_metrics_are_those_of_each_over_its_own_conditions():
    random = np.random.default_rng(0)
    table = {f"c{k}": {"r2": random.normal(), "l2": random.normal()} for k in range(12)}
    del table["c3"]["l2"]
    table["c4"]["l2"] = float("inf")
    table["c5"]["once"] = 1.0
    found = intervals(table, seed=7)
    assert set(found) == {"r2", "l2"}
    for name, ends in found.items():
        values = [row[name] for row in table.values() if name in row and np.isfinite(row[name])]
        draws = np.random.default_rng([7, 2]).integers(len(values), size=(2000, len(values)))
        expected = np.quantile(np.array(values)[draws].mean(axis=1), [0.025, 0.975])
        assert ends == pytest.approx(tuple(expected))
