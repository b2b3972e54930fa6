"""Job arrays on SLURM, through submitit."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit

from harness.errors import UserError
from harness.files import has_no_room
from harness.study.executors import ClusterFull, Job, Task, submission_environment, tail
from harness.study.leaving import JobLimit
from harness.study.profile_spec import ProfileSpec
from harness.study.slurm_queue import (
    SlurmQueue,
    Throttles,
    array_limit_of_cluster,
    array_of,
    cancel_jobs,
    ended_as,
)

#: More than any job will be requeued.
_UNLIMITED = 1_000_000
#: What sbatch says where a queue is full or a controller busy, and it would take the job later.
_TEMPORARY = (
    "SubmitJob",  # QOSMaxSubmitJobPerUserLimit, AssocMaxSubmitJobLimit, AssocGrpSubmitJobsLimit, ...
    "temporarily unable",
    "Resource temporarily unavailable",
    "Socket timed out",
    "Unable to contact slurm controller",
    "Zero Bytes were transmitted",
    "Connection refused",
    "timed out",
)


class SlurmJob:
    """A job, or one task of a job array, on SLURM."""

    def __init__(self, job_id: str, queue: SlurmQueue, folder: Path) -> None:
        self.id = job_id
        self._queue = queue
        self._folder = folder

    def alive(self) -> bool:
        return self._queue.has(self.id)

    def cancel(self) -> None:
        cancel_jobs([self.id])

    def error(self) -> str:
        return tail(Path(submitit.core.utils.JobPaths(self._folder, self.id, task_id=0).stderr))

    def ended_as(self) -> str:
        return ended_as(self.id)


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

    def __init__(self, folder: Path, profile: ProfileSpec, *, threads: int, workers: int | None = None) -> None:
        _check_cluster(profile.partition)
        self._folder = folder
        self._profile = profile
        self._threads = threads
        self.parallel = workers or profile.array_parallelism
        # submitit does not split arrays, and SLURM caps their index
        self.array_limit = min(profile.array_limit, array_limit_of_cluster() or profile.array_limit)
        self.limit: JobLimit | None = JobLimit(profile.time_minutes, profile.signal_seconds, profile.max_timeouts)
        self._queue = SlurmQueue()
        self._throttles = Throttles(self.parallel, self._queue.left)

    def room(self, busy: int) -> int:
        return self.array_limit if self._throttles.free() > 0 else 0

    def submit(self, tasks: Sequence[Task], name: str, after: Sequence[str] = ()) -> list[Job]:
        throttle = max(1, min(self._throttles.free(), len(tasks)))
        # trials count their time limits themselves: submitit takes every short job for one that ran out of time
        timeouts = _UNLIMITED if all(hasattr(task, "limit") for task in tasks) else self._profile.max_timeouts
        executor = submitit.SlurmExecutor(self._folder, max_num_timeout=timeouts)
        executor.update_parameters(**self._parameters(name, after) | {"array_parallelism": throttle})
        try:
            # submitit prints what sbatch says, and we say it in a sentence
            with submission_environment(), contextlib.redirect_stderr(io.StringIO()), executor.batch():
                submitted = [executor.submit(task) for task in tasks]
        except submitit.core.utils.FailedJobError as error:
            reason = sbatch_reason(str(error))
            if any(words.lower() in str(error).lower() for words in _TEMPORARY):
                raise ClusterFull(reason) from error
            raise UserError(f"SLURM refused the job: {reason}; check compute.profile") from error
        except OSError as error:
            if not has_no_room(error):
                raise
            raise ClusterFull(f"there is no room on the disk for {self._folder}") from error
        for job in submitted:
            self._queue.expect(job.job_id)
        self._throttles.opened(array_of(submitted[0].job_id), throttle)
        return [SlurmJob(job.job_id, self._queue, self._folder) for job in submitted]

    def _parameters(self, name: str, after: Sequence[str]) -> dict[str, Any]:
        profile = self._profile
        additional: dict[str, Any] = {name: value for name, value in profile.additional.items() if value is not False}
        if profile.reservation:
            additional["reservation"] = profile.reservation
        if profile.gpus:
            kind = f"{profile.gpu_type}:" if profile.gpu_type else ""
            additional["gres"] = f"gpu:{kind}{profile.gpus}"
        if after:
            # without it a trial whose data job failed would wait for ever
            additional["kill-on-invalid-dep"] = "yes"
        threads = {"OMP_NUM_THREADS": self._threads, "MKL_NUM_THREADS": self._threads}
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
            "setup": [*exported(threads), *exported(profile.environment), *profile.setup],
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
        jobs = self._queue.named(name)
        for array in {array_of(job_id) for job_id in jobs}:
            self._throttles.opened(array, 0)
        return [SlurmJob(job_id, self._queue, self._folder) for job_id in jobs]

    def adopt(self, job: Job, task: Task) -> None:
        # a driver that died between sbatch and the naming of its files left the job nothing to load
        submitted = submitit.core.utils.JobPaths(self._folder, job.id, task_id=0).submitted_pickle
        if not submitted.exists():
            delayed = submitit.core.utils.DelayedSubmission(task)
            delayed.set_timeout(self._profile.time_minutes, _UNLIMITED)
            with submitit.core.utils.temporary_save_path(submitted) as temporary:
                delayed.dump(temporary)

    def cancel(self, jobs: Sequence[Job]) -> None:
        cancel_jobs([job.id for job in jobs])


def exported(variables: Mapping[str, str | int | float]) -> list[str]:
    """Lines of a job's script that export variables, their values quoted: the shell takes them as they stand."""
    return [f"export {name}={shlex.quote(str(value))}" for name, value in variables.items()]


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


def sbatch_reason(text: str) -> str:
    """The line in which sbatch says what it does not like."""
    found = re.findall(r"sbatch: error: (.*)", text)
    named = [line for line in found if "SubmitJob" in line]  # which limit it is stands above the general sentence
    return str((named or found)[-1]).strip() if found else text.strip().splitlines()[-1]
