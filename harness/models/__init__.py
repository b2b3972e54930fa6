"""The latent models. This package knows only torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from harness.models.base import LatentModel, Latents, Loss
from harness.models.beta_vae import BetaVAE
from harness.models.cite_vae import CiteVAE
from harness.models.perturbed_vae import PerturbedVAE

__all__ = ["LatentModel", "Latents", "Loss", "build_model"]

_NETWORK_FIELDS = ("network", "hidden", "layers", "input_pca", "input_whiten", "likelihood_variance")
_CAUSAL_FIELDS = (*_NETWORK_FIELDS, "mechanisms", "posterior", "kl_responsive", "kl_invariant", "sparsity")


def build_model(
    fields: Mapping[str, Any],
    *,
    shape: tuple[int, ...],
    perturbations: int,
    targets: Tensor | None,
) -> LatentModel:
    """Make the model a study file describes, its parameters drawn from torch's global generator.

    Parameters
    ----------
    fields
        A model's fields as the study file names them, ``responsive_dim`` resolved to an integer.
    shape
        Shape of one frame.
    perturbations
        p, the length of u.
    targets : (p, d_true) bool
        Known targets, or None.

    Raises
    ------
    ValueError
        If the model cannot be built on such data; one sentence saying what would do.
    """
    common = {name: fields[name] for name in _NETWORK_FIELDS}
    if fields["kind"] == "beta_vae":
        return BetaVAE(shape, latent_dim=fields["latent_dim"], kl=fields["kl"], **common)
    options = {name: fields[name] for name in _CAUSAL_FIELDS}
    options |= {
        "d_v": fields["responsive_dim"],
        "d_i": fields["latent_dim"] - fields["responsive_dim"],
        "perturbations": perturbations,
        "targets": targets,
        "alignment": fields["alignment"]["weight"],
        "alignment_kind": fields["alignment"]["kind"],
        "paired": fields["pairing"] != "none",
    }
    if fields["kind"] == "perturbed_vae":
        return PerturbedVAE(shape, **options)
    if fields["kind"] == "cite_vae":
        return CiteVAE(shape, lagged=fields["lagged"], **options)
    raise ValueError(f"model {fields['kind']!r} is unknown; known are perturbed_vae, cite_vae, beta_vae")
