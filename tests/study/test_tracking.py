"""MLflow: replay without doubling, what was lost and found again, and what is refused."""

import json
import socket
from dataclasses import replace

import pytest

from harness.errors import UserError
from harness.helps import Help
from harness.study.mlflow_store import check_uri, connect, create_default_store, default_uri
from harness.study.tracked import flattened
from harness.study.tracking import TrackedTrial, Tracker

EPOCHS = [
    {
        "epoch": epoch,
        "time": 1700000000.0 + epoch,
        "metrics": {"train/loss": 1.0 / epoch, "validation/loss": 2.0 / epoch},
    }
    for epoch in range(1, 6)
]
RESULT = {
    "state": "finished",
    "metrics": {"identifiability/mcc": 0.9, "validation/loss": 0.45},
    "baselines": {"baseline/additive/ood/double/rmse": 1.0},
    "started": 1700000000.0,
    "ended": 1700000010.0,
    "warnings": ["a block collapsed"],
    "failure": None,
    "environment": {"host": "node7", "git_commit": "abc", "slurm_job_id": "12_3"},
}


def trial(**changes):
    blank = TrackedTrial(
        trial_id="0123456789abcdef",
        cell="perturbed_vae · sparsity=0.1",
        seed=0,
        model="perturbed_vae",
        fingerprint="fedcba",
        params={"model.sparsity": 0.1, "train.patience": None},
        epochs=EPOCHS,
        result=RESULT,
        first_of_cell=True,
        helps=(Help("targets"), Help("sizes", ("latent_dim", "input_pca"))),
    )
    return replace(blank, **changes)


@pytest.fixture
def tracker(driving):
    """Makes a tracker as each new driver would have one."""

    def make(launch=1, **keys):
        tracker = Tracker(driving.root, "fake", **keys)
        tracker.start_launch(launch, 1700000000.0, {})
        return tracker

    return make


def curve(driving, name):
    (child,) = driving.runs()[1]
    history = driving.client().get_metric_history(child.info.run_id, name)
    return [(point.step, point.value) for point in history]


def test_replaying_with_a_new_driver_doubles_nothing(driving, tracker):
    for _ in range(3):
        assert tracker().sync(trial())
    assert curve(driving, "train/loss") == [(epoch, 1.0 / epoch) for epoch in range(1, 6)]
    assert curve(driving, "identifiability/mcc") == [(0, 0.9)]
    # the weights kept are those of the best epoch: their loss stands behind the curve
    assert curve(driving, "validation/loss") == [*((epoch, 2.0 / epoch) for epoch in range(1, 6)), (6, 0.45)]


def test_a_replay_that_forgot_how_far_it_was_doubles_nothing(driving, tracker):
    tracker().sync(trial())
    (child,) = driving.runs()[1]
    for tag in ("synced_epoch", "synced_result"):
        driving.client().delete_tag(child.info.run_id, tag)
    tracker().sync(trial())
    assert len(curve(driving, "train/loss")) == 5
    assert len(curve(driving, "identifiability/mcc")) == 1


def test_a_curve_grows_while_the_trial_runs(driving, tracker):
    tracker().sync(trial(epochs=EPOCHS[:2], result=None))
    assert len(curve(driving, "train/loss")) == 2
    assert driving.runs()[1][0].info.status == "RUNNING"
    tracker().sync(trial())
    assert len(curve(driving, "train/loss")) == 5
    assert driving.runs()[1][0].info.status == "FINISHED"


def test_more_points_than_one_request_takes(driving, tracker):
    many = [{"epoch": e, "time": 1700000000.0 + e, "metrics": {"train/loss": 1.0}} for e in range(1, 1502)]
    tracker().sync(trial(epochs=many))
    assert len(curve(driving, "train/loss")) == 1501


def test_what_is_not_finite_is_left_out(driving, tracker):
    bad = [{"epoch": 1, "time": 1700000000.0, "metrics": {"train/loss": float("inf"), "train/kl": 0.5}}]
    tracker().sync(trial(epochs=bad, result={**RESULT, "metrics": {"identifiability/mcc": float("nan")}}))
    (child,) = driving.runs()[1]
    assert set(child.data.metrics) == {"train/kl", "baseline/additive/ood/double/rmse"}


def test_tags_and_params(driving, tracker):
    tracker().sync(trial())
    (child,) = driving.runs()[1]
    tags = child.data.tags
    assert tags["cell"] == "perturbed_vae · sparsity=0.1"
    assert (tags["host"], tags["git_commit"], tags["slurm_job_id"]) == ("node7", "abc", "12_3")
    assert tags["warnings"] == "a block collapsed"
    assert child.data.params == {"model.sparsity": "0.1", "train.patience": "null"}
    assert (child.info.start_time, child.info.end_time) == (1700000000000, 1700000010000)


def test_a_run_has_a_tag_for_each_help_and_one_for_all(driving, tracker):
    tracker().sync(trial())
    tracker().sync(trial(trial_id="another", helps=()))
    of = {child.data.tags["trial_id"]: child.data.tags for child in driving.runs()[1]}
    helped, alone = of["0123456789abcdef"], of["another"]
    assert (helped["helps"], helped["oracle_targets"]) == ("targets, sizes", "true")
    assert helped["oracle_sizes"] == "latent_dim, input_pca"
    assert alone["helps"] == "none"
    assert not [key for key in alone if key.startswith("oracle_")]


def test_a_run_that_an_older_version_made_keeps_its_tags(driving, tracker):
    tracker().sync(trial(epochs=EPOCHS[:2], result=None))
    (child,) = driving.runs()[1]
    for key in [key for key in child.data.tags if key == "helps" or key.startswith("oracle_")]:
        driving.client().delete_tag(child.info.run_id, key)
    tracker().sync(trial())
    (child,) = driving.runs()[1]
    assert child.info.status == "FINISHED"
    assert not [key for key in child.data.tags if key == "helps" or key.startswith("oracle_")]


def test_scores_of_a_cell_are_logged_once_and_again_when_seeds_are_added(driving, tracker):
    tracker().sync(trial())
    scores = {"identifiability/mcc_across_seeds": 0.8}
    for _ in range(2):  # replayed by a new driver
        made = tracker()
        assert made.log_cell("0123456789abcdef", scores, trials=2, time=1700000020.0)
        assert made.log_cell("0123456789abcdef", scores, trials=2, time=1700000020.0)
    assert curve(driving, "identifiability/mcc_across_seeds") == [(2, 0.8)]
    (child,) = driving.runs()[1]
    driving.client().delete_tag(child.info.run_id, "synced_cell")
    made = tracker()
    made.log_cell("0123456789abcdef", scores, trials=2, time=1700000020.0)
    made.log_cell("0123456789abcdef", {"identifiability/mcc_across_seeds": 0.7}, trials=3, time=1700000040.0)
    assert curve(driving, "identifiability/mcc_across_seeds") == [(2, 0.8), (3, 0.7)]
    assert driving.runs()[1][0].data.metrics["identifiability/mcc_across_seeds"] == 0.7
    assert made.log_cell("unknown", scores, trials=2, time=1.0)


def test_children_stay_under_their_first_launch(driving, tracker):
    tracker(1).sync(trial())
    later = tracker(2)
    later.sync(trial())
    later.sync(trial(trial_id="another", seed=1, first_of_cell=False))
    parents, children = driving.runs()
    by_id = {parent.info.run_id: parent.data.tags["launch"] for parent in parents}
    found = {child.data.tags["trial_id"]: by_id[child.data.tags["mlflow.parentRunId"]] for child in children}
    assert found == {"0123456789abcdef": "1", "another": "2"}


def test_a_failure_that_was_run_again_becomes_finished(driving, tracker):
    failed = {**RESULT, "state": "failed", "metrics": {}, "baselines": {}, "failure": {"reason": "loss is nan"}}
    tracker().sync(trial(result=failed))
    assert driving.runs()[1][0].data.tags["failure"] == "loss is nan"
    again = tracker()
    assert again.sync(trial(result={**RESULT, "ended": 1700000099.0}))
    (child,) = driving.runs()[1]
    assert (child.info.status, child.data.tags["state"]) == ("FINISHED", "finished")
    assert "failure" not in child.data.tags


def test_two_studies_may_share_an_experiment(driving, tracker):
    tracker(experiment="fake").sync(trial())
    other = Tracker(driving.root, "other", experiment="fake")
    other.start_launch(1, 1700000000.0, {})
    other.sync(trial())
    assert {child.data.tags["study"] for child in driving.runs()[1]} == {"fake", "other"}


# ---------------------------------------------------------------------------------------------- the server


def nobody_there():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_training_goes_on_without_a_server_and_is_tracked_by_the_next_launch(driving):
    outcome = driving.launch(f"tracking.uri={nobody_there()}")
    assert (outcome.ran, outcome.failed) == (4, [])
    assert outcome.untracked is not None
    assert sum("cannot be written" in sentence for sentence in driving.said) == 1
    found = driving.launch()
    assert (found.ran, found.reused, found.untracked) == (0, 4, None)
    assert len(driving.runs()[1]) == 4


def test_another_store_may_be_named(driving, tmp_path):
    uri = default_uri(driving.root)
    elsewhere = driving.launch(f"tracking.uri={uri}", "tracking.experiment=mine")
    assert elsewhere.untracked is None
    experiment = driving.client().get_experiment_by_name("mine")
    assert len(driving.client().search_runs([experiment.experiment_id])) == 5
    assert experiment.artifact_location == (driving.root / "mlartifacts" / "fake").as_uri()


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "./mlruns", "ftp://host"])
def test_a_store_that_mlflow_does_not_know_is_refused(uri):
    with pytest.raises(UserError, match="no store of MLflow's"):
        check_uri(uri)


def test_the_default_store_is_made_once_and_whole(tmp_path):
    create_default_store(tmp_path)
    made = (tmp_path / "mlflow.db").stat()
    create_default_store(tmp_path)
    assert (tmp_path / "mlflow.db").stat() == made
    assert {path.name for path in tmp_path.iterdir()} <= {"mlflow.db", ".mlflow.lock"}
    assert len(connect(default_uri(tmp_path)).search_experiments()) == 1


def test_flattened_keeps_lists_whole():
    assert flattened({"a": {"b": 1, "c": {"d": [1, 2]}}, "e": None}) == {"a.b": 1, "a.c.d": [1, 2], "e": None}
    assert json.dumps([1, 2]) == "[1, 2]"
