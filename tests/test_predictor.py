"""Predicted cells vary as cells do, and their mean stays the model's."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.data.fingerprint import fingerprint
from harness.data.seeding import generator
from harness.data.simulation import build
from harness.data_spec import PerturbseqData, SimulationData
from harness.model_spec import BetaVAESpec, CiteVAESpec, DiscrepancyVAESpec, PerturbedVAESpec, SupervisedSpec
from harness.models import build_model
from harness.models.posterior import Features, Invariant
from harness.predictor import CellPredictor, Predictor
from harness.training.predicted import draws_each
from harness.trial_spec import EvaluateSpec, TrainSpec, TrialSpec

SMALL = {"latent_dim": 4, "hidden": 8}
CAUSAL = {"responsive_dim": 2, "mechanisms": "free"}
SPECS = {
    "perturbed_vae": PerturbedVAESpec(**SMALL, **CAUSAL),
    "cite_vae": CiteVAESpec(**SMALL, **CAUSAL),
    "beta_vae": BetaVAESpec(**SMALL),
    "discrepancy_vae": DiscrepancyVAESpec(**SMALL, input_standardise=True),
}


@pytest.fixture(scope="module")
def data():
    spec = SimulationData(preset="tiny")
    return build(spec, fingerprint(spec), Path())


@pytest.fixture(scope="module")
def counted():
    """The same conditions with counts of 5 genes, as a file of cells gives them."""
    spec = SimulationData(preset="tiny", features=5, process={"responsive": 2, "invariant": 2})
    plain = build(spec, fingerprint(spec), Path())
    library = torch.full((len(plain.frames),), 2000.0) + 10 * torch.arange(len(plain.frames))
    counts = torch.poisson(20 * torch.exp(plain.frames.clamp(-2, 2)), generator=generator(0))
    return dataclasses.replace(plain, frames=torch.log1p(counts * 1e4 / library[:, None]), library=library)


def _fitted(kind, data, **fields):
    torch.manual_seed(0)
    spec = SPECS[kind].model_copy(update=fields)
    model = build_model(spec.model_dump(), shape=data.frame_shape, perturbations=4, targets=None)
    model.transform.fit(data.frames, generator(0))
    if "likelihood" in fields:
        model.likelihood.fit(data.frames, data.library)
    return model


def _controls(data, split="train"):
    return data.frames[data.last_frames(data.control_rows(split))].double().numpy()


@pytest.mark.parametrize("kind", SPECS)
def test_carried_over_residuals_add_variance_and_no_mean(data, kind):
    model, control = _fitted(kind, data), _controls(data)
    pair = "+".join(data.perturbations[:2])
    bare, with_residual = (Predictor(model, data, 3, noise)(pair, control) for noise in ("none", "residual"))
    added = with_residual - bare
    assert np.abs(added.mean(0)).max() < 4 * added.std() / len(added) ** 0.5  # that of its draws
    assert added.var(0).min() > 0


@pytest.mark.parametrize("kind", ["beta_vae", "discrepancy_vae"])
def test_a_model_that_keeps_all_of_a_control_cell_predicts_that_cell_again(data, kind):
    """Nothing is drawn anew but what its posterior leaves open, which residual and prediction share."""
    model, control = _fitted(kind, data), _controls(data)
    predictor = Predictor(model, data, 3, "residual")
    again = predictor("control", control) + predictor.predict.mean_residual.double().numpy()
    np.testing.assert_allclose(again, np.repeat(control, draws_each(len(control)), axis=0), atol=1e-4)


def test_cells_of_a_model_that_is_the_truth_have_the_covariance_of_cells(data, monkeypatch):
    """x = A z_v + B z_i + σ e, all normal, known to the model with its posterior: predictions have x's covariance."""
    random, cells = generator(5), 20_000
    d_v, d_i, features, sigma = 2, 3, data.frames.shape[1], 2.0
    maps = torch.randn(features, d_v + d_i, generator=random)
    covariance = maps @ maps.T + sigma**2 * torch.eye(features)
    frames = torch.randn(cells, features, generator=random) @ torch.linalg.cholesky(covariance).T
    gain = maps.T @ torch.linalg.inv(covariance)
    z_i_first = [*range(d_v, d_v + d_i), *range(d_v)]  # z_i from ε_i alone, z_v from both
    left = (torch.eye(d_v + d_i) - gain @ maps)[z_i_first][:, z_i_first]
    factor = torch.linalg.cholesky(left).expand(cells, -1, -1)

    def exact(x, u):
        mean = x @ gain.T
        own = Features(mean[:, :d_v], factor[: len(x), d_i:, :d_i], factor[: len(x), d_i:, d_i:])
        return own, Invariant(mean[:, d_v:], factor[: len(x), :d_i, :d_i])

    model = _fitted("perturbed_vae", data, responsive_dim=d_v, latent_dim=d_v + d_i)
    model.transform.centre.zero_(), model.transform.scale.fill_(1)
    monkeypatch.setattr(model, "infer", exact)
    monkeypatch.setattr(model, "_decode", lambda read, z_i: torch.cat([read, z_i], 1) @ maps.T)
    monkeypatch.setattr(model, "draw_latents", lambda *asked: torch.randn(cells, d_v, generator=asked[-1]))
    predict = CellPredictor(model, data, "residual")
    found = torch.cov(predict(frames, None, torch.zeros(4), random).cells.T)
    assert torch.dist(found, covariance) / covariance.norm() < 0.05


def test_residuals_of_other_controls_are_taken_from_the_training_controls_mean(data):
    """A model that errs on controls must not be put right by the cells it is asked to start from."""
    model, single = _fitted("perturbed_vae", data), _controls(data, "test")[:1]
    bare, with_residual = (Predictor(model, data, 3, noise)("control", single) for noise in ("none", "residual"))
    assert np.abs(with_residual - bare).max() > 0.1  # of one cell alone, the mean of itself would leave nothing


def test_a_draw_has_the_variance_of_the_likelihood(data):
    model, control = _fitted("perturbed_vae", data, likelihood_variance=0.25), np.repeat(_controls(data)[:1], 4000, 0)
    bare, drawn = (Predictor(model, data, 3, noise)("control", control) for noise in ("none", "likelihood"))
    added = (drawn - bare).var(0) / model.transform.scale.square().numpy()
    np.testing.assert_allclose(added, 0.25, rtol=0.15)


def test_counts_are_drawn_with_the_control_cells_own_library(counted):
    model, control = _fitted("perturbed_vae", counted, likelihood="nb"), _controls(counted)
    predictor = Predictor(model, counted, 3, "likelihood")
    cells = predictor(counted.perturbations[0], control)
    library = counted.library[counted.last_frames(counted.control_rows("train"))].double().numpy()
    counts = np.expm1(cells) * np.repeat(library, draws_each(len(control)))[:, None] / 1e4
    np.testing.assert_allclose(counts, counts.round(), atol=2e-2)
    assert cells.var(0).sum() > Predictor(model, counted, 3, "none")(counted.perturbations[0], control).var(0).sum()


@pytest.mark.parametrize("controls", [3, 200, 384, 500])
def test_few_control_cells_begin_several_cells_each(data, controls):
    model, control = _fitted("perturbed_vae", data), np.resize(_controls(data), (controls, data.frames.shape[1]))
    cells = Predictor(model, data, 3, "none")("control", control)
    assert len(cells) % controls == 0
    assert 193 <= len(cells) <= max(384, controls)
    assert len(np.unique(cells, axis=0)) == len(cells)  # each a draw of its own


def test_latents_go_with_the_cells(data):
    model, frames = _fitted("cite_vae", data), torch.tensor(_controls(data), dtype=torch.float32)
    found = CellPredictor(model, data, "none")(frames, None, torch.zeros(4), generator(1))
    with torch.no_grad():
        torch.testing.assert_close(model.to_frames(found.responsive, found.invariant), found.cells)
    assert (
        CellPredictor(_fitted("beta_vae", data), data, "none")(frames, None, torch.zeros(4), generator(1)).invariant
        is None
    )


def _spec(model, data, **evaluate):
    return TrialSpec(model=model, data=data, evaluate=EvaluateSpec(**evaluate), data_fingerprint="-")


def test_auto_gives_single_cells_their_variance_and_leaves_other_data_alone():
    cells, vectors = PerturbseqData(), SimulationData(preset="tiny")
    assert _spec(SPECS["perturbed_vae"], vectors).cell_noise == "none"
    assert _spec(SPECS["perturbed_vae"], cells).cell_noise == "residual"
    assert _spec(PerturbedVAESpec(**SMALL, **CAUSAL, likelihood="nb"), cells).cell_noise == "likelihood"
    assert _spec(SPECS["perturbed_vae"], cells, cell_noise="none").cell_noise == "none"
    assert _spec(SPECS["discrepancy_vae"], cells).cell_noise == "none"  # its outputs are cells, not their means


def test_what_does_not_go_together_is_refused():
    counts = PerturbedVAESpec(**SMALL, **CAUSAL, likelihood="nb")
    with pytest.raises(ValueError, match="only data of kind perturbseq"):
        _spec(counts, SimulationData(preset="tiny"))
    with pytest.raises(ValueError, match="values: lognorm"):
        _spec(counts, PerturbseqData(path="cells.h5ad", values="lognorm"))
    with pytest.raises(ValueError, match="no residual to carry over"):
        _spec(counts, PerturbseqData(), cell_noise="residual")
    with pytest.raises(ValueError, match="a supervised model predicts none"):
        TrialSpec(
            model=SupervisedSpec(),
            data=SimulationData(preset="tiny"),
            train=TrainSpec(monitor="validation/rmse"),
            data_fingerprint="-",
        )
