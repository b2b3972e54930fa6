"""Several initialisations: the one that fits validation cells best goes on, whatever kills the trial in between."""

import json

import pytest

from harness.data.fingerprint import fingerprint
from harness.data_spec import SimulationData
from harness.errors import TrialInterrupted
from harness.model_spec import PerturbedVAESpec
from harness.training import loop
from harness.trial import run_trial
from harness.trial_spec import EvaluateSpec, SecondStageSpec, StartsSpec, TrainSpec, TrialSpec

DATA = SimulationData(preset="tiny")
NO_SCORES = EvaluateSpec(ood=False, conditions=False, identifiability=False)


def trial(number, epochs=6, share=0.5, **train):
    return TrialSpec(
        model=PerturbedVAESpec(latent_dim=4, responsive_dim=2, hidden=8, kl_warmup=0),
        data=DATA,
        train=TrainSpec(
            epochs=epochs,
            starts=StartsSpec(number=number, share=share),
            second_stage=SecondStageSpec(restarts=0),
            schedule="constant",
            **train,
        ),
        evaluate=NO_SCORES,
        data_fingerprint=fingerprint(DATA),
    )


def losses(folder):
    """Validation loss of each epoch."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {line["epoch"]: line["metrics"]["validation/loss"] for line in lines}


def numbers(result):
    return {name: value for name, value in result.metrics.items() if not name.startswith("time/")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A trial of four starts, and the validation losses of each start as it was tried."""
    folder = tmp_path_factory.mktemp("whole")
    tried = {}
    original = loop.Trainer.run

    def run(self, *args, until=None, **options):
        trained = original(self, *args, until=until, **options)
        if until is not None:
            tried[int(self.files.metrics.parent.name)] = losses(self.files.metrics.parent)
        return trained

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Trainer, "run", run)
        return run_trial(trial(4), folder / "trial"), tried, folder / "trial"


def test_the_start_that_fits_validation_cells_best_goes_on(whole):
    result, tried, folder = whole
    assert result.state == "finished", result.failure
    assert sorted(tried) == [0, 1, 2, 3]
    assert len({curve[3] for curve in tried.values()}) == 4  # they are four initialisations, not one
    best = min(tried, key=lambda start: tried[start][3])
    assert result.metrics["train/start_chosen"] == best
    curve = losses(folder)
    assert sorted(curve) == [1, 2, 3, 4, 5, 6]
    assert {epoch: curve[epoch] for epoch in (1, 2, 3)} == tried[best]
    ends = [own[3] for own in tried.values()]
    assert result.metrics["train/start_loss_range"] == pytest.approx(max(ends) - min(ends))
    assert not (folder / "starts").exists()


@pytest.mark.parametrize("killed_after", [1, 5, 12, 14])
def test_a_trial_interrupted_among_its_starts_ends_with_the_same_numbers(whole, tmp_path, killed_after):
    result, _, folder = whole
    epochs = 0

    def leave():
        nonlocal epochs
        epochs += 1
        return epochs == killed_after

    with pytest.raises(TrialInterrupted):
        run_trial(trial(4), tmp_path / "torn", leave=leave)
    resumed = run_trial(trial(4), tmp_path / "torn")
    assert numbers(resumed) == numbers(result)
    assert losses(tmp_path / "torn") == losses(folder)


def test_the_first_start_is_the_initialisation_of_a_trial_without_starts(whole, tmp_path):
    _, tried, _ = whole
    run_trial(trial(1), tmp_path / "one")
    curve = losses(tmp_path / "one")
    assert {epoch: curve[epoch] for epoch in (1, 2, 3)} == tried[0]


def test_a_start_that_diverges_is_out(tmp_path, monkeypatch):
    original = loop.Trainer._train_epoch

    def epoch(self):
        metrics = original(self)
        if self.files.metrics.parent.name in diverging:
            self._refuse_nonfinite({"train/loss": float("nan")})
        return metrics

    monkeypatch.setattr(loop.Trainer, "_train_epoch", epoch)
    diverging = {"0", "2"}
    result = run_trial(trial(3, epochs=4), tmp_path / "some")
    assert result.state == "finished", result.failure
    assert result.metrics["train/start_chosen"] == 1
    diverging = {"0", "1"}
    result = run_trial(trial(2, epochs=4), tmp_path / "all")
    assert (result.state, result.failure["quantity"]) == ("failed", "train/loss")


def test_a_trial_stopped_among_its_starts_is_pruned(tmp_path):
    folder = tmp_path / "stopped"
    folder.mkdir()
    (folder / "stop").touch()
    assert run_trial(trial(2), folder).state == "pruned"
