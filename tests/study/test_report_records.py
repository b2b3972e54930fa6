import pytest
from report_samples import MCC, record

from harness.study.records import Records


def scored(values, **other):
    return [record(seed=seed, metrics={MCC: value}, **other) for seed, value in enumerate(values)]


def test_estimate_averages_finished_seeds_only():
    records = Records(
        [
            *scored([0.2, 0.4]),
            record(seed=2, state="failed", metrics={MCC: 100.0}),
            record(seed=3, state="pruned", metrics={MCC: 100.0}),
            record(seed=4, state="waiting"),
        ]
    )
    value = records.estimate(MCC)
    assert value.mean == pytest.approx(0.3)
    assert value.n == 2
    assert len(records) == 5


def test_a_metric_missing_from_one_trial_is_averaged_over_the_others():
    records = Records([*scored([0.2, 0.4]), record(seed=2, metrics={"validation/loss": 1.0})])
    assert records.estimate(MCC).n == 2
    assert records.estimate("ood/double/r2") is None


def test_group_keeps_order_and_loses_nothing():
    records = Records([*scored([0.1, 0.2], cell="b"), *scored([0.3], cell="a"), *scored([0.4], cell="b")])
    groups = records.group(lambda one: one.cell)
    assert list(groups) == ["b", "a"]
    assert [len(group) for group in groups.values()] == [3, 1]


def test_a_model_without_an_axis_is_found_at_none():
    records = Records([record("a", axes={"sparsity": 0.1}), record("b", model="beta_vae", axes={})])
    assert records.axes == ("sparsity",)
    assert [one.cell for one in records.on("sparsity", None)] == ["b"]
    assert [one.cell for one in records.on("model", "beta_vae")] == ["b"]


def test_axis_values_rise_and_words_follow():
    values = [10, "auto", 2.5, 3, "auto", "all"]
    records = Records(record(str(i), axes={"x": value}) for i, value in enumerate(values))
    assert records.axis_values("x") == (2.5, 3, 10, "auto", "all")


def test_splits_come_from_finished_metrics():
    records = Records(
        [
            record(metrics={"ood/double/r2": 1.0, "ood/single/r2": 1.0, "identifiability/mcc": 1.0}),
            record(seed=1, state="failed", metrics={"ood/never/r2": 1.0}),
        ]
    )
    assert records.splits == ("double", "single")


BASELINE = "baseline/additive/ood/double/rmse_relative"


def test_a_baseline_counts_once_a_data_set():
    shared = Records(record(seed=seed, baselines={BASELINE: 0.5}) for seed in range(3))
    value = shared.baseline("additive", "ood/double/rmse_relative")
    assert (value.mean, value.n, value.half_width) == (0.5, 1, None)


def test_a_baseline_varies_over_data_sets():
    values = {"one": 0.4, "two": 0.6}
    records = Records(
        record(model, seed, model=model, fingerprint=data, baselines={BASELINE: values[data]})
        for seed, data in enumerate(values)
        for model in ("perturbed_vae", "cite_vae")
    )
    value = records.baseline("additive", "ood/double/rmse_relative")
    assert (value.mean, value.n) == (0.5, 2)
    assert records.baseline_names == ("additive",)


def test_the_floor_belongs_to_the_data():
    metrics = {"ood/double/r2_ceiling": 0.9, "ood/double/rmse_relative_floor": 0.4}
    records = Records(record(seed=seed, metrics=metrics) for seed in range(3))
    assert records.floor("ood/double/r2").mean == 0.9
    assert records.floor("ood/double/rmse_relative").n == 1
    assert records.floor("ood/double/mmd") is None
