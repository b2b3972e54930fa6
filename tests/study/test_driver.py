"""The driver with trials that cost nothing, on real databases of Optuna and MLflow."""

import json
import os
import socket
from pathlib import Path

import pytest
from driving import Driving
from report_samples import latents

from harness.errors import UserError
from harness.study.folder import TrialState
from harness.study.lease import Lease, LeaseLost
from harness.study.ownership import this_process


def test_launching_again_runs_nothing_and_doubles_nothing(driving):
    first = driving.launch()
    assert (first.ran, first.reused, first.failed) == (4, 0, [])
    before = driving.results()
    second = driving.launch()
    assert (second.ran, second.reused) == (0, 4)
    assert driving.results() == before
    assert set(driving.starts().values()) == {1}
    assert driving.optuna_states() == {"COMPLETE": 4}
    parents, children = driving.runs()
    assert [parent.data.tags["launch"] for parent in parents] == ["1", "2"]
    assert len({child.data.tags["trial_id"] for child in children}) == len(children) == 4
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parents[0].info.run_id}
    reused = driving.client().download_artifacts(parents[1].info.run_id, "reused_trials.json")
    assert sorted(json.loads(Path(reused).read_text())) == sorted(before)


def test_optuna_holds_every_trial_with_its_setting_and_value(driving):
    driving.launch()
    trials = driving.optuna().get_trials()
    assert {(trial.params["sparsity"], trial.params["seed"]) for trial in trials} == {
        (s, k) for s in (0.0, 0.5) for k in (0.0, 1.0)
    }
    results = driving.results()
    for trial in trials:
        assert trial.value == results[trial.user_attrs["trial_id"]]["validation/loss"]


def test_mlflow_holds_tags_params_curves_and_files(driving):
    driving.launch()
    client = driving.client()
    parents, children = driving.runs()
    experiment = client.get_experiment_by_name("fake")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert parents[0].info.status == "FINISHED"
    for child in children:
        tags, params = child.data.tags, child.data.params
        assert {"study", "cell", "seed", "trial_id", "model", "data_fingerprint", "host"} <= set(tags)
        assert child.info.status == "FINISHED"
        assert params["model.sparsity"] in ("0.0", "0.5", "0")
        assert params["train.epochs"] == "3"
        curve = client.get_metric_history(child.info.run_id, "validation/loss")
        folder = driving.folder.trial(tags["trial_id"])
        assert [(p.step, p.value, p.timestamp) for p in curve] == [
            (line["epoch"], line["metrics"]["validation/loss"], round(line["time"] * 1000))
            for line in folder.read_metrics()
        ]
        # baselines belong to a cell, hence to its first seed
        assert ("baseline/additive/ood/double/rmse_relative" in child.data.metrics) == (tags["seed"] == "0")
        files = {file.path for file in client.list_artifacts(child.info.run_id)}
        assert {"spec.json", "result.json", "environment.json"} <= files
    files = {file.path for file in client.list_artifacts(parents[0].info.run_id)}
    assert {"study.yaml", "environment.json", "heatmap.png", "report"} <= files


@pytest.mark.parametrize(
    ("change", "new"),
    [
        ("grid.sparsity=[0, 0.5, 0.7]", 2),
        ("seeds=3", 2),
        ("models=[{kind: perturbed_vae, latent_dim: 4, responsive_dim: 2}, {kind: beta_vae, latent_dim: 4}]", 2),
        ("grid.mechanisms=[free, targeted]", 4),
    ],
)
def test_widening_runs_only_what_is_new(driving, change, new):
    driving.launch()
    wider = driving.launch(change)
    assert wider.failed == []
    assert (wider.ran, wider.reused) == (new, 4)
    assert driving.optuna_states() == {"COMPLETE": 4 + new}
    assert set(driving.starts().values()) == {1}
    assert len(driving.runs()[1]) == 4 + new


def test_a_failed_trial_is_named_and_run_again_by_a_retry_alone(driving, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "[0.5]")
    first = driving.launch()
    assert first.failed == [
        (f"perturbed_vae · sparsity=0.5 · seed {seed}", "train/loss is nan in epoch 1") for seed in (0, 1)
    ]
    assert first.ran == 4
    assert driving.optuna_states() == {"COMPLETE": 2, "FAIL": 2}
    assert sorted(child.info.status for child in driving.runs()[1]) == ["FAILED", "FAILED", "FINISHED", "FINISHED"]
    monkeypatch.delenv("FAKE_FAIL")
    for again in (driving.launch, driving.resume):
        outcome = again()
        assert (outcome.ran, outcome.reused, outcome.failed) == (0, 2, [])
        assert outcome.left == first.failed
        assert driving.optuna_states() == {"COMPLETE": 2, "FAIL": 2}
    second = driving.retry()
    assert (second.ran, second.reused, second.failed, second.left) == (2, 2, [], [])
    assert driving.optuna_states() == {"COMPLETE": 4, "FAIL": 2}
    children = driving.runs()[1]
    assert [child.info.status for child in children] == ["FINISHED"] * 4
    assert {child.data.tags["state"] for child in children} == {"finished"}


def test_too_many_failures_end_the_study_early(driving, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "[0, 0.5]")
    outcome = driving.launch("compute.max_failures=1")
    assert outcome.gave_up
    assert (outcome.ran, len(outcome.failed)) == (2, 2)


def test_an_error_nobody_foresaw_is_retried_then_named(driving, monkeypatch):
    monkeypatch.setenv("FAKE_RAISE", '"the GPU fell off"')
    outcome = driving.launch("grid.sparsity=[0]", "seeds=1", "compute.retries=1")
    assert len(outcome.failed) == 1
    assert "died 2 times" in outcome.failed[0][1]
    assert "the GPU fell off" in outcome.failed[0][1]
    assert set(driving.starts().values()) == {2}
    monkeypatch.delenv("FAKE_RAISE")
    assert driving.launch("grid.sparsity=[0]", "seeds=1").failed == []


def test_agreement_between_seeds_stands_on_the_run_that_has_the_baselines(driving):
    name = "identifiability/mcc_across_seeds"
    driving.launch()
    assert not any(name in child.data.metrics for child in driving.runs()[1])
    for trial in driving.folder.trials():
        latents(trial.latents)
    for _ in range(2):
        assert driving.launch().ran == 0
        values = {child.data.tags["seed"]: child.data.metrics.get(name) for child in driving.runs()[1]}
        assert values == {"0": pytest.approx(1), "1": None}


def test_an_interrupt_keeps_what_ran(driving, monkeypatch):
    driving.interrupt_at_the_third(monkeypatch)
    outcome = driving.launch()
    assert (outcome.interrupted, outcome.ran) == (True, 2)
    assert not any(trial.claim.exists() for trial in driving.folder.trials())
    resumed = driving.resume()
    assert (resumed.interrupted, resumed.ran, resumed.reused) == (False, 2, 2)
    parents, children = driving.runs()
    assert len(parents) == 1
    assert len(children) == 4
    assert driving.optuna_states() == {"COMPLETE": 4, "FAIL": 1}


def test_the_report_is_that_of_all_results(driving):
    outcome = driving.launch()
    assert "4 finished" in outcome.report.text
    assert outcome.report.heatmap.exists()


# ------------------------------------------------------------------------------------------------ lease


def test_a_second_driver_is_refused_and_told_who_drives(driving):
    driving.launch()
    with Lease(driving.folder.lock, driving.folder.name), pytest.raises(UserError) as refused:
        driving.launch()
    assert f"process {os.getpid()} on {socket.gethostname()}" in str(refused.value)
    assert f"`{driving.folder.command('cancel')}`" in str(refused.value)
    assert driving.launch().reused == 4


def test_the_lease_of_a_dead_driver_is_taken_over_and_the_dead_one_notices(driving):
    driving.launch()
    first = Lease(driving.folder.lock, "fake")
    first.__enter__()
    written = json.loads(driving.folder.lock.read_text())
    driving.folder.lock.write_text(json.dumps({**written, "pid": 2**22 + 1}))
    with Lease(driving.folder.lock, "fake") as second:
        assert second.epoch == first.epoch + 1
        second.check()
        with pytest.raises(LeaseLost):
            first.check()


def test_a_lease_elsewhere_binds_while_it_beats(driving):
    driving.launch()
    far = {**this_process().__dict__, "host": "elsewhere"}
    driving.folder.lock.write_text(json.dumps(far))
    with pytest.raises(UserError, match="on elsewhere"):
        driving.launch()
    driving.folder.lock.write_text(json.dumps({**far, "time": far["time"] - 1000}))
    assert driving.launch().reused == 4


# ----------------------------------------------------------------------------------------------- refused


def test_what_is_refused_leaves_nothing_behind(driving, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for changes, said in (
        (["tracking.uri=file:///tmp/x"], "tracking.uri"),
        (["compute.cluster=slurm", f"compute.profile={profile(tmp_path)}"], "sbatch is not on PATH"),
    ):
        with pytest.raises(UserError, match=said):
            driving.launch(*changes)
        assert not driving.folder.path.exists()


def test_there_is_nothing_to_resume(driving):
    with pytest.raises(UserError, match="no study 'fake' was launched"):
        driving.resume()


def profile(folder):
    path = folder / "profile.yaml"
    path.write_text("partition: main\n")
    return path


# ------------------------------------------------------------------------------------------------ journal


def test_another_objective_begins_another_journal(driving):
    driving.launch()
    changed = driving.launch("objective={metric: identifiability/mcc, direction: maximize, oracle: true}")
    assert changed.reused == 4
    results = driving.results()
    study = driving.optuna()
    assert {trial.value for trial in study.trials} == {metrics["identifiability/mcc"] for metrics in results.values()}
    assert (driving.folder.path / "optuna.1.journal").exists()


def test_a_torn_journal_is_mended(driving):
    driving.launch()
    with driving.folder.journal.open("ab") as file:
        file.write(b'{"op_code": 4, "worker')
    assert driving.launch("seeds=3").ran == 2
    assert driving.optuna_states() == {"COMPLETE": 6}


def test_a_lost_journal_is_rebuilt_from_the_folders(driving):
    driving.launch()
    driving.folder.journal.unlink()
    assert driving.launch().ran == 0
    assert driving.optuna_states() == {"COMPLETE": 4}


def test_trials_are_claimed_only_while_they_run(driving):
    driving.launch()
    assert {trial.state() for trial in driving.folder.trials()} == {TrialState.FINISHED}
    assert not any(trial.claim.exists() for trial in driving.folder.trials())


def test_driving_is_a_screen(driving: Driving):
    driving.launch()
    driving.launch("seeds=3")
    assert "4 trials are there already, 2 to run" in driving.said
