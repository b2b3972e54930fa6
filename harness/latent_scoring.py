"""Predicted latents of unseen perturbations against the true ones, in the true latents' own units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.batch import PerturbationData, Truth
from harness.data.seeding import derive, drawn, generator
from harness.evaluation.baselines import CONTROL, Baselines, CannotPredict
from harness.evaluation.factors import factors_of
from harness.evaluation.measured import Measured
from harness.evaluation.prediction import Comparison, OodResult, evaluate_ood
from harness.models import LatentModel, Latents

#: Metrics of a prediction that are kept for latents, as ``ood/<split>/latent_<metric>``.
LATENT_METRICS = ("rmse", "pearson_delta", "energy_distance")

#: Why a perturbation cannot be predicted, after its name.
_UNKNOWN = "was never seen in training, and one-hot u says nothing about it"
_NO_VECTOR = "has no vector in data.perturbation_features, and nothing else says what it is"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """Learned latents read as true ones: an affine map, fitted by least squares on test cells of seen conditions.

    MCC leaves each latent's scale and sign open, and a block rotated within itself predicts as well: what is scored is
    the prediction, not the axes.

    Attributes
    ----------
    centre : (learned,) mean of the latents it was fitted on.
    weights : (learned, true).
    constant : (true,)
    """

    centre: Array
    weights: Array
    constant: Array

    @classmethod
    def fitted(cls, learned: Array, true: Array, noise: Array) -> Reading:
        """Fit to posterior means as if each had its posterior's noise, which drawn latents do have.

        Without that, a latent that says little of a cell, and so has means close together, would get a large weight,
        and its draws from the prior would drown all others.

        Parameters
        ----------
        learned : (n, a) posterior means
        true : (n, d) of the same cells
        noise : (a,) variance of what is drawn beyond that of the means
        """
        centre, constant = learned.mean(axis=0), true.mean(axis=0)
        design = np.concatenate([learned - centre, np.diag(np.sqrt(len(learned) * noise))])
        wanted = np.concatenate([true - constant, np.zeros((len(noise), true.shape[1]))])
        weights: Array = np.linalg.lstsq(design, wanted, rcond=None)[0]
        return cls(centre, weights, constant)

    def __call__(self, learned: Array) -> Array:
        """(m, a) to (m, d)."""
        read: Array = (learned - self.centre) @ self.weights + self.constant
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
    frames, means = data.last_frames(data.splits["test"]), _blocks(latents)
    noise = np.maximum(predictor.variance_of_seen() - means.var(axis=0), 0.0)
    predictor.reading = Reading.fitted(means, scale(frames), noise)
    train = _true_by_condition(data, "train", scale, cells, seed, data.seen)
    test = _true_by_condition(data, "test", scale, cells, seed, data.seen)
    baselines = Baselines({name: measured.moments.mean for name, measured in train.items()})
    return {
        split: evaluate_ood(
            [
                Comparison(
                    _true_by_condition(data, split, scale, cells, seed),
                    held_out=test[CONTROL],
                    starts=scale(predictor.frames),
                    baselines=baselines,
                    predict=predictor,
                )
            ],
            seed=derive(seed, split),
            metrics=LATENT_METRICS,
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
        test = values[data.last_frames(data.splits["test"])]
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
        device = next(model.parameters()).device
        self.frames = data.last_frames(drawn(data.control_rows("train"), cells, seed, "control cells"))
        with torch.no_grad():
            self.control = model.transform.prepare(data.frames[self.frames].to(device))
        self.offers = self._predict(u_of(CONTROL, data), "control") is not None

    @torch.no_grad()
    def _predict(self, u: torch.Tensor, purpose: str) -> Latents | None:
        device = self.control.device
        random = generator(self.seed, "prediction", purpose, device=device)
        under = u.to(device).expand(len(self.control), -1)
        self.model.eval()
        return self.model.predict_latents(self.control, under, self.data.index.shape[1] - 1, random)

    def variance_of_seen(self) -> Array:
        """Variance (a,) of latents drawn for the test split's conditions, each as often as it has cells there."""
        rows = self.data.by_condition("test")
        means, squares = [], []
        for name in rows:
            predicted = self._predict(u_of(name, self.data), f"seen {name}")
            assert predicted is not None
            drawn = _blocks(predicted)
            means.append(drawn.mean(axis=0))
            squares.append((drawn**2).mean(axis=0))
        counts = np.array([len(members) for members in rows.values()])
        share = counts / counts.sum()
        variance: Array = share @ np.array(squares) - (share @ np.array(means)) ** 2
        return variance

    def __call__(self, condition: str, control: Array) -> Array:
        predicted = self._predict(u_of(condition, self.data), condition)
        assert predicted is not None
        assert self.reading is not None
        return self.reading(_blocks(predicted))


def u_of(condition: str, data: PerturbationData) -> torch.Tensor:
    """u (p,) of a condition, seen or not; zero for ``control``.

    Where perturbations have vectors, the sum (f,) of its members' vectors.

    Raises
    ------
    CannotPredict
        If a member of it is no perturbation of the data, or has no vector.
    """
    u = torch.zeros(data.u.shape[1])
    if condition == CONTROL:
        return u
    vectors = data.perturbation_vectors
    known = data.perturbations if vectors is None else data.vector_names
    units = torch.eye(len(u)) if vectors is None else vectors
    for member in condition.split("+"):
        if member not in known:
            raise CannotPredict(f"{member} {_UNKNOWN if vectors is None else _NO_VECTOR}")
        u += units[known.index(member)]
    return u


def _blocks(latents: Latents) -> Array:
    return torch.cat([latents.responsive, latents.invariant], dim=1).double().cpu().numpy()


def _true_by_condition(
    data: PerturbationData, split: str, scale: _Scale, most: int, seed: int, seen: int | None = None
) -> dict[str, Measured]:
    return {
        name: Measured.of(scale(data.index[rows, :seen][:, -1]), name, most, derive(seed, "latents", split, name))
        for name, rows in data.by_condition(split).items()
    }
