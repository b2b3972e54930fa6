"""The profiles that are shipped."""

from pathlib import Path

import pytest
import yaml

from harness.study.spec import ProfileSpec

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
