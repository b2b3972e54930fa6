"""Predicted latents of unseen perturbations against the true ones, in the true latents' own units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.batch import PerturbationData, Truth
from harness.data.seeding import derive, generator
from harness.evaluation.baselines import CannotPredict
from harness.evaluation.factors import factors_of
from harness.evaluation.prediction import OodResult, evaluate_ood
from harness.models import LatentModel, Latents

#: Metrics of a prediction that are kept for latents, as ``ood/<split>/latent_<metric>``.
LATENT_METRICS = ("rmse", "pearson_delta", "energy_distance")

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """Learned latents read as true ones: an affine map, fitted by least squares on test cells of seen conditions.

    MCC leaves each latent's scale and sign open, and a block rotated within itself predicts as well: what is scored is
    the prediction, not the axes.

    Attributes
    ----------
    weights : (learned + 1, true), the last row the constant.
    """

    weights: Array

    @classmethod
    def fitted(cls, learned: Array, true: Array) -> Reading:
        """From learned (n, a) and true (n, d) latents of the same cells."""
        weights = np.linalg.lstsq(_with_constant(learned), true, rcond=None)[0]
        return cls(np.asarray(weights, dtype=np.float64))

    def __call__(self, learned: Array) -> Array:
        """(m, a) to (m, d)."""
        read: Array = _with_constant(learned) @ self.weights
        return read


def score_latents(
    model: LatentModel, data: PerturbationData, latents: Latents, cells: int, seed: int
) -> dict[str, OodResult]:
    """Score predicted latents of each OOD split, beside the baselines, which here know the true latents.

    True latents are standardised by the test split, so that errors are in standard deviations of each; an angle counts
    as (cos, sin). Baselines shift the control cells' *true* latents by effects estimated on those of training cells:
    they are oracles, and hard to beat where latents do add up.

    Parameters
    ----------
    model, data
        The trained model, and data with a truth.
    latents
        Posterior means of the test split.
    cells
        Most cells of a condition.
    seed
        Governs draws and subsampling.

    Returns
    -------
    split -> scores; empty where there is no truth, or the model predicts no latents.
    """
    truth = data.truth
    if truth is None or not data.ood:
        return {}
    scale = _Scale.of(truth, data)
    predictor = _LatentPredictor(model, data, cells, derive(seed, "latents"))
    if not predictor.offers:
        return {}
    frames = data.index[data.splits["test"], : data.seen][:, -1]
    predictor.reading = Reading.fitted(_blocks(latents), scale(frames))
    train = _true_by_condition(data, "train", scale, data.seen)
    return {
        split: evaluate_ood(
            _true_by_condition(data, split, scale),
            train,
            train["control"],
            predictor,
            max_cells=cells,
            seed=derive(seed, split),
        )
        for split in data.ood
    }


@dataclass(frozen=True)
class _Scale:
    """True latents of frames, standardised; an angle is two columns, its cosine and its sine."""

    values: Array
    mean: Array
    deviation: Array

    @classmethod
    def of(cls, truth: Truth, data: PerturbationData) -> _Scale:
        both = torch.cat([truth.responsive, truth.invariant], dim=1).double().numpy()
        circular = [name in truth.periodic for name in truth.responsive_names + truth.invariant_names]
        values = np.concatenate(factors_of(both, np.array(circular, dtype=bool)), axis=1)
        test = values[data.index[data.splits["test"], : data.seen][:, -1]]
        deviation = test.std(axis=0)
        return cls(values, test.mean(axis=0), np.where(deviation > 0, deviation, 1.0))

    def __call__(self, frames: torch.Tensor) -> Array:
        scaled: Array = (self.values[frames.numpy()] - self.mean) / self.deviation
        return scaled


class _LatentPredictor:
    """Latents of a condition, in true units, predicted from control cells of the training split."""

    def __init__(self, model: LatentModel, data: PerturbationData, cells: int, seed: int) -> None:
        self.model, self.data, self.seed = model, data, seed
        self.reading: Reading | None = None
        rows = data.splits["train"]
        control = rows[data.condition[rows] == 0][:cells]
        device = next(model.parameters()).device
        frames = data.frames[data.index[control, : data.seen][:, -1]].to(device)
        with torch.no_grad():
            self.control = model.transform.prepare(frames)
        self.offers = self._predict(torch.zeros(len(data.perturbations)), "control") is not None

    @torch.no_grad()
    def _predict(self, u: torch.Tensor, purpose: str) -> Latents | None:
        device = self.control.device
        random = generator(self.seed, "prediction", purpose, device=device)
        under = u.to(device).expand(len(self.control), -1)
        self.model.eval()
        return self.model.predict_latents(self.control, under, self.data.index.shape[1] - 1, random)

    def __call__(self, condition: str, control: Array) -> Array:
        predicted = self._predict(u_of(condition, self.data), condition)
        assert predicted is not None
        assert self.reading is not None
        return self.reading(_blocks(predicted))


def u_of(condition: str, data: PerturbationData) -> torch.Tensor:
    """u (p,) of a condition, seen or not.

    Raises
    ------
    CannotPredict
        If a member of it is no perturbation of the data.
    """
    u = torch.zeros(len(data.perturbations))
    for member in condition.split("+"):
        if member not in data.perturbations:
            raise CannotPredict(f"{member} was never seen in training, and one-hot u says nothing about it")
        u[data.perturbations.index(member)] = 1.0
    return u


def _blocks(latents: Latents) -> Array:
    return torch.cat([latents.responsive, latents.invariant], dim=1).double().cpu().numpy()


def _with_constant(learned: Array) -> Array:
    return np.concatenate([learned, np.ones((len(learned), 1))], axis=1)


def _true_by_condition(data: PerturbationData, split: str, scale: _Scale, seen: int | None = None) -> dict[str, Array]:
    rows = data.splits[split]
    condition = data.condition[rows]
    return {
        data.conditions[which]: scale(data.index[rows[condition == which], :seen][:, -1])
        for which in torch.unique(condition).tolist()
    }
