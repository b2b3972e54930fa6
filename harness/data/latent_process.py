"""Ground truth: the linear-Gaussian latent process of the theorem, its conditions as knobs.

Responsive latents follow

    z_v := L_vi z_i + B z_v(before) + D tanh z_v(before) + L_vv z_v + n_v,    n_v ~ N(μ_v, diag β_v)

with ``L_vv`` strictly lower triangular; invariant latents are ``z_i ~ N(0, I)``. Each single perturbation acts on some
responsive latents, its targets: it changes their noise mean and variance and does to their incoming weights (rows of
L_vv, L_vi, B and D) what ``intervention`` says. All other rows are shared with control, unless ``background: redrawn``
gives every environment edges of its own. Every random choice has a stream of its own, so that turning one knob leaves
the others' draws as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from harness.data.batch import Mechanisms
from harness.data.seeding import generator
from harness.data_spec import AnyDataSpec
from harness.process_spec import LinearGaussianSpec

#: |coefficient| of a diagonal lagged matrix.
DIAGONAL_LAG = (0.3, 0.9)
#: Largest singular value of a dense lagged matrix: below 1, so that no direction grows over time.
DENSE_LAG = 0.7
#: The same of D: tanh flattens what it is given, and keeps any D from growing.
NONLINEAR_LAG = 1.4


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


def make_design(spec: AnyDataSpec, names: tuple[str, ...]) -> Design:
    """Lay out perturbations, held-out doubles and splits.

    Parameters
    ----------
    spec
        Numbers of environments, doubles and cells, and the seed; a linear-Gaussian process says how many latents each
        perturbation acts on, and on how many, m, of the d_v any does (else 1 and d_v).
    names
        Names of the d_v responsive latents; perturbation k acts on latent ``k % m`` and those that follow it, going
        round, and is named after the first. Members of a double differ in the first.
    """
    assert isinstance(spec.seed, int), "the plan resolves data.seed: per_trial"
    random = generator(spec.seed, "design")
    p, d_v = spec.environments, len(names)
    each, m = 1, d_v
    if isinstance(spec.process, LinearGaussianSpec):
        each, m = spec.process.targets_per_perturbation, spec.process.targetable
    perturbations = tuple(names[k % m] if k < m else f"{names[k % m]}_{k // m + 1}" for k in range(p))
    targets = torch.zeros(p, d_v, dtype=torch.bool)
    for following in range(each):
        targets[torch.arange(p), (torch.arange(p) + following) % m] = True

    pairs = [(a, b) for a, b in combinations(range(p), 2) if a % m != b % m]
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


class _Incoming(NamedTuple):
    """Weights into the d_v responsive latents, of one environment or (first dimension) of several.

    Attributes
    ----------
    graph, graph_invariant, lagged, lagged_tanh : (d_v, ·) L_vv, L_vi, B and D; zeros where the process has none.
    """

    graph: Tensor
    graph_invariant: Tensor
    lagged: Tensor
    lagged_tanh: Tensor


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

    Notes
    -----
    Of the lagged part, ``diagonal`` draws B with distinct coefficients between 0.3 and 0.9, ``dense`` B with largest
    singular value 0.7, and ``nonlinear`` no B but D, with largest singular value 1.4: a smooth, bounded function of the
    past. ``intervention: soft`` keeps which edges a target has and draws their weights anew, those of its lagged row
    too: a diagonal coefficient from [0.3, 0.9], another row in a new direction of the same length.
    """
    random = generator(seed, "mechanisms")
    p, d_v = targets.shape
    edges = _edges(spec, random)
    lagged, lagged_tanh = _lagged(spec, random, seed)
    shift = _uniform((p, d_v), spec.mean_shift, random) * _signs((p, d_v), random)
    low, high = (torch.tensor(v).log().item() for v in spec.variance_range)
    factor = _uniform((p, d_v), (low, high), random).exp()

    shared = _Incoming(*edges, lagged, lagged_tanh)
    every = _Incoming(*(part.expand(p + 1, -1, -1) for part in shared))
    if spec.background == "redrawn":
        own = [_edges(spec, generator(seed, "background", k)) for k in range(p)]
        graphs, graphs_invariant = (torch.stack(parts) for parts in zip(edges, *own, strict=True))
        every = every._replace(graph=graphs, graph_invariant=graphs_invariant)
    hit = torch.cat([torch.zeros(1, d_v, dtype=torch.bool), targets])
    incoming = _intervened(spec, every, hit, seed)
    zero, one = torch.zeros(1, d_v), torch.ones(1, d_v)
    shifted = hit & (spec.changes != "variance")
    scaled = hit & (spec.changes != "mean")
    return Mechanisms(
        graph=incoming.graph,
        graph_invariant=incoming.graph_invariant,
        lagged=incoming.lagged,
        mean=torch.cat([zero, shift]) * shifted,
        variance=torch.where(scaled, torch.cat([one, factor]), 1.0),
        lagged_tanh=incoming.lagged_tanh if spec.lagged == "nonlinear" else None,
    )


def _edges(spec: LinearGaussianSpec, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """L_vv (d_v, d_v), strictly lower triangular, and L_vi (d_v, d_i) of one environment."""

    def weights(rows: int, columns: int) -> Tensor:
        size = _uniform((rows, columns), spec.edge_range, random)
        present = torch.rand(rows, columns, generator=random) < spec.edge_density
        return size * _signs((rows, columns), random) * present

    d_v, d_i = spec.responsive, spec.invariant
    graph = weights(d_v, d_v).tril(-1)
    # d_i parents share the weight that one parent would carry, so that z_v is not swamped by z_i
    return graph, weights(d_v, d_i) / d_i**0.5


def _lagged(spec: LinearGaussianSpec, random: torch.Generator, seed: int) -> tuple[Tensor, Tensor]:
    """B and D, (d_v, d_v) each."""
    d_v = spec.responsive
    none = torch.zeros(d_v, d_v)
    if spec.lagged == "diagonal":
        return torch.diag(torch.linspace(*DIAGONAL_LAG, d_v)[torch.randperm(d_v, generator=random)]), none
    if spec.lagged == "dense":
        drawn = torch.randn(d_v, d_v, generator=random)
        return drawn * (DENSE_LAG / torch.linalg.matrix_norm(drawn, ord=2)), none
    if spec.lagged == "nonlinear":
        drawn = torch.randn(d_v, d_v, generator=generator(seed, "nonlinear lag"))
        return none, drawn * (NONLINEAR_LAG / torch.linalg.matrix_norm(drawn, ord=2))
    return none, none


def _intervened(spec: LinearGaussianSpec, incoming: _Incoming, hit: Tensor, seed: int) -> _Incoming:
    """Incoming weights of e environments (e, d_v, ·) once their targets ``hit`` (e, d_v) are acted on."""
    rows = hit[:, :, None]
    if spec.intervention == "cut":
        return _Incoming(*(part * ~rows for part in incoming))
    if spec.intervention == "none":
        return incoming
    random = generator(seed, "soft interventions")
    anew = _Incoming(
        graph=_weights_anew(incoming.graph, spec.edge_range, random),
        graph_invariant=_weights_anew(incoming.graph_invariant, spec.edge_range, random) / spec.invariant**0.5,
        lagged=_lagged_anew(spec, incoming.lagged, random),
        lagged_tanh=_directions_anew(incoming.lagged_tanh, random),
    )
    return _Incoming(*(torch.where(rows, new, old) for new, old in zip(anew, incoming, strict=True)))


def _weights_anew(old: Tensor, limits: tuple[float, float], random: torch.Generator) -> Tensor:
    """New weights for the edges that are there."""
    return _uniform(tuple(old.shape), limits, random) * _signs(tuple(old.shape), random) * (old != 0)


def _lagged_anew(spec: LinearGaussianSpec, old: Tensor, random: torch.Generator) -> Tensor:
    if spec.lagged == "diagonal":
        return _uniform(tuple(old.shape), DIAGONAL_LAG, random) * (old != 0)
    return _directions_anew(old, random)


def _directions_anew(old: Tensor, random: torch.Generator) -> Tensor:
    """Rows (e, d_v, d_v) in new directions, each as long as it was."""
    drawn = torch.randn(tuple(old.shape), generator=random)
    return drawn * (old.norm(dim=2, keepdim=True) / drawn.norm(dim=2, keepdim=True))


def mechanisms_of(spec: LinearGaussianSpec, design: Design, single: Mechanisms, seed: int) -> Mechanisms:
    """Mechanisms of each of a design's conditions, in their order: control, the p singles, the doubles.

    A double takes both members' changed rows; where both act on one latent, the second's row. The changes of the noise
    means add and the variance factors multiply. With ``interaction`` the mean of every target moves by that many
    shifts more, one shift drawn for each double. With ``background: redrawn`` a double has edges of its own too.

    Parameters
    ----------
    spec
        The process.
    design
        Conditions and targets.
    single : of control and the p singles
    seed
        The data seed.
    """
    doubles = [_double(spec, members, design.targets, single, seed) for members in design.members if len(members) == 2]
    every = [single, *doubles]
    tanh = [part.lagged_tanh for part in every if part.lagged_tanh is not None]
    return Mechanisms(
        graph=torch.cat([part.graph for part in every]),
        graph_invariant=torch.cat([part.graph_invariant for part in every]),
        lagged=torch.cat([part.lagged for part in every]),
        mean=torch.cat([part.mean for part in every]),
        variance=torch.cat([part.variance for part in every]),
        lagged_tanh=torch.cat(tanh) if tanh else None,
    )


def _double(
    spec: LinearGaussianSpec, members: tuple[int, ...], targets: Tensor, single: Mechanisms, seed: int
) -> Mechanisms:
    """Mechanisms of one double, as one environment."""
    graph, graph_invariant, lagged = single.graph[0], single.graph_invariant[0], single.lagged[0]
    tanh = None if single.lagged_tanh is None else single.lagged_tanh[0]
    if spec.background == "redrawn":
        graph, graph_invariant = _edges(spec, generator(seed, "background", *members))
    mean, variance = single.mean[0], single.variance[0]
    for k in members:
        if spec.intervention != "none":
            rows = targets[k][:, None]
            graph = torch.where(rows, single.graph[k + 1], graph)
            graph_invariant = torch.where(rows, single.graph_invariant[k + 1], graph_invariant)
            lagged = torch.where(rows, single.lagged[k + 1], lagged)
            if tanh is not None and single.lagged_tanh is not None:
                tanh = torch.where(rows, single.lagged_tanh[k + 1], tanh)
        mean = mean + (single.mean[k + 1] - single.mean[0])
        variance = variance * (single.variance[k + 1] / single.variance[0])
    if spec.interaction > 0:
        random = generator(seed, "interaction", *members)
        extra = spec.interaction * _uniform((1,), spec.mean_shift, random) * _signs((1,), random)
        mean = mean + extra * targets[list(members)].any(0)
    last = None if tanh is None else tanh[None]
    return Mechanisms(graph[None], graph_invariant[None], lagged[None], mean[None], variance[None], last)


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
    under_u = mechanisms_of(spec, design, single, seed)
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
    if mechanisms.lagged_tanh is not None:
        past = past + torch.einsum("nvw,nw->nv", mechanisms.lagged_tanh[which], before.tanh())
    eye = torch.eye(before.shape[1])
    solved = torch.linalg.solve_triangular(
        eye - mechanisms.graph[which], (noise + outside + past)[:, :, None], upper=False, unitriangular=True
    )
    return solved[:, :, 0]


def _uniform(shape: tuple[int, ...], limits: tuple[float, float], random: torch.Generator) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * torch.rand(shape, generator=random)


def _signs(shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    return 2.0 * torch.randint(0, 2, shape, generator=random) - 1.0
