"""Executors: who runs what where, and what a job does with its trials."""

import json
import os
import subprocess
import sys
import time

import fake_trial
import pytest
from driving import HERE

from harness.errors import UserError
from harness.study import executors
from harness.study.executors import ClusterFull, InlineExecutor, LocalExecutor, make_executor
from harness.study.job import CLAIM, BuildData, RunTrials, attempts, claimed_by
from harness.study.load import load_study
from harness.study.ownership import take, this_process
from harness.study.plan import plan
from harness.study.profile_spec import ProfileSpec
from harness.study.slurm import SlurmExecutor
from harness.study.spec import ComputeSpec


@pytest.fixture
def trial(driving):
    """A trial's folder with its spec in it."""
    planned = plan(load_study(driving.file)).trials[0]
    folder = driving.folder.trial(planned.trial_id)
    folder.path.mkdir(parents=True)
    folder.spec.write_text(planned.spec.model_dump_json())
    return folder


def job_for(folder, **keys):
    return RunTrials([str(folder.path)], cache_dir=str(folder.path / "cache"), run="fake_trial:run_trial", **keys)


def wait_for(job, seconds=60):
    end = time.monotonic() + seconds
    while job.alive():
        assert time.monotonic() < end
        time.sleep(0.05)


class Say:
    """A task that notes its environment."""

    def __init__(self, path, names):
        self.path, self.names = path, names

    def __call__(self):
        with open(self.path, "w") as file:
            json.dump({name: os.environ.get(name) for name in self.names}, file)


Say.__module__ = "test_executors"


def test_inline_runs_when_it_waits_and_keeps_the_error(driving, tmp_path):
    executor = InlineExecutor(tmp_path / "logs")
    ran = []
    good, bad = executor.submit([lambda: ran.append(1), lambda: 1 / 0], "name")
    assert good.alive()
    assert not ran
    executor.wait(0.01, lambda: None)
    executor.wait(0.01, lambda: None)
    assert (ran, good.alive(), good.error(), bad.alive()) == ([1], False, "", False)
    assert bad.error() == "ZeroDivisionError: division by zero"


def test_inline_lets_an_interrupt_through(tmp_path):
    executor = InlineExecutor(tmp_path / "logs")

    def interrupted():
        raise KeyboardInterrupt

    executor.submit([interrupted], "name")
    with pytest.raises(KeyboardInterrupt):
        executor.wait(0.01, lambda: None)


def test_what_a_tick_raises_is_not_lost(tmp_path):
    executor = InlineExecutor(tmp_path / "logs")
    executor.submit([lambda: time.sleep(0.2)], "name")

    def tick():
        raise RuntimeError("lost the lease")

    with pytest.raises(RuntimeError, match="lost the lease"):
        executor.wait(0.01, tick)


def test_local_runs_in_a_process_with_its_threads_and_nothing_of_slurm(driving, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    executor = LocalExecutor(tmp_path / "logs", workers=2, threads=3)
    where = tmp_path / "said.json"
    (job,) = executor.submit([Say(str(where), ["SLURM_JOB_ID", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"])], "name")
    assert os.environ["SLURM_JOB_ID"] == "17"
    wait_for(job)
    said = json.loads(where.read_text())
    assert said == {"SLURM_JOB_ID": None, "OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": ""}
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_local_ends_its_worker_when_cancelled(driving, trial, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "30")
    executor = LocalExecutor(tmp_path / "logs", workers=1, threads=1)
    (job,) = executor.submit([job_for(trial)], "name")
    end = time.monotonic() + 60
    while (owner := claimed_by(trial.path)) is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    job.cancel()
    wait_for(job)
    assert owner.is_alive is False
    assert trial.read_result() is None


def test_no_slurm_here(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    compute = ComputeSpec(cluster="slurm", profile="x.yaml")
    with pytest.raises(UserError, match="no SLURM here: sbatch is not on PATH"):
        make_executor(compute, ProfileSpec(), tmp_path / "logs")


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_a_gpu_that_is_not_here_is_refused(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match=r"compute\.device is cuda, but torch sees no GPU"):
        make_executor(ComputeSpec(cluster=cluster, device="cuda"), None, tmp_path / "logs")
    assert not list(tmp_path.iterdir())


def test_gpus_are_those_this_process_may_use(monkeypatch):
    for value, found in (("", []), ("1,3", [1, 3]), ("GPU-abc", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert executors.visible_gpus() == found


# ---------------------------------------------------------------------------------------- a stand-in SLURM


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands that note what they were given; squeue lists what the file ``queue`` holds."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    scripts = {
        "sbatch": f"cat $1 >> {tmp_path}/sbatch.txt; env > {tmp_path}/env.txt; echo Submitted batch job 12",
        "squeue": f"cat {tmp_path}/queue 2>/dev/null || exit 1",
        "scancel": f"echo $@ >> {tmp_path}/scancel.txt",
        "srun": "true",
        "sinfo": "echo main; echo gpu",
    }
    for name, script in scripts.items():
        path = bin_folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    return tmp_path


def test_slurm_writes_the_profile_into_the_job(slurm, trial, monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "7")
    profile = ProfileSpec(
        partition="gpu", gpus=1, gpu_type="a100", cpus=4, memory_gb=8, time_minutes=90, setup=["module load x"],
        additional={"nice": 5},
    )  # fmt: skip
    executor = SlurmExecutor(slurm / "logs", profile, threads=2, workers=3)
    jobs = executor.submit([job_for(trial)] * 2, "fake-1234", after=["11"])
    assert [job.id for job in jobs] == ["12_0", "12_1"]
    text = (slurm / "sbatch.txt").read_text()
    for line in (
        "#SBATCH --partition=gpu",
        "#SBATCH --gres=gpu:a100:1",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --mem=8192MB",
        "#SBATCH --time=90",
        "#SBATCH --array=0-1%2",
        "#SBATCH --dependency=afterok:11",
        "#SBATCH --kill-on-invalid-dep=yes",
        "#SBATCH --job-name=fake-1234",
        "#SBATCH --nice=5",
        "module load x",
        "export OMP_NUM_THREADS=2",
    ):
        assert line in text.splitlines()
    assert "--cpus-per-task=4" in next(line for line in text.splitlines() if line.startswith("srun"))
    assert "SLURM_CPUS_PER_TASK" not in (slurm / "env.txt").read_text()


def test_slurm_is_asked_again_where_a_full_disk_keeps_a_job_from_being_written(slurm, trial):
    from small_disk import small_disk  # here, since workers that import this file would not find it

    with small_disk(slurm / "disk", 1) as disk:
        (disk.path / "logs").mkdir()
        executor = SlurmExecutor(disk.path / "logs", ProfileSpec(), threads=1)
        disk.fill()
        with pytest.raises(ClusterFull, match="no room on the disk for"):
            executor.submit([job_for(trial)], "name")
        assert not (slurm / "sbatch.txt").exists()
        disk.free()
        assert [job.id for job in executor.submit([job_for(trial)], "name")] == ["12"]


def test_slurm_jobs_live_while_the_queue_lists_them(slurm, trial, monkeypatch):
    executor = SlurmExecutor(slurm / "logs", ProfileSpec(), threads=1)
    executor._queue._every = 0.0
    (job,) = executor.submit([job_for(trial)], "name")
    assert job.alive()  # squeue does not answer: what cannot be asked about counts as alive
    (slurm / "queue").write_text("12 PENDING name\n13 COMPLETED name\n")
    assert job.alive()
    assert [found.id for found in executor.find("name")] == ["12"]
    (slurm / "queue").write_text("")
    assert not job.alive()
    job.cancel()
    assert (slurm / "scancel.txt").read_text() == "12\n"


def test_what_sbatch_refuses_is_said_in_one_sentence(slurm, trial):
    sbatch = slurm / "bin" / "sbatch"
    sbatch.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpu' >&2; exit 1\n")
    with pytest.raises(UserError, match=r"SLURM refused the job: invalid partition specified: gpu; check"):
        SlurmExecutor(slurm / "logs", ProfileSpec(), threads=1).submit([job_for(trial)], "name")


# --------------------------------------------------------------------------------------------------- jobs


def test_a_second_copy_leaves_a_claimed_trial_alone(trial):
    take(trial.path / CLAIM, this_process(), lambda held: False)
    job_for(trial)()
    assert trial.read_result() is None
    assert claimed_by(trial.path).is_me


def test_a_dead_claim_is_taken_over(trial):
    done = subprocess.run(
        [sys.executable, "-c", CLAIM_AND_DIE, str(trial.path)], check=True, env={**os.environ, "PYTHONPATH": str(HERE)}
    )
    assert done.returncode == 0
    assert (trial.path / CLAIM).exists()
    assert claimed_by(trial.path) is None
    job_for(trial)()
    assert trial.read_result()["state"] == "finished"
    assert not (trial.path / CLAIM).exists()


CLAIM_AND_DIE = """
import os, sys
from pathlib import Path
from harness.study.job import CLAIM
from harness.study.ownership import take, this_process
take(Path(sys.argv[1]) / CLAIM, this_process(), lambda held: False)
os._exit(0)
"""


def test_a_requeued_slurm_job_takes_its_own_claim_over(trial, monkeypatch):
    written = {**this_process().__dict__, "host": "elsewhere", "job": "12_3"}
    (trial.path / CLAIM).write_text(json.dumps(written))
    job_for(trial)()
    assert trial.read_result() is None
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    job_for(trial)()
    assert trial.read_result()["state"] == "finished"


def test_a_finished_trial_is_not_started(trial):
    job_for(trial)()
    job_for(trial)()
    assert attempts(trial.path) == 1


def test_an_interrupted_trial_drops_its_claim_and_the_error_passes(trial, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(fake_trial, "run_trial", interrupted)
    with pytest.raises(KeyboardInterrupt):
        job_for(trial)()
    assert not (trial.path / CLAIM).exists()


def test_a_checkpointed_job_is_the_same_job(trial):
    job = job_for(trial, device="cpu")
    assert job.checkpoint().function is job


def test_a_refused_dataset_leaves_a_note(tmp_path, monkeypatch):
    data = json.dumps({"kind": "simulation", "preset": "tiny"})
    monkeypatch.setattr(fake_trial, "load", lambda spec, cache_dir: refuse(), raising=False)
    note = tmp_path / "note.json"
    with pytest.raises(UserError):
        BuildData(data, str(note), cache_dir=str(tmp_path), load="fake_trial:load")()
    assert json.loads(note.read_text())["reason"] == "no such gene"
    monkeypatch.setattr(fake_trial, "load", lambda spec, cache_dir: None)
    BuildData(data, str(note), cache_dir=str(tmp_path), load="fake_trial:load")()
    assert json.loads(note.read_text())["state"] == "finished"


def refuse():
    raise UserError("no such gene")
