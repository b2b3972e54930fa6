"""A driver that outlives the shell that launched it: a SLURM job of its own, or a process in the background.

It is always `resume` that runs there: the launch is written down first, so that a driver that is requeued, or comes to
run twice, goes on with it and begins nothing anew. SLURM warns the job before its time limit and before preemption;
the driver then leaves at once, its study's jobs untouched, and has itself requeued.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType

from harness.errors import UserError
from harness.study.driver import admit
from harness.study.executors import submission_environment
from harness.study.folder import StudyFolder, write_atomic
from harness.study.launches import Launch, last_launch
from harness.study.lease import Lease
from harness.study.load import dump_study, load_profile
from harness.study.ownership import process_start
from harness.study.profile_spec import ProfileSpec
from harness.study.sent_off import Detached, keep, waiting_driver
from harness.study.slurm import exported, sbatch_reason
from harness.study.slurm_queue import run_tool
from harness.study.spec import StudySpec
from harness.study.trial_index import TrialIndex

#: Seconds before a time limit at which the driver is told to leave; SLURM may be a minute early.
WARNING_SECONDS = 120
#: What `resume` is given to know that it runs as a SLURM job.
AS_JOB = "--as-job"

_LOG, _SCRIPT = "driver.log", "driver.sh"


# ------------------------------------------------------------------------------------------- sending off


def write_down(study: StudySpec, root: Path) -> None:
    """Begin a launch on paper, so that a driver elsewhere can go on with it.

    Raises
    ------
    UserError
        Where `harness.study.driver.launch` would refuse the study, another driver holds it, or one that was sent off
        has not ended.
    """
    _refuse_second(StudyFolder(root.absolute(), study.name))
    folder, planned, _ = admit(study, root)
    with Lease(folder.lock, study.name):
        last = last_launch(folder)
        text = dump_study(study)
        write_atomic(folder.study_file, text)
        TrialIndex(folder).note(planned.trials)
        ids = [trial.trial_id for trial in planned.trials]
        Launch(1 if last is None else last.number + 1, study=text, trials=ids).write(folder)


def detach(name: str, root: Path, studies: Iterable[StudySpec]) -> Detached:
    """Send off a driver that goes on with the last launch of a study, or of a suite.

    Parameters
    ----------
    name, root
        Of the study or suite, which has a launch written down.
    studies
        It, or its members: the first on a cluster says with its profile where the driver runs.

    Raises
    ------
    UserError
        If one that was sent off before still waits, or SLURM refuses the job.
    """
    folder = StudyFolder(root.absolute(), name)
    _refuse_second(folder)
    arguments = [sys.executable, "-m", "harness", "resume", name, "--root", str(folder.root)]
    on_cluster = (study.compute for study in studies if study.compute.cluster == "slurm")
    profile = next((Path(compute.profile) for compute in on_cluster if compute.profile is not None), None)
    if profile is None:
        sent = _start(folder, arguments)
    else:
        sent = _submit(folder, load_profile(profile), [*arguments, AS_JOB])
    keep(folder, sent)
    return sent


def _refuse_second(folder: StudyFolder) -> None:
    waiting = waiting_driver(folder)
    if waiting is not None:
        raise UserError(
            f"a driver of {folder.name!r} was sent off before and has not ended ({waiting}); wait for it, or stop it "
            f"with `{folder.command('cancel')}`"
        )


def _start(folder: StudyFolder, arguments: list[str]) -> Detached:
    """In the background, in a session of its own, so that neither Ctrl-C nor the end of the terminal reaches it."""
    log = folder.path / _LOG
    with log.open("ab") as stream:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
        )
    started = process_start(process.pid) or 0
    return Detached("process", str(process.pid), socket.gethostname(), started, time.time(), str(log))


def _submit(folder: StudyFolder, profile: ProfileSpec, arguments: list[str]) -> Detached:
    """As a job, its command passed as arguments and thus seen by no shell."""
    log, script = folder.path / _LOG, folder.path / _SCRIPT
    write_atomic(script, job_script(profile))
    options = [*driver_options(profile), f"--job-name={folder.name}-driver", f"--output={_as_pattern(log)}"]
    with submission_environment():
        done = run_tool("sbatch", "--parsable", *options, str(script), *arguments)
    if done is None or done.returncode != 0:
        reason = "sbatch does not answer" if done is None else sbatch_reason(done.stderr or "no reason given")
        raise UserError(f"SLURM refused the driver's job: {reason}; check driver in compute.profile")
    job_id = done.stdout.strip().partition(";")[0]
    return Detached("job", job_id, socket.gethostname(), 0, time.time(), str(log))


def driver_options(profile: ProfileSpec) -> list[str]:
    """sbatch's options for a driver's job: small, without a GPU, warned before its end, and requeued."""
    own = profile.driver
    partition = own.partition or profile.partition
    wanted = {
        "partition": partition,
        "account": own.account or profile.account,
        "qos": own.qos or (profile.qos if partition == profile.partition else None),
        "time": own.time_minutes,
        "nodes": 1,
        "ntasks": 1,
        "cpus-per-task": own.cpus,
        "mem": f"{round(own.memory_gb * 1024)}M",
        "signal": f"B:USR2@{WARNING_SECONDS}",
        "open-mode": "append",
    }
    return ["--requeue", *(f"--{name}={value}" for name, value in wanted.items() if value is not None)]


def job_script(profile: ProfileSpec) -> str:
    """The script of a driver's job. It becomes the driver, which thus gets SLURM's signals itself."""
    lines = ["#!/bin/bash", *exported(profile.environment), *profile.setup, 'exec "$@"']
    return "".join(line + "\n" for line in lines)


def _as_pattern(path: Path) -> str:
    """A path as sbatch takes it, where a per cent sign begins a pattern."""
    return str(path).replace("%", "%%")


# ------------------------------------------------------------------------------------------ being a job


class DriverLeaves(BaseException):
    """SLURM ends the driver's job: no error, and nothing that may be handled on the way out.

    Parameters
    ----------
    warned
        Whether it is the warning, after which there is time to be requeued; else SLURM does what is to be done.
    """

    def __init__(self, warned: bool) -> None:
        super().__init__("SLURM ends this job")
        self.warned = warned


def as_job(drive: Callable[[], int]) -> int:
    """Drive until the end, or until SLURM ends this job: its study's jobs then run on, and the next start finds them.

    Returns
    -------
    The exit status.
    """
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, _leave)
    try:
        return drive()
    except DriverLeaves as leaving:
        print("SLURM ends this job; the study's own jobs run on", file=sys.stderr, flush=True)
        return _requeue() if leaving.warned else 0


def _leave(number: int, frame: FrameType | None) -> None:
    for each in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # a second one must not cut short the way out
    raise DriverLeaves(warned=number == signal.SIGUSR2)


def _requeue() -> int:
    """Have this job start again."""
    job = os.environ.get("SLURM_JOB_ID", "")
    done = run_tool("scontrol", "requeue", job)
    if done is not None and done.returncode == 0:
        print(f"job {job} starts again and goes on", file=sys.stderr, flush=True)
        return 0
    said = "no answer" if done is None else (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    print(f"job {job} cannot be requeued ({said}); go on with harness resume", file=sys.stderr, flush=True)
    return 1
