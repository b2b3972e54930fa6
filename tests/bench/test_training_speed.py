"""Speed of training, as ratios within one run: pytest tests/bench (needs pip install -e '.[bench]')."""

from pathlib import Path

import pytest
import torch

from harness.data.fingerprint import fingerprint
from harness.data.seeding import generator
from harness.data.simulation import build
from harness.data_spec import SimulationData
from harness.model_spec import BetaVAESpec, CiteVAESpec, PerturbedVAESpec
from harness.models import build_model
from harness.training.loop import Trainer, TrainingFiles
from harness.training.pairing import Pairing
from harness.trial_spec import TrainSpec

NETWORK = {"latent_dim": 11, "input_pca": 11}
MODELS = {
    "beta_vae": BetaVAESpec(**NETWORK),
    "perturbed_vae free": PerturbedVAESpec(**NETWORK),
    "perturbed_vae targeted": PerturbedVAESpec(mechanisms="targeted", **NETWORK),
    "cite_vae targeted": CiteVAESpec(mechanisms="targeted", **NETWORK),
}


@pytest.fixture(scope="module")
def data():
    spec = SimulationData(preset="published_sizes")
    return build(spec, fingerprint(spec), Path())


def _trainer(model_spec, data, folder):
    model = build_model(
        {"responsive_dim": 4, **model_spec.model_dump()}, shape=data.frame_shape, perturbations=12, targets=data.targets
    )
    model.transform.fit(data.frames, generator(0))
    return Trainer(
        model,
        data,
        TrainSpec(epochs=1, batch_size=64),
        pairing=Pairing(data, "auto", 0),
        seed=0,
        kl_warmup=0.0,
        precision="float32",
        device=torch.device("cpu"),
        files=TrainingFiles.under(folder),
    )


@pytest.mark.parametrize("name", MODELS)
def test_an_epoch(benchmark, data, tmp_path, name):
    """What the structural layer costs over a plain VAE: compare the rows."""
    trainer = _trainer(MODELS[name], data, tmp_path)
    benchmark.pedantic(trainer._train_epoch, rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("fused", [False, True], ids=["per parameter", "fused"])
def test_the_optimizer(benchmark, data, tmp_path, fused):
    """Adam in one call for all parameters against one call each."""
    trainer = _trainer(MODELS["perturbed_vae targeted"], data, tmp_path)
    trainer.optimizer = torch.optim.Adam(
        [{**group, "params": group["params"]} for group in trainer.optimizer.param_groups], fused=fused, foreach=False
    )
    benchmark.pedantic(trainer._train_epoch, rounds=5, warmup_rounds=1)
