"""Validation conditions predicted from training controls: what is compared, and that training may go by it."""

import dataclasses

import numpy as np
import pytest
import torch
from test_loop import Killed, _curve, _trainer

from harness.data.seeding import generator
from harness.errors import UserError
from harness.model_spec import PerturbedVAESpec
from harness.models import build_model
from harness.training.predicted import PredictedConditions

MODEL = PerturbedVAESpec(latent_dim=4, responsive_dim=2, hidden=8, mechanisms="free")


class Shift:
    """Predicts the control cell and a known shift of each perturbation."""

    def __init__(self, model, shifts):
        self.transform, self.likelihood, self.shifts = model.transform, model.likelihood, shifts

    def predict_outputs(self, control, u, steps, generator):
        return control + u @ self.shifts


def _model(data):
    torch.manual_seed(0)
    model = build_model(MODEL.model_dump(), shape=data.frame_shape, perturbations=4, targets=None)
    return model  # its transform stands at centre 0 and scale 1: outputs are frames


def _means(data, split):
    return {name: data.frames[data.last_frames(rows)].mean(0) for name, rows in data.by_condition(split).items()}


def test_metrics_are_those_of_the_conditions_one_by_one(data):
    shifts = torch.randn(4, data.frames.shape[1], generator=generator(1))
    found = PredictedConditions(Shift(_model(data), shifts), data, torch.device("cpu"), 0).measure(generator(0))
    start = data.frames[data.last_frames(data.control_rows("train"))].mean(0)
    means = _means(data, "validation")
    rmse, pearson = [], []
    for name, observed in means.items():
        if name != "control":
            predicted = start + shifts[data.perturbations.index(name)]
            rmse.append((predicted - observed).square().mean().sqrt().item())
            pearson.append(np.corrcoef((predicted - start).numpy(), (observed - means["control"]).numpy())[0, 1])
    assert found["validation/rmse"] == pytest.approx(np.mean(rmse), rel=1e-4)
    assert found["validation/pearson_delta"] == pytest.approx(np.mean(pearson), abs=1e-4)


def test_no_change_is_correlated_with_nothing(data):
    still = Shift(_model(data), torch.zeros(4, data.frames.shape[1]))
    measured = PredictedConditions(still, data, torch.device("cpu"), 0).measure(generator(0))
    assert measured["validation/pearson_delta"] == pytest.approx(0.0, abs=1e-3)


def test_no_cell_of_test_or_a_held_out_split_plays_a_part(data):
    """Poisoned cells would show, since a single NaN among those that count makes a mean NaN."""
    hidden = torch.cat([data.splits["test"], *(data.splits[name] for name in data.ood)])
    used = torch.cat([data.index[data.splits[name]].flatten() for name in ("train", "validation")]).unique()
    frames = data.frames.clone()
    poisoned = torch.tensor(np.setdiff1d(data.index[hidden].flatten().numpy(), used.numpy()))
    frames[poisoned] = float("nan")
    assert len(poisoned) > 0
    whole, torn = (
        PredictedConditions(_model(data), which, torch.device("cpu"), 0).measure(generator(0))
        for which in (data, dataclasses.replace(data, frames=frames))
    )
    assert whole == torn


def test_data_without_perturbed_validation_cells_are_refused(data):
    lacking = dataclasses.replace(data, splits=data.splits | {"validation": data.control_rows("validation")})
    with pytest.raises(UserError, match="monitor: validation/loss"):
        PredictedConditions(_model(data), lacking, torch.device("cpu"), 0)


@pytest.mark.parametrize("monitor", ["validation/rmse", "validation/pearson_delta"])
def test_best_weights_go_by_the_monitored_metric_and_its_direction(data, tmp_path, monitor):
    trained = _trainer(data, tmp_path / "t", monitor=monitor, epochs=6).run()
    # of the epochs at the full KL weight (the warm-up ends with the second)
    values = {epoch: metrics[monitor] for epoch, metrics in _curve(tmp_path / "t") if epoch > 1}
    best = min(values, key=values.get) if monitor == "validation/rmse" else max(values, key=values.get)
    assert trained.best_epoch == best


def test_they_are_measured_only_where_asked_for(data, tmp_path):
    _trainer(data, tmp_path / "t").run()
    assert not any("validation/rmse" in metrics for _, metrics in _curve(tmp_path / "t"))


@pytest.mark.parametrize("batches", ["balanced", "by_condition"])
def test_a_monitored_run_that_was_interrupted_ends_bit_identical(data, tmp_path, batches):
    asked = {"monitor": "validation/pearson_delta", "batches": batches, "patience": 2, "epochs": 6}
    whole = _trainer(data, tmp_path / "whole", "random", **asked)
    ended = whole.run()

    def die(now):
        if now == 3:
            raise Killed

    with pytest.raises(Killed):
        _trainer(data, tmp_path / "torn", "random", checkpoint_seconds=0, **asked).run(die)
    resumed = _trainer(data, tmp_path / "torn", "random", **asked)
    again = resumed.run()
    assert _curve(tmp_path / "torn") == _curve(tmp_path / "whole")
    assert (again.best_epoch, again.epochs) == (ended.best_epoch, ended.epochs)
    assert {k: v for k, v in again.metrics.items() if k.startswith("validation/")} == {
        k: v for k, v in ended.metrics.items() if k.startswith("validation/")
    }
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
