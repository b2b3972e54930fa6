"""The theorem's conditions on a dataset's truth and on a fitted model: the seam from tensors to verdicts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from harness.data.batch import Mechanisms, PerturbationData
from harness.data.seeding import derive
from harness.evaluation.alignment import alignment
from harness.evaluation.conditions import Past, Verdict, check_conditions
from harness.evaluation.mixing import mixing
from harness.evaluation.scores import Array
from harness.latent_scoring import u_of
from harness.models import LatentModel, Latents
from harness.models.causal_vae import CausalVAE
from harness.models.scm import Mechanism, from_past

#: The theorem's conditions (i) to (iv), by name.
CONDITIONS = ("mixing", "environment_sufficiency", "alignment", "intervention_sufficiency")
#: Rows encoded at a time.
CHUNK = 1024


def conditions_of_truth(data: PerturbationData, seed: int) -> dict[str, Verdict]:
    """Verdicts on what a generator knows of its own data, taken on the test split; empty where nothing is known.

    Parameters
    ----------
    data
        Of its ``truth``, a missing mixing or missing mechanisms leave their conditions out.
    seed
        Governs the cells that are looked at.
    """
    truth = data.truth
    if truth is None:
        return {}
    rows = data.splits["test"]
    frames = data.index[rows, : data.seen]
    verdicts = {}
    if truth.mixing is not None:
        latents = torch.cat([truth.responsive, truth.invariant], dim=1)[frames[:, -1]]
        verdicts["mixing"] = mixing(truth.mixing, latents, seed=derive(seed, "mixing"))
    if truth.mechanisms is not None:
        verdicts |= check_conditions(
            truth.mechanisms,
            steps=frames.shape[1] - 1,
            environments=data.perturbations,
            latents=truth.responsive_names,
        )
    verdicts["alignment"] = alignment(
        truth.invariant[frames[:, -1]].numpy(),
        truth.invariant[frames[:, 0]].numpy(),
        data.condition[rows].numpy(),
        seed=derive(seed, "alignment"),
        offered=data.pairs == "true",
    )
    return verdicts


@torch.no_grad()
def conditions_of_model(model: LatentModel, data: PerturbationData, latents: Latents, seed: int) -> dict[str, Verdict]:
    """Verdicts on a fitted model, taken on the test split; empty for a model without mechanisms and blocks.

    Parameters
    ----------
    model
        On any device; it is put into evaluation mode.
    latents
        Of the test split.
    seed
        As in ``conditions_of_truth``.

    Notes
    -----
    A control frame is encoded on its own and the last frame on its own, whatever the model makes of trajectories:
    condition (iii) is about what the encoder finds in each.
    """
    if not isinstance(model, CausalVAE):
        return {}
    model.eval()
    device = next(model.parameters()).device
    joined = torch.cat([latents.responsive, latents.invariant], dim=1).to(device)
    blocks = [latents.responsive.shape[1], latents.invariant.shape[1]]
    verdicts = {
        "mixing": mixing(lambda z: model.to_frames(*z.split(blocks, dim=1)), joined, seed=derive(seed, "mixing"))
    }
    fitted = model.mechanisms(_environments(data).to(device))
    verdicts |= check_conditions(
        mechanisms_of(fitted),
        steps=data.index[:1, : data.seen].shape[1] - 1,
        past=_past_of(fitted),
        environments=data.perturbations,
    )
    rows = data.splits["test"]
    frames = data.index[rows, : data.seen]
    control = torch.zeros_like(data.u[rows])
    verdicts["alignment"] = alignment(
        _invariant(model, data, frames[:, -1], data.u[rows]),
        _invariant(model, data, frames[:, 0], control) if data.pairs == "true" else None,
        data.condition[rows].numpy(),
        seed=derive(seed, "alignment"),
    )
    return verdicts


def mechanisms_of(fitted: Mechanism) -> Mechanisms:
    """A fitted model's linear mechanisms, one row an environment, in the data's type and on the CPU."""
    names = ("graph", "graph_invariant", "lagged", "mean", "variance")
    return Mechanisms(**{name: getattr(fitted, name).detach().cpu() for name in names})


def _environments(data: PerturbationData) -> Tensor:
    """u of control and of each single perturbation, (p + 1, p)."""
    return torch.stack([u_of(name, data) for name in ("control", *data.perturbations)])


def _past_of(fitted: Mechanism) -> Past | None:
    """What the past contributes in each environment, nonlinear transitions included; None where there is no past."""
    if not bool(fitted.lagged.any()) and not bool(fitted.bent.any()):
        return None

    def past(before: Array) -> Array:
        driven = from_past(fitted, torch.from_numpy(before).to(fitted.lagged))
        return np.asarray(driven.cpu(), dtype=np.float64)

    return past


def _invariant(model: LatentModel, data: PerturbationData, frames: Tensor, u: Tensor) -> Array:
    """Invariant posterior means (n, d_i) of single frames, given by their index, under u."""
    device = next(model.parameters()).device
    found = []
    for index, under in zip(frames.split(CHUNK), u.split(CHUNK), strict=True):
        prepared = model.transform.prepare(data.as_float(data.frames[index]).to(device))
        found.append(model.encode(prepared[:, None], under.to(device)).invariant.float().cpu())
    return np.asarray(torch.cat(found), dtype=np.float64)
