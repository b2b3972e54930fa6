"""What a trained model says of genes: the program behind each latent, what perturbations do to it, and the graph.

A latent's program is the decoder's Jacobian, averaged over cells: by how much the expression of each gene changes as
the latent rises by one standard deviation, all other latents held fixed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import jvp, vmap

from harness.data.batch import PerturbationData
from harness.data.seeding import derive, generator
from harness.errors import UserError
from harness.evaluation.graph import in_sds
from harness.latent_scoring import u_of
from harness.models import LatentModel
from harness.models.causal_vae import CausalVAE
from harness.models.discrepancy_vae import DiscrepancyVAE
from harness.models.supervised import NO_DECODER, Supervised
from harness.scoring import target_scores
from harness.trial_model import Fitted

#: Most cells of either kind that are averaged over, drawn at random where there are more.
MOST_CELLS = 2000
#: Most numbers of a Jacobian that are held at a time.
HELD = 20_000_000
#: Cells encoded at a time.
CHUNK = 1024

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Programs:
    """Latents of a model in terms of genes and perturbations.

    Attributes
    ----------
    genes : g names.
    latents : d names, responsive before invariant.
    responsive : d_v, how many of them are responsive.
    spread : (d,) sd of each latent among control cells of the training split, as the model predicts their latents.
    control, perturbed : (d, g) change of expression, in units of the data, as a latent rises by one such sd; mean over
        control and over perturbed cells of the training split.
    perturbations : p names.
    shifts : (p, d_v) mean of each responsive latent under a perturbation less that under none, from the same control
        cells, in such sds. None for a model that does not know perturbations.
    targets : (p, d_v) in [0, 1], how surely a perturbation acts on a latent. None where the model has no targets.
    graph : (d_v, d_v) learned control graph, row k the weights into latent k, in sds of the latents among test cells,
        as ``identifiability/graph_f1`` reads it. None where the model has none.
    cells : cells averaged over, ``control`` and ``perturbed``.
    """

    genes: tuple[str, ...]
    latents: tuple[str, ...]
    responsive: int
    spread: Array
    control: Array
    perturbed: Array
    perturbations: tuple[str, ...]
    shifts: Array | None
    targets: Array | None
    graph: Array | None
    cells: dict[str, int]


def programs_of(fitted: Fitted) -> Programs:
    """Read the programs of a trained model.

    Parameters
    ----------
    fitted
        As `harness.trial_model.load_fitted` gives it, with all its data.

    Raises
    ------
    UserError
        If the data have no genes, or the model no decoder.
    """
    model, data = fitted.model, fitted.data
    if isinstance(model, Supervised):
        raise UserError(f"{NO_DECODER}; choose a trial of another model")
    if len(data.frame_shape) != 1:
        raise UserError(
            f"trial {fitted.spec.trial_id} was trained on images, whose pixels are no genes; choose a trial on cells"
        )
    train = data.splits["train"]
    chosen = {
        "control": _some(data.control_rows("train"), "control"),
        "perturbed": _some(train[data.condition[train] != 0], "perturbed"),
    }
    latents = {name: _encoded(fitted, rows) for name, rows in chosen.items()}
    drawn = _drawn(fitted, chosen["control"], "control")
    spread = (latents["control"] if drawn is None else drawn).std(dim=0)
    responsive = model.d_v if isinstance(model, CausalVAE) else latents["control"].shape[1]
    targets = target_scores(model)
    return Programs(
        genes=data.feature_names or tuple(f"x{k}" for k in range(data.frame_shape[0])),
        latents=latent_names(responsive, len(spread) - responsive),
        responsive=responsive,
        spread=_array(spread),
        control=_array(mean_jacobian(model, latents["control"], spread)),
        perturbed=_array(mean_jacobian(model, latents["perturbed"], spread)),
        perturbations=data.perturbations,
        shifts=None if drawn is None else _array(_shifts(fitted, chosen["control"], drawn, spread)[:, :responsive]),
        targets=None if targets is None or len(targets) != len(data.perturbations) else _array(targets),
        graph=_graph(fitted, responsive),
        cells={name: len(rows) for name, rows in chosen.items()},
    )


def latent_names(responsive: int, invariant: int) -> tuple[str, ...]:
    """``responsive_1``, …, ``invariant_1``, …: columns of ``obsm`` in a prediction, counted from one."""
    return (
        *(f"responsive_{k + 1}" for k in range(responsive)),
        *(f"invariant_{k + 1}" for k in range(invariant)),
    )


@torch.no_grad()
def mean_jacobian(model: LatentModel, latents: Tensor, scale: Tensor) -> Tensor:
    """The decoder's Jacobian, each latent in units of ``scale``, averaged over cells.

    Forward mode, all latents at once: one pass of the decoder for each, whatever the number of genes.

    Parameters
    ----------
    latents : (n, d), responsive before invariant
    scale : (d,)

    Returns
    -------
    (d, features), in units of float frames
    """

    def decoded(z: Tensor) -> Tensor:
        return decode(model, z)

    features = int(np.prod(model.transform.shape))
    total = latents.new_zeros(latents.shape[1], features)
    directions = torch.diag(scale)
    for part in latents.split(max(1, HELD // (latents.shape[1] * features))):

        def along(direction: Tensor, z: Tensor = part) -> Tensor:
            changed: Tensor = jvp(decoded, (z,), (direction.expand_as(z),))[1]
            return changed.sum(dim=0)

        total += vmap(along)(directions)
    return total / len(latents)


def decode(model: LatentModel, latents: Tensor) -> Tensor:
    """Frames (n, features) of latents (n, d), responsive before invariant."""
    if isinstance(model, CausalVAE):
        return model.to_frames(*latents.split([model.d_v, model.d_i], dim=1))
    return model.likelihood.mean(model.transform, model.decoder(latents))


def _some(rows: Tensor, purpose: str) -> Tensor:
    """At most `MOST_CELLS` of some rows."""
    if len(rows) <= MOST_CELLS:
        return rows
    return rows[torch.randperm(len(rows), generator=generator(0, "programs", purpose))[:MOST_CELLS].sort().values]


@torch.no_grad()
def _encoded(fitted: Fitted, rows: Tensor) -> Tensor:
    """(n, d) posterior means of rows, responsive before invariant; once where both blocks are the same latents."""
    model, data = fitted.model, fitted.data
    found = []
    for part in rows.split(CHUNK):
        latents = model.encode(_prepared(model, data, data.index[part, : data.seen]), data.u[part])
        found.append(torch.cat(latents, dim=1) if isinstance(model, CausalVAE) else latents.responsive)
    return torch.cat(found).float()


def _prepared(model: LatentModel, data: PerturbationData, frames: Tensor) -> Tensor:
    """Prepared frames (k, T, ...) from their index (k, T)."""
    return model.transform.prepare(data.frames[frames.flatten()]).unflatten(0, frames.shape)


@torch.no_grad()
def _drawn(fitted: Fitted, control: Tensor, perturbation: str) -> Tensor | None:
    """(n, d) latents predicted from control rows under a perturbation; None for a model that knows none.

    The noise is the same under all of them, so that a difference is what the perturbation does.
    """
    model, data = fitted.model, fitted.data
    frames = model.transform.prepare(data.frames[data.last_frames(control)])
    u = u_of(perturbation, data).expand(len(frames), -1)
    random = generator(derive(0, "programs", "latents"), "noise")
    if isinstance(model, DiscrepancyVAE):
        return model.solve(model.infer(frames).sample(random) + model.shifts(u)).float()
    predicted = model.predict_latents(frames, u, data.index.shape[1] - 1, random)
    return None if predicted is None else torch.cat(predicted, dim=1).float()


def _shifts(fitted: Fitted, control: Tensor, drawn: Tensor, spread: Tensor) -> Tensor:
    """(p, d) mean change under each perturbation, in sds."""

    def means() -> Iterator[Tensor]:
        for name in fitted.data.perturbations:
            under = _drawn(fitted, control, name)
            assert under is not None
            yield under.mean(dim=0)

    changed = torch.stack(list(means())) - drawn.mean(dim=0)
    return changed / spread.clamp_min(torch.finfo(spread.dtype).tiny)


def _graph(fitted: Fitted, responsive: int) -> Array | None:
    graph = fitted.model.learned_graph()
    if graph is None:
        return None
    spread = _encoded(fitted, fitted.data.splits["test"]).std(dim=0)[:responsive]
    return in_sds(graph.numpy(), spread.numpy())


def _array(values: Tensor) -> Array:
    return np.asarray(values.detach(), dtype=np.float64)
