"""The profiles that are shipped."""

import functools
import os
from pathlib import Path

import pytest
import yaml
from disturbed import until

from harness.study.profile_spec import ProfileSpec
from harness.study.slurm import SlurmExecutor

PROFILES = sorted((Path(__file__).parents[2] / "slurm").glob("*.yaml"))


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.name)
def test_a_shipped_profile_is_valid(path):
    profile = ProfileSpec(**yaml.safe_load(path.read_text()))

    # submitit takes any signalled job with a limit of 10 minutes or less for one that ran out of time
    assert profile.time_minutes > 10


def test_the_gpu_example_asks_for_what_it_says():
    profile = ProfileSpec(**yaml.safe_load((PROFILES[0].parent / "gpu.yaml").read_text()))

    assert (profile.gpus, profile.cpus, profile.memory_gb) == (1, 8, 32)
    assert profile.time_minutes == 12 * 60
    assert profile.array_parallelism == 64


def test_variables_and_setup_arrive_in_the_job_and_no_shell_looks_into_a_value(cluster, tmp_path):
    values = {"PLAIN": "a b", "TRICKY": f"$(touch {tmp_path}/hacked) `touch {tmp_path}/hacked` '\"\\;\n#SBATCH --hold"}
    setup = ["export MADE=$PLAIN-made", "work() { echo done; }"]
    profile = ProfileSpec(memory_gb=0.2, environment={**values, "COUNT": 3}, setup=setup, srun_args=["--label"])
    executor = SlurmExecutor(tmp_path / "logs", profile, threads=2)

    (job,) = executor.submit([functools.partial(os.system, f"env -0 > {tmp_path}/env")], "harness-environment")
    until(lambda: not job.alive(), "the job ends")

    found = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().split("\0") if line)
    assert {name: found[name] for name in values} == values
    assert (found["COUNT"], found["MADE"]) == ("3", "a b-made")
    assert (found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"]) == ("2", "2")
    assert not (tmp_path / "hacked").exists()
