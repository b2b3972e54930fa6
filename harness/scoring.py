"""From a trained model and its data to scores: the seam between tensors of a trial and arrays of evaluation."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.data.batch import Mechanisms, PerturbationData
from harness.data.seeding import derive, generator
from harness.evaluation.baselines import CannotPredict
from harness.evaluation.conditions import check_conditions
from harness.evaluation.identifiability import graph_f1, identifiability_scores
from harness.evaluation.prediction import OodResult, evaluate_ood
from harness.files import write_atomic
from harness.models import LatentModel, Latents
from harness.models.causal_vae import CausalVAE

#: Most rows of the test split kept in ``latents.npz``.
KEPT_LATENTS = 2000
#: Most training cells of a condition the baselines' means are taken over; bounds memory for images.
BASELINE_CELLS = 500

Array = NDArray[np.float64]


@dataclass
class Scored:
    """Metrics and baselines by their MLflow names, and warnings."""

    metrics: dict[str, float] = field(default_factory=dict)
    baselines: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    excluded: dict[str, str] = field(default_factory=dict)


@torch.no_grad()
def encode_split(model: LatentModel, data: PerturbationData, prepared: Tensor, split: str) -> Latents:
    """Posterior means of a split's rows, on the CPU."""
    model.eval()
    responsive, invariant = [], []
    for rows in data.splits[split].split(1024):
        found = model.encode(prepared[data.index[rows].to(prepared.device)], data.u[rows].to(prepared.device))
        responsive.append(found.responsive.float().cpu())
        invariant.append(found.invariant.float().cpu())
    return Latents(torch.cat(responsive), torch.cat(invariant))


def score_identifiability(
    data: PerturbationData, latents: Latents, untrained: Latents, graph: Tensor | None, seed: int
) -> Scored:
    """Scores of the test split's latents against the truth, and those of the same encoder before training.

    Parameters
    ----------
    latents, untrained
        Of the test split, trained and at initialisation.
    graph : (d_v, d_v)
        Learned control graph, or None.
    seed
        Governs the halves on which matching and regressors are fitted and scored.
    """
    truth = data.truth
    if truth is None:
        return Scored()
    frames = data.index[data.splits["test"], -1]
    true_v, true_i = truth.responsive[frames].numpy(), truth.invariant[frames].numpy()

    found, before = (
        identifiability_scores(
            block.responsive.numpy(),
            block.invariant.numpy(),
            true_v,
            true_i,
            responsive_names=truth.responsive_names,
            invariant_names=truth.invariant_names,
            periodic=truth.periodic,
            seed=derive(seed, "halves"),
        )
        for block in (latents, untrained)
    )
    scored = Scored({f"identifiability/{name}": value for name, value in found.values.items()})
    for name in ("mcc", "r2_responsive", "r2_invariant"):
        scored.metrics[f"identifiability/{name}_untrained"] = before.values[name]
    if graph is not None and truth.mechanisms is not None:
        scored.metrics["identifiability/graph_f1"] = graph_f1(
            graph.cpu().numpy(),
            truth.mechanisms.graph[0].numpy(),
            found.assignment,
            learned_scale=latents.responsive.std(0).numpy(),
            true_scale=true_v.std(0),
        )
    scored.warnings += list(found.warnings)
    return scored


def write_latents(path: Path, data: PerturbationData, latents: Latents) -> None:
    """Keep the test split's latents, and the truth where there is one, for figures and agreement between seeds."""
    rows = data.splits["test"][:KEPT_LATENTS]
    arrays = {
        "responsive": latents.responsive[:KEPT_LATENTS].numpy(),
        "invariant": latents.invariant[:KEPT_LATENTS].numpy(),
        "condition": data.condition[rows].numpy(),
    }
    if data.truth is not None:
        frames = data.index[rows, -1]
        arrays["responsive_true"] = data.truth.responsive[frames].numpy()
        arrays["invariant_true"] = data.truth.invariant[frames].numpy()
        arrays["names_responsive"] = np.array(data.truth.responsive_names)
        arrays["names_invariant"] = np.array(data.truth.invariant_names)
        arrays["periodic"] = np.array(data.truth.periodic, dtype=np.str_)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())


def score_ood(model: LatentModel, data: PerturbationData, cells: int, seed: int) -> Scored:
    """OOD scores of every held-out split, beside the baselines on the same conditions.

    The model starts from control cells of the training split: predictions may use what training saw, and nothing of
    the conditions they are compared with.

    Parameters
    ----------
    cells
        Most cells of a condition.
    seed
        Governs the model's draws and the subsampling of cells.
    """
    scored = Scored()
    train = _cells_by_condition(data, "train", BASELINE_CELLS)
    control = train["control"]
    predictor = Predictor(model, data, seed)
    for split in data.ood:
        result = evaluate_ood(
            _cells_by_condition(data, split, cells),
            train,
            control,
            predictor,
            max_cells=cells,
            seed=derive(seed, split),
        )
        _collect(scored, split, result)
    return scored


@torch.no_grad()
def score_conditions(model: LatentModel, data: PerturbationData) -> Scored:
    """Verdicts on the theorem's conditions, on the generator (``_true``) and on the fitted model (``_learned``)."""
    scored = Scored()
    sides: dict[str, Mechanisms | None] = {}
    if data.truth is not None:
        sides["true"] = data.truth.mechanisms
    if isinstance(model, CausalVAE):
        p = len(data.perturbations)
        u = torch.cat([torch.zeros(1, p), torch.eye(p)]).to(next(model.parameters()).device)
        sides["learned"] = Mechanisms(*(part.cpu() for part in model.mechanisms(u)))
    for side, mechanisms in sides.items():
        for name, verdict in check_conditions(mechanisms, pairs=data.pairs).items():
            if side == "learned" and name == "alignment":
                continue  # what the data offer, not what was learned
            scored.metrics[f"conditions/{name}/holds_{side}"] = float(verdict.holds)
            scored.metrics[f"conditions/{name}/margin_{side}"] = verdict.margin
    return scored


def _collect(scored: Scored, split: str, result: OodResult) -> None:
    for name, value in {**result.metrics, **result.floors}.items():
        scored.metrics[f"ood/{split}/{name}"] = value
    for baseline, metrics in result.baselines.items():
        for name, value in metrics.items():
            scored.baselines[f"baseline/{baseline}/ood/{split}/{name}"] = value
    scored.warnings += [f"{split}: {sentence}" for sentence in result.warnings]
    scored.excluded |= result.excluded


class Predictor:
    """Predicts cells of a condition from control cells, in flattened units of the data.

    Parameters
    ----------
    model, data
        The trained model and the data whose perturbations it knows.
    seed
        Governs the draws.
    """

    def __init__(self, model: LatentModel, data: PerturbationData, seed: int) -> None:
        self.model, self.data, self.seed = model, data, seed

    @torch.no_grad()
    def __call__(self, condition: str, control: Array) -> Array:
        """Cells (n, features) of ``condition`` from control cells (n, features)."""
        known = {name: k for k, name in enumerate(self.data.perturbations)}
        u = torch.zeros(len(control), len(known))
        for member in condition.split("+"):
            if member not in known:
                raise CannotPredict(f"{member} was never seen in training, and one-hot u says nothing about it")
            u[:, known[member]] = 1.0
        device = next(self.model.parameters()).device
        frames = torch.as_tensor(control, dtype=torch.float32).unflatten(1, self.data.frame_shape).to(device)
        random = generator(self.seed, "prediction", condition, device=device)
        steps = self.data.index.shape[1] - 1
        self.model.eval()
        predicted = self.model.predict(self.model.transform.prepare(frames), u.to(device), steps, random)
        return predicted.flatten(1).double().cpu().numpy()


def _cells_by_condition(data: PerturbationData, split: str, most: int) -> dict[str, Array]:
    """Last frames of a split's rows, flattened, by condition; at most ``most`` of each, the first of the split."""
    rows = data.splits[split]
    condition = data.condition[rows]
    cells = {}
    for which in torch.unique(condition).tolist():
        frames = data.frames[data.index[rows[condition == which][:most], -1]]
        cells[data.conditions[which]] = data.as_float(frames).flatten(1).double().numpy()
    return cells
