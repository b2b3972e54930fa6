"""One trial: a pure function of its spec, written into one folder, resumable at any instant.

It knows no Optuna, MLflow or SLURM.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness import scoring
from harness.data import load
from harness.data.batch import PerturbationData
from harness.data.seeding import generator
from harness.errors import TrialFailure, TrialStopped, UserError
from harness.factor_scoring import ceiling_scores
from harness.files import write_when_room
from harness.kept_data import write_kept
from harness.model_spec import ModelSpec
from harness.models import LatentModel, Latents
from harness.models.likelihood import NegativeBinomial
from harness.models.supervised import Supervised
from harness.ood_table import OOD_TABLE, write_ood
from harness.scoring import Scored
from harness.training import checkpoint
from harness.training.collapse import collapse_warnings
from harness.training.loop import Trained, Trainer, TrainingFiles
from harness.training.pairing import Pairing
from harness.training.starts import choose_start
from harness.training.supervision import regression_targets
from harness.trial_checks import check_fits
from harness.trial_model import asked_pairing, described_model, notes_of, starts_of
from harness.trial_result import KEPT_DATA, RESULT_FILE, TrialResult, read_result
from harness.trial_spec import TrialSpec

#: Most training frames that input transforms are fitted on; bounds memory for images.
FITTED_FRAMES = 20_000
#: A trial that ends so has failed by its own numbers or inputs; anything else is a crash, which the driver retries.
_OWN_FAILURES = (TrialFailure, UserError, ValueError, ArithmeticError, np.linalg.LinAlgError)


def run_trial(
    spec: TrialSpec,
    folder: Path,
    *,
    device: str = "auto",
    cache_dir: Path | None = None,
    on_epoch: Callable[[int], None] | None = None,
    leave: Callable[[], bool] = lambda: False,
) -> TrialResult:
    """Train and score what ``spec`` says; a trial that is over is not run again.

    Parameters
    ----------
    spec
        What determines the result.
    folder
        The trial's own folder; a checkpoint in it is resumed.
    device
        ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``.
    cache_dir
        Folder of built datasets; default: ``cache`` beside the trial's folder.
    on_epoch
        Called after each epoch with its number.
    leave
        Asked after each epoch; once it says so, the trial is interrupted, to go on from a checkpoint.

    Returns
    -------
    The result, also in ``result.json``. Failures of the trial's own are results with state ``failed``.

    Raises
    ------
    TrialInterrupted
        Where ``leave`` said so; there is no result then.
    """
    over = read_result(folder)
    if over is not None:
        return over
    folder.mkdir(parents=True, exist_ok=True)
    write_when_room(folder / "spec.json", spec.model_dump_json(indent=1))
    started = time.time()
    threads_before = torch.get_num_threads()
    torch.set_num_threads(spec.threads)
    where = _device(device)
    blank = TrialResult(spec.trial_id, "failed", started=started, environment=_environment(where, spec.threads))
    try:
        trial = _Trial(spec, folder, where, cache_dir or folder.parent / "cache")
        result = trial.run(blank, on_epoch, leave)
    except TrialStopped:
        result = _pruned(blank, folder)
    except _OWN_FAILURES as error:
        result = replace(blank, failure=_failure(error), epochs=_epochs_logged(folder))
    finally:
        torch.set_num_threads(threads_before)
    result = replace(result, ended=time.time())
    write_when_room(folder / RESULT_FILE, result.to_json())
    return result


class _Trial:
    """The stages of a trial on one device."""

    def __init__(self, spec: TrialSpec, folder: Path, device: torch.device, cache_dir: Path) -> None:
        self.spec, self.folder, self.device = spec, folder, device
        self.data = load(spec.data, cache_dir)
        if self.data.fingerprint != spec.data_fingerprint:
            raise UserError(
                f"the data changed since the trial was planned (fingerprint {self.data.fingerprint}, planned "
                f"{spec.data_fingerprint}); launch the study again"
            )

    def run(self, blank: TrialResult, on_epoch: Callable[[int], None] | None, leave: Callable[[], bool]) -> TrialResult:
        began = time.monotonic()
        spec, data = self.spec, self.data
        check_fits(spec, data)
        pairing = Pairing(data, asked_pairing(spec), spec.seed)
        files = TrainingFiles.under(self.folder)
        train = spec.train.model_copy(update={"starts": starts_of(spec, pairing.kind)})
        choose_start(partial(self._trainer, pairing), train, self.folder / "starts", files, leave)
        trainer = self._trainer(pairing, 0, files)
        model = trainer.model
        untrained = scoring.encode_split(model, data, trainer.prepared, "test")
        trained = trainer.run(on_epoch, leave)
        latents = scoring.encode_split(model, data, trainer.prepared, "test")
        scoring.write_latents(self.folder / "latents.npz", data, latents, model)
        self._write_split()
        scored = self._score(model, trainer, latents, untrained)
        validated = scoring.encode_split(model, data, trainer.prepared, "validation")
        scored.warnings += [*data.notes, *notes_of(spec, pairing.kind), *_agreement(trained, scored)]
        if not isinstance(model, Supervised):  # whose outputs are no latents of its own
            scored.warnings += collapse_warnings(validated, trained.metrics)
        if scored.ood:
            write_ood(self.folder / OOD_TABLE, scored.ood)
        self._keep(model)
        scored.metrics |= trained.metrics
        scored.metrics["train/best_epoch"] = float(trained.best_epoch)
        scored.metrics["time/train_seconds"] = trained.seconds
        scored.metrics["time/second_stage_seconds"] = trained.stage_seconds
        scored.metrics["time/total_seconds"] = time.monotonic() - began
        _refuse_nonfinite(scored, trained.epochs)
        return replace(
            blank,
            state="finished",
            metrics=scored.metrics,
            baselines=scored.baselines,
            warnings=scored.warnings,
            conditions=scored.conditions,
            epochs=trained.epochs,
            data=_describe(data, scored),
        )

    def _trainer(self, pairing: Pairing, start: int, files: TrainingFiles) -> Trainer:
        spec = self.spec
        return Trainer(
            self._fresh_model(pairing.kind, start),
            self.data,
            spec.train,
            pairing=pairing,
            seed=spec.seed,
            kl_warmup=spec.model.kl_warmup if isinstance(spec.model, ModelSpec) else 0.0,
            precision=spec.precision,
            device=self.device,
            files=files,
            keep_every_epoch=self.folder / "weights" if spec.train.keep == "all" else None,
        )

    def _fresh_model(self, pairing: str, start: int) -> LatentModel:
        spec, data = self.spec, self.data
        model = described_model(spec, data, pairing, start)
        random = generator(spec.seed, "principal components")
        seen = torch.unique(data.index[data.splits["train"], : data.seen])
        chosen = seen[torch.randperm(len(seen), generator=random)[:FITTED_FRAMES]].sort().values
        model.transform.fit(data.as_float(data.frames[chosen]), random)
        if isinstance(model.likelihood, NegativeBinomial) and data.library is not None:
            model.likelihood.fit(data.frames[chosen], data.library[chosen])
        if isinstance(model, Supervised) and data.truth is not None:
            model.fit_targets(torch.cat(regression_targets(data.truth), dim=1)[seen])
        return model.to(self.device)

    def _score(self, model: LatentModel, trainer: Trainer, latents: Latents, untrained: Latents) -> Scored:
        spec, data = self.spec, self.data
        scored = Scored()
        wanted = []
        if spec.evaluate.identifiability:
            graph, targets = model.learned_graph(), scoring.target_scores(model)
            wanted.append(
                scoring.score_identifiability(
                    data,
                    latents,
                    untrained,
                    graph,
                    spec.seed,
                    targets=targets,
                    published=spec.evaluate.published_r2,
                )
            )
            if isinstance(model, Supervised):
                wanted.append(Scored(ceiling_scores(data, latents, untrained)))
        if spec.evaluate.ood:
            cells, noise = spec.evaluate.cells, spec.cell_noise
            wanted.append(scoring.score_ood(model, data, latents, cells, spec.seed, cell_noise=noise))
        if spec.evaluate.conditions:
            rotation = scoring.rotation_of(model, trainer, spec.evaluate.rotation_steps, spec.seed)
            wanted.append(scoring.score_conditions(model, data, latents, spec.seed, rotation=rotation))
        for part in wanted:
            scored.metrics |= part.metrics
            scored.baselines |= part.baselines
            scored.warnings += part.warnings
            scored.excluded |= part.excluded
            scored.conditions |= part.conditions
            scored.ood |= part.ood
            scored.controls = part.controls or scored.controls
        return scored

    def _write_split(self) -> None:
        data = self.data
        rows: dict[str, dict[str, list[int]]] = {}
        for split, members in data.splits.items():
            names = [data.conditions[c] for c in data.condition[members].tolist()]
            for row, name in zip(members.tolist(), names, strict=True):
                rows.setdefault(split, {}).setdefault(name, []).append(row)
        body = {"fingerprint": data.fingerprint, "excluded": data.excluded, "rows": rows, **data.split_record}
        write_when_room(self.folder / "split.json", json.dumps(body))

    def _keep(self, model: LatentModel) -> None:
        if self.spec.train.keep != "none":
            checkpoint.save(self.folder / "model.pt", model.state_dict())
            if not isinstance(model, Supervised):  # it predicts no cells
                write_kept(self.folder / KEPT_DATA, self.data)
        (self.folder / "checkpoint.pt").unlink(missing_ok=True)


def _agreement(trained: Trained, scored: Scored) -> list[str]:
    """Move the second stage's agreement to the scores; say where there is none."""
    if "train/second_stage_equal" not in trained.metrics:
        return []
    agreement = trained.metrics.pop("train/restart_agreement", None)
    if agreement is None:
        return ["one restart of the second stage alone reached the lowest loss, so that no agreement can be given"]
    scored.metrics["identifiability/restart_agreement"] = agreement
    return []


def _refuse_nonfinite(scored: Scored, epoch: int) -> None:
    for name, value in {**scored.metrics, **scored.baselines}.items():
        if not np.isfinite(value):
            raise TrialFailure(name, epoch, "is not finite")


def _describe(data: PerturbationData, scored: Scored) -> dict[str, Any]:
    return {
        "fingerprint": data.fingerprint,
        "conditions": len(data.conditions),
        "excluded": {**data.excluded, **scored.excluded},
        "quality": data.quality,
        "cells": {name: len(rows) for name, rows in data.splits.items()},
        "read": data.read,
        "controls": {} if scored.controls is None else dict(zip(("true", "predicted"), scored.controls, strict=True)),
    }


def _failure(error: BaseException) -> dict[str, Any]:
    return {
        "reason": str(error) or type(error).__name__,
        "quantity": getattr(error, "quantity", None),
        "epoch": getattr(error, "epoch", None),
        "traceback": "".join(traceback.format_exception(error)),
    }


def _pruned(blank: TrialResult, folder: Path) -> TrialResult:
    last: dict[str, float] = {}
    path = folder / "metrics.jsonl"  # not there yet where starts are being tried
    for line in path.read_text().splitlines() if path.exists() else ():
        last |= json.loads(line)["metrics"]
    return replace(blank, state="pruned", metrics=last, epochs=_epochs_logged(folder))


def _epochs_logged(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("compute.device: cuda was asked for, but torch sees no GPU here; use auto or cpu")
    return torch.device(name)


def _environment(device: torch.device, threads: int) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "device": str(device),
        "gpu": gpu,
        "threads": threads,
        "git_commit": _git_commit(),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
    }


def _git_commit() -> str | None:
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
