"""What tests of faults share: a small study of real trials on SLURM, and what must be true whatever happened to it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent

STUDY = """\
name: {name}
models:
  - {{kind: perturbed_vae, latent_dim: 4, responsive_dim: 2, hidden: 16, layers: 1}}
data: {{kind: simulation, preset: tiny}}
grid: {{{axis}: {values}}}
seeds: 1
train: {{epochs: {epochs}, batch_size: 64, checkpoint_seconds: 0, second_stage: {{restarts: 0}}}}
evaluate: {{ood: false, conditions: false}}
compute: {{cluster: slurm, profile: {profile}, retries: {retries}, trials_per_job: {per_job}{more}}}
tracking: {{uri: {uri}}}
"""
PROFILE = """\
partition: {partition}
cpus: 1
memory_gb: 0.5
time_minutes: {minutes}
signal_seconds: {signal_seconds}
array_parallelism: {parallel}
max_timeouts: {timeouts}
"""
DRIVER = """
import signal, sys
from pathlib import Path
import harness.cli
from harness.study.driver import Runner, launch, resume
from harness.study.load import load_study
file, root, name, verb = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
runner = Runner(run=sys.argv[5])
def drive():
    return resume(name, root, runner=runner) if verb == "resume" else launch(load_study(file), root, runner=runner)
signal.signal(signal.SIGTERM, harness.cli._interrupt)
sys.exit(harness.cli._driven(root, name, drive))
"""


def said(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.strip()


def until(ready, what, seconds=240):
    """Poll for what a cluster does in its own time; the limit only keeps a hanging test from hanging for ever."""
    end = time.monotonic() + seconds
    while not (value := ready()):
        assert time.monotonic() < end, what
        time.sleep(0.1)
    return value


class Disturbed:
    """One study on a real SLURM.

    Parameters
    ----------
    folder
        For its files and results.
    undisturbed
        Metrics of every trial as they are without faults, by sparsity.
    """

    def __init__(self, folder, undisturbed, name="shaken"):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.undisturbed, self.name = folder, undisturbed, name
        self.root = folder / "runs"
        self.file, self.profile = folder / f"{name}.yaml", folder / "profile.yaml"
        self.drivers = []

    def write(
        self,
        values=(0, 0.1),
        *,
        epochs=12,
        retries=1,
        per_job=1,
        partition="normal",
        minutes=60,
        signal_seconds=20,
        parallel=8,
        timeouts=3,
        axis="sparsity",
        more="",
        uri="null",
    ):
        profile = {"partition": partition, "minutes": minutes, "signal_seconds": signal_seconds}
        self.profile.write_text(PROFILE.format(**profile, parallel=parallel, timeouts=timeouts))
        study = {"axis": axis, "values": list(values), "epochs": epochs, "retries": retries, "per_job": per_job}
        self.file.write_text(STUDY.format(name=self.name, profile=self.profile, more=more, uri=uri, **study))
        return self

    def driver(self, verb="launch", run="slow_trial:run_trial", **environment):
        """A driver in a process of its own."""
        log = (self.folder / f"driver{len(self.drivers)}.log").open("w+")
        environment = {"SLOW_SECONDS": "0.4", **environment}
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(self.file), str(self.root), self.name, verb, run],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parent / "study"))), **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        process.log = log
        self.drivers.append(process)
        return process

    def ends(self, process, status=0, seconds=400):
        """Wait for a driver; what it said."""
        code = process.wait(seconds)
        process.log.seek(0)
        text = process.log.read()
        assert code == status, text
        return text

    def stop(self):
        """Leave nothing running."""
        for process in self.drivers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.log.close()
        for record in self.records():
            subprocess.run(["scancel", f"--name={record['name']}"], check=False, capture_output=True)

    # ------------------------------------------------------------------------------------ looking

    def records(self):
        found = []
        for path in (self.root / self.name / "jobs").glob("*.json"):
            with contextlib.suppress(ValueError, FileNotFoundError):
                found.append(json.loads(path.read_text()))
        return found

    def trials(self):
        """Folders of trials that a process has begun, by sparsity."""
        found = {}
        for path in sorted((self.root / self.name / "trials").glob("*/spec.json")):
            found[json.loads(path.read_text())["model"]["sparsity"]] = path.parent
        return found

    def epoch(self, sparsity):
        """Epochs a trial has trained."""
        folder = self.trials().get(sparsity)
        if folder is None or not (folder / "metrics.jsonl").exists():
            return 0
        return len((folder / "metrics.jsonl").read_text().splitlines())

    def starts(self, sparsity):
        """Each start of a trial: host, process and job."""
        path = self.trials()[sparsity] / "attempts.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def job_of(self, sparsity):
        """SLURM's id of the job that runs a trial."""
        return self.starts(sparsity)[-1]["job"]

    def result(self, sparsity):
        return json.loads((self.trials()[sparsity] / "result.json").read_text())

    def began_at(self, sparsity):
        """Epoch that each process of a trial began with, from the times of its starts and its epochs."""
        lines = (self.trials()[sparsity] / "metrics.jsonl").read_text().splitlines()
        epochs = [(json.loads(line)["time"], json.loads(line)["epoch"]) for line in lines]
        return [next((epoch for at, epoch in epochs if at > start["time"]), None) for start in self.starts(sparsity)]

    def curves_stand_once(self):
        """Every epoch of every trial stands once in MLflow."""
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{self.root}/mlflow.db")
        for run in self.in_mlflow():
            folder = self.root / self.name / "trials" / run.data.tags["trial_id"]
            lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            told = client.get_metric_history(run.info.run_id, "train/loss")
            expected = [(line["epoch"], line["metrics"]["train/loss"]) for line in lines]
            assert [(point.step, point.value) for point in told] == expected

    # ------------------------------------------------------------------------------------ what must hold

    def is_whole(self, failed=()):
        """Every trial exactly once in its folder, Optuna and MLflow, with the numbers of an undisturbed run."""
        trials = self.trials()
        for sparsity, folder in trials.items():
            result = json.loads((folder / "result.json").read_text())
            assert result["state"] == ("failed" if sparsity in failed else "finished"), result
            if sparsity not in failed:
                assert numbers(result) == self.undisturbed[sparsity]
                lines = (folder / "metrics.jsonl").read_text().splitlines()
                assert [json.loads(line)["epoch"] for line in lines] == list(range(1, len(lines) + 1))
        ids = sorted(folder.name for folder in trials.values())
        assert sorted(trial.user_attrs["trial_id"] for trial in self.in_optuna()) == ids
        runs = self.in_mlflow()
        assert sorted(run.data.tags["trial_id"] for run in runs) == ids
        until(
            lambda: self.name not in said("squeue", "--me", "--noheader", "--format=%j"), "no job is left", seconds=30
        )
        return trials

    def in_optuna(self):
        """The trials that Optuna counts: what a dead driver left is marked, and told again once."""
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
        from optuna.study import load_study

        storage = JournalStorage(JournalFileBackend(str(self.root / self.name / "optuna.journal")))
        told = load_study(study_name=self.name, storage=storage).get_trials()
        return [trial for trial in told if trial.user_attrs.get("reason") != "the driver died"]

    def in_mlflow(self):
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{self.root}/mlflow.db")
        experiment = client.get_experiment_by_name(self.name)
        runs = client.search_runs([experiment.experiment_id], max_results=1000)
        return [run for run in runs if "trial_id" in run.data.tags]


def numbers(result):
    """Everything a trial measured, but how long it took."""
    measured = {**result["metrics"], **result["baselines"]}
    return {name: value for name, value in measured.items() if not name.startswith(("time/", "system/"))}
