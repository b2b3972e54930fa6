"""Predicted latents of unseen pairs, against the true ones."""

from pathlib import Path

import numpy as np
import pytest
import torch

from harness.data.fingerprint import fingerprint
from harness.data.simulation import build
from harness.data_spec import SimulationData
from harness.evaluation.baselines import CannotPredict
from harness.latent_scoring import Reading, score_latents, u_of
from harness.models import Latents

TURN = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(3))).Q


@pytest.fixture(scope="module")
def data():
    spec = SimulationData(preset="tiny", double_cells=200, test_cells=400)
    return build(spec, fingerprint(spec), Path())


class Knows(torch.nn.Module):
    """Predicts the true latents of whatever it is asked for, turned and moved as learned latents may be."""

    def __init__(self, data, says=None):
        super().__init__()
        self.data, self.says = data, says
        self.scale = torch.nn.Parameter(torch.tensor(3.0))

    @property
    def transform(self):
        return self

    def prepare(self, frames):
        return frames

    def learned(self, frames):
        true = torch.cat([self.data.truth.responsive[frames], self.data.truth.invariant[frames]], dim=1)
        turned = self.scale.detach() * true @ TURN + 1.0
        return Latents(turned[:, :2], turned[:, 2:])

    def predict_latents(self, control, u, steps, generator):
        members = [name for name, on in zip(self.data.perturbations, u[0].tolist(), strict=True) if on]
        condition = self.data.conditions.index(self.says or "+".join(members) or "control")
        rows = torch.cat([self.data.splits["train"], self.data.splits["double"]])
        return self.learned(self.data.index[rows[self.data.condition[rows] == condition], -1])


def of_test(model, data):
    return model.learned(data.index[data.splits["test"], -1])


def test_a_prediction_is_scored_in_true_units_whatever_the_axes(data):
    model = Knows(data)
    result = score_latents(model, data, of_test(model, data), 200, 0)["double"]
    assert result.metrics["rmse"] == pytest.approx(0.0, abs=0.05)  # two samples of one law differ in variance
    assert result.metrics["pearson_delta"] == pytest.approx(1.0, abs=0.03)  # control cells of either side differ too
    assert set(result.conditions) == {name for name in data.conditions if "+" in name}


def test_predicting_no_change_is_as_bad_as_the_control_mean(data):
    model = Knows(data, says="control")
    result = score_latents(model, data, of_test(model, data), 400, 0)["double"]
    assert result.metrics["rmse"] == pytest.approx(result.baselines["control_mean"]["rmse"], rel=0.1)
    assert result.metrics["rmse"] > result.baselines["additive"]["rmse"]


def test_a_model_that_predicts_no_latents_has_no_score(data):
    model = Knows(data)
    latents = of_test(model, data)
    model.predict_latents = lambda *_: None
    assert score_latents(model, data, latents, 200, 0) == {}


def test_a_reading_undoes_an_affine_map():
    random = np.random.default_rng(0)
    true, mixed = random.normal(size=(50, 3)), random.normal(size=(3, 5))
    reading = Reading.fitted(true @ mixed + 2.0, true, np.zeros(5))
    np.testing.assert_allclose(reading(true @ mixed + 2.0), true, atol=1e-9)


def test_a_reading_of_means_is_that_of_noisy_latents():
    random = np.random.default_rng(1)
    true = random.normal(size=(4000, 2))
    means = np.column_stack([0.9 * true[:, 0], 0.05 * true[:, 1], 0.01 * random.normal(size=4000)])
    noise = np.array([0.19, 0.9, 1.0])
    noisy = means + random.normal(size=means.shape) * np.sqrt(noise)
    expected = np.linalg.lstsq(noisy - noisy.mean(0), true - true.mean(0), rcond=None)[0]
    np.testing.assert_allclose(Reading.fitted(means, true, noise).weights, expected, atol=0.05)
    assert np.abs(Reading.fitted(means, true, 0 * noise).weights).max() > 10


def test_u_of_a_pair_has_both_members_and_an_unknown_one_is_named(data):
    first, second = data.perturbations[:2]
    assert u_of(f"{second}+{first}", data).tolist() == [1.0, 1.0, 0.0, 0.0]
    with pytest.raises(CannotPredict, match="MYC was never seen"):
        u_of(f"{first}+MYC", data)
