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
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import submitit
from submitit.local.debug import DebugExecutor

from harness.data.cores import usable_cores
from harness.errors import UserError
from harness.files import FOREVER, patiently
from harness.study.leaving import JobLimit
from harness.study.profile_spec import ProfileSpec
from harness.study.spec import ComputeSpec

Task = Callable[[], None]


#: Seconds before a full cluster is asked again.
FULL_SECONDS = 10.0


class ClusterFull(Exception):
    """The cluster takes no more jobs now, or does not answer; it may later."""


#: Local jobs have no limit of their own; submitit's default of two minutes is far too short.
_LOCAL_MINUTES = 60 * 24 * 365
_LOG_LINES = 30


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

    def ended_as(self) -> str:
        """How the cluster says it ended; empty where nobody knows."""


class Executor(Protocol):
    """Runs jobs."""

    name: str
    #: Jobs that run at the same time, as far as that is ours to say.
    parallel: int
    #: Time limit of each job; None where there is none.
    limit: JobLimit | None

    def room(self, busy: int) -> int:
        """Jobs worth submitting now, in one go, where ``busy`` are at work; the rest wait in the driver."""

    def submit(self, tasks: Sequence[Task], name: str, after: Sequence[str] = ()) -> list[Job]:
        """Submit one job a task, to start once the jobs whose ids are ``after`` have succeeded.

        Raises
        ------
        ClusterFull
            If the cluster may take them later.
        UserError
            If it never will.
        """

    def wait(self, seconds: float, tick: Callable[[], None]) -> None:
        """Let jobs run for a while, calling ``tick`` now and then."""

    def find(self, name: str) -> list[Job]:
        """Jobs of an earlier driver, submitted under this name, that still wait or run."""

    def adopt(self, job: Job, task: Task) -> None:
        """See that a job that was found has its task, which a driver may have died before leaving to it."""

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Ask jobs to end."""


class _OnThisMachine:
    """What jobs of this machine share: no time limit, and orphans found by the claims in their trials' folders."""

    limit: JobLimit | None = None

    def find(self, name: str) -> list[Job]:
        return []

    def adopt(self, job: Job, task: Task) -> None:
        raise NotImplementedError("no job of this machine is ever found by its name")

    def cancel(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.cancel()


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

    def ended_as(self) -> str:
        return ""

    def run(self) -> None:
        """Run it here and now; an ordinary error ends the job, an interrupt ends the driver."""
        # `exception` and not `result`: on an error the latter opens a debugger
        error = self._job.exception()
        self._ended = True
        if error is not None:
            self._error = f"{type(error).__name__}: {error}"


class InlineExecutor(_OnThisMachine):
    """One job after the other in the driver's own process, with submitit's debug executor."""

    name = "inline"
    parallel = 1

    def __init__(self, folder: Path) -> None:
        self._executor = DebugExecutor(folder)
        self._waiting: list[InlineJob] = []

    def room(self, busy: int) -> int:
        return 1 - busy

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

    def ended_as(self) -> str:
        return ""


class LocalExecutor(_OnThisMachine):
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
        self.parallel = workers
        self._folder = folder
        self._threads = threads
        self._gpus = list(gpus)
        self._turn = 0

    def room(self, busy: int) -> int:
        return self.parallel - busy

    def submit(self, tasks: Sequence[Task], name: str, after: Sequence[str] = ()) -> list[Job]:
        return [patiently(partial(self._start, task), self._folder, seconds=FOREVER) for task in tasks]

    def _start(self, task: Task) -> Job:
        executor = _DetachedExecutor(self._folder)
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


#: submitit's controller, which is ended by the signal of Ctrl-C; a driver that a shell script started in the background
#: ignores that signal, and so would all below it.
_CONTROLLER = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("submitit.local._local", run_name="__main__")
"""


class _DetachedExecutor(submitit.LocalExecutor):
    """submitit's own, but each job in a session of its own, its controller's words in a log.

    Ctrl-C in a terminal reaches the whole process group: only the driver shall hear it, which then ends its
    jobs in order.
    """

    def _submit_command(self, command: str) -> Any:
        gpus = self.parameters.get("visible_gpus", ())[: self.parameters.get("gpus_per_node", 0)]
        environment = {
            **os.environ,
            "SUBMITIT_LOCAL_NTASKS": "1",
            "SUBMITIT_LOCAL_COMMAND": command,
            "SUBMITIT_LOCAL_TIMEOUT_S": str(60 * self.parameters["timeout_min"]),
            "SUBMITIT_LOCAL_SIGNAL_DELAY_S": "30",
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_STDERR_TO_STDOUT": "",
            "SUBMITIT_EXECUTOR": "local",
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus)),
            "SUBMITIT_LOCAL_WITH_SHELL": "",
        }
        with (Path(self.folder) / "controllers.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", _CONTROLLER, str(self.folder)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return submitit.LocalJob(folder=self.folder, job_id=str(process.pid), process=process, tasks=[0])


# ----------------------------------------------------------------------------------------------- shared


def make_executor(compute: ComputeSpec, profile: ProfileSpec | None, folder: Path) -> Executor:
    """The executor a study asks for.

    Raises
    ------
    UserError
        If the cluster is not there, or no GPU where jobs run here and the study insists on one.
    """
    if compute.cluster != "slurm" and compute.device == "cuda":
        _check_gpu()
    if compute.cluster == "inline":
        return InlineExecutor(folder)
    if compute.cluster == "local":
        workers = compute.workers or max(1, usable_cores() // compute.threads)
        gpus = [] if compute.device == "cpu" else visible_gpus()
        return LocalExecutor(folder, workers=workers, threads=compute.threads, gpus=gpus)
    if profile is None:
        raise UserError("compute.cluster: slurm needs compute.profile, the YAML file that describes the cluster")
    from harness.study.slurm import SlurmExecutor

    return SlurmExecutor(folder, profile, threads=compute.threads, workers=compute.workers)


def _check_gpu() -> None:
    import torch  # heavy, and asked only where a study insists on a GPU

    if not torch.cuda.is_available():
        raise UserError("compute.device is cuda, but torch sees no GPU on this machine; use auto or cpu")


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
