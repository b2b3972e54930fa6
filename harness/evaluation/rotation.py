"""The condition the theorem needs and hides: does the mechanism family admit other latents that fit equally well?

Conditions (i) to (iv) speak of the truth. Whether latents are identified also depends on what the *model* may change
from one environment to the next: with mechanisms free everywhere any rotation of the latents fits as well as the
latents themselves. So we look for such an alternative, numerically: the loss that W, C and the mechanisms enter
(`harness.models.moments`) is minimised again from rotated starts, kept away from the latents found.
"""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import chi2
from torch import Tensor

from harness.evaluation.conditions import Verdict
from harness.models.moments import Moments, latent_correlations, latent_deviations
from harness.models.refit import Candidates, refit

#: Alternatives must have at most this MCC with the latents found.
BOUND = 0.9
#: Angle that one plane's rotation must be able to reach within the bound, where there are many latents.
LEAST_ANGLE = math.radians(40.0)
#: Most planes started from.
MOST_PLANES = 45
#: Weight of the MCC above its bound: more than any gain in loss could pay for.
WEIGHT = 50.0
#: Gaps below this are none, in nats a frame: what Adam leaves.
RESOLUTION = 1e-3
#: An alternative's latent is mixed if its match among the latents found correlates less than this.
MIXED = 0.95


@dataclass(frozen=True)
class RotationTest:
    """The best alternative found.

    Attributes
    ----------
    gap : its loss less that of the latents found, nats a frame; negative where it fits better.
    resolution : gaps up to this count as none.
    mcc : its MCC with the latents found.
    mixed : the latents found that it does not contain.
    """

    gap: float
    resolution: float
    mcc: float
    mixed: tuple[int, ...]

    def verdict(self) -> Verdict:
        """As a condition: holds if every alternative fits worse; the margin is the gap, in nats a frame."""
        names = ", ".join(map(str, self.mixed))
        if self.gap > self.resolution:
            reason = (
                f"every rotation tried fits worse, by {self.gap:.3g} nats a frame or more (nearest: latents {names})"
            )
        elif self.gap < -self.resolution:
            reason = f"a rotation of latents {names} fits better, by {-self.gap:.3g} nats a frame: training stuck"
        else:
            reason = (
                f"latents {names} can be rotated at a cost of {max(self.gap, 0.0):.1g} nats a frame: not identified"
            )
        return Verdict(self.gap > self.resolution, self.gap, reason)


def rotation_test(
    found: Candidates, moments: Moments, *, sparsity: float, restarts: int, steps: int, seed: int
) -> RotationTest:
    """Smallest gap in loss between the latents found and any others.

    The refitted loss is minimised over invertible linear maps of the latents, from random rotations and from 45° in
    every coordinate plane (of standardised latents), under the constraint that the MCC with the latents found stays
    below 0.9. Of more than four latents a rotation in one plane leaves a higher MCC; the bound is then what 40° in one
    plane leaves, so that two latents mixed among many are found. Beyond ten latents, 45 planes drawn at random.

    Parameters
    ----------
    found
        One candidate: W, C and the family as fitted.
    moments
        What it was fitted to.
    sparsity
        Weight of the family's penalty in the loss.
    restarts
        Random rotations, whose families start afresh (so that targets may be assigned otherwise).
    steps
        Of Adam, for each start.
    seed
        Governs random rotations and planes.
    """
    random = torch.Generator().manual_seed(seed)
    d_v = found.families[0].responsive
    if d_v < 2:
        raise ValueError("a single responsive latent has no rotation")
    bound = max(BOUND, 1.0 - 2.0 * (1.0 - math.cos(LEAST_ANGLE)) / d_v)
    target = torch.cat([found.unmixing, found.across], dim=2)[0].double()
    closeness = _Closeness(moments, target, bound)

    # kept near: latents found by training that stuck would else leave for the very alternatives they are compared with
    at_home = refit(found, moments, steps=steps, sparsity=sparsity, penalty=closeness.keep_near, annealed=True)
    planes = _rotated(found, moments, _plane_rotations(d_v, random))
    tried = refit(planes, moments, steps=steps, sparsity=sparsity, penalty=closeness.keep_away, annealed=True)
    loss, candidates = tried.loss, tried.candidates
    if restarts:
        afresh = _rotated(found, moments, _random_rotations(d_v, restarts, random), random)
        others = refit(afresh, moments, steps=steps, sparsity=sparsity, penalty=closeness.keep_away)
        loss, candidates = torch.cat([loss, others.loss]), candidates.joined(others.candidates)

    matched = closeness.matched(candidates.unmixing, candidates.across)
    mcc = matched.mean(1)
    allowed = torch.where(mcc <= bound + 0.01, loss, torch.inf)
    best = int(allowed.argmin())
    mixed = torch.nonzero(matched[best] < MIXED).flatten().tolist()
    freedom = d_v * (d_v - 1) // 2
    resolution = max(RESOLUTION, float(chi2.ppf(0.95, freedom)) / (2 * moments.frames))
    return RotationTest(float(allowed[best] - at_home.loss[0]), resolution, float(mcc[best]), tuple(mixed))


class _Closeness:
    """MCC with the latents found, and the penalties that keep it on either side of a bound."""

    def __init__(self, moments: Moments, target: Tensor, bound: float) -> None:
        self.moments, self.target, self.bound = moments, target, bound

    def keep_away(self, unmixing: Tensor, across: Tensor) -> Tensor:
        """Penalty (r,) on a higher MCC."""
        return WEIGHT * (self.matched(unmixing, across).mean(1) - self.bound).clamp_min(0.0)

    def keep_near(self, unmixing: Tensor, across: Tensor) -> Tensor:
        """Penalty (r,) on a lower MCC."""
        return WEIGHT * (self.bound - self.matched(unmixing, across).mean(1)).clamp_min(0.0)

    def matched(self, unmixing: Tensor, across: Tensor) -> Tensor:
        """|Correlation| of each latent found with its match in each candidate, (r, d_v)."""
        maps = torch.cat([unmixing, across], dim=2)
        correlations = latent_correlations(self.moments, self.target.expand(len(maps), -1, -1), maps)
        chosen = np.stack([linear_sum_assignment(-one)[1] for one in correlations.detach().numpy()])
        return correlations.gather(2, torch.from_numpy(chosen).unsqueeze(2)).squeeze(2)


def _plane_rotations(d_v: int, random: torch.Generator) -> Tensor:
    """45° in every coordinate plane, (planes, d_v, d_v)."""
    planes = list(itertools.combinations(range(d_v), 2))
    if len(planes) > MOST_PLANES:
        planes = [planes[k] for k in torch.randperm(len(planes), generator=random)[:MOST_PLANES].tolist()]
    rotations = torch.eye(d_v, dtype=torch.float64).repeat(len(planes), 1, 1)
    half = math.sqrt(0.5)
    for rotation, (a, b) in zip(rotations, planes, strict=True):
        rotation[a, a] = rotation[b, b] = half
        rotation[a, b], rotation[b, a] = -half, half
    return rotations


def _random_rotations(d_v: int, count: int, random: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(count, d_v, d_v, generator=random, dtype=torch.float64)).Q


def _rotated(
    found: Candidates, moments: Moments, rotations: Tensor, random: torch.Generator | None = None
) -> Candidates:
    """The latents found, standardised and rotated; families as they are, or started afresh."""
    target = torch.cat([found.unmixing, found.across], dim=2)[0].double()
    standard = target / latent_deviations(moments, target).unsqueeze(1)
    maps = rotations @ standard
    families = [copy.deepcopy(found.families[0]) for _ in rotations]
    if random is not None:
        for family in families:
            family.restart(random)
    d_v = found.unmixing.shape[1]
    return Candidates(maps[:, :, :d_v], maps[:, :, d_v:], families)
