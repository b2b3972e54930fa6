"""A study launched on a real SLURM: same numbers as in one process, every trial once, nothing the second time."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import load_study

PROFILE = Path(__file__).parents[2] / "slurm" / "local-cluster.yaml"


def launch(study, root, *options):
    command = [sys.executable, "-m", "harness", "launch", str(study), "--root", str(root), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    return done


def on_slurm(study, root):
    return launch(study, root, "--set", "compute.cluster=slurm", "--set", f"compute.profile={PROFILE}")


def results(root):
    return {path.parent.name: json.loads(path.read_text()) for path in root.glob("tiny/trials/*/result.json")}


def numbers(result):
    """Everything a trial measured, but how long it took."""
    measured = {**result["metrics"], **result["baselines"]}
    return {name: value for name, value in measured.items() if not name.startswith(("time/", "system/"))}


def trials_in_mlflow(root):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    return [run for run in client.search_runs([experiment.experiment_id]) if "trial_id" in run.data.tags]


def trials_in_optuna(root):
    storage = JournalStorage(JournalFileBackend(str(root / "tiny" / "optuna.journal")))
    return load_study(study_name="tiny", storage=storage).get_trials()


def test_a_study_on_slurm_is_the_study_in_one_process(cluster, tiny_study, tmp_path):
    remote, inline = tmp_path / "remote", tmp_path / "inline"

    on_slurm(tiny_study, remote)
    launch(tiny_study, inline)

    there, here = results(remote), results(inline)
    assert len(there) == 2
    assert {result["state"] for result in there.values()} == {"finished"}
    assert {result["environment"]["slurm_job_id"] is not None for result in there.values()} == {True}
    assert {result["environment"]["slurm_job_id"] for result in here.values()} == {None}
    assert {trial: numbers(result) for trial, result in there.items()} == {
        trial: numbers(result) for trial, result in here.items()
    }

    assert sorted(run.data.tags["trial_id"] for run in trials_in_mlflow(remote)) == sorted(there)
    assert all(run.data.tags["slurm_job_id"] for run in trials_in_mlflow(remote))
    told = trials_in_optuna(remote)
    assert sorted(trial.user_attrs["trial_id"] for trial in told) == sorted(there)
    assert {trial.state.name for trial in told} == {"COMPLETE"}

    # launched again, nothing is submitted
    jobs = {path.name for path in (remote / "tiny" / "submitit").iterdir()}
    on_slurm(tiny_study, remote)
    assert {path.name for path in (remote / "tiny" / "submitit").iterdir()} == jobs
    assert len(trials_in_mlflow(remote)) == len(trials_in_optuna(remote)) == 2


def refused(study, root, profile, **environment):
    """The one sentence with which a launch is refused; nothing was written."""
    options = ["--set", "compute.cluster=slurm", "--set", f"compute.profile={profile}"]
    command = [sys.executable, "-m", "harness", "launch", str(study), "--root", str(root), *options]
    env = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not root.exists()
    return done.stderr


def test_without_slurm_a_launch_is_refused(tiny_study, tmp_path):
    assert "sbatch is not on PATH" in refused(tiny_study, tmp_path / "runs", PROFILE, PATH=str(tmp_path))


def test_without_a_controller_a_launch_is_refused(cluster, tiny_study, tmp_path):
    nowhere = tmp_path / "slurm.conf"
    nowhere.write_text(re.sub("(?m)^SlurmctldPort=.*", "SlurmctldPort=1", (cluster / "slurm.conf").read_text()))

    assert "SLURM cannot be reached" in refused(tiny_study, tmp_path / "runs", PROFILE, SLURM_CONF=str(nowhere))


def test_an_unknown_partition_is_refused_with_the_known_ones(cluster, tiny_study, tmp_path):
    profile = tmp_path / "profile.yaml"
    profile.write_text("partition: norml\n")

    assert "no partition 'norml', only narrow, normal, urgent" in refused(tiny_study, tmp_path / "runs", profile)
