"""The training loop: epochs, validation, checkpoints; resumable at any instant with the same numbers.

Nothing random is carried from one epoch to the next: batches, pairs and noise of an epoch derive from (seed, purpose,
epoch), so that a checkpoint at the end of an epoch is all a resumed run needs.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.data.batch import PerturbationData
from harness.data.seeding import generator
from harness.errors import TrialFailure, TrialInterrupted, TrialStopped
from harness.files import LineFile, write_when_room
from harness.models import LatentModel, Loss
from harness.models.causal_vae import CausalVAE
from harness.models.moments import Moments
from harness.models.supervised import Supervised
from harness.training import checkpoint
from harness.training.batches import epoch_batches
from harness.training.collapse import inactive
from harness.training.pairing import Pairing
from harness.training.predicted import PredictedConditions
from harness.training.second_stage import applies_to, posterior_moments, second_stage
from harness.training.supervision import regression_targets
from harness.trial_spec import PREDICTED_METRICS, TrainSpec


@dataclass(frozen=True)
class TrainingFiles:
    """Where training writes, all in the trial's folder."""

    metrics: Path
    checkpoint: Path
    stop: Path

    @classmethod
    def under(cls, folder: Path) -> TrainingFiles:
        """The files of a trial folder."""
        return cls(folder / "metrics.jsonl", folder / "checkpoint.pt", folder / "stop")


@dataclass(frozen=True)
class Trained:
    """What training ends with: the best validation, the last epoch's metrics, and how long it took in all.

    ``stage_seconds`` of the ``seconds`` went into the second stage.
    """

    best_epoch: int
    epochs: int
    metrics: dict[str, float]
    seconds: float
    stage_seconds: float


class Trainer:
    """Fits one model to one dataset.

    Parameters
    ----------
    model
        On ``device``, its input transform already fitted.
    data
        The data; frames are prepared once and kept on ``device``.
    spec
        How to train.
    pairing
        Which control stands beside each cell.
    seed
        The trial's seed.
    kl_warmup
        Fraction of the epochs over which KL weights rise linearly from 0 to 1.
    precision
        ``float32``, or ``bfloat16`` autocast.
    files
        Where to write.
    keep_every_epoch
        Folder for the weights of every epoch, or None.
    """

    def __init__(
        self,
        model: LatentModel,
        data: PerturbationData,
        spec: TrainSpec,
        *,
        pairing: Pairing,
        seed: int,
        kl_warmup: float,
        precision: str,
        device: torch.device,
        files: TrainingFiles,
        keep_every_epoch: Path | None = None,
    ) -> None:
        self.model, self.data, self.spec, self.pairing = model, data, spec, pairing
        self.seed, self.kl_warmup, self.precision = seed, kl_warmup, precision
        self.device, self.files = device, files
        self.keep_every_epoch = keep_every_epoch
        self.log = LineFile(files.metrics)
        with torch.no_grad():
            library = None if data.library is None else data.library.to(device)
            self.prepared = model.transform.prepare(data.frames.to(device), library)
        self.u = data.u.to(device)
        if isinstance(model, Supervised) and data.truth is not None:
            self.truth = torch.cat(regression_targets(data.truth), dim=1).to(device)
        fast = model.mechanism_parameters()
        chosen = {id(parameter) for parameter in fast}
        slow = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
        rate = spec.learning_rate
        groups: list[dict[str, Any]] = [{"params": slow, "lr": rate, "base": rate}]
        if fast:
            groups.append({"params": fast, "lr": rate * spec.mechanism_rate, "base": rate * spec.mechanism_rate})
        self.optimizer = torch.optim.Adam(groups, fused=True)  # one call for all parameters: a fifth of a small step
        self.predicted = PredictedConditions(model, data, device, seed) if spec.monitor in PREDICTED_METRICS else None
        self.epoch = 0
        self.best = math.inf  # of the monitored metric, turned so that less is better
        self.best_epoch = 0
        self.since_best = 0
        self.seconds = self.stage_seconds = 0.0
        self.best_state: dict[str, Tensor] = self._weights()
        self.last: dict[str, float] = {}

    # -- the loop -----------------------------------------------------------------------------------------

    def run(
        self,
        on_epoch: Callable[[int], None] | None = None,
        leave: Callable[[], bool] = lambda: False,
        until: int | None = None,
    ) -> Trained:
        """Train to the end, from a checkpoint where there is one, and leave the best weights in the model.

        Parameters
        ----------
        on_epoch
            Called after each epoch with its number.
        leave
            Asked after each epoch; once it says so, a checkpoint is written and training is interrupted.
        until
            Epoch after which to validate, write a checkpoint and return, the last weights in the model; default: the
            end.

        Raises
        ------
        TrialFailure
            If the loss or a parameter becomes NaN or infinite.
        TrialStopped
            If a ``stop`` file appears; a checkpoint is written first.
        TrialInterrupted
            If ``leave`` says so.
        """
        self._resume()
        saved_at = time.monotonic()
        last = self.spec.epochs if until is None else min(until, self.spec.epochs)
        while self.epoch < last and not self._out_of_patience():
            started = time.monotonic()
            self.epoch += 1
            metrics = self._train_epoch()
            if self.epoch == self._second_stage_at() < self.spec.epochs:
                metrics |= self._second_stage()
            due = self.epoch % self.spec.validate_every == 0 or self.epoch == last
            if due:
                metrics |= self._validate()
                self._remember_best(self.judged(metrics))
            self.last |= metrics
            self.seconds += time.monotonic() - started
            self._log(metrics)
            if self.keep_every_epoch is not None:
                self.keep_every_epoch.mkdir(exist_ok=True)
                checkpoint.save(self.keep_every_epoch / f"epoch_{self.epoch:05d}.pt", self._weights())
            stopped, leaves = self.files.stop.exists(), leave()
            due = stopped or leaves or time.monotonic() - saved_at >= self.spec.checkpoint_seconds
            if due and self._save():
                saved_at = time.monotonic()
            if stopped:
                self.log.settle()
                raise TrialStopped(f"stopped after epoch {self.epoch}")
            if leaves:
                raise TrialInterrupted(f"interrupted after epoch {self.epoch}")
            if on_epoch is not None:
                on_epoch(self.epoch)
        self.log.settle()
        if until is not None:
            checkpoint.save(self.files.checkpoint, self._state())  # waits for room: it is all a start ends with
            return self._trained()
        self._save()  # so that an interruption while scoring does not train again
        self.model.load_state_dict(self.best_state)
        if self.predicted is not None:
            self.last |= self._validate()  # of the weights that are kept, which a search goes by
        if self._second_stage_at():
            started = time.monotonic()
            self.last.pop("train/restart_agreement", None)  # of the earlier stage, which this one replaces
            self.last |= self._second_stage() | self._validate()
            self.seconds += time.monotonic() - started
        return self._trained()

    def _trained(self) -> Trained:
        return Trained(self.best_epoch, self.epoch, dict(self.last), self.seconds, self.stage_seconds)

    def _train_epoch(self) -> dict[str, float]:
        self.model.train()
        self.model.begin_epoch(self.epoch, self.spec.epochs)
        self._set_rates()
        noise = generator(self.seed, "noise", self.epoch, device=self.device)
        rows = self.data.splits["train"]
        index = self.pairing.index("train", self.epoch).to(self.device)
        u = self.u[rows.to(self.device)]
        random = generator(self.seed, "batches", self.epoch)
        drawn = epoch_batches(self.data.condition[rows], self.spec.batches, self.spec.batch_size, random)
        batches = [batch.to(self.device) for batch in drawn]
        kl_weight = self._kl_weight()
        sums: dict[str, Tensor] = {}
        for batch in batches:
            self.optimizer.zero_grad(set_to_none=True)
            with self._autocast():
                loss = self._loss(index[batch], u[batch], kl_weight, noise)
            loss.total.backward()  # type: ignore[no-untyped-call]
            if self.spec.gradient_clip is not None:
                norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.gradient_clip)
                sums["gradient_norm"] = sums.get("gradient_norm", torch.zeros_like(norm)) + norm
            self.optimizer.step()
            for name, value in {"loss": loss.total.detach(), **loss.terms}.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value
        metrics = {f"train/{name}": (total / len(batches)).item() for name, total in sums.items()}
        metrics["train/kl_weight"] = kl_weight
        metrics["train/learning_rate"] = self.optimizer.param_groups[0]["lr"]
        self._refuse_nonfinite(metrics)
        return metrics

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        self.model.eval()
        rows = self.data.splits["validation"]
        index = self.pairing.index("validation", 0).to(self.device)
        u = self.u[rows.to(self.device)]
        noise = generator(self.seed, "validation noise", device=self.device)
        sums: dict[str, float] = {}
        means_v, means_i = [], []
        for part in torch.arange(len(rows), device=self.device).split(4 * self.spec.batch_size):
            with self._autocast():
                terms = self._loss(index[part], u[part], 1.0, noise).terms
                latents = self.model.encode(self.prepared[index[part]], u[part])
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(part)
            means_v.append(latents.responsive.float())
            means_i.append(latents.invariant.float())
        metrics = {f"validation/{name}": total / len(rows) for name, total in sums.items()}
        metrics["validation/loss"] = metrics.pop("validation/bound")
        metrics["validation/active_responsive"] = float(_active(torch.cat(means_v)))
        metrics["validation/active_invariant"] = float(_active(torch.cat(means_i)))
        if self.predicted is not None:
            metrics |= self.predicted.measure(generator(self.seed, "validation predictions", device=self.device))
        self._refuse_nonfinite(metrics)
        return metrics

    def _loss(self, index: Tensor, u: Tensor, kl_weight: float, noise: torch.Generator) -> Loss:
        """Objective of the trajectories whose frames are ``index`` (n, T)."""
        frames = self.prepared[index]
        if isinstance(self.model, Supervised):
            return self.model.loss(frames, u, kl_weight, noise, truth=self.truth[index])
        return self.model.loss(frames, u, kl_weight, noise)

    # -- second stage -------------------------------------------------------------------------------------

    def moments(self) -> Moments:
        """Posterior moments on the training split; for models that the second stage applies to."""
        assert isinstance(self.model, CausalVAE)
        rows = self.data.splits["train"]
        index = self.pairing.index("train", self.epoch).to(self.device)
        u, condition = self.u[rows.to(self.device)], self.data.condition[rows].to(self.device)
        return posterior_moments(self.model, self.prepared, index, u, condition)

    def _second_stage_at(self) -> int:
        """The epoch after which the second stage first comes; 0 where there is none."""
        chosen = self.spec.second_stage
        if chosen.restarts == 0 or not applies_to(self.model):
            return 0
        return max(1, round(chosen.after * self.spec.epochs))

    def _second_stage(self) -> dict[str, float]:
        """Fit unmixing and mechanisms again; the optimiser forgets what it knew of them."""
        assert isinstance(self.model, CausalVAE)
        started = time.monotonic()
        chosen = self.spec.second_stage
        random = generator(self.seed, "second stage", self.epoch)
        found = second_stage(self.model, self.moments(), restarts=chosen.restarts, steps=chosen.steps, generator=random)
        for parameter in self.model.mechanism_parameters():
            self.optimizer.state.pop(parameter, None)
        metrics = {"second_stage_before": found.before, "second_stage_after": found.after}
        metrics |= {"second_stage_equal": float(found.equal)}
        if found.agreement is not None:
            metrics["restart_agreement"] = found.agreement
        named = {f"train/{name}": value for name, value in metrics.items()}
        self._refuse_nonfinite(named)
        self.stage_seconds += time.monotonic() - started
        return named

    # -- schedule -----------------------------------------------------------------------------------------

    def _kl_weight(self) -> float:
        warm = self.kl_warmup * self.spec.epochs
        return 1.0 if warm <= 0 else min(1.0, self.epoch / warm)

    def _set_rates(self) -> None:
        progress = (self.epoch - 1) / self.spec.epochs
        factor = 0.5 * (1.0 + math.cos(math.pi * progress)) if self.spec.schedule == "cosine" else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * factor

    def _out_of_patience(self) -> bool:
        return self.spec.patience is not None and self.since_best >= self.spec.patience

    def judged(self, metrics: dict[str, float]) -> float:
        """The monitored metric of ``metrics``, turned so that less is better."""
        value = metrics[self.spec.monitor]
        return -value if self.spec.monitor == "validation/pearson_delta" else value

    def _remember_best(self, loss: float) -> None:
        # weights fitted under a partial KL weight are no candidates: their bound is not the one that was optimised
        if self._kl_weight() < 1.0 or not self.model.settled:
            return
        if loss < self.best:
            self.best, self.best_epoch, self.since_best = loss, self.epoch, 0
            self.best_state = self._weights()
        else:
            self.since_best += 1

    def _autocast(self) -> Any:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    # -- state on disk ------------------------------------------------------------------------------------

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def _save(self) -> bool:
        """Write a checkpoint, unless the disk is full; gives whether there was room.

        A checkpoint stands for the lines up to its epoch: none without them.
        """
        return self.log.flush() and checkpoint.try_save(self.files.checkpoint, self._state())

    def _state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_state": self.best_state,
            "since_best": self.since_best,
            "seconds": self.seconds,
            "stage_seconds": self.stage_seconds,
            "last": self.last,
        }

    def _resume(self) -> None:
        state = checkpoint.load(self.files.checkpoint, self.device)
        if state is None:
            self.files.metrics.unlink(missing_ok=True)
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.best, self.best_epoch = state["epoch"], state["best"], state["best_epoch"]
        self.best_state, self.since_best = state["best_state"], state["since_best"]
        self.seconds, self.stage_seconds, self.last = state["seconds"], state["stage_seconds"], state["last"]
        _drop_after(self.files.metrics, self.epoch)

    def _log(self, metrics: dict[str, float]) -> None:
        line = json.dumps({"epoch": self.epoch, "time": time.time(), "metrics": metrics})
        self.log.add(line)

    def _refuse_nonfinite(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            if not math.isfinite(value):
                self.log.settle()  # the curve up to here tells what went wrong
                raise TrialFailure(name, self.epoch, "is nan" if math.isnan(value) else "is infinite")


def _active(means: Tensor) -> int:
    return len(means.T) - len(inactive(means))


def _drop_after(path: Path, epoch: int) -> None:
    """Keep the lines of a metrics file up to ``epoch``; a torn last line goes too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["epoch"] <= epoch:
                kept.append(line)
        except (json.JSONDecodeError, KeyError):
            break
    write_when_room(path, "".join(line + "\n" for line in kept))
