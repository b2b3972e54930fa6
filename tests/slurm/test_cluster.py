"""What harness relies on in a SLURM cluster, on the one that ``slurm/local-cluster`` brings up."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import submitit

SCRIPT = Path(__file__).parents[2] / "slurm" / "local-cluster"


def said(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.strip()


def until(ready, what):
    """Poll for what SLURM does in its own time; the limit only keeps a hanging test from hanging for ever."""
    end = time.monotonic() + 120
    while not (value := ready()):
        assert time.monotonic() < end, what
        time.sleep(0.2)
    return value


def submit(folder, body, *options):
    """Submit a script that may write to ``folder`` and return the job's number."""
    script = folder / "job.sh"
    script.write_text(f"#!/bin/bash\ncd {folder}\n{body}\n")
    return said("sbatch", "--parsable", f"--output={folder}/log-%a", *options, str(script))


def states(job):
    """Accounting's word on a job and on each task of its array."""
    rows = said("sacct", "-X", "-n", "-P", "-D", "-j", job, "-o", "JobID,State").splitlines()
    return [tuple(row.split("|")) for row in rows]


def processes_of(folder):
    """Living processes that were told to use this cluster."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"SLURM_CONF={folder}/".encode() in (entry / "environ").read_bytes() and int(entry.name) != os.getpid():
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def test_an_array_runs_on_fake_gpus_and_accounting_knows_its_end(cluster, tmp_path):
    job = submit(tmp_path, "echo $CUDA_VISIBLE_DEVICES", "--array=0-3", "--gres=gpu:1", "--mem=50", "--wait")

    finished = until(
        lambda: len(found := states(job)) == 4 and {s for _, s in found} == {"COMPLETED"} and found, "done"
    )

    assert {name for name, _ in finished} == {f"{job}_{index}" for index in range(4)}
    assert all((tmp_path / f"log-{index}").read_text().strip() in {"0", "1", "2", "3"} for index in range(4))


def test_urgent_work_requeues_a_normal_job_after_signalling_it(cluster, tmp_path):
    body = "trap 'touch signalled' USR2\necho run >> runs\nif [ $(wc -l < runs) = 1 ]; then sleep 100 & wait; wait; fi"
    normal = submit(tmp_path, body, "--cpus-per-task=8", "--mem=50", "--requeue", "--signal=B:USR2@30", "--time=20")
    until((tmp_path / "runs").exists, "the first run starts")
    said("sbatch", "--wait", "--partition=urgent", "--cpus-per-task=8", "--mem=50", "-o", "/dev/null", "--wrap", "true")

    until(lambda: states(normal)[-1][1] == "COMPLETED", "the second run ends")

    assert (tmp_path / "signalled").exists()
    assert (tmp_path / "runs").read_text().split() == ["run", "run"]
    assert [state for _, state in states(normal)] == ["PREEMPTED", "COMPLETED"]


def test_submitit_collects_a_job_array(cluster, tmp_path):
    executor = submitit.SlurmExecutor(folder=tmp_path, python=sys.executable)
    executor.update_parameters(time=5, mem="200MB", cpus_per_task=1, array_parallelism=2)

    jobs = executor.map_array(pow, [2, 3, 4], [5, 5, 5])

    assert [job.result() for job in jobs] == [32, 243, 1024]
    assert len({job.job_id.partition("_")[0] for job in jobs}) == 1


def test_up_is_idempotent_and_status_names_every_daemon(cluster):
    before = said(SCRIPT, "status", cluster).splitlines()[:5]

    assert f"export SLURM_CONF={cluster}/slurm.conf" in said(SCRIPT, "up", cluster)

    assert said(SCRIPT, "status", cluster).splitlines()[:5] == before
    assert [line.split()[0] for line in before] == ["munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd"]
    assert all("process" in line for line in before)


def test_down_ends_even_jobs_that_do_not_want_to(cluster, monkeypatch):
    with tempfile.TemporaryDirectory(prefix="harness-slurm-") as second:
        monkeypatch.setenv("SLURM_CONF", f"{second}/slurm.conf")
        said(SCRIPT, "up", second)
        submit(Path(second), "trap '' TERM\ntouch here\nsleep 1000", "--mem=50")
        until((Path(second) / "here").exists, "the job starts")
        assert len(processes_of(second)) > 5

        said(SCRIPT, "down", second)

        assert processes_of(second) == []


def test_status_of_a_cluster_that_is_not_there(tmp_path):
    result = subprocess.run([SCRIPT, "status", tmp_path], capture_output=True, text=True, check=False)

    assert result.returncode == 1
    assert result.stdout.count("not running") == 5
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    result = subprocess.run([sys.executable, SCRIPT, "up", tmp_path / "c"], capture_output=True, text=True, check=False)
    if result.returncode == 0 or "apt-get install" not in result.stderr:
        pytest.fail(result.stderr)
    assert "apt-get install mariadb-server" in result.stderr
    assert not (tmp_path / "c").exists()
