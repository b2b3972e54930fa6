"""The conditions of the identifiability theorem, checked on linear-Gaussian mechanisms.

Jiang et al. 2026 (PerturbedVAE), Theorem 1 (ii)-(iv), as this project knows it. The conditions are sufficient, not
necessary: fewer than 2 d_v well-targeted environments can identify too, and condition (iv) has to be carried by the
model, not only met by the truth. A verdict says whether the theorem *applies*, not whether recovery succeeds.
Smoothness and invertibility of the mixing, condition (i), cannot be read off mechanisms and are not checked here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.evaluation.scores import Array, as_matrix

if TYPE_CHECKING:
    from torch import Tensor

    from harness.data.batch import Mechanisms

#: Numbers below this share of the largest count as zero: mechanisms come as float32.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Verdict:
    """Whether a condition holds, and by how much.

    Attributes
    ----------
    holds : the condition is met, up to ``TOLERANCE``.
    margin : between 0 (not met, or only just) and 1 (met as well as can be); each check says what it measures.
    reason : one sentence with the numbers behind it.
    """

    holds: bool
    margin: float
    reason: str


def check_conditions(
    mechanisms: Mechanisms | None, *, pairs: bool, environments: Sequence[str] = (), latents: Sequence[str] = ()
) -> dict[str, Verdict]:
    """Verdicts on ``environment_sufficiency``, ``intervention_sufficiency`` and ``alignment``.

    Parameters
    ----------
    mechanisms
        Of e environments, the first being control; a generator's or a fitted model's. None where the process is
        not linear-Gaussian: then only ``alignment`` is in the answer.
    pairs
        Whether each perturbed cell has a true control partner (``PerturbationData.pairs``).
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
    verdicts = {}
    if mechanisms is not None:
        verdicts["environment_sufficiency"] = environment_sufficiency(mechanisms)
        verdicts["intervention_sufficiency"] = intervention_sufficiency(
            mechanisms, environments=environments, latents=latents
        )
    verdicts["alignment"] = alignment(pairs)
    return verdicts


def natural_parameter_changes(mechanisms: Mechanisms) -> Array:
    """Δη(u) of every environment besides control, (e − 1, 2 d_v), without units.

    Theorem 1 (ii): Δη(u) = [ μ(u)/β(u) − μ(u0)/β(u0) ; −½ (1/β(u) − 1/β(u0)) ], with its two halves here multiplied
    by √β(u0) and β(u0). That leaves the rank as it is and the singular values independent of the latents' scales.

    Raises
    ------
    NonFiniteError, ValueError
        As ``check_conditions``.
    """
    mean, variance = _matrix(mechanisms.mean, "noise means"), _matrix(mechanisms.variance, "noise variances")
    if (variance <= 0).any():
        raise ValueError(f"noise variances must be positive, the smallest is {variance.min():.4g}")
    first = (mean / variance - mean[0] / variance[0])[1:] * np.sqrt(variance[0])
    second = -0.5 * (variance[0] / variance - 1.0)[1:]
    return np.concatenate([first, second], axis=1)


def environment_sufficiency(mechanisms: Mechanisms) -> Verdict:
    """Theorem 1 (ii): 2 d_v environments besides control whose Δη are linearly independent.

    Holds if and only if the (e − 1, 2 d_v) matrix of ``natural_parameter_changes`` has rank 2 d_v. The margin is its
    2 d_v-th singular value over its largest: 0 for too few environments, and close to 0 where environments differ
    so little in some direction that finite samples will not show it.
    """
    changes = natural_parameter_changes(mechanisms)
    environments, needed = changes.shape
    singular = np.linalg.svd(changes, compute_uv=False) if environments else np.zeros(0)
    largest = float(singular.max(initial=0.0))
    rank = int(np.count_nonzero(singular > TOLERANCE * largest)) if largest > 0 else 0
    margin = float(singular[needed - 1] / largest) if rank == needed else 0.0
    enough = "" if environments >= needed else f"; at least {needed} environments are needed"
    return Verdict(
        rank == needed,
        margin,
        f"natural-parameter changes of {environments} environments have rank {rank} of {needed}{enough}",
    )


def intervention_sufficiency(
    mechanisms: Mechanisms, *, environments: Sequence[str] = (), latents: Sequence[str] = ()
) -> Verdict:
    """Theorem 1 (iv): every responsive latent has an environment in which all its incoming weights vanish.

    Incoming weights of latent k are row k of L_vv and of L_vi, in any environment, control included. Lagged weights
    are not among them [our reading]: over time the conditions concern the law of z_t given z_{t−1}. With w_k(u) the
    largest |incoming weight| of latent k in environment u, and W the largest of all, latent k is left with
    r_k = min over u of w_k(u) / W. Holds if and only if every r_k is zero; the margin is 1 − max over k of r_k.
    A latent without parents in any environment satisfies the condition.
    """
    rows = [_tensor(mechanisms.graph, "graph weights"), _tensor(mechanisms.graph_invariant, "invariant graph weights")]
    weights = np.abs(np.concatenate(rows, axis=2)).max(axis=2, initial=0.0)  # (e, d_v)
    largest = float(weights.max(initial=0.0))
    if largest == 0.0:
        return Verdict(True, 1.0, "no responsive latent has an incoming weight in any environment")
    left = weights.min(axis=0) / largest
    worst = int(left.argmax())
    holds = bool(left[worst] <= TOLERANCE)
    if holds:
        return Verdict(True, 1.0 - float(left[worst]), f"each of {len(left)} responsive latents is cut somewhere")
    count = int(np.count_nonzero(left > TOLERANCE))
    where = int(weights[:, worst].argmin())
    environment = "control" if where == 0 else _name(environments, where - 1, f"environment {where}")
    reason = (
        f"{count} of {len(left)} responsive latents are cut in no environment; {_name(latents, worst, str(worst))} "
        f"comes closest in {environment}, keeping a weight of {weights[where, worst]:.3g}"
    )
    return Verdict(False, 1.0 - float(left[worst]), reason)


def alignment(pairs: bool) -> Verdict:
    """Theorem 1 (iii): pairs of a perturbed and a control cell that share their invariant noise.

    Checked is what the data offer; that the encoder's invariant part agrees on the pairs is the loss's business.
    The margin is 1 or 0.
    """
    if pairs:
        return Verdict(True, 1.0, "each perturbed cell has a control cell with the same invariant noise")
    return Verdict(False, 0.0, "controls are drawn at random, so that no pair shares its invariant noise")


def _name(names: Sequence[str], index: int, otherwise: str) -> str:
    return names[index] if index < len(names) else otherwise


def _tensor(values: Tensor, name: str) -> Array:
    """(e, rows, columns) as float64, checked to be finite."""
    array = np.asarray(values.detach().cpu(), dtype=np.float64)
    as_matrix(array.reshape(len(array), -1), name)
    return array


def _matrix(values: Tensor, name: str) -> Array:
    return as_matrix(values.detach().cpu().numpy(), name)
