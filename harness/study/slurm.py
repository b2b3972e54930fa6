"""Job arrays on SLURM, through submitit."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import submitit

from harness.errors import UserError
from harness.study.executors import Job, Task, submission_environment, tail
from harness.study.spec import ProfileSpec


class SlurmJob:
    """A job, or one task of a job array, on SLURM."""

    def __init__(self, job_id: str, queue: SlurmQueue, stderr: Path | None) -> None:
        self.id = job_id
        self._queue = queue
        self._stderr = stderr

    def alive(self) -> bool:
        return self._queue.has(self.id)

    def cancel(self) -> None:
        subprocess.run(["scancel", self.id], check=False, capture_output=True)

    def error(self) -> str:
        return tail(self._stderr) if self._stderr else ""


class SlurmQueue:
    """What squeue lists of this user's jobs, asked at most every few seconds.

    squeue and not sacct: without accounting sacct knows nothing. Job states are not needed, since a
    trial's outcome stands in its folder.
    """

    def __init__(self, every: float = 2.0) -> None:
        self._every = every
        self._asked = float("-inf")
        self._listed: dict[str, str] = {}
        self._submitted: dict[str, float] = {}

    def expect(self, job_id: str) -> None:
        """Count a job as alive until squeue has been asked after its submission."""
        self._submitted[job_id] = time.monotonic()

    def has(self, job_id: str) -> bool:
        """Whether a job waits or runs, as far as is known."""
        if time.monotonic() - self._asked > self._every:
            self._ask()
        return job_id in self._listed or self._submitted.get(job_id, float("-inf")) >= self._asked

    def named(self, name: str) -> list[str]:
        """Identifiers of the jobs of this name that wait or run."""
        self._ask()
        return [job_id for job_id, job_name in self._listed.items() if job_name == name]

    def _ask(self) -> None:
        asked = time.monotonic()
        command = ["squeue", "--me", "--noheader", "--array", "--format=%i %T %j"]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            return  # a busy controller: what was known stays true until it answers
        if done.returncode == 0:
            lines = (line.split(maxsplit=2) for line in done.stdout.splitlines())
            over = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL")
            self._listed = {line[0]: line[2] for line in lines if len(line) == 3 and line[1] not in over}
            self._asked = asked


class SlurmExecutor:
    """Job arrays on SLURM, with resources from a profile.

    Parameters
    ----------
    folder
        Where submitit keeps its files and logs; the nodes must see it under the same path.
    profile
        Resources of a job.
    threads
        CPU threads a trial uses.
    workers
        Jobs of an array that may run at once, instead of the profile's number.
    """

    name = "slurm"
    slots = 1_000_000

    def __init__(self, folder: Path, profile: ProfileSpec, *, threads: int, workers: int | None = None) -> None:
        _check_cluster(profile.partition)
        self._folder = folder
        self._profile = profile
        self._threads = threads
        self.parallel = workers or profile.array_parallelism
        self.array_limit = profile.array_limit
        self._queue = SlurmQueue()

    def submit(self, tasks: Sequence[Task], name: str, after: Sequence[str] = ()) -> list[Job]:
        jobs: list[Job] = []
        limit = self._profile.array_limit  # submitit does not split arrays, and SLURM caps their index
        for first in range(0, len(tasks), limit):
            jobs += self._submit_array(tasks[first : first + limit], name, after)
        return jobs

    def _submit_array(self, tasks: Sequence[Task], name: str, after: Sequence[str]) -> list[Job]:
        executor = submitit.SlurmExecutor(self._folder, max_num_timeout=self._profile.max_timeouts)
        executor.update_parameters(**self._parameters(name, after))
        try:
            with submission_environment(), executor.batch():
                submitted = [executor.submit(task) for task in tasks]
        except submitit.core.utils.FailedJobError as error:
            raise UserError(f"SLURM refused the job: {_sbatch_reason(str(error))}; check compute.profile") from error
        for job in submitted:
            self._queue.expect(job.job_id)
        return [SlurmJob(job.job_id, self._queue, Path(job.paths.stderr)) for job in submitted]

    def _parameters(self, name: str, after: Sequence[str]) -> dict[str, Any]:
        profile = self._profile
        additional: dict[str, Any] = dict(profile.additional)
        if profile.reservation:
            additional["reservation"] = profile.reservation
        if profile.gpus:
            kind = f"{profile.gpu_type}:" if profile.gpu_type else ""
            additional["gres"] = f"gpu:{kind}{profile.gpus}"
        if after:
            # without it a trial whose data job failed would wait for ever
            additional["kill-on-invalid-dep"] = "yes"
        exports = [f"export OMP_NUM_THREADS={self._threads}", f"export MKL_NUM_THREADS={self._threads}"]
        parameters = {
            "job_name": name,
            "partition": profile.partition,
            "account": profile.account,
            "qos": profile.qos,
            "time": profile.time_minutes,
            "nodes": 1,
            "ntasks_per_node": 1,
            "cpus_per_task": profile.cpus,
            "mem": None if profile.memory_gb is None else f"{round(profile.memory_gb * 1024)}MB",
            "constraint": profile.constraint,
            "nodelist": profile.nodelist,
            "exclude": profile.exclude,
            "signal_delay_s": profile.signal_seconds,
            "array_parallelism": self.parallel,
            "setup": [*exports, *profile.setup],
            # srun no longer inherits it from sbatch
            "srun_args": [f"--cpus-per-task={profile.cpus}", *profile.srun_args],
            "dependency": f"afterok:{':'.join(after)}" if after else None,
            "additional_parameters": additional,
        }
        return {key: value for key, value in parameters.items() if value is not None}

    def wait(self, seconds: float, tick: Callable[[], None]) -> None:
        time.sleep(seconds)
        tick()

    def find(self, name: str) -> list[Job]:
        return [SlurmJob(job_id, self._queue, None) for job_id in self._queue.named(name)]


def _check_cluster(partition: str | None) -> None:
    """Refuse a SLURM that is not there, or that lacks the profile's partition (or one of several, with commas)."""
    for tool in ("sbatch", "srun", "squeue", "scancel", "sinfo"):
        if shutil.which(tool) is None:
            raise UserError(
                f"no SLURM here: {tool} is not on PATH; launch from a cluster's login node, "
                "or use --set compute.cluster=local"
            )
    try:
        done = subprocess.run(
            ["sinfo", "--noheader", "--format=%R"], check=False, capture_output=True, text=True, timeout=60
        )
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1] if done.returncode else ""
    except subprocess.TimeoutExpired:
        said = "no answer within 60 s"
    if said:
        raise UserError(
            f"SLURM cannot be reached ({said}); launch where sinfo works, or use --set compute.cluster=local"
        )
    known = sorted(set(done.stdout.split()))
    for wanted in partition.split(",") if partition else ():
        if wanted not in known:
            raise UserError(f"this SLURM has no partition {wanted!r}, only {', '.join(known)}; correct compute.profile")


def _sbatch_reason(text: str) -> str:
    """The line in which sbatch says what it does not like."""
    found = re.findall(r"sbatch: error: (.*)", text)
    return str(found[-1]).strip() if found else text.strip().splitlines()[-1]
