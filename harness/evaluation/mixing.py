"""Condition (i) of the theorem: the mixing from latents to frames is injective, near each cell and from afar.

What is checked: that the Jacobian has full column rank, well conditioned, at held-out cells, and that a search finds
no second latents with the same frame. What is not: smoothness. A network of leaky layers has kinks and a steep smooth
one looks the same from finitely many cells; the theorem's proof needs derivatives where the data lie, which such a
network has almost everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.evaluation.conditions import Verdict
from harness.evaluation.scores import Array, as_matrix

#: Most cells at which the Jacobian is taken, and fewest.
CELLS, FEWEST_CELLS = 200, 20
#: Most entries (cells × features × latents) of all Jacobians together, which bounds time and memory for images.
ENTRIES = 5_000_000
#: Locally injective where 95 % of the cells have a smallest singular value above this share of their largest.
LOCAL = 1e-3
#: Targets of the search for second preimages, and starts of each.
TARGETS, STARTS = 40, 3
#: Most steps of the search.
STEPS = 15
#: Two frames are the same if they differ by this share of the frames' root mean square spread.
SAME_FRAME = 1e-4
#: Two latents differ if they are this many sds apart (Euclidean, each latent in its own sd).
APART = 0.5

Mix = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Search:
    """Outcome of the search for second preimages.

    Attributes
    ----------
    targets : cells searched.
    found : of these, cells with a second preimage.
    distance : median distance to it in sds; 0 where none was found.
    """

    targets: int
    found: int
    distance: float


@torch.no_grad()
def mixing(mix: Mix, latents: Tensor, *, seed: int) -> Verdict:
    """Theorem 1 (i): frames determine the latents.

    Parameters
    ----------
    mix
        g, from (n, d) latents to (n, ...) noiseless frames, row by row and differentiable: a generator's mixing or a
        fitted decoder.
    latents
        (m, d) latents of held-out cells, m >= 2; of a fitted model, its posterior means.
    seed
        Governs the choice of cells and of starts.

    Returns
    -------
    Holds if the local margin exceeds ``LOCAL`` and no second preimage is found. The local margin is the 5 % quantile
    over cells of the smallest over the largest singular value of the Jacobian, each latent in units of its sd; a
    latent that is constant counts as one that frames do not show. The search for second preimages starts at other
    cells' latents and goes by damped Gauss-Newton steps towards a cell's frame. One that arrives at latents at least
    ``APART`` from the cell's own, and no further out than held-out cells lie (Mahalanobis), has found a fold. A search
    that finds nothing proves nothing; what it finds is proof. The margin is the local one times the share of cells
    without a second preimage.

    Raises
    ------
    NonFiniteError, ValueError
        NaN or infinity in the latents; fewer than two cells.

    Notes
    -----
    The theorem: Jiang et al. 2026 (arXiv 2605.19343); damping: Marquardt 1963. Both tests are this project's.
    """
    cells = as_matrix(latents.detach().cpu().numpy(), "latents")
    if len(cells) < 2:
        raise ValueError(f"{len(cells)} cells are too few to judge the mixing; at least 2 are needed")
    chart = _Chart(mix, latents)
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(latents), generator=random).to(latents.device)
    ratios = _singular_ratios(chart, chart.points[order])
    search = _search(chart, order, random)
    local = float(np.quantile(ratios, 0.05))
    margin = local * (1.0 - search.found / search.targets)
    return Verdict(local > LOCAL and search.found == 0, margin, _reason(ratios, search))


def _reason(ratios: Array, search: _Search) -> str:
    lowest, low, middle = np.quantile(ratios, [0.0, 0.05, 0.5])
    local = (
        f"the smallest singular value of the Jacobian is {middle:.2g} of the largest in the median of {len(ratios)} "
        f"cells, {low:.2g} at the 5 % quantile and {lowest:.2g} at the least"
    )
    if search.found == 0:
        return f"{local}, and no cell of {search.targets} was found to share its frame with other latents"
    share = search.found / search.targets
    return (
        f"{local}, but {share:.0%} of {search.targets} cells share their frame with other latents, "
        f"{search.distance:.2g} sds away in the median"
    )


class _Chart:
    """The mixing as a function of latents in units of their sd, with its Jacobian.

    Parameters
    ----------
    mix
        From (n, d) latents to frames.
    latents : (m, d)
        Latents that give the units.

    Attributes
    ----------
    points : (m, d) the latents, centred and in units of their sd.
    """

    def __init__(self, mix: Mix, latents: Tensor) -> None:
        self.mix = mix
        self.centre, spread = latents.mean(0), latents.std(0)
        # a constant latent has no unit; with a spread of 0 its column of the Jacobian is 0
        self.spread = torch.where(spread > 1e-6 * latents.square().mean(0).sqrt(), spread, 0.0)
        self.points = (latents - self.centre) / torch.where(self.spread > 0, self.spread, 1.0)

    def frames(self, points: Tensor) -> Tensor:
        """(n, d) to flattened frames (n, features)."""
        return self.mix(self.centre + self.spread * points).flatten(1)

    def jacobian(self, points: Tensor) -> Tensor:
        """(n, features, d): rows do not see each other, so one shift shared by all gives every row's Jacobian."""
        found: Tensor = torch.func.jacfwd(lambda shift: self.frames(points + shift))(torch.zeros_like(points[0]))
        return found

    def cells_within(self, entries: int, features: int) -> int:
        """How many cells have Jacobians of ``entries`` entries together."""
        return max(1, entries // (features * self.points.shape[1]))


def _singular_ratios(chart: _Chart, points: Tensor) -> Array:
    """Smallest over largest singular value of the Jacobian at the first points, (cells,); 0 where it vanishes."""
    features = chart.frames(points[:1]).shape[1]
    count = min(CELLS, max(FEWEST_CELLS, chart.cells_within(ENTRIES, features)))
    ratios = []
    for part in points[:count].split(chart.cells_within(ENTRIES, features)):
        # eigenvalues of JᵀJ in float64 resolve ratios down to 1e-8, and cost less than singular values of J
        jacobian = chart.jacobian(part).double()
        squares = torch.linalg.eigvalsh(jacobian.mT @ jacobian).clamp_min(0.0)
        # where there are fewer features than latents JᵀJ is singular, as it should be
        ratios.append((squares[:, 0] / squares[:, -1].clamp_min(torch.finfo(torch.float64).tiny)).sqrt())
    return np.asarray(torch.cat(ratios).cpu(), dtype=np.float64)


def _search(chart: _Chart, order: Tensor, random: torch.Generator) -> _Search:
    """Search for second preimages of the first cells in ``order`` from others as starts."""
    features = chart.frames(chart.points[:1]).shape[1]
    affordable = chart.cells_within(ENTRIES, features) // STARTS
    count = min(TARGETS, len(order), max(FEWEST_CELLS // STARTS, affordable))
    targets = chart.points[order[:count]].repeat(STARTS, 1)
    drawn = torch.randint(len(order), (len(targets),), generator=random)
    starts = chart.points[drawn.to(order.device)]
    reached, residual = _gauss_newton(chart, starts, chart.frames(targets))
    distance = (reached - targets).norm(dim=1)
    second = (residual <= SAME_FRAME) & (distance >= APART) & _within(chart.points, reached)
    per_target = second.reshape(STARTS, count)
    found = distance[second]
    return _Search(count, int(per_target.any(0).sum()), float(found.median()) if len(found) else 0.0)


def _within(cells: Tensor, points: Tensor) -> Tensor:
    """Which points lie no further from the cells' centre than the furthest cell, in Mahalanobis distance."""
    precision = torch.linalg.pinv(torch.cov(cells.double().T).reshape(cells.shape[1], -1), hermitian=True)

    def squares(z: Tensor) -> Tensor:
        return ((z.double() @ precision) * z.double()).sum(1)

    return squares(points) <= squares(cells).max()


def _gauss_newton(chart: _Chart, starts: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Latents whose frames come near ``wanted``, by damped Gauss-Newton steps from ``starts``.

    Parameters
    ----------
    starts : (n, d) in units of the chart
    wanted : (n, features)

    Returns
    -------
    points : (n, d) reached
    residuals : (n,) distance of their frames to ``wanted``, over the root mean square distance of ``wanted`` from its
        mean
    """
    unit = (wanted - wanted.mean(0)).norm(dim=1).square().mean().sqrt().clamp_min(torch.finfo(wanted.dtype).tiny)
    points, damping = starts.clone(), torch.full_like(starts[:, 0], 1e-3)
    residuals = (chart.frames(points) - wanted).norm(dim=1) / unit
    for _ in range(STEPS):
        open_ = torch.nonzero(residuals > SAME_FRAME).flatten()
        if len(open_) == 0:
            break
        proposed = points[open_] + _step(chart, points[open_], wanted[open_], damping[open_])
        found = (chart.frames(proposed) - wanted[open_]).norm(dim=1) / unit
        better = found < residuals[open_]
        points[open_] = torch.where(better[:, None], proposed, points[open_])
        residuals[open_] = torch.where(better, found, residuals[open_])
        damping[open_] = torch.where(better, damping[open_] * 0.1, damping[open_] * 10.0)
    return points, residuals


def _step(chart: _Chart, points: Tensor, wanted: Tensor, damping: Tensor) -> Tensor:
    """(JᵀJ + λ tr(JᵀJ)/d I)⁻¹ Jᵀ (wanted − g), (n, d)."""
    jacobian = chart.jacobian(points)
    square = (jacobian.mT @ jacobian).double()
    pull = (jacobian.mT @ (wanted - chart.frames(points)).unsqueeze(-1)).double()
    eye = torch.eye(square.shape[-1], dtype=square.dtype, device=square.device)
    size = square.diagonal(dim1=1, dim2=2).mean(1).clamp_min(torch.finfo(square.dtype).tiny)
    # the floor keeps JᵀJ invertible where a latent does not reach the frames
    weight = (damping.double().clamp_min(1e-10) * size)[:, None, None]
    return torch.linalg.solve(square + weight * eye, pull).squeeze(-1).to(points.dtype)
