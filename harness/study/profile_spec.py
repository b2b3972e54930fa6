"""A cluster profile as types: what a job asks of SLURM, and what it finds around itself.

Everything but ``setup`` is data. What goes into the head of a job's script is held to one line there, and what is
exported is quoted: no value of a profile is ever run by a shell, except the lines that are meant to be.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from harness.spec_part import Part

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPTION = re.compile(r"[a-z][a-z0-9-]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

#: sbatch options that have a key of their own here.
_KEY_OF_OPTION = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "reservation": "reservation",
    "gres": "gpus",
    "gpus": "gpus",
    "gpus-per-node": "gpus",
    "gpus-per-task": "gpus",
    "cpus-per-task": "cpus",
    "mem": "memory_gb",
    "time": "time_minutes",
    "constraint": "constraint",
    "nodelist": "nodelist",
    "exclude": "exclude",
}
#: sbatch options by which a study finds its jobs again, warns them and collects them.
_OURS = ("array", "dependency", "error", "job-name", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output",
         "parsable", "requeue", "no-requeue", "signal", "wait", "wrap", "kill-on-invalid-dep")  # fmt: skip
#: Variables that a study, submitit or SLURM sets for itself.
_TAKEN = re.compile(r"(SLURM|SBATCH|SUBMITIT)_.*|CUDA_VISIBLE_DEVICES")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def _one_line(text: str) -> str:
    if not text or _CONTROL.search(text) or text != text.strip():
        raise ValueError("must be one line of text, without spaces around it")
    return text


def _no_null(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not hold a null character, which no variable can")
    return text


#: A line of a job's script is an option of sbatch, or ends the list of them: a second line would be run.
OneLine = Annotated[str, AfterValidator(_one_line)]
#: A YAML list is no tuple, which strict mode would insist on.
Lines = Annotated[tuple[str, ...], Field(strict=False)]
Words = Annotated[tuple[OneLine, ...], Field(strict=False)]
Value = Annotated[str, AfterValidator(_no_null)] | int | float


class DriverJobSpec(Part):
    """The job that ``--detach`` submits for the driver itself: long, small and without a GPU."""

    partition: OneLine | None = Field(None, description="default: the profile's")
    account: OneLine | None = Field(None, description="default: the profile's")
    qos: OneLine | None = Field(None, description="default: the profile's where it shares its partition")
    cpus: int = Field(1, ge=1)
    memory_gb: float = Field(4.0, gt=0)
    time_minutes: int = Field(1440, ge=10, description="time limit, before which the driver requeues itself")


class ProfileSpec(Part):
    """A SLURM cluster as jobs of this project use it (a file in ``slurm/``); resources are those of one job."""

    partition: OneLine | None = Field(None, description="one, or several with commas; default: the cluster's")
    account: OneLine | None = Field(None, description="who pays; default: yours")
    qos: OneLine | None = None
    reservation: OneLine | None = None
    gpus: int = Field(0, ge=0, description="GPUs a job")
    gpu_type: OneLine | None = Field(None, description="name in GRES, e.g. a100")
    cpus: int = Field(1, ge=1, description="CPUs a job")
    memory_gb: float | None = Field(None, gt=0, description="default: the partition's")
    time_minutes: int = Field(60, ge=1, description="time limit of a job")
    array_parallelism: int = Field(64, ge=1, description="jobs of a study that run at once")
    array_limit: int = Field(1000, ge=1, description="largest array the cluster takes, MaxArraySize - 1")
    max_timeouts: int = Field(3, ge=0, description="times a job that hit its limit is requeued")
    signal_seconds: int = Field(90, ge=1, description="warning before the time limit, to write a checkpoint")
    constraint: OneLine | None = Field(None, description="features a node must have, e.g. a100&nvlink")
    nodelist: OneLine | None = Field(None, description="nodes to use, all of them")
    exclude: OneLine | None = Field(None, description="nodes not to use")
    environment: dict[str, Value] = Field({}, description="variables exported in the job, before setup; as they stand")
    setup: Lines = Field((), description="shell lines before the job's own command, e.g. module load")
    srun_args: Words = Field((), description="arguments for srun")
    additional: dict[str, OneLine | int | bool] = Field(
        {}, description="further sbatch options, by their long names; true is an option without a value"
    )
    driver: DriverJobSpec = DriverJobSpec()

    @model_validator(mode="after")
    def _gpu_type_needs_gpus(self) -> ProfileSpec:
        if self.gpu_type is not None and self.gpus == 0:
            raise ValueError("gpu_type needs gpus: 1 or more")
        return self

    @model_validator(mode="after")
    def _warning_lies_within_the_limit(self) -> ProfileSpec:
        if self.signal_seconds >= 60 * self.time_minutes:
            raise ValueError(
                f"signal_seconds {self.signal_seconds} is no warning before a limit of time_minutes "
                f"{self.time_minutes}; give less than {60 * self.time_minutes}"
            )
        return self

    @model_validator(mode="after")
    def _variables_are_free(self) -> ProfileSpec:
        for name in self.environment:
            if _VARIABLE.fullmatch(name) is None:
                raise ValueError(f"environment.{name} is no name of a variable; use letters, digits and underscores")
            if name in _THREADS:
                raise ValueError(f"environment.{name} is set from a study's compute.threads; set that instead")
            if _TAKEN.fullmatch(name):
                raise ValueError(f"environment.{name} is SLURM's to set; leave it out")
        return self

    @model_validator(mode="after")
    def _options_are_free(self) -> ProfileSpec:
        for name in self.additional:
            if _OPTION.fullmatch(name) is None:
                raise ValueError(f"additional.{name} is no long option of sbatch; write it without dashes before it")
            if name in _KEY_OF_OPTION:
                raise ValueError(f"additional.{name} has a key of its own; use {_KEY_OF_OPTION[name]}")
            if name in _OURS:
                raise ValueError(f"additional.{name} is set for every job of a study; leave it out")
        return self
