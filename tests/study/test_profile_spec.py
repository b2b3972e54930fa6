"""Cluster profiles: each key reaches sbatch, a wrong one is one sentence, and no value is run by a shell."""

import os
import subprocess

import pytest
from pydantic import ValidationError

from harness.errors import UserError
from harness.study.detach import driver_options, job_script
from harness.study.load import load_profile
from harness.study.profile_spec import DriverJobSpec, ProfileSpec
from harness.study.slurm import SlurmExecutor


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The script that sbatch is given for an array of two jobs, by the keys of a profile."""
    tools = tmp_path / "bin"
    tools.mkdir()
    says = {"sbatch": f"cp $1 {tmp_path}/script.sh; echo Submitted batch job 12", "sinfo": "echo main; echo gpu"}
    for name in ("sbatch", "sinfo", "srun", "squeue", "scancel", "scontrol"):
        (tools / name).write_text(f"#!/bin/sh\n{says.get(name, 'true')}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")

    def submitted(**keys):
        executor = SlurmExecutor(tmp_path / "logs", ProfileSpec(**keys), threads=1)
        executor.submit([print, print], "name")
        return (tmp_path / "script.sh").read_text()

    return submitted


#: For each key a value, and the line of the script that it makes.
LINES = {
    "partition": ("gpu,main", "#SBATCH --partition=gpu,main"),
    "account": ("mine", "#SBATCH --account=mine"),
    "qos": ("long", "#SBATCH --qos=long"),
    "reservation": ("hours", "#SBATCH --reservation=hours"),
    "gpus": (2, "#SBATCH --gres=gpu:2"),
    "cpus": (3, "#SBATCH --cpus-per-task=3"),
    "memory_gb": (1.5, "#SBATCH --mem=1536MB"),
    "time_minutes": (77, "#SBATCH --time=77"),
    "array_parallelism": (1, "#SBATCH --array=0-1%1"),
    "signal_seconds": (33, "#SBATCH --signal=USR2@33"),
    "constraint": ("a100&nvlink", "#SBATCH --constraint='a100&nvlink'"),
    "nodelist": ("n[1-2]", "#SBATCH --nodelist='n[1-2]'"),
    "exclude": ("n3", "#SBATCH --exclude=n3"),
    "environment": ({"A": "$(b) 'c'"}, """export A='$(b) '"'"'c'"'"''"""),
    "setup": (["module load x"], "module load x"),
    "additional": ({"nice": 5, "exclusive": True, "hold": False}, "#SBATCH --exclusive"),
}
#: Tested elsewhere: with gpus; by splitting arrays; by trials that run out of time; below.
ELSEWHERE = {"gpu_type", "array_limit", "max_timeouts", "srun_args", "driver"}


def test_every_key_has_a_case():
    assert LINES.keys() | ELSEWHERE == set(ProfileSpec.model_fields)
    assert not LINES.keys() & ELSEWHERE


@pytest.mark.parametrize("key", LINES)
def test_each_key_reaches_sbatch(script, key):
    value, line = LINES[key]
    assert line in script(**{key: value}).splitlines()
    assert line not in script().splitlines()


def test_keys_that_need_others(script):
    text = script(gpus=1, gpu_type="a100", srun_args=["--cpu-bind=cores", "--label"])
    assert "#SBATCH --gres=gpu:a100:1" in text.splitlines()
    (srun,) = [line for line in text.splitlines() if line.startswith("srun")]
    assert "--cpu-bind=cores --label" in srun
    assert "hold" not in script(additional={"hold": False})


def test_variables_come_before_setup_which_may_use_them(script):
    lines = script(environment={"A": 1}, setup=["echo $A"]).splitlines()
    assert lines.index("export A=1") < lines.index("echo $A")


EVIL = ["x\ntouch hacked", "$(touch hacked)", "`touch hacked`", "'; touch hacked; '", '"; touch hacked; "', "a\\"]


@pytest.mark.parametrize("value", EVIL)
def test_no_value_is_run_by_a_shell(value, tmp_path):
    text = job_script(ProfileSpec(environment={"EVIL": value}))
    script = tmp_path / "script.sh"
    script.write_text(text.replace('exec "$@"', 'printf %s "$EVIL"'))
    said = subprocess.run(["bash", script], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert said.stdout == value
    assert sorted(path.name for path in tmp_path.iterdir()) == ["script.sh"]


@pytest.mark.parametrize("key", ["partition", "account", "qos", "reservation", "gpu_type", "constraint", "nodelist", "exclude"])  # fmt: skip # noqa: E501
@pytest.mark.parametrize("value", ["x\ntouch hacked", "", " x", "x\r", "\x1b"])
def test_what_goes_into_the_head_of_a_script_is_one_line(key, value):
    with pytest.raises(ValidationError, match="one line of text"):
        ProfileSpec(gpus=1, **{key: value})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"environment": {"A B": "1"}}, "environment.A B is no name of a variable"),
        ({"environment": {"A=1; touch x": "1"}}, "is no name of a variable"),
        ({"environment": {"A": "1\0"}}, "null character"),
        ({"environment": {"SLURM_JOB_ID": "1"}}, "is SLURM's to set"),
        ({"environment": {"CUDA_VISIBLE_DEVICES": "1"}}, "is SLURM's to set"),
        ({"environment": {"OMP_NUM_THREADS": "4"}}, "compute.threads"),
        ({"additional": {"gres": "gpu:1"}}, "has a key of its own; use gpus"),
        ({"additional": {"time": 5}}, "has a key of its own; use time_minutes"),
        ({"additional": {"array": "0-3"}}, "is set for every job of a study"),
        ({"additional": {"nice\n": 5}}, "is no long option of sbatch"),
        ({"additional": {"--nice": 5}}, "is no long option of sbatch"),
        ({"additional": {"comment": "a\nb"}}, "one line of text"),
        ({"srun_args": ["a\nb"]}, "one line of text"),
        ({"time_minutes": 1, "signal_seconds": 60}, "is no warning before a limit"),
        ({"driver": {"time_minutes": 5}}, "greater than or equal to 10"),
        ({"driver": {"gpus": 1}}, "Extra inputs"),
    ],
)
def test_what_cannot_work_is_refused(keys, said):
    with pytest.raises(ValidationError, match=said.replace(".", r"\.")):
        ProfileSpec(**keys)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("partition: gpu\npartitoin: x\n", "line 2: key partitoin is unknown; did you mean partition?"),
        ("driver:\n  partitions: cpu\n", "line 2: key driver.partitions is unknown; did you mean partition?"),
        ("cpus: many\n", 'line 1: cpus is "many", but must be an integer'),
        ("\nenvironment: {A B: 1}\n", "environment.A B is no name of a variable; use letters, digits and underscores"),
        ('qos: "a\\nb"\n', "line 1: qos: must be one line of text, without spaces around it"),
        ("setup: module load x\n", 'line 1: setup is "module load x", but must be a list'),
    ],
)
def test_a_wrong_file_is_one_sentence_with_its_line(tmp_path, text, said):
    path = tmp_path / "profile.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_profile(path)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_driver_has_no_gpu_and_its_own_partition():
    profile = ProfileSpec(partition="gpu", account="mine", qos="fast", gpus=4, gpu_type="a100", reservation="hours")
    inherited = driver_options(profile)
    assert "--partition=gpu" in inherited
    assert {"--account=mine", "--qos=fast", "--requeue", "--signal=B:USR2@120"} <= set(inherited)
    own = driver_options(profile.model_copy(update={"driver": DriverJobSpec(
        partition="cpu", account="other", qos="long", cpus=2, memory_gb=3, time_minutes=99)}))  # fmt: skip
    assert {"--partition=cpu", "--account=other", "--qos=long", "--cpus-per-task=2", "--mem=3072M", "--time=99"} <= set(
        own
    )
    elsewhere = driver_options(profile.model_copy(update={"driver": DriverJobSpec(partition="cpu")}))
    assert not [option for option in elsewhere if option.startswith("--qos")]  # another partition has its own
    assert not [option for option in [*inherited, *own, *elsewhere] if "gpu" in option and "partition" not in option]
