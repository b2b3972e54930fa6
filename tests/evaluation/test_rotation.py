"""The rotation test on exact moments: who admits latents that fit equally well, and who does not."""

import math
import re

import pytest
import torch
from true_latents import free_family, known_family, mcc_with, mechanisms_of_truth, one, population_moments

from harness.data.latent_process import draw_mechanisms, make_design
from harness.data_spec import SimulationData
from harness.evaluation.rotation import RotationTest, rotation_test
from harness.models.mechanisms import KnownTargets
from harness.models.refit import refit

D_I = 2


def _each(d_v, times=2):
    return torch.eye(d_v, dtype=torch.bool).repeat(times, 1)


def _test(family, truth, unmixing=None, restarts=1, steps=200):
    d_v = truth.graph.shape[1]
    found = one(family, torch.eye(d_v) if unmixing is None else unmixing, D_I)
    return rotation_test(found, population_moments(truth), sparsity=0.0, restarts=restarts, steps=steps, seed=0)


def test_free_mechanisms_can_be_rotated_at_no_cost():
    truth = mechanisms_of_truth(_each(2))
    test = _test(free_family(truth), truth, steps=300)
    assert abs(test.gap) < 1e-4
    assert test.mcc < 0.91
    assert set(test.mixed) <= {0, 1}
    assert test.mixed
    verdict = test.verdict()
    assert not verdict.holds
    assert "can be rotated" in verdict.reason


def test_cut_rows_of_known_targets_cannot_be_rotated():
    truth = mechanisms_of_truth(_each(3))
    test = _test(known_family(truth, _each(3)), truth, steps=150)
    assert test.gap > 0.05 > 20 * test.resolution
    verdict = test.verdict()
    assert verdict.holds
    assert verdict.margin == test.gap
    assert "every rotation tried fits worse" in verdict.reason


@pytest.mark.parametrize("responsive", [4, 6])
def test_two_untargeted_latents_give_a_gap_of_zero_and_are_named(responsive):
    """Among six latents a rotation of two leaves an MCC above 0.9, and the bound must let it through."""
    spec = SimulationData(
        preset="tiny",
        features=50,
        environments=2 * (responsive - 2),
        process={"preset": "untargeted_pair", "responsive": responsive, "invariant": D_I},
    )
    design = make_design(spec, tuple(f"v{k}" for k in range(responsive)))
    truth = draw_mechanisms(spec.process, design.targets, 0)
    test = _test(known_family(truth, design.targets), truth, restarts=0, steps=300)
    assert abs(test.gap) < test.resolution < 0.005
    assert test.mixed == (responsive - 2, responsive - 1)
    bound = max(0.9, 1 - 2 * (1 - math.cos(math.radians(40))) / responsive)
    assert test.mcc < bound + 0.01
    assert responsive == 4 or test.mcc > 0.9
    verdict = test.verdict()
    assert not verdict.holds
    assert f"latents {responsive - 2}, {responsive - 1} can be rotated" in verdict.reason


def test_alternatives_of_scrambled_latents_fit_better():
    """As after training that stuck: mechanisms fitted to a rotation that nothing but W could undo.

    Left alone such latents slide to the truth, and compared with where they went no alternative is better.
    """
    truth = mechanisms_of_truth(_each(3), seed=1)
    moments, drawn = population_moments(truth), torch.randn(3, 3, generator=torch.Generator().manual_seed(10))
    scrambled = torch.linalg.qr(drawn.double()).Q

    def held(unmixing, across):
        return 1e3 * (unmixing - scrambled).square().sum((1, 2))

    stuck = refit(one(KnownTargets(_each(3), D_I), scrambled, D_I), moments, steps=120, penalty=held).candidates
    slid = refit(stuck, moments, steps=250)
    assert mcc_with(slid.candidates, torch.eye(3).double(), moments)[0] > 0.95
    test = rotation_test(stuck, moments, sparsity=0.0, restarts=0, steps=250, seed=0)
    assert test.gap < -0.05
    verdict = test.verdict()
    assert not verdict.holds
    assert "fits better" in verdict.reason
    assert "training stuck" in verdict.reason


def test_resolution_is_a_likelihood_ratio_of_the_rotations_freedom_on_few_cells_and_adams_on_many():
    truth = mechanisms_of_truth(_each(2))
    for frames, expected in ((100, 3.841459 / 200), (10**6, 1e-3)):
        found = one(free_family(truth), torch.eye(2), D_I)
        moments = population_moments(truth, frames)
        test = rotation_test(found, moments, sparsity=0.0, restarts=0, steps=2, seed=0)
        assert test.resolution == pytest.approx(expected)


@pytest.mark.parametrize(
    ("gap", "holds", "words"),
    [
        (0.02, True, r"every rotation tried fits worse, by 0.02 nats a frame or more \(nearest: latents 1, 3\)"),
        (0.009, False, "latents 1, 3 can be rotated at a cost of 0.009 nats a frame: not identified"),
        (-0.009, False, "latents 1, 3 can be rotated at a cost of 0 nats"),
        (-0.02, False, "a rotation of latents 1, 3 fits better, by 0.02 nats a frame"),
    ],
)
def test_verdicts_say_what_the_gap_means(gap, holds, words):
    verdict = RotationTest(gap, 0.01, 0.9, (1, 3)).verdict()
    assert (verdict.holds, verdict.margin) == (holds, gap)

    assert re.search(words, verdict.reason)


def test_a_single_latent_has_no_rotation():
    truth = mechanisms_of_truth(_each(1))
    with pytest.raises(ValueError, match="a single responsive latent has no rotation"):
        _test(free_family(truth), truth)
