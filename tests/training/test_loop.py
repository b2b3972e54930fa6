"""The loop: resuming gives the same numbers, stopping stops, NaN is named."""

import json
import math

import pytest
import torch

from harness.data.seeding import generator
from harness.errors import TrialFailure, TrialStopped
from harness.model_spec import PerturbedVAESpec
from harness.models import build_model
from harness.training.loop import Trainer, TrainingFiles
from harness.training.pairing import Pairing
from harness.trial_spec import SecondStageSpec, TrainSpec

MODEL = PerturbedVAESpec(latent_dim=4, responsive_dim=2, hidden=8, mechanisms="targeted")

#: A second stage that takes no time: these tests ask when it comes, not what it finds.
QUICK = SecondStageSpec(restarts=2, steps=10)


def _trainer(data, folder, pairing="auto", **train):
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    model = build_model(MODEL.model_dump(), shape=data.frame_shape, perturbations=4, targets=data.targets)
    model.transform.fit(data.frames, generator(0))
    return Trainer(
        model,
        data,
        TrainSpec(**{"epochs": 4, "second_stage": QUICK, **train}),
        pairing=Pairing(data, pairing, 0),
        seed=0,
        kl_warmup=0.25,
        precision="float32",
        device=torch.device("cpu"),
        files=TrainingFiles.under(folder),
    )


def _curve(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [(entry["epoch"], entry["metrics"]) for entry in map(json.loads, lines)]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize("pairing", ["true", "random", "ot"])
def test_an_interrupted_run_ends_bit_identical(data, tmp_path, epoch, pairing):
    whole = _trainer(data, tmp_path / "whole", pairing)
    whole.run()

    def die(now):
        if now == epoch:
            raise Killed

    with pytest.raises(Killed):
        _trainer(data, tmp_path / "torn", pairing, checkpoint_seconds=0).run(die)
    with (tmp_path / "torn" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 99, "metr')  # a line torn by the kill
    resumed = _trainer(data, tmp_path / "torn", pairing)
    resumed.run()
    assert _curve(tmp_path / "torn") == _curve(tmp_path / "whole")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_without_a_checkpoint_it_starts_anew_and_logs_no_epoch_twice(data, tmp_path):
    def die(now):
        raise Killed

    with pytest.raises(Killed):
        _trainer(data, tmp_path / "t", checkpoint_seconds=1e9).run(die)
    _trainer(data, tmp_path / "t").run()
    assert [epoch for epoch, _ in _curve(tmp_path / "t")] == [1, 2, 3, 4]


def test_a_broken_checkpoint_is_not_fatal(data, tmp_path):
    trainer = _trainer(data, tmp_path / "t")
    (tmp_path / "t" / "checkpoint.pt").write_bytes(b"half a checkpoint")
    assert trainer.run().epochs == 4


def test_a_stop_file_stops_after_the_epoch_and_keeps_a_checkpoint(data, tmp_path):
    trainer = _trainer(data, tmp_path / "t", checkpoint_seconds=1e9)
    (tmp_path / "t" / "stop").touch()
    with pytest.raises(TrialStopped):
        trainer.run()
    assert len(_curve(tmp_path / "t")) == 1
    assert (tmp_path / "t" / "checkpoint.pt").exists()


def test_nan_is_named_with_its_epoch(data, tmp_path):
    trainer = _trainer(data, tmp_path / "t")

    def poison(epoch):
        if epoch == 2:
            with torch.no_grad():
                next(trainer.model.encoder.parameters()).fill_(math.nan)

    with pytest.raises(TrialFailure, match=r"train/.* is nan in epoch 3"):
        trainer.run(poison)


def test_patience_ends_training_early(data, tmp_path):
    trained = _trainer(data, tmp_path / "t", epochs=400, patience=2, learning_rate=0.03).run()
    assert trained.epochs < 400
    assert trained.best_epoch == trained.epochs - 2


def test_best_weights_are_those_of_the_best_validation(data, tmp_path):
    no_second_stage = SecondStageSpec(restarts=0)  # it would change the best weights once more
    trainer = _trainer(
        data, tmp_path / "t", epochs=12, learning_rate=0.1, schedule="constant", second_stage=no_second_stage
    )
    trained = trainer.run()
    losses = {epoch: metrics["validation/loss"] for epoch, metrics in _curve(tmp_path / "t") if epoch >= 3}
    assert trained.best_epoch == min(losses, key=losses.get)
    again = trainer._validate()
    assert again["validation/loss"] == losses[trained.best_epoch]


def test_training_lowers_the_validation_loss(data, tmp_path):
    _trainer(data, tmp_path / "t", epochs=20).run()
    curve = _curve(tmp_path / "t")
    assert curve[-1][1]["validation/loss"] < 0.7 * curve[0][1]["validation/loss"]


def test_kl_weight_warms_up_linearly(data, tmp_path):
    trainer = _trainer(data, tmp_path / "t", epochs=8)
    trainer.run()
    assert [metrics["train/kl_weight"] for _, metrics in _curve(tmp_path / "t")][:3] == [0.5, 1.0, 1.0]


def test_each_epoch_is_announced_to_the_model_once_also_after_a_resumption(data, tmp_path):
    heard = []

    def announced(trainer):
        trainer.model.begin_epoch = lambda epoch, epochs: heard.append((epoch, epochs))
        return trainer

    def die(epoch):
        if epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        announced(_trainer(data, tmp_path / "t", checkpoint_seconds=0)).run(die)
    announced(_trainer(data, tmp_path / "t")).run()
    assert heard == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_second_stage_comes_after_its_share_of_the_epochs_and_at_the_end(data, tmp_path):
    for after, epoch in ((0.25, 1), (0.5, 2), (1.0, None)):
        folder = tmp_path / str(after)
        chosen = SecondStageSpec(restarts=1, steps=2, after=after)
        trained = _trainer(data, folder, second_stage=chosen).run()
        came = [now for now, metrics in _curve(folder) if "train/second_stage_after" in metrics]
        assert came == ([] if epoch is None else [epoch])
        assert "train/second_stage_after" in trained.metrics
    without = _trainer(data, tmp_path / "none", second_stage=SecondStageSpec(restarts=0)).run()
    assert not [name for name in without.metrics if "second_stage" in name]


def test_the_second_stage_refits_the_structural_layer_alone_and_adam_forgets_only_that(data, tmp_path):
    trainer = _trainer(data, tmp_path / "t", second_stage=SecondStageSpec(restarts=1, steps=2))
    trainer.epoch = 1
    trainer._train_epoch()
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer._second_stage()
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert "posterior.unmixing" in changed
    assert all(name.startswith(("posterior.", "mechanisms.")) for name in changed)
    refitted = {id(parameter) for parameter in trainer.model.mechanism_parameters()}
    for parameter in trainer.model.parameters():
        assert (parameter in trainer.optimizer.state) == (id(parameter) not in refitted)
