"""The latent models. This package knows only torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor

from harness.models.base import LatentModel, Latents, Loss, Networks
from harness.models.beta_vae import BetaVAE
from harness.models.cite_vae import CiteVAE
from harness.models.discrepancy_vae import DiscrepancyVAE
from harness.models.mechanisms import FamilyOptions
from harness.models.perturbed_vae import PerturbedVAE
from harness.models.supervised import Supervised

__all__ = ["FOLLOWED", "LatentModel", "Latents", "Loss", "Networks", "build_model"]

#: Pairings whose rows go from each time to the next: those of one cell, and a time course put together from cells.
FOLLOWED = ("true", "drawn")

_LIKELIHOOD_FIELDS = ("likelihood", "likelihood_variance")
_NETWORK_FIELDS = tuple(entry.name for entry in fields(Networks) if entry.name not in _LIKELIHOOD_FIELDS)
_DISCREPANCY_FIELDS = (
    "latent_dim",
    "kl",
    "discrepancy",
    "discrepancy_over",
    "bandwidth",
    "temperature",
    "prediction_temperature",
    "sparsity",
)
_CAUSAL_FIELDS = ("posterior", "covariance", "kl_responsive", "kl_invariant", "sparsity")
_FAMILY_FIELDS = ("mechanisms", "targets", "targets_per_perturbation", "intervention", "lagged")


def build_model(
    described: Mapping[str, Any],
    *,
    shape: tuple[int, ...],
    perturbations: int,
    targets: Tensor | None,
    columns: tuple[int, int] | None = None,
) -> LatentModel:
    """Make the model a study file describes, its parameters drawn from torch's global generator.

    Parameters
    ----------
    described
        A model's fields as the study file names them, ``responsive_dim`` resolved to an integer and ``pairing`` to what
        the data offer (``auto``, where nobody did, stands for true pairs).
    shape
        Shape of one frame.
    perturbations
        p, the length of u.
    targets : (p, d_true) bool
        Known targets, or None.
    columns
        Columns of the true responsive and invariant latents, for a supervised model; None where there is no truth.

    Raises
    ------
    ValueError
        If the model cannot be built on such data; one sentence saying what would do.
    """
    if described["kind"] == "supervised":
        if columns is None:
            raise ValueError(
                "kind: supervised learns from true latents, which these data do not have; use another kind"
            )
        return Supervised(shape, Networks(**_networks_of(described), likelihood_variance=1.0), columns=columns)
    likelihood = {name: described[name] for name in _LIKELIHOOD_FIELDS}
    networks = Networks(**_networks_of(described), **likelihood)
    if described["kind"] == "beta_vae":
        return BetaVAE(shape, networks, latent_dim=described["latent_dim"], kl=described["kl"])
    if described["kind"] == "discrepancy_vae":
        own = {name: described[name] for name in _DISCREPANCY_FIELDS}
        return DiscrepancyVAE(shape, networks, perturbations=perturbations, kl_start=described["kl_warmup"], **own)
    pairing = described["pairing"]
    followed = pairing in (*FOLLOWED, "auto")
    chosen = {name: described[name] for name in _FAMILY_FIELDS if name in described}
    if not followed and "lagged" in chosen:
        chosen["lagged"] = "none"
    if chosen["targets"] == "auto":
        chosen["targets"] = "learned" if targets is None else "known"
    options = {name: described[name] for name in _CAUSAL_FIELDS}
    options |= {
        "family": FamilyOptions(**chosen),
        "d_v": described["responsive_dim"],
        "d_i": described["latent_dim"] - described["responsive_dim"],
        "perturbations": perturbations,
        "targets": targets,
        "alignment": described["alignment"]["weight"],
        "alignment_kind": _alignment_kind(described["alignment"]["kind"], pairing),
        "paired": pairing != "none",
    }
    if described["kind"] == "perturbed_vae":
        return PerturbedVAE(shape, networks, **options)
    if described["kind"] == "cite_vae":
        return CiteVAE(shape, networks, followed=followed, **options)
    known = "perturbed_vae, cite_vae, beta_vae, discrepancy_vae, supervised"
    raise ValueError(f"model {described['kind']!r} is unknown; known are {known}")


def _alignment_kind(asked: str, pairing: str) -> str:
    """How invariant parts are aligned: pair by pair only where the two cells of a pair are one."""
    if asked != "auto":
        return asked
    return "mean" if pairing in ("true", "auto") else "mmd"


def _networks_of(described: Mapping[str, Any]) -> dict[str, Any]:
    """What a model's fields say of encoder and decoder, the likelihood apart, which not every model has."""
    return {name: described[name] for name in _NETWORK_FIELDS}
