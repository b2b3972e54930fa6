"""Try a cluster profile with one small job: what is right, what is wrong, and what would do.

The job goes through the very executor that trials go through. Nothing is left behind, neither in the queue nor below
the study root.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.study.detach import driver_options, job_script
from harness.study.doctor_answer import Finding, judge, of_error
from harness.study.doctor_probe import ANSWER, SIGNALLED, TOKEN, Probe, clock_ahead
from harness.study.executors import ClusterFull, Job, submission_environment
from harness.study.folder import read_json
from harness.study.load import load_profile
from harness.study.mlflow_store import check_uri, connect, default_uri, has_server
from harness.study.profile_spec import ProfileSpec
from harness.study.slurm import SlurmExecutor, sbatch_reason
from harness.study.slurm_queue import run_tool

#: Seconds between two looks.
LOOK_SECONDS = 0.5
#: Seconds that an answer may take to show on a shared file system after its job has left the queue.
LATE_SECONDS = 15.0
#: Seconds for a tracking server to answer.
SERVER_SECONDS = 10

#: Reasons in squeue for which a job will never start, and what would do.
_HOPELESS = {
    "PartitionTimeLimit": "lower time_minutes, or choose another partition",
    "PartitionNodeLimit": "choose another partition",
    "BadConstraints": "correct constraint, gpu_type, cpus or memory_gb: no node has all of them",
    "InvalidAccount": "correct account",
    "InvalidQOS": "correct qos",
    "JobHeldUser": "see what holds it with: scontrol show job",
    "JobHeldAdmin": "see that the node finds the working directory, and ask the administrators",
    "launch failed requeued held": "see that the node finds the working directory, and ask the administrators",
}


def examine(path: Path, root: Path, *, tracking: str | None, patience: float) -> Iterator[Finding]:
    """Findings on a cluster profile, as they come.

    Parameters
    ----------
    path
        The profile.
    root
        Folder of all studies; made if need be, and then removed again.
    tracking
        MLflow tracking URI; None for the root's own database.
    patience
        Seconds that the job may wait, and then again run.

    Raises
    ------
    UserError
        If the profile is none, the URI cannot work, or the patience is not above 0.
    """
    profile = load_profile(path)
    check_uri(tracking)
    if not patience > 0:
        raise UserError(f"--patience is {patience:g}, but must be above 0 seconds")
    yield Finding(True, f"{path} is a valid profile")
    own = default_uri(root) if (root / "mlflow.db").exists() else None
    yield _tracking(tracking or own)
    try:
        with _scratch(root.absolute()) as folder:
            yield Finding(True, f"{root} can be written from here")
            yield from _with_a_job(profile, folder, patience)
    except OSError as error:
        said = error.strerror or str(error)
        yield Finding(False, f"{root} cannot be written from here ({said})", "give another folder with --root")


@contextlib.contextmanager
def _scratch(root: Path) -> Iterator[Path]:
    """A folder below the root for one examination; the root goes again where it was not there before."""
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".doctor-", dir=root))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        _remove(folder)
        with contextlib.suppress(OSError):  # somebody else has put something there
            for made in missing:
                made.rmdir()


def _remove(folder: Path) -> None:
    """Remove a folder in which a job that was just ended may still write its last lines."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(LOOK_SECONDS)


def _tracking(uri: str | None) -> Finding:
    """Whether MLflow answers here, where the driver would write."""
    if uri is None:
        return Finding(True, "MLflow would keep a database of its own in the study root")
    remedy = "start the server, or correct the address" if has_server(uri) else "correct the path or address"
    database = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
    if database is not None and not database.exists():  # connecting would make it
        there = database.parent.is_dir()
        said = f"MLflow at {uri} would make its database" if there else f"MLflow at {uri} finds no folder"
        return Finding(there, said, "" if there else remedy)
    try:
        with _impatient():
            connect(uri).search_experiments(max_results=1)
    except Exception as error:  # MLflow raises what its stores raise
        return Finding(False, f"MLflow at {uri} does not answer ({_cause(error)})", remedy)
    return Finding(True, f"MLflow at {uri} answers")


def _cause(error: Exception) -> str:
    """What the system said, out of what every layer above it says of itself."""
    said = str(error).strip() or type(error).__name__
    found = re.search(r"\[Errno -?\d+\] ([^'\")]+)|(timed out)", said)
    return next(filter(None, found.groups())) if found else said.splitlines()[-1][:200]


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Have MLflow give up a silent server soon."""
    before = dict(os.environ)
    os.environ |= {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(SERVER_SECONDS), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


# --------------------------------------------------------------------------------------------- the job


@dataclass
class _Trial:
    """One job, from its submission on; times are monotonic."""

    job: Job
    patience: float
    submitted: float = field(default_factory=time.monotonic)
    started: float | None = None

    def look(self) -> tuple[str, str]:
        """State and reason as squeue has them; empty once it lists the job no more."""
        done = run_tool("squeue", "--noheader", f"--jobs={self.job.id}", "--format=%T|%r")
        if done is None:
            return "UNKNOWN", "squeue does not answer"
        state, _, reason = done.stdout.strip().partition("|")
        if state not in ("", "PENDING", "CONFIGURING") and self.started is None:
            self.started = time.monotonic()
        return state, reason

    @property
    def waited(self) -> float:
        """Seconds in the queue."""
        return (time.monotonic() if self.started is None else self.started) - self.submitted


def _with_a_job(profile: ProfileSpec, folder: Path, patience: float) -> Iterator[Finding]:
    try:
        executor = SlurmExecutor(folder / "logs", profile, threads=1)
    except UserError as error:
        yield of_error(error)
        return
    yield _driver_job(profile, folder)
    yield Finding(True, f"arrays hold up to {executor.array_limit} jobs")
    token = uuid.uuid4().hex
    (folder / TOKEN).write_text(token)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # where submitit repeats what sbatch says
            job = executor.submit([Probe(str(folder))], f"harness-doctor-{token[:8]}")[0]
    except ClusterFull as error:
        yield Finding(False, f"sbatch takes no job now ({error})", "try again later, or ask for less")
        return
    except UserError as error:
        yield of_error(error)
        return
    try:
        yield Finding(True, f"sbatch accepts the profile (job {job.id})")
        yield from _follow(_Trial(job, patience), profile, folder, token)
    finally:
        _end(job)


def _driver_job(profile: ProfileSpec, folder: Path) -> Finding:
    """Whether sbatch would take the job of a detached driver."""
    script = folder / "driver.sh"
    script.write_text(job_script(profile))
    with submission_environment():
        done = run_tool("sbatch", "--test-only", *driver_options(profile), str(script), sys.executable)
    if done is not None and done.returncode == 0:
        return Finding(True, "sbatch would accept a driver's job (launch --detach)")
    reason = "sbatch does not answer" if done is None else sbatch_reason(done.stderr or "no reason given")
    return Finding(False, f"sbatch refuses a driver's job, for launch --detach ({reason})", "correct driver")


def _follow(trial: _Trial, profile: ProfileSpec, folder: Path, token: str) -> Iterator[Finding]:
    """Wait for the job's answer, and judge it."""
    answer = _await(trial, folder)
    if isinstance(answer, Finding):
        yield answer
        return
    yield Finding(True, f"the job started after {trial.waited:.0f} s, on {answer['host']}")
    yield from judge(answer, profile, token, here=time.time(), ahead=clock_ahead(folder))
    run_tool("scancel", "--signal=USR2", trial.job.id)
    until = time.monotonic() + trial.patience
    while (arrived := read_json(folder / SIGNALLED)) is None and trial.look()[0] and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
    arrived = arrived or read_json(folder / SIGNALLED) or {}
    if arrived.get("signalled"):
        yield Finding(True, "SLURM's warning before the time limit reaches a trial")
    else:
        remedy = "see that setup starts no shell of its own, and that srun_args leave signals alone"
        yield Finding(False, "SLURM's warning before the time limit does not reach a trial", remedy)


def _await(trial: _Trial, folder: Path) -> dict[str, Any] | Finding:
    """The job's answer, or why there is none."""
    gone: float | None = None
    while True:
        state, reason = trial.look()
        answer = read_json(folder / ANSWER)
        if isinstance(answer, dict):
            return answer
        now = time.monotonic()
        if state == "":
            gone = gone or now
            if now - gone > LATE_SECONDS or trial.job.error():
                return _silent(trial)
        elif state == "PENDING" and (reason in _HOPELESS or trial.waited > trial.patience):
            remedy = _HOPELESS.get(reason, "wait longer with --patience, or ask for less, or another partition")
            return Finding(False, f"the job has not started after {trial.waited:.0f} s ({reason})", remedy)
        elif trial.started is not None and now - trial.started > trial.patience:
            said = f"the job runs, but has not answered after {now - trial.started:.0f} s"
            return Finding(False, said, "see that the study root is on a file system that the nodes share")
        time.sleep(LOOK_SECONDS)


def _silent(trial: _Trial) -> Finding:
    """A job that ended without an answer."""
    lines = [line.strip() for line in trial.job.error().splitlines() if line.strip()]
    ended = trial.job.ended_as()
    if lines:
        said = f"the job ended without an answer{f' ({ended})' if ended else ''}: {lines[-1][:300]}"
        return Finding(False, said, "see that setup succeeds on the node, and leads to the Python that is used here")
    remedy = (
        "see that setup does not end the job, and that the nodes find the study root and "
        f"{sys.executable} under these very paths"
    )
    return Finding(False, f"the job ended before Python began{f' ({ended})' if ended else ''}", remedy)


def _end(job: Job) -> None:
    """Leave nothing in the queue."""
    run_tool("scancel", job.id)
    until = time.monotonic() + LATE_SECONDS
    while time.monotonic() < until:
        listed = run_tool("squeue", "--noheader", f"--jobs={job.id}", "--format=%T")
        if listed is None or not listed.stdout.strip():
            return
        time.sleep(LOOK_SECONDS)
