"""Pruning across running jobs: who is judged by what, who stops when, and what a driver that dies leaves."""

import json
import os
import signal

import pytest
from driving import end_group

from harness.study.optuna_store import OptunaStore

#: One good level and poorer ones, in the order in which they are proposed.
LEVELS = "search={{sampler: random, trials: {trials}, pruner: {pruner}, space: {{sparsity: {{low: 0.0, high: 1.0}}}}}}"


@pytest.fixture
def slow(monkeypatch):
    """Epochs that last long enough to be looked at."""
    monkeypatch.setenv("FAKE_SECONDS", "0.1")
    monkeypatch.setattr("harness.study.driver.POLL_SECONDS", {"inline": 0.02, "local": 0.05})


def search(pruner="hyperband", trials=6):
    return LEVELS.format(pruner=pruner, trials=trials)


def times(trial):
    return [json.loads(line)["time"] for line in trial.metrics.read_text().splitlines()]


def points(driving):
    return [trial for trial in driving.optuna().trials if "proposal" in trial.user_attrs]


def test_a_point_is_judged_by_the_mean_of_its_seeds_and_all_of_them_stop_within_an_epoch(driving, slow):
    changes = (
        search(trials=5),
        "grid=null",
        "seeds=2",
        "train.epochs=12",
        "compute.cluster=local",
        "compute.workers=2",
    )
    outcome = driving.launch(*changes)
    assert outcome.failed == []
    pruned = [trial for trial in points(driving) if trial.state.name == "PRUNED"]
    assert pruned
    assert len(points(driving)) == 5
    for point in pruned:
        folders = [driving.folder.trial(trial_id) for trial_id in point.user_attrs["trial_ids"]]
        assert len(folders) == 2
        curves = [{e["epoch"]: e["metrics"]["validation/loss"] for e in f.read_metrics()} for f in folders]
        for epoch, value in point.intermediate_values.items():
            assert value == pytest.approx(sum(curve[epoch] for curve in curves) / 2)
        assert {folder.read_result()["state"] for folder in folders} == {"pruned"}
        for folder in folders:
            assert "by the hyperband of this search" in folder.stop.read_text()
            asked = folder.stop.stat().st_mtime
            # the epoch in which the stop file came, and that may have ended at that very moment
            assert sum(1 for time in times(folder) if time > asked + 0.01) <= 1
    assert outcome.pruned == 2 * len(pruned)


def test_a_grid_cell_is_never_pruned(driving, slow):
    models = "models=[{kind: perturbed_vae, latent_dim: 4, responsive_dim: 2}, {kind: beta_vae, latent_dim: 4}]"
    space = "{kl_responsive: {low: 1.0, high: 1.1}}"  # which a beta-VAE lacks: it runs as it is
    text = f"search={{sampler: random, trials: 4, pruner: hyperband, space: {space}}}"
    outcome = driving.launch(models, text, "grid=null", "seeds=1", "train.epochs=6")
    assert outcome.failed == []
    cells = {trial.user_attrs["cell"]: trial for trial in driving.optuna().trials if "trial_id" in trial.user_attrs}
    (grid,) = cells.values()
    assert grid.state.name == "COMPLETE"
    assert len(driving.folder.trial(grid.user_attrs["trial_id"]).read_metrics()) == 6
    assert not driving.folder.trial(grid.user_attrs["trial_id"]).stop.exists()


def test_what_ends_between_two_looks_is_reported_whole(driving, monkeypatch):
    monkeypatch.setattr("harness.study.driver.POLL_SECONDS", {"inline": 60.0})
    driving.launch(search("median", trials=3), "grid=null", "seeds=1", "train.epochs=5")
    assert [sorted(trial.intermediate_values) for trial in points(driving)] == [[1, 2, 3, 4, 5]] * 3


def test_a_search_whose_driver_was_killed_loses_and_doubles_no_point(driving, slow):
    changes = (search("hyperband", 5), "grid=null", "seeds=2", "train.epochs=9")
    process = driving.driver(*changes, "compute.cluster=local", "compute.workers=4", FAKE_SECONDS="0.2")
    try:
        driving.until(lambda: sum(trial.result.exists() for trial in driving.folder.trials()) >= 3, process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert driving.resume().failed == []
    finally:
        end_group(process)
    told = [trial for trial in points(driving) if trial.state.name in ("COMPLETE", "PRUNED")]
    assert sorted(trial.user_attrs["ordinal"] for trial in told) == list(range(5))
    assert len({json.dumps(trial.user_attrs["proposal"]) for trial in told}) == 5
    ids = sorted(trial_id for trial in told for trial_id in trial.user_attrs["trial_ids"])
    assert ids == sorted(driving.results())
    assert sorted(child.data.tags["trial_id"] for child in driving.runs()[1]) == ids
    assert set(driving.starts().values()) == {1}  # workers outlived the driver, and were waited for
    # a random search proposes the same points, whoever drives it
    proposed = {trial.user_attrs["ordinal"]: trial.user_attrs["proposal"] for trial in told}
    driving.folder.path.rename(driving.root / "killed")
    driving.launch(search("none", 5), "grid=null", "seeds=1", "train.epochs=1")
    assert [proposed[number] for number in range(5)] == [trial.user_attrs["proposal"] for trial in points(driving)]


def test_points_told_before_mlflow_had_them_are_brought_when_the_study_goes_on(driving, monkeypatch):
    changes = (search("none", 3), "grid=null", "seeds=2", "train.epochs=1")
    with monkeypatch.context() as silent:
        # a driver that dies between the journal and MLflow: nothing it ran was brought
        silent.setattr("harness.study.tracked.Tracking.sync", lambda *_: None)
        driving.launch(*changes)
    assert driving.runs()[1] == []
    driving.resume()
    assert sorted(child.data.tags["trial_id"] for child in driving.runs()[1]) == sorted(driving.results())
    assert set(driving.starts().values()) == {1}


def test_a_point_written_down_by_a_driver_that_died_at_once_is_not_written_twice(driving, monkeypatch):
    begin, calls = OptunaStore.begin, []

    def dies(store, number):
        calls.append(number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        begin(store, number)

    monkeypatch.setattr(OptunaStore, "begin", dies)
    assert driving.launch(search("none", 5), "grid=null", "seeds=1").interrupted
    assert driving.optuna_states()["WAITING"] == 1
    assert driving.resume().failed == []
    assert driving.optuna_states() == {"COMPLETE": 5}
    assert [trial.user_attrs["ordinal"] for trial in points(driving)] == [0, 1, 2, 3, 4]


def test_a_point_of_which_one_seed_was_pruned_as_the_driver_died_is_stopped_whole(driving, slow, monkeypatch):
    driving.launch(search("none", 1), "grid=null", "seeds=1", "train.epochs=40", "compute.cluster=inline")
    (first,) = driving.folder.trials()
    first.result.write_text(first.result.read_text().replace('"finished"', '"pruned"'))
    driving.folder.journal.unlink()
    changes = ("grid=null", "seeds=2", "train.epochs=40", "compute.cluster=local", "compute.workers=2")
    outcome = driving.launch(search("hyperband", 1), *changes)
    assert (outcome.ran, outcome.pruned) == (1, 1)
    (point,) = points(driving)
    assert point.state.name == "PRUNED"
    assert max(len(trial.read_metrics()) for trial in driving.folder.trials() if trial.path != first.path) <= 2
