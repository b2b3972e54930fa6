"""Speed of the second stage, as ratios within one run: pytest tests/bench (needs pip install -e '.[bench]')."""

import time

import pytest
import torch
from true_latents import mechanisms_of_truth, mixed, population_moments

from harness.models.mechanisms import FreeMechanisms, KnownTargets, LearnedTargets
from harness.models.refit import random_starts, refit

D_V, D_I, RESTARTS, STEPS = 4, 7, 16, 20
TARGETS = torch.eye(D_V, dtype=torch.bool).repeat(3, 1)
FAMILIES = {
    "free": lambda: FreeMechanisms(len(TARGETS), D_V, D_I),
    "known": lambda: KnownTargets(TARGETS, D_I),
    "learned": lambda: LearnedTargets(len(TARGETS), D_V, D_I),
}


@pytest.fixture(scope="module")
def moments():
    """Of the published sizes: 4 + 7 latents, 12 environments."""
    return mixed(population_moments(mechanisms_of_truth(TARGETS, invariant=D_I)), D_V)[1]


def _starts(name, moments):
    torch.manual_seed(0)
    return random_starts(FAMILIES[name](), moments, RESTARTS, torch.Generator().manual_seed(0))


def _together(starts, moments):
    return refit(starts, moments, steps=STEPS)


def _one_by_one(starts, moments):
    return [refit(starts.chosen([k]), moments, steps=STEPS) for k in range(len(starts))]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("how", [_together, _one_by_one], ids=["together", "one by one"])
def test_sixteen_restarts(benchmark, moments, how, name):
    """What fitting all restarts in one batch saves over a loop: compare the rows."""
    starts = _starts(name, moments)
    benchmark.pedantic(how, args=(starts, moments), rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("name", FAMILIES)
def test_together_is_several_times_faster(moments, name):
    """The ratio itself, of the better of three; it may vary with the machine, but not vanish."""
    starts = _starts(name, moments)
    best = {how: min(_seconds(how, starts, moments) for _ in range(3)) for how in (_together, _one_by_one)}
    ratio = best[_one_by_one] / best[_together]
    print(f"{name}: {RESTARTS} restarts in one batch are {ratio:.1f} times as fast as one by one")
    assert ratio > 2


def _seconds(how, starts, moments):
    began = time.perf_counter()
    how(starts, moments)
    return time.perf_counter() - began
