import json

from harness.helps import HELPS_TAG
from harness.study.mlflow_page import runs_address, score_columns, score_view

METRICS = [
    "validation/loss",
    "train/loss",
    "ood/double_seen2/rmse_relative",
    "ood/double_seen2/mmd",
    "ood/double/r2",
    "baseline/additive/ood/double/r2",
    "identifiability/r2_responsive",
    "identifiability/mcc",
]


def test_columns_are_the_scores_in_the_order_of_the_tables():
    assert score_columns(METRICS) == [
        "identifiability/mcc",
        "identifiability/r2_responsive",
        "ood/double/r2",
        "ood/double_seen2/rmse_relative",
        "validation/loss",
    ]


def test_the_view_puts_the_best_trial_first():
    assert json.loads(score_view(METRICS))["orderByKey"] == "metrics.`identifiability/mcc`"
    assert json.loads(score_view(METRICS))["orderByAsc"] is False
    assert json.loads(score_view(["ood/double/rmse_relative", "validation/loss"]))["orderByAsc"] is True
    assert json.loads(score_view(["validation/loss"]))["orderByAsc"] is True


def test_columns_are_wide_enough_for_their_names():
    view = json.loads(score_view(METRICS))

    assert view["columnOrder"][-len(view["selectedColumns"]) :] == view["selectedColumns"]
    assert view["columnOrder"] == list(view["columnWidths"])
    assert all(view["columnWidths"][f"metrics.`{name}`"] > 7 * len(name) for name in score_columns(METRICS))


def test_the_view_shows_the_helps_before_the_scores():
    view = json.loads(score_view(METRICS))

    assert view["selectedColumns"][:2] == [f"tags.`{HELPS_TAG}`", "metrics.`identifiability/mcc`"]


def test_without_scores_there_is_no_view():
    assert score_view(["train/loss"]) is None


def test_the_address_names_the_view_only_where_there_is_one():
    address = "http://127.0.0.1:5000/#/experiments/7/runs?workflowType=machine_learning"

    assert runs_address("http://127.0.0.1:5000/", "7", view=False) == address
    assert runs_address("http://127.0.0.1:5000", "7", view=True) == f"{address}&viewStateShareKey=scores"
