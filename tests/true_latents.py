"""Moments of true latents, for tests of what can be learned from them without any network."""

import itertools

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from harness.data.batch import Mechanisms, PerturbationData
from harness.data.latent_process import draw_mechanisms
from harness.models.mechanisms import FreeMechanisms, KnownTargets, MechanismFamily
from harness.models.mechanisms.base import LEAST_VARIANCE
from harness.models.moments import Context, Moments, latent_correlations, moments_of
from harness.models.posterior import Features, Invariant
from harness.models.refit import Candidates
from harness.process_spec import LinearGaussianSpec


def mechanisms_of_truth(targets, *, invariant=2, seed=0, **process) -> Mechanisms:
    """Mechanisms of control and p perturbations with the targets given, (p, d_v) bool."""
    spec = LinearGaussianSpec(responsive=targets.shape[1], invariant=invariant, **process)
    return draw_mechanisms(spec, targets, seed)


def population_moments(mechanisms: Mechanisms, frames: int = 3000) -> Moments:
    """Exact moments of (z_v, 0, z_i, 1) under linear-Gaussian mechanisms without a past, as if of ``frames`` cells."""
    e, d_v, d_i = mechanisms.graph_invariant.shape
    undo = torch.linalg.inv(torch.eye(d_v).double() - mechanisms.graph.double())
    from_i = undo @ mechanisms.graph_invariant.double()
    mean = (undo @ mechanisms.mean.double().unsqueeze(2)).squeeze(2)
    second = torch.zeros(e, 2 * d_v + d_i + 1, 2 * d_v + d_i + 1).double()
    noise = undo @ torch.diag_embed(mechanisms.variance.double()) @ undo.mT
    second[:, :d_v, :d_v] = noise + from_i @ from_i.mT + mean.unsqueeze(2) * mean.unsqueeze(1)
    second[:, :d_v, 2 * d_v : -1] = from_i
    second[:, 2 * d_v : -1, :d_v] = from_i.mT
    second[:, 2 * d_v : -1, 2 * d_v : -1] = torch.eye(d_i)
    second[:, :d_v, -1] = second[:, -1, :d_v] = mean
    second[:, -1, -1] = 1.0
    u = torch.cat([torch.zeros(1, e - 1), torch.eye(e - 1)]).double()
    return Moments(u, torch.full((e,), 1 / e).double(), second, torch.zeros(e).double(), frames)


def sampled_moments(data: PerturbationData) -> Moments:
    """Moments of a data set's true latents on its training split, as of a posterior without spread."""
    truth, rows = data.truth, data.splits["train"]
    d_v, d_i = truth.responsive.shape[1], truth.invariant.shape[1]
    contexts = []

    def exactly(values):
        return Features(values, torch.zeros(len(values), d_v, d_i), torch.zeros(len(values), d_v, d_v))

    for which in data.condition[rows].unique():
        row = rows[data.condition[rows] == which]
        for time, u in ((0, torch.zeros_like(data.u[0])), (1, data.u[row[0]])):
            frame = data.index[row, time]
            invariant = Invariant(truth.invariant[frame], torch.zeros(len(row), d_i, d_i))
            contexts.append(Context(u, exactly(truth.responsive[frame]), None, invariant))
    return moments_of(contexts)


def free_family(mechanisms: Mechanisms) -> FreeMechanisms:
    """The parameters of `FreeMechanisms` that give the mechanisms of control and p perturbations."""
    e, d_v, d_i = mechanisms.graph_invariant.shape
    family = FreeMechanisms(e - 1, d_v, d_i).double()
    _fill(family, mechanisms)
    with torch.no_grad():
        family.graph_change.copy_(mechanisms.graph[1:] - mechanisms.graph[0])
        family.graph_invariant_change.copy_(mechanisms.graph_invariant[1:] - mechanisms.graph_invariant[0])
    return family


def known_family(mechanisms: Mechanisms, targets: torch.Tensor) -> KnownTargets:
    """The parameters of `KnownTargets` that give mechanisms whose perturbations cut their targets' rows."""
    family = KnownTargets(targets, mechanisms.graph_invariant.shape[2]).double()
    _fill(family, mechanisms)
    return family


@torch.no_grad()
def _fill(family: FreeMechanisms | KnownTargets, mechanisms: Mechanisms) -> None:
    """Control's mechanisms, and the changes of means and variances."""
    raw = (mechanisms.variance.double() - LEAST_VARIANCE).expm1().log()  # softplus⁻¹
    family.graph.copy_(mechanisms.graph[0])
    family.graph_invariant.copy_(mechanisms.graph_invariant[0])
    for name, values in (("mean", mechanisms.mean.double()), ("raw_variance", raw)):
        getattr(family, name).copy_(values[0])
        getattr(family, f"{name}_change").copy_(values[1:] - values[0])


def mixed(moments: Moments, d_v: int, seed: int = 0) -> tuple[torch.Tensor, Moments]:
    """Features h = R z_v behind a random R (d_v, d_v), and their moments."""
    mixing = torch.randn(d_v, d_v, generator=torch.Generator().manual_seed(seed)).double()
    size = moments.second.shape[1]
    change = torch.block_diag(mixing, mixing, torch.eye(size - 2 * d_v).double())
    return mixing, moments._replace(second=change @ moments.second @ change.T)


def one(family: MechanismFamily, unmixing: torch.Tensor, d_i: int) -> Candidates:
    """A single candidate with C = 0."""
    return Candidates(unmixing.double()[None], torch.zeros(1, len(unmixing), d_i).double(), [family])


def mcc_with(candidates: Candidates, unmixing: torch.Tensor, moments: Moments) -> np.ndarray:
    """MCC (r,) of each candidate's latents with those of rows ``unmixing`` (d_v, d_v) of the features."""
    true = torch.cat([unmixing, torch.zeros(len(unmixing), candidates.across.shape[2]).double()], dim=1)
    maps = torch.cat([candidates.unmixing, candidates.across], dim=2)
    found = latent_correlations(moments, true.expand(len(maps), -1, -1), maps).numpy()
    return np.array([each[linear_sum_assignment(-each)].mean() for each in found])


def mcc_between(candidates: Candidates, moments: Moments) -> float:
    """Mean MCC over pairs of candidates."""
    maps = torch.cat([candidates.unmixing, candidates.across], dim=2)
    pairs = itertools.combinations(maps, 2)
    found = [latent_correlations(moments, a, b).numpy() for a, b in pairs]
    return float(np.mean([each[linear_sum_assignment(-each)].mean() for each in found]))
