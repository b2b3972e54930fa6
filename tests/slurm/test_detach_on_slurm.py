"""Studies that are left to themselves on a real SLURM: their drivers are jobs, and outlive what launched them."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest
from disturbed import said, until

STUDY = """\
name: alone
models:
  - {{kind: perturbed_vae, latent_dim: 4, responsive_dim: 2, hidden: 16, layers: 1}}
data: {{kind: simulation, preset: tiny}}
seeds: {seeds}
train: {{epochs: {epochs}, batch_size: 64, checkpoint_seconds: 0, second_stage: {{restarts: 0}}}}
evaluate: {{ood: false, conditions: false}}
compute: {{cluster: slurm, profile: {profile}, workers: {workers}}}
"""
PROFILE = """\
memory_gb: 0.5
time_minutes: 60
environment: {MARK: "it's $HOME"}
driver: {memory_gb: 0.5, time_minutes: 30}
"""


class Alone:
    """One study that is launched with ``--detach``."""

    def __init__(self, folder):
        self.root, self.file, self.profile = folder / "runs", folder / "alone.yaml", folder / "profile.yaml"
        self.study = self.root / "alone"

    def write(self, seeds=4, epochs=3, workers=2, profile=PROFILE):
        self.profile.write_text(profile)
        self.file.write_text(STUDY.format(seeds=seeds, epochs=epochs, workers=workers, profile=self.profile))
        return self

    def harness(self, verb, *options, status=0, study="alone"):
        command = [sys.executable, "-m", "harness", verb, str(study), "--root", str(self.root), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, start_new_session=True)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout if status == 0 else done.stderr

    def launch_and_die(self):
        """Launch from a shell that is killed, with all of its session, as soon as the launch is back."""
        command = [sys.executable, "-m", "harness", "launch", str(self.file), "--root", str(self.root), "--detach"]
        shell = subprocess.Popen(
            ["bash", "-c", '"$@"; echo; sleep 600', "shell", *command],
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        try:
            return "".join(iter(shell.stdout.readline, "\n"))
        finally:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
            shell.stdout.close()

    def launch(self, *options, status=0):
        return self.harness("launch", "--detach", *options, status=status, study=self.file)

    @property
    def job(self):
        return json.loads((self.study / "detached.json").read_text())["id"]

    @property
    def log(self):
        path = self.study / "driver.log"
        return path.read_text() if path.exists() else ""

    def lease(self):
        path = self.study / "driver.lock"
        return json.loads(path.read_text()) if path.exists() else {"released": True, "job": ""}

    def is_driven(self):
        lease = self.lease()
        return lease["job"] == self.job and not lease["released"]

    def state(self):
        return json.loads((self.study / "launches" / "1.json").read_text())["state"]

    def results(self):
        return {path.parent.name: json.loads(path.read_text()) for path in self.study.glob("trials/*/result.json")}

    def starts(self):
        return [path.read_text().splitlines() for path in self.study.glob("trials/*/attempts.jsonl")]

    def has_begun(self, count):
        return len(self.starts()) >= count

    def is_gone(self):
        return "alone" not in said("squeue", "--noheader", "--format=%j")

    def is_whole(self, trials):
        """Everything ran once, and both databases have it once."""
        from mlflow import MlflowClient
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
        from optuna.study import load_study

        results = self.results()
        assert len(results) == trials, self.log
        assert {result["state"] for result in results.values()} == {"finished"}
        assert [len(starts) for starts in self.starts()] == [1] * trials
        storage = JournalStorage(JournalFileBackend(str(self.study / "optuna.journal")))
        told = [trial for trial in load_study(study_name="alone", storage=storage).trials if trial.values is not None]
        assert sorted(trial.user_attrs["trial_id"] for trial in told) == sorted(results)
        client = MlflowClient(f"sqlite:///{self.root}/mlflow.db")
        runs = client.search_runs([client.get_experiment_by_name("alone").experiment_id])
        assert sorted(run.data.tags["trial_id"] for run in runs if "trial_id" in run.data.tags) == sorted(results)
        assert len([run for run in runs if "launch" in run.data.tags]) == 1


@pytest.fixture
def alone(cluster, tmp_path):
    study = Alone(tmp_path)
    yield study
    if (study.study / "detached.json").exists():
        with contextlib.suppress(subprocess.CalledProcessError):
            said("scancel", study.job)
    for record in study.study.glob("jobs/*.json"):
        said("scancel", f"--name={json.loads(record.read_text())['name']}")


def hurry(job):
    """Let a requeued job start at once where SLURM would hold it for a while."""
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=False, capture_output=True)


def test_warned_and_requeued_in_mid_study_a_driver_loses_nothing_and_submits_nothing_twice(alone, monkeypatch):
    # as from a shell inside another job, whose variables must not reach this one
    monkeypatch.setenv("SLURM_JOB_ID", "999999")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "7")
    out = alone.write(seeds=4).launch_and_die()
    monkeypatch.delenv("SLURM_JOB_ID")
    assert out.splitlines()[0] == f"alone goes on without this shell, driven by SLURM job {alone.job}"
    assert f"harness watch alone --root {alone.root}" in out
    assert f"harness cancel alone --root {alone.root}" in out
    assert str(alone.study / "driver.log") in out
    assert "was sent off before and has not ended" in alone.launch(status=2)
    assert sorted(path.name for path in (alone.study / "launches").iterdir()) == ["1.json"]

    # SLURM's warning before a limit
    until(lambda: alone.has_begun(1), "a trial begins")
    said("scancel", "--signal=USR2", "--batch", alone.job)
    until(lambda: "starts again and goes on" in alone.log, "the driver leaves")
    assert alone.lease()["released"]
    trials = said("squeue", "--noheader", "--array", "--format=%j").splitlines()
    assert [name for name in trials if name.startswith("alone-") and name != "alone-driver"], "its jobs run on"
    until(lambda: hurry(alone.job) or alone.is_driven(), "the driver begins again")

    # from outside, or its node is lost
    until(lambda: len(alone.results()) >= 1, "a trial ends")
    assert len(alone.results()) < 4
    said("scontrol", "requeue", alone.job)
    until(lambda: not alone.is_driven(), "the driver ends")
    until(lambda: hurry(alone.job) or alone.is_gone(), "the study ends")
    assert alone.state() == "finished"
    assert "Traceback" not in alone.log
    assert alone.lease()["epoch"] == 4  # written down by the launch, then driven three times
    alone.is_whole(4)


def test_cancel_ends_a_detached_driver_with_its_jobs_wherever_it_is(alone):
    blocking = said("sbatch", "--parsable", "--cpus-per-task=8", "--mem=100", "-o", "/dev/null", "--wrap", "sleep 600")
    try:
        until(lambda: said("squeue", "-h", "-j", blocking, "-o", "%T") == "RUNNING", "the node is taken")
        alone.write(seeds=2, epochs=3).launch()
        assert said("squeue", "-h", "-j", alone.job, "-o", "%T") == "PENDING"
        assert "ended what ran of alone" in alone.harness("cancel")
        until(alone.is_gone, "the waiting driver is gone")
        assert "nothing of alone is running" in alone.harness("cancel")
    finally:
        said("scancel", blocking)
    assert alone.results() == {}

    alone.write(epochs=100_000).launch()
    until(lambda: alone.has_begun(2), "trials begin")
    assert "go on later with: harness resume alone" in alone.harness("cancel")
    until(alone.is_gone, "driver and jobs are gone")
    assert "interrupted; what ran is kept" in alone.log
    assert alone.results() == {}


def test_what_is_wrong_is_said_before_anything_is_sent_off(alone):
    assert "unknown; did you mean epochs?" in alone.write().launch("--set", "train.epoch=3", status=2)
    assert not alone.root.exists()
    wrong = PROFILE.replace("driver: {", "driver: {partition: cpu, ")
    said_of_it = alone.write(profile=wrong).launch(status=2)
    assert "SLURM refused the driver's job: " in said_of_it
    assert said_of_it.strip().endswith("check driver in compute.profile")
    assert len(said_of_it.splitlines()) == 1
    assert not (alone.study / "detached.json").exists()
