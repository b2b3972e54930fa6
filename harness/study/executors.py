"""Where jobs run: in this process, in processes of this machine, or on SLURM - all through submitit.

The driver sees jobs only as `Job`: alive or not, and the end of their log. Whether a trial succeeded is
never asked here; that stands in its folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import submitit
from submitit.local.debug import DebugExecutor

from harness.errors import UserError
from harness.study.spec import ComputeSpec, ProfileSpec

Task = Callable[[], None]

#: Local jobs have no limit of their own; submitit's default of two minutes is far too short.
_LOCAL_MINUTES = 60 * 24 * 365
_LOG_LINES = 15


class Job(Protocol):
    """A submitted job."""

    @property
    def id(self) -> str:
        """Identifier for people and logs."""

    def alive(self) -> bool:
        """Whether it waits or runs; a job that cannot be asked about counts as alive."""

    def cancel(self) -> None:
        """Ask it to end."""

    def error(self) -> str:
        """The end of its error stream, or why it failed; empty where nothing is known."""


class Executor(Protocol):
    """Runs jobs."""

    name: str
    #: Jobs worth submitting at once; the rest wait in the driver.
    slots: int
    #: Jobs that run at the same time, as far as that is ours to say.
    parallel: int

    def submit(self, tasks: Sequence[Task], name: str, after: Sequence[str] = ()) -> list[Job]:
        """Submit one job a task, to start once the jobs whose ids are ``after`` have succeeded."""

    def wait(self, seconds: float, tick: Callable[[], None]) -> None:
        """Let jobs run for a while, calling ``tick`` now and then."""

    def find(self, name: str) -> list[Job]:
        """Jobs of an earlier driver, submitted under this name, that still wait or run."""


# ----------------------------------------------------------------------------------------------- inline


class InlineJob:
    """A job of `InlineExecutor`: it runs when the executor waits."""

    def __init__(self, job: Any) -> None:
        self._job = job
        self._ended = False
        self._error = ""

    @property
    def id(self) -> str:
        return str(self._job.job_id)

    def alive(self) -> bool:
        return not self._ended

    def cancel(self) -> None:
        self._ended = True

    def error(self) -> str:
        return self._error

    def run(self) -> None:
        """Run it here and now; an ordinary error ends the job, an interrupt ends the driver."""
        # `exception` and not `result`: on an error the latter opens a debugger
        error = self._job.exception()
        self._ended = True
        if error is not None:
            self._error = f"{type(error).__name__}: {error}"


class InlineExecutor:
    """One job after the other in the driver's own process, with submitit's debug executor."""

    name = "inline"
    slots = 1
    parallel = 1

    def __init__(self, folder: Path) -> None:
        self._executor = DebugExecutor(folder)
        self._waiting: list[InlineJob] = []

    def submit(self, tasks: Sequence[Task], name: str, after: Sequence[str] = ()) -> list[Job]:
        jobs = [InlineJob(self._executor.submit(task)) for task in tasks]
        self._waiting += jobs
        return list(jobs)

    def wait(self, seconds: float, tick: Callable[[], None]) -> None:
        waiting = [job for job in self._waiting if job.alive()]
        if not waiting:
            time.sleep(seconds)
            return
        self._waiting = waiting[1:]
        # the job needs this thread (interrupts arrive here), so a second one watches
        with _ticking(seconds, tick):
            waiting[0].run()

    def find(self, name: str) -> list[Job]:
        return []


@contextlib.contextmanager
def _ticking(seconds: float, tick: Callable[[], None]) -> Iterator[None]:
    """Call ``tick`` from another thread while the block runs; what it raises is raised at the end."""
    over = threading.Event()
    raised: list[BaseException] = []

    def watch() -> None:
        try:
            while not over.wait(seconds):
                tick()
        except BaseException as error:  # carried to the other thread, not swallowed
            raised.append(error)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if raised:
        raise raised[0]


# ------------------------------------------------------------------------------------------------ local


class LocalJob:
    """A job of `LocalExecutor`: a submitit controller process with one worker below it."""

    def __init__(self, job: Any) -> None:
        self._job = job

    @property
    def id(self) -> str:
        return str(self._job.job_id)

    def alive(self) -> bool:
        return not self._job.done()

    def cancel(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._job.cancel()  # SIGINT to the controller, which ends its worker within two seconds

    def error(self) -> str:
        return tail(Path(self._job.paths.stderr))


class LocalExecutor:
    """At most ``workers`` processes on this machine.

    Parameters
    ----------
    folder
        Where submitit keeps its files and logs.
    workers
        Processes at once.
    threads
        CPU threads of each.
    gpus
        Devices to hand out in turn; empty: workers see none.
    """

    name = "local"

    def __init__(self, folder: Path, *, workers: int, threads: int, gpus: Sequence[int] = ()) -> None:
        self.slots = self.parallel = workers
        self._folder = folder
        self._threads = threads
        self._gpus = list(gpus)
        self._turn = 0

    def submit(self, tasks: Sequence[Task], name: str, after: Sequence[str] = ()) -> list[Job]:
        return [self._start(task) for task in tasks]

    def _start(self, task: Task) -> Job:
        executor = submitit.LocalExecutor(self._folder)
        executor.update_parameters(timeout_min=_LOCAL_MINUTES)
        if self._gpus:
            executor.update_parameters(gpus_per_node=1, visible_gpus=[self._gpus[self._turn % len(self._gpus)]])
            self._turn += 1
        # set here and not in the job: numpy reads it when submitit's own entry point imports it
        with submission_environment(OMP_NUM_THREADS=str(self._threads), MKL_NUM_THREADS=str(self._threads)):
            return LocalJob(executor.submit(task))

    def wait(self, seconds: float, tick: Callable[[], None]) -> None:
        time.sleep(seconds)
        tick()

    def find(self, name: str) -> list[Job]:
        return []  # orphans are found by the claims in their trials' folders


# ------------------------------------------------------------------------------------------------ slurm


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


# ----------------------------------------------------------------------------------------------- shared


def make_executor(compute: ComputeSpec, profile: ProfileSpec | None, folder: Path) -> Executor:
    """The executor a study asks for.

    Raises
    ------
    UserError
        If the cluster is not there.
    """
    if compute.cluster == "inline":
        return InlineExecutor(folder)
    if compute.cluster == "local":
        workers = compute.workers or max(1, available_cores() // compute.threads)
        gpus = [] if compute.device == "cpu" else visible_gpus()
        return LocalExecutor(folder, workers=workers, threads=compute.threads, gpus=gpus)
    if profile is None:
        raise UserError("compute.cluster: slurm needs compute.profile, the YAML file that describes the cluster")
    return SlurmExecutor(folder, profile, threads=compute.threads, workers=compute.workers)


def available_cores() -> int:
    """CPUs this process may use; from its affinity, so that it is right inside a SLURM job too."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[int]:
    """Numbers of the GPUs this process may use, found without importing torch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [int(number) for number in chosen.split(",") if number.strip().isdigit()]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], check=False, capture_output=True, text=True)
    return [int(number) for number in re.findall(r"^GPU (\d+):", listed.stdout, flags=re.MULTILINE)]


@contextlib.contextmanager
def submission_environment(**variables: str) -> Iterator[None]:
    """Environment of a submission: with these variables, without those of a job we may ourselves run in."""
    before = dict(os.environ)
    # where the cluster is found, which the user says and no job; submitit takes it for one of a job's variables
    cluster = {"SLURM_CONF": before["SLURM_CONF"]} if "SLURM_CONF" in before else {}
    try:
        with submitit.helpers.clean_env():
            os.environ.update(cluster | variables)
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def tail(path: Path, lines: int = _LOG_LINES) -> str:
    """The last lines of a log file; empty without one."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _sbatch_reason(text: str) -> str:
    """The line in which sbatch says what it does not like."""
    found = re.findall(r"sbatch: error: (.*)", text)
    return str(found[-1]).strip() if found else text.strip().splitlines()[-1]
