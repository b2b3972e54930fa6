"""The conditions of the identifiability theorem that can be read off linear-Gaussian mechanisms, and their verdicts.

Jiang et al. 2026 (PerturbedVAE), Theorem 1 (ii) and (iv), as this project knows it; condition (i) is in ``mixing.py``
and (iii) in ``alignment.py``. The conditions are sufficient, not necessary: fewer than 2 d_v well-targeted
environments can identify too, and condition (iv) has to be carried by the model, not only met by the truth. A verdict
says whether the theorem *applies*, not whether recovery succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.evaluation.scores import Array, as_matrix

if TYPE_CHECKING:
    from torch import Tensor

    from harness.data.batch import Mechanisms

#: Numbers below this share of the largest count as zero: mechanisms come as float32.
TOLERANCE = 1e-5
#: A context is usable if its natural parameters change by more than this share of the largest change.
USABLE = 0.01
#: Most latents, and most singular values, that a reason lists one by one.
LISTED = 8

#: What the past (e, d_v) contributes to each of e environments' latents, (e, d_v).
Past = Callable[[Array], Array]


@dataclass(frozen=True)
class Verdict:
    """Whether a condition holds, and by how much.

    Attributes
    ----------
    holds : the condition is met, up to the tolerance its check states.
    margin : between 0 (not met, or only just) and 1 (met as well as can be); each check says what it measures.
    reason : one sentence with the numbers behind it.
    """

    holds: bool
    margin: float
    reason: str


def check_conditions(
    mechanisms: Mechanisms,
    *,
    steps: int = 1,
    past: Past | None = None,
    environments: Sequence[str] = (),
    latents: Sequence[str] = (),
) -> dict[str, Verdict]:
    """Verdicts on ``environment_sufficiency`` and ``intervention_sufficiency``.

    Parameters
    ----------
    mechanisms
        Of e environments, the first being control; a generator's or a fitted model's.
    steps, past
        See ``natural_parameter_changes``.
    environments
        Names of the e − 1 environments after control, for the reasons.
    latents
        Names of the d_v responsive latents, for the reasons.

    Raises
    ------
    NonFiniteError
        NaN or infinity in a mechanism, which it names.
    ValueError
        A variance that is not positive.
    """
    return {
        "environment_sufficiency": environment_sufficiency(mechanisms, steps=steps, past=past),
        "intervention_sufficiency": intervention_sufficiency(mechanisms, environments=environments, latents=latents),
    }


def natural_parameter_changes(mechanisms: Mechanisms, *, steps: int = 1, past: Past | None = None) -> Array:
    """Δη of every context, (contexts, 2 d_v), without units.

    Theorem 1 (ii): Δη(u) = [ μ(u)/β(u) − μ(u0)/β(u0) ; −½ (1/β(u) − 1/β(u0)) ], with its two halves here multiplied
    by √β(u0) and β(u0). That leaves the rank as it is and the singular values independent of the latents' scales.

    Parameters
    ----------
    mechanisms
        Of e environments, the first being control.
    steps
        Frames under u after the control frame.
    past
        What the frame before contributes; None: ``mechanisms``' own lagged part.

    Returns
    -------
    Where nothing comes from the past the contexts are the e − 1 environments after control. Where something does, the
    law in question is that of z_t given z_{t−1}, z_i and u, and we take as contexts the pairs (u, t) with t from 1 to
    ``steps``, control included [our reading; the paper's is not known to us]: μ(u) is replaced by μ(u) + what
    z_{t−1} contributes, with z_{t−1} on the trajectory without noise, from control's at t = 0 and with z_i at its
    mean 0. The reference is control at t = 0. In this reading time adds to the first half of Δη only: variances follow
    u alone, so that at least d_v environments have to change them. Rows go by time, then by environment.

    Raises
    ------
    NonFiniteError, ValueError
        As ``check_conditions``.
    """
    mean, variance = _matrix(mechanisms.mean, "noise means"), _matrix(mechanisms.variance, "noise variances")
    if (variance <= 0).any():
        raise ValueError(f"noise variances must be positive, the smallest is {variance.min():.4g}")
    second = -0.5 * (variance[0] / variance - 1.0)
    reference, unit = mean[0] / variance[0], np.sqrt(variance[0])
    if past is None and not _has_past(mechanisms):
        return np.concatenate([(mean / variance - reference) * unit, second], axis=1)[1:]
    driven = _driven(mechanisms, steps, past or _own_past(mechanisms))
    rows = [np.concatenate([(at_time / variance - reference) * unit, second], axis=1) for at_time in driven]
    return np.concatenate(rows)


def environment_sufficiency(mechanisms: Mechanisms, *, steps: int = 1, past: Past | None = None) -> Verdict:
    """Theorem 1 (ii): 2 d_v contexts besides control whose Δη are linearly independent.

    Holds if and only if the matrix of ``natural_parameter_changes`` has rank 2 d_v. The margin is its 2 d_v-th
    singular value over its largest: 0 for too few contexts, and close to 0 where they differ so little in some
    direction that finite samples will not show it. The reason counts the contexts whose Δη is not negligible
    (longer than ``USABLE`` of the longest).

    Parameters
    ----------
    mechanisms, steps, past
        See ``natural_parameter_changes``.

    Raises
    ------
    NonFiniteError, ValueError
        As ``check_conditions``.
    """
    changes = natural_parameter_changes(mechanisms, steps=steps, past=past)
    contexts, needed = changes.shape
    singular = np.asarray(np.linalg.svd(changes, compute_uv=False), dtype=np.float64) if contexts else np.zeros(0)
    largest = float(singular.max(initial=0.0))
    rank = int(np.count_nonzero(singular > TOLERANCE * largest)) if largest > 0 else 0
    margin = float(singular[needed - 1] / largest) if rank == needed else 0.0
    lengths = np.linalg.norm(changes, axis=1)
    usable = int(np.count_nonzero(lengths > USABLE * lengths.max(initial=0.0)))
    environments = len(mechanisms.mean) - 1
    what = f"{contexts} environments"
    if contexts != environments:
        times = "t = 1" if steps == 1 else f"t = 1 to {steps}"
        what = f"{contexts} contexts ({environments} environments and control, each at {times})"
    reason = f"natural-parameter changes of {what}, {usable} of them usable, have rank {rank} of {needed}"
    if rank:
        reason += f" and singular values {_numbers(singular[:rank])}"
    if usable < needed:
        reason += f"; at least {needed} usable ones are needed"
    return Verdict(rank == needed, margin, reason)


def intervention_sufficiency(
    mechanisms: Mechanisms, *, environments: Sequence[str] = (), latents: Sequence[str] = ()
) -> Verdict:
    """Theorem 1 (iv): every responsive latent has an environment in which all its incoming weights vanish.

    Incoming weights of latent k are row k of L_vv and of L_vi, in any environment, control included. Lagged weights
    are not among them [our reading]: over time the conditions concern the law of z_t given z_{t−1}. With w_k(u) the
    largest |incoming weight| of latent k in environment u, and W the largest of all, latent k is left with
    r_k = min over u of w_k(u) / W. Holds if and only if every r_k is zero; the margin is 1 − max over k of r_k.
    A latent without parents in any environment satisfies the condition.

    Parameters
    ----------
    mechanisms, environments, latents
        See ``check_conditions``.

    Returns
    -------
    The reason names, for each latent, the environment that cuts it; or the latents that are never cut, worst first,
    each with the environment that comes closest and the weight it leaves.

    Raises
    ------
    NonFiniteError
        NaN or infinity in a weight.
    """
    rows = [_tensor(mechanisms.graph, "graph weights"), _tensor(mechanisms.graph_invariant, "invariant graph weights")]
    weights = np.abs(np.concatenate(rows, axis=2)).max(axis=2, initial=0.0)  # (e, d_v)
    largest = float(weights.max(initial=0.0))
    if largest == 0.0:
        return Verdict(True, 1.0, "no responsive latent has an incoming weight in any environment")
    left, where = weights.min(axis=0) / largest, weights.argmin(axis=0)
    named = [latents[k] if k < len(latents) else f"latent {k + 1}" for k in range(len(left))]
    places = ["control", *environments, *(f"environment {e}" for e in range(len(environments) + 1, len(weights)))]
    margin = 1.0 - float(left.max())
    uncut = [int(k) for k in np.argsort(-left, kind="stable") if left[k] > TOLERANCE]
    if not uncut:
        cuts = [
            f"{named[k]} in {places[where[k]]}" if weights[:, k].any() else f"{named[k]} has no parents"
            for k in range(len(left))
        ]
        return Verdict(True, margin, f"each of {len(left)} responsive latents is cut somewhere: {_list(cuts)}")
    worst = [f"{named[k]} keeps a weight of {weights[where[k], k]:.3g} in {places[where[k]]}" for k in uncut]
    reason = f"{len(uncut)} of {len(left)} responsive latents are cut in no environment: {_list(worst)}"
    return Verdict(False, margin, f"{reason} (the largest weight of all is {largest:.3g})")


def _has_past(mechanisms: Mechanisms) -> bool:
    parts = (mechanisms.lagged, mechanisms.lagged_tanh)
    return any(part is not None and bool(part.any()) for part in parts)


def _own_past(mechanisms: Mechanisms) -> Past:
    lagged = _tensor(mechanisms.lagged, "lagged weights")
    bent = None if mechanisms.lagged_tanh is None else _tensor(mechanisms.lagged_tanh, "lagged tanh weights")

    def past(before: Array) -> Array:
        driven: Array = np.einsum("evw,ew->ev", lagged, before)
        return driven if bent is None else driven + np.einsum("evw,ew->ev", bent, np.tanh(before))

    return past


def _driven(mechanisms: Mechanisms, steps: int, past: Past) -> list[Array]:
    """μ(u) + what the past contributes, (e, d_v), at each time from 1 to ``steps`` of the trajectory without noise."""
    mean, graph = _matrix(mechanisms.mean, "noise means"), _tensor(mechanisms.graph, "graph weights")
    system = np.eye(graph.shape[1]) - graph
    start = np.linalg.solve(system[0], mean[0])
    state, driven = np.broadcast_to(start, mean.shape).copy(), []
    for _ in range(steps):
        driven.append(mean + past(state))
        state = np.linalg.solve(system, driven[-1][:, :, None])[:, :, 0]
    return driven


def _numbers(values: Array) -> str:
    """Up to ``LISTED`` numbers, or the ends of more."""
    texts = [f"{value:.2g}" for value in values]
    return ", ".join(texts) if len(texts) <= LISTED else f"{texts[0]} to {texts[-1]}"


def _list(items: Sequence[str]) -> str:
    more = len(items) - LISTED
    return ", ".join(items[:LISTED]) + (f" and {more} more" if more > 0 else "")


def _tensor(values: Tensor, name: str) -> Array:
    """(e, rows, columns) as float64, checked to be finite."""
    array = np.asarray(values.detach().cpu(), dtype=np.float64)
    as_matrix(array.reshape(len(array), -1), name)
    return array


def _matrix(values: Tensor, name: str) -> Array:
    return as_matrix(values.detach().cpu().numpy(), name)
