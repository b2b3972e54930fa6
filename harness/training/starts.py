"""Several initialisations, of which the one that fits validation cells best goes on: a way out of poor optima.

A latent model of images can settle on a curved chart of its latents, from where nothing leads back; which it will be is
decided early and shows in the validation loss. So each start trains for the first epochs of the same schedule, and
the one with the best monitored validation metric continues from its checkpoint. No truth and no test cell has a say.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from harness.errors import TrialFailure
from harness.files import write_when_room
from harness.training import checkpoint
from harness.training.loop import Trainer, TrainingFiles
from harness.trial_spec import TrainSpec

#: Makes the trainer of a start, by its number and where it writes.
MakeTrainer = Callable[[int, TrainingFiles], Trainer]


def choose_start(
    make: MakeTrainer, spec: TrainSpec, folder: Path, files: TrainingFiles, leave: Callable[[], bool]
) -> None:
    """Train every start for its share of the epochs and leave the best one's checkpoint and lines in ``files``.

    Nothing is done where there is one start only, or a checkpoint in ``files`` already: starts are over then. An
    interrupted start goes on from its own checkpoint. A start that diverges is out; if all do, the failure of the
    first is raised.

    Parameters
    ----------
    make
        Makes the trainer of start ``k``.
    spec
        How to train.
    folder
        Where starts write, each in a folder of its own; removed at the end.
    files
        Those of the trial.
    leave
        As in `Trainer.run`.

    Raises
    ------
    TrialFailure, TrialStopped, TrialInterrupted
        As in `Trainer.run`.
    """
    number = spec.starts.number
    assert isinstance(number, int), "the trial resolves train.starts.number: auto"
    if number == 1:
        return
    if files.checkpoint.exists():
        shutil.rmtree(folder, ignore_errors=True)  # left where a process died right after the choice
        return
    until = max(1, round(spec.starts.share * spec.epochs))
    losses = [_loss(make, k, folder / str(k), files, until, leave) for k in range(number)]
    finite = [loss for loss in losses if isinstance(loss, float)]
    if not finite:
        raise next(loss for loss in losses if isinstance(loss, TrialFailure))
    best = losses.index(min(finite))
    _hand_over(
        TrainingFiles.under(folder / str(best)), files, {"chosen": float(best), "loss_range": max(finite) - min(finite)}
    )
    shutil.rmtree(folder, ignore_errors=True)


def _loss(
    make: MakeTrainer, number: int, own: Path, files: TrainingFiles, until: int, leave: Callable[[], bool]
) -> float | TrialFailure:
    """The monitored metric of a start after ``until`` epochs, turned so that less is better, or why it has none."""
    own.mkdir(parents=True, exist_ok=True)
    trainer = make(number, replace(TrainingFiles.under(own), stop=files.stop))
    try:
        trained = trainer.run(leave=leave, until=until)
    except TrialFailure as failure:
        return failure
    return trainer.judged(trained.metrics)


def _hand_over(best: TrainingFiles, to: TrainingFiles, told: dict[str, float]) -> None:
    """The lines first, then the checkpoint, which says that starts are over."""
    state = checkpoint.load(best.checkpoint, torch.device("cpu"))
    assert state is not None, "a start ends with a checkpoint"
    state["last"] |= {f"train/start_{name}": value for name, value in told.items()}
    write_when_room(to.metrics, best.metrics.read_text())
    checkpoint.save(to.checkpoint, state)
