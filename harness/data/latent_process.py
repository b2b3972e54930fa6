"""Ground truth: the linear-Gaussian latent process of the theorem, its conditions as knobs.

Responsive latents follow ``z_v := L_vi z_i + B z_v(before) + L_vv z_v + n_v`` with ``n_v ~ N(μ_v, diag β_v)`` and
``L_vv`` strictly lower triangular; invariant latents are ``z_i ~ N(0, I)``. Each single perturbation acts on one
responsive latent (in turn): it redraws that latent's noise mean and variance and, with ``intervention: cut``, removes
its incoming edges; all other rows are shared with control.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from harness.data.batch import Mechanisms
from harness.data.seeding import generator
from harness.data_spec import GeneratedData, LinearGaussianSpec


@dataclass(frozen=True)
class Design:
    """Which perturbations there are, what they act on, and how many cells each split has of each.

    Attributes
    ----------
    perturbations : p names.
    conditions : control, the p singles, then the doubles ``A+B``.
    members : for each condition, the indices of its perturbations.
    targets : (p, d_v) bool.
    environment : (n,) condition of each row.
    splits : name -> (k,) rows; ``train``, ``validation``, ``test`` and, where there are doubles, ``double``.
    """

    perturbations: tuple[str, ...]
    conditions: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    targets: Tensor
    environment: Tensor
    splits: dict[str, Tensor]

    @property
    def u(self) -> Tensor:
        """(n, p) float32 multi-hot perturbations of each row."""
        table = torch.zeros(len(self.conditions), len(self.perturbations))
        for row, members in enumerate(self.members):
            table[row, list(members)] = 1.0
        return table[self.environment]


@dataclass(frozen=True)
class LatentSample:
    """Latents of every row of a design.

    Attributes
    ----------
    responsive : (n, T, d_v); time 0 is the control twin, which shares the row's invariant latents.
    invariant : (n, d_i).
    mechanisms : of control and the p singles.
    """

    responsive: Tensor
    invariant: Tensor
    mechanisms: Mechanisms


def make_design(spec: GeneratedData, names: tuple[str, ...]) -> Design:
    """Lay out perturbations, held-out doubles and splits.

    Parameters
    ----------
    spec
        Numbers of environments, doubles and cells, and the seed.
    names
        Names of the d_v responsive latents; perturbation k acts on latent ``k % d_v`` and is named after it.
    """
    assert isinstance(spec.seed, int), "the plan resolves data.seed: per_trial"
    random = generator(spec.seed, "design")
    p, d_v = spec.environments, len(names)
    perturbations = tuple(names[k % d_v] if k < d_v else f"{names[k % d_v]}_{k // d_v + 1}" for k in range(p))
    targets = torch.zeros(p, d_v, dtype=torch.bool)
    targets[torch.arange(p), torch.arange(p) % d_v] = True

    pairs = [(a, b) for a, b in combinations(range(p), 2) if a % d_v != b % d_v]
    chosen = [pairs[k] for k in sorted(torch.randperm(len(pairs), generator=random)[: spec.doubles].tolist())]
    doubles = ["+".join(sorted((perturbations[a], perturbations[b]))) for a, b in chosen]
    conditions = ("control", *perturbations, *doubles)
    members: tuple[tuple[int, ...], ...] = ((), *((k,) for k in range(p)), *chosen)

    held_in, held_out = spread(spec.cells, p + 1), spread(spec.test_cells, p + 1)
    environment = torch.cat(
        [held_in, held_out, torch.arange(p + 1, len(conditions)).repeat_interleave(spec.double_cells)]
    )
    order = torch.randperm(spec.cells, generator=random)
    validating = round(spec.validation * spec.cells)
    end = spec.cells + spec.test_cells
    splits = {
        "train": order[validating:].sort().values,
        "validation": order[:validating].sort().values,
        "test": torch.arange(spec.cells, end),
    }
    if chosen:
        splits["double"] = torch.arange(end, len(environment))
    return Design(perturbations, conditions, members, targets, environment, splits)


def spread(cells: int, conditions: int) -> Tensor:
    """Condition of each of ``cells`` cells, as even as possible, (cells,) int64."""
    return torch.arange(cells) * conditions // cells


def draw_mechanisms(spec: LinearGaussianSpec, targets: Tensor, seed: int) -> Mechanisms:
    """Draw mechanisms of control and of each single perturbation.

    Parameters
    ----------
    spec
        The process and its knobs.
    targets : (p, d_v) bool
        Responsive latents each perturbation acts on.
    seed
        The data seed.
    """
    random = generator(seed, "mechanisms")
    d_v, d_i, p = spec.responsive, spec.invariant, len(targets)

    def weights(rows: int, columns: int) -> Tensor:
        size = _uniform((rows, columns), spec.edge_range, random)
        present = torch.rand(rows, columns, generator=random) < spec.edge_density
        return size * _signs((rows, columns), random) * present

    graph = weights(d_v, d_v).tril(-1)
    # d_i parents share the weight that one parent would carry, so that z_v is not swamped by z_i
    graph_invariant = weights(d_v, d_i) / d_i**0.5
    lagged = torch.zeros(d_v, d_v)
    if spec.lagged == "diagonal":
        lagged = torch.diag(torch.linspace(0.3, 0.9, d_v)[torch.randperm(d_v, generator=random)])
    elif spec.lagged == "dense":
        lagged = torch.randn(d_v, d_v, generator=random)
        lagged *= 0.7 / torch.linalg.matrix_norm(lagged, ord=2)  # stable: no direction grows over time

    shift = _uniform((p, d_v), spec.mean_shift, random) * _signs((p, d_v), random)
    low, high = (torch.tensor(v).log().item() for v in spec.variance_range)
    factor = _uniform((p, d_v), (low, high), random).exp()
    hit = torch.cat([torch.zeros(1, d_v, dtype=torch.bool), targets])
    keep = (~hit if spec.intervention == "cut" else torch.ones_like(hit)).float()[:, :, None]
    zero, one = torch.zeros(1, d_v), torch.ones(1, d_v)
    return Mechanisms(
        graph=graph * keep,
        graph_invariant=graph_invariant * keep,
        lagged=lagged * keep,
        mean=torch.cat([zero, shift]) * hit,
        variance=torch.where(hit, torch.cat([one, factor]), 1.0),
    )


def mechanisms_of(members: tuple[tuple[int, ...], ...], single: Mechanisms) -> Mechanisms:
    """Mechanisms of each condition: a double takes both members' changed rows, with no interaction.

    Where two members act on the same latent their shifts add and their variance factors multiply.

    Parameters
    ----------
    members
        For each of c conditions, indices of its perturbations.
    single : of control and the p singles
    """
    count = len(members)
    graph, graph_invariant, lagged, mean, variance = (
        value[:1].repeat(count, *[1] * (value.ndim - 1))
        for value in (single.graph, single.graph_invariant, single.lagged, single.mean, single.variance)
    )
    for row, perturbations in enumerate(members):
        for k in perturbations:
            for total, part in (
                (graph, single.graph),
                (graph_invariant, single.graph_invariant),
                (lagged, single.lagged),
            ):
                total[row] = torch.where(part[k + 1] == part[0], total[row], part[k + 1])
            mean[row] += single.mean[k + 1] - single.mean[0]
            variance[row] *= single.variance[k + 1] / single.variance[0]
    return Mechanisms(graph, graph_invariant, lagged, mean, variance)


def sample_process(spec: LinearGaussianSpec, design: Design, seed: int) -> LatentSample:
    """Draw every row's latents, with a control twin at time 0 that shares its invariant latents.

    Parameters
    ----------
    spec
        The process; ``spec.steps`` frames under u follow the control frame, so T = steps + 1.
    design
        Perturbations and rows.
    seed
        The data seed.

    Notes
    -----
    With ``lagged: none`` the twin's responsive noise is independent of the row's: a pair shares n_i and nothing else
    (Jiang et al. 2026, arXiv 2605.19343, Theorem 1, condition iii).
    """
    random = generator(seed, "latents")
    single = draw_mechanisms(spec, design.targets, seed)
    under_u = mechanisms_of(design.members, single)
    n, d_v = len(design.environment), spec.responsive
    invariant = torch.randn(n, spec.invariant, generator=random)
    control = torch.zeros(n, dtype=torch.int64)
    state = _step(single, control, invariant, torch.zeros(n, d_v), random)
    states = [state]
    for _ in range(spec.steps):
        state = _step(under_u, design.environment, invariant, state, random)
        states.append(state)
    return LatentSample(torch.stack(states, dim=1), invariant, single)


def _step(mechanisms: Mechanisms, which: Tensor, invariant: Tensor, before: Tensor, random: torch.Generator) -> Tensor:
    noise = mechanisms.mean[which] + mechanisms.variance[which].sqrt() * torch.randn(before.shape, generator=random)
    outside = torch.einsum("nvi,ni->nv", mechanisms.graph_invariant[which], invariant)
    past = torch.einsum("nvw,nw->nv", mechanisms.lagged[which], before)
    eye = torch.eye(before.shape[1])
    solved = torch.linalg.solve_triangular(
        eye - mechanisms.graph[which], (noise + outside + past)[:, :, None], upper=False, unitriangular=True
    )
    return solved[:, :, 0]


def _uniform(shape: tuple[int, ...], limits: tuple[float, float], random: torch.Generator) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * torch.rand(shape, generator=random)


def _signs(shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    return 2.0 * torch.randint(0, 2, shape, generator=random) - 1.0
