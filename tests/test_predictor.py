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
    np.testing.assert_allclose(with_residual.mean(0), bare.mean(0), atol=1e-5)
    residual = with_residual - bare
    frames = torch.tensor(control, dtype=torch.float32)
    with torch.no_grad():
        prepared = model.transform.prepare(frames)
        left = frames - model.likelihood.mean(model.transform, model.reconstruct_outputs(prepared))
    each = np.repeat((left - left.mean(0)).numpy(), draws_each(len(control)), axis=0)
    np.testing.assert_allclose(residual, each, atol=1e-4)
    assert with_residual.var(0).sum() > bare.var(0).sum()


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
