"""From a trained model and its data to scores: the seam between tensors of a trial and arrays of evaluation."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.comparisons import comparisons, sides_of
from harness.condition_scoring import CONDITIONS, conditions_of_model, conditions_of_truth
from harness.data.batch import PerturbationData
from harness.data.seeding import derive, drawn
from harness.evaluation.aggregate import Interval
from harness.evaluation.conditions import Verdict
from harness.evaluation.graph import graph_f1, graph_shd, target_accuracy
from harness.evaluation.identifiability import identifiability_scores
from harness.evaluation.prediction import MODEL, OodResult, evaluate_ood
from harness.evaluation.registry import MAIN, TOP_DE, is_logged, split_half_name
from harness.evaluation.rotation import rotation_test
from harness.factor_scoring import has_images, latent_by_latent, published_scores, whole_scores
from harness.files import write_when_room
from harness.latent_scoring import LATENT_METRICS, score_latents
from harness.models import LatentModel, Latents
from harness.models.causal_vae import CausalVAE
from harness.models.discrepancy_vae import DiscrepancyVAE
from harness.models.supervised import NO_DECODER, Supervised
from harness.predictor import Predictor
from harness.training.loop import Trainer
from harness.training.second_stage import applies_to, candidate_of

#: Most rows of the test split kept in ``latents.npz``, drawn from all.
KEPT_LATENTS = 2000
#: Random rotations the search for alternatives starts from, beside every coordinate plane.
ROTATIONS = 4
#: Fewest named features that count as genes: with no more, every set of top genes would be nearly all of them.
FEWEST_GENES = max(TOP_DE.values())

Array = NDArray[np.float64]


@dataclass
class Scored:
    """Metrics and baselines by MLflow names, warnings, ``<condition>_<side>`` -> sentence, OOD split -> scores.

    ``controls`` are the numbers of control cells that true changes are taken from, and that predictions start from.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    baselines: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    excluded: dict[str, str] = field(default_factory=dict)
    conditions: dict[str, str] = field(default_factory=dict)
    ood: dict[str, OodResult] = field(default_factory=dict)
    controls: tuple[int, int] | None = None


@torch.no_grad()
def encode_split(model: LatentModel, data: PerturbationData, prepared: Tensor, split: str) -> Latents:
    """Posterior means of a split's rows at the last frame training may see, on the CPU."""
    model.eval()
    responsive, invariant = [], []
    for rows in data.splits[split].split(1024):
        frames = data.index[rows, : data.seen].to(prepared.device)
        found = model.encode(prepared[frames], data.u[rows].to(prepared.device))
        responsive.append(found.responsive.float().cpu())
        invariant.append(found.invariant.float().cpu())
    return Latents(torch.cat(responsive), torch.cat(invariant))


def target_scores(model: LatentModel) -> Tensor | None:
    """How surely each perturbation acts on each learned responsive latent, (p, d_v) in [0, 1]; None without targets."""
    if isinstance(model, CausalVAE):
        return model.mechanisms.target_scores()
    return model.targets().detach() if isinstance(model, DiscrepancyVAE) else None


def score_identifiability(
    data: PerturbationData,
    latents: Latents,
    untrained: Latents,
    graph: Tensor | None,
    seed: int,
    *,
    targets: Tensor | None = None,
    published: bool = False,
) -> Scored:
    """Scores of the test split's latents against the truth, and those of the same encoder before training.

    Of images also latent by latent, and CITRIS's scores, DCI and the class (see `harness.factor_scoring`).

    Parameters
    ----------
    latents, untrained
        Of the test split, trained and at initialisation.
    graph : (d_v, d_v)
        Learned control graph, or None.
    seed
        Governs the halves on which matching and regressors are fitted and scored.
    targets : (p, d_v)
        The model's ``target_scores``, or None. Of a model told the targets, the accuracy says whether each latent
        became the one its label names.
    published
        Take R² at the sizes of the published protocol too, which costs minutes.
    """
    truth = data.truth
    if truth is None:
        return Scored()
    frames = data.last_frames(data.splits["test"])
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
    scored.metrics |= {
        f"identifiability/{name}_untrained": value for name, value in before.values.items() if name != "mcc_shuffled"
    }
    if has_images(data):
        scored.metrics |= latent_by_latent(found, before) | whole_scores(data, latents, untrained, seed)
    if published:
        scored.metrics |= published_scores(data, latents, untrained, seed)
    if graph is not None and truth.mechanisms is not None:
        edges = graph.cpu().numpy(), truth.mechanisms.graph[0].numpy(), found.assignment
        scales = {"learned_scale": latents.responsive.std(0).numpy(), "true_scale": true_v.std(0)}
        scored.metrics["identifiability/graph_f1"] = graph_f1(*edges, **scales)
        scored.metrics["identifiability/graph_shd"] = float(graph_shd(*edges, **scales))
    if targets is not None and data.targets is not None:
        accuracy = target_accuracy(targets.cpu().numpy(), data.targets.numpy(), found.assignment)
        scored.metrics["identifiability/target_accuracy"] = accuracy
    scored.warnings += list(found.warnings)
    return scored


def write_latents(path: Path, data: PerturbationData, latents: Latents, model: LatentModel | None = None) -> None:
    """Keep the test split's latents, and the truth where there is one, for figures and agreement between seeds.

    Of a ``model`` also its control graph (d_v, d_v) and its targets (p, d_v), where it has them.
    """
    # the same cells for every seed of a cell, whose latents are compared with each other
    kept = drawn(torch.arange(len(data.splits["test"])), KEPT_LATENTS, 0, "kept latents")
    rows = data.splits["test"][kept]
    arrays = {
        "responsive": latents.responsive[kept].numpy(),
        "invariant": latents.invariant[kept].numpy(),
        "condition": data.condition[rows].numpy(),
    }
    structure = {} if model is None else {"graph": model.learned_graph(), "targets": target_scores(model)}
    arrays |= {name: value.detach().float().cpu().numpy() for name, value in structure.items() if value is not None}
    if len(arrays.get("targets", ())) == len(data.perturbations):
        arrays["perturbations"] = np.array(data.perturbations)
    if data.truth is not None:
        frames = data.last_frames(rows)
        arrays["responsive_true"] = data.truth.responsive[frames].numpy()
        arrays["invariant_true"] = data.truth.invariant[frames].numpy()
        arrays["names_responsive"] = np.array(data.truth.responsive_names)
        arrays["names_invariant"] = np.array(data.truth.invariant_names)
        arrays["periodic"] = np.array(data.truth.periodic, dtype=np.str_)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_when_room(path, buffer.getvalue())


def score_ood(
    model: LatentModel, data: PerturbationData, latents: Latents, cells: int, seed: int, *, cell_noise: str = "none"
) -> Scored:
    """OOD scores of every held-out split, beside the baselines on the same conditions; of latents too, where known.

    The model starts from control cells of the training split: predictions may use what training saw, and nothing of
    what they are compared with. True changes are taken from control cells of the test split, which nothing else uses.

    Parameters
    ----------
    latents
        Of the test split.
    cells
        Most cells of a condition that are drawn for what means do not say.
    seed
        Governs the model's draws and the subsampling of cells.
    cell_noise
        What predicted cells have beyond the likelihood's mean; see `harness.predictor`.
    """
    if isinstance(model, Supervised):
        names = {name for split in data.ood for name in data.by_condition(split)} - {"control"}
        return Scored(excluded=dict.fromkeys(sorted(names), NO_DECODER))
    genes = genes_of(data)
    predictor = Predictor(model, data, seed, cell_noise)
    sides, missing = sides_of(data, cells, seed, genes)
    scored = Scored(warnings=missing)
    for split in data.ood:
        result = evaluate_ood(
            comparisons(data, split, sides, predictor, cells, seed),
            seed=derive(seed, split),
            features=genes,
        )
        _collect(scored, split, result)
    for split, result in score_latents(model, data, latents, cells, seed).items():
        for name in LATENT_METRICS:
            if name in result.metrics:
                scored.metrics[f"ood/{split}/latent_{name}"] = result.metrics[name]
            for baseline, metrics in result.baselines.items():
                if name in metrics:
                    scored.baselines[f"baseline/{baseline}/ood/{split}/latent_{name}"] = metrics[name]
    return scored


def rotation_of(model: LatentModel, trainer: Trainer, steps: int, seed: int) -> Verdict | None:
    """Whether the model's mechanism family admits rotations of its latents that fit the training cells equally well.

    None for models without mechanisms, or whose loss is no function of posterior moments, for a single latent, and
    where no ``steps`` are given to the search.
    """
    if steps == 0 or not applies_to(model) or not isinstance(model, CausalVAE) or model.d_v == 1:
        return None
    test = rotation_test(
        candidate_of(model),
        trainer.moments(),
        sparsity=model.sparsity,
        restarts=ROTATIONS,
        steps=steps,
        seed=derive(seed, "rotation"),
    )
    return test.verdict()


def score_conditions(
    model: LatentModel, data: PerturbationData, latents: Latents, seed: int, *, rotation: Verdict | None
) -> Scored:
    """Verdicts on the theorem's conditions, on the generator (``_true``) and on the fitted model (``_learned``).

    Parameters
    ----------
    latents
        Of the test split.
    seed
        Governs the cells that are looked at.
    rotation
        As `rotation_of` found, of the fitted model.
    """
    scored = Scored()
    true = conditions_of_truth(data, seed)
    learned = conditions_of_model(model, data, latents, seed)
    for name in CONDITIONS:
        _record(scored, name, true.get(name), learned.get(name))
    _record(scored, "rotation", None, rotation)
    scored.conditions["rotation_true"] = "a condition on the model's mechanism family, not on the truth"
    if rotation is None and learned:
        scored.conditions["rotation_learned"] = (
            "not tested: it needs evaluate.rotation_steps, posterior: unmixed, a linear past and two responsive latents"
        )
    return scored


def _record(scored: Scored, name: str, true: Verdict | None, learned: Verdict | None) -> None:
    """Log a condition's two verdicts; a side that cannot be judged has no metrics, and a sentence that says so."""
    absent = {
        "true": "the truth behind it is not known on these data, so that only the fitted model is judged",
        "learned": "the model has no mechanisms and blocks of latents to judge it by",
    }
    for side, verdict in (("true", true), ("learned", learned)):
        scored.conditions[f"{name}_{side}"] = absent[side] if verdict is None else verdict.reason
        if verdict is not None:
            scored.metrics[f"conditions/{name}/holds_{side}"] = float(verdict.holds)
            scored.metrics[f"conditions/{name}/margin_{side}"] = verdict.margin


def genes_of(data: PerturbationData) -> tuple[str, ...]:
    """Names of the features where they are genes; none where they have no names, or are too few to choose among."""
    return data.feature_names if len(data.feature_names) > FEWEST_GENES else ()


def _collect(scored: Scored, split: str, result: OodResult) -> None:
    """Name what is logged of a split's scores; the whole of them is kept for ``ood.csv``."""
    logged = [name for name in result.metrics if is_logged(name)]
    for name in logged:
        scored.metrics[f"ood/{split}/{name}"] = result.metrics[name]
        floor = split_half_name(name)
        if floor in result.floors:
            scored.metrics[f"ood/{split}/{floor}"] = result.floors[floor]
    _collect_intervals(scored.metrics, f"ood/{split}", result.intervals.get(MODEL, {}))
    for baseline, metrics in result.baselines.items():
        under = f"baseline/{baseline}/ood/{split}"
        scored.baselines |= {f"{under}/{name}": metrics[name] for name in logged if name in metrics}
        _collect_intervals(scored.baselines, under, result.intervals.get(baseline, {}))
    scored.warnings += [f"{split}: {sentence}" for sentence in result.warnings]
    scored.excluded |= result.excluded
    scored.controls = result.controls
    scored.ood[split] = result


def _collect_intervals(metrics: dict[str, float], under: str, intervals: Mapping[str, Interval]) -> None:
    """Ends of the main metrics' bootstrap intervals over conditions."""
    for name in MAIN:
        if name in intervals:
            metrics[f"{under}/{name}_low"], metrics[f"{under}/{name}_high"] = intervals[name]
