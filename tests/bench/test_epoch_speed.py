"""What an epoch costs beside the matrix products it cannot do without, and images a second through training.

pytest tests/bench/test_epoch_speed.py -s (needs pip install -e '.[bench]').
"""

import time

import numpy as np
import pytest
import torch
from torch import nn

from harness.data.batch import PerturbationData
from harness.model_spec import PerturbedVAESpec
from harness.models import build_model
from harness.training.loop import Trainer, TrainingFiles
from harness.training.pairing import Pairing
from harness.trial_spec import TrainSpec

ROWS, PERTURBATIONS, BATCH = 8_192, 12, 128
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def data_of(frames):
    """Rows of a control and a perturbed frame each, the first half of the frames controls."""
    rows = len(frames) // 2
    condition = torch.arange(rows) % (PERTURBATIONS + 1)
    names = tuple(f"p{k}" for k in range(PERTURBATIONS))
    splits = {"train": torch.arange(rows - 512), "validation": torch.arange(rows - 512, rows - 256)}
    return PerturbationData(
        frames=frames,
        index=torch.stack([torch.arange(rows), torch.arange(rows, 2 * rows)], dim=1),
        u=torch.eye(PERTURBATIONS + 1)[condition][:, 1:],
        condition=condition,
        conditions=("control", *names),
        perturbations=names,
        splits={**splits, "test": torch.arange(rows - 256, rows)},
        ood=(),
        pairs="true",
        fingerprint="-",
    )


def trainer_of(data, folder, device, **fields):
    model = build_model(
        PerturbedVAESpec(latent_dim=11, mechanisms="free", **fields).model_dump(),
        shape=data.frame_shape,
        perturbations=PERTURBATIONS,
        targets=None,
    )
    return Trainer(
        model.to(device),
        data,
        TrainSpec(epochs=1, batch_size=BATCH, learning_rate=1e-5),
        pairing=Pairing(data, "auto", 0),
        seed=0,
        kl_warmup=0.0,
        precision="float32",
        device=torch.device(device),
        files=TrainingFiles.under(folder),
    )


def products(model, rows, device):
    """The dense layers' products of one batch, forward and backward, as a function without arguments.

    Of each layer the output, the gradient of the weights and, but for layers that see the input itself, the gradient
    of what it saw.
    """
    layers = [layer for layer in (*model.encoder.modules(), *model.decoder.modules()) if isinstance(layer, nn.Linear)]
    seen = int(np.prod(model.transform.input_shape))
    made = []
    for layer in layers:
        x, g = torch.randn(rows, layer.in_features, device=device), torch.randn(rows, layer.out_features, device=device)
        made.append((x, g, layer.weight.detach(), layer.in_features != seen))

    def run():
        for x, g, weight, passes_on in made:
            x @ weight.T
            g.T @ x
            if passes_on:
                g @ weight

    return run


def seconds(run, device, rounds=5):
    """The least of some rounds."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return min(times)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("genes", [500, 2_000, 5_000])
def test_an_epoch_over_the_products(benchmark, tmp_path, genes, device):
    """Ratio of an epoch to its matrix products alone, both frames of a row; 1 is the floor."""
    torch.manual_seed(0)
    trainer = trainer_of(data_of(torch.randn(2 * ROWS, genes)), tmp_path, device, hidden=256)
    batches = len(trainer.data.splits["train"]) // BATCH
    batch = products(trainer.model, 2 * BATCH, device)
    floor = seconds(lambda: [batch() for _ in range(batches)], device)
    benchmark.pedantic(trainer._train_epoch, rounds=3, warmup_rounds=1)
    ratio = benchmark.stats.stats.min / floor
    benchmark.extra_info["over_products"] = ratio
    print(f"\n{genes} genes on {device}: an epoch takes {ratio:.2f} of its matrix products")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("network", "hidden"), [("conv", 32), ("glimpse", 32), ("resnet18", 64)])
def test_images_a_second(benchmark, tmp_path, network, hidden, device):
    """Images of 64 x 64 through the training loop; a row passes two."""
    if network == "resnet18" and device == "cpu":
        pytest.skip("the large network is for a GPU")
    torch.manual_seed(0)
    frames = torch.randint(0, 256, (4_096, 3, 64, 64), dtype=torch.uint8)
    trainer = trainer_of(data_of(frames), tmp_path, device, network=network, hidden=hidden)
    benchmark.pedantic(trainer._train_epoch, rounds=3, warmup_rounds=1)
    rate = 2 * len(trainer.data.splits["train"]) / benchmark.stats.stats.min
    benchmark.extra_info["images_per_second"] = rate
    print(f"\n{network} on {device}: {rate:.0f} images a second")
