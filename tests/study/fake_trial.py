"""A trial that costs nothing: the same files as a real one, numbers from its spec, resumable, and able to die."""

import hashlib
import json
import os
import time
from dataclasses import replace

from harness.errors import TrialFailure, TrialInterrupted
from harness.files import LineFile, has_no_room, write_atomic, write_when_room
from harness.trial_result import TrialResult, read_result


def number(*words):
    """Between 0 and 1, from words."""
    digest = hashlib.sha256(json.dumps(words, default=str).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def loss(spec, epoch):
    """Falls with epochs towards a level that grows with the distance of sparsity from 0.3."""
    level = abs(getattr(spec.model, "sparsity", 0.5) - 0.3)
    return level + 1.0 / epoch + 0.01 * number(spec.seed, level)


def behaviour(name):
    """What the environment asks of the trial: a JSON value, or None."""
    return json.loads(os.environ.get(f"FAKE_{name}", "null"))


def save(checkpoint, log, epoch):
    """A checkpoint, unless the disk is full."""
    try:
        if log.flush():
            write_atomic(checkpoint, str(epoch))
    except OSError as error:
        if not has_no_room(error):
            raise


def run_trial(spec, folder, *, device="auto", cache_dir=None, leave=lambda: False):
    over = read_result(folder)
    if over is not None:
        return over
    started = time.time()
    blank = TrialResult(spec.trial_id, "failed", started=started, environment={"host": "here", "python": "3"})
    sparsity = getattr(spec.model, "sparsity", 0.0)
    checkpoint = folder / "checkpoint.pt"
    done = json.loads(checkpoint.read_text()) if checkpoint.exists() else 0
    log = LineFile(folder / "metrics.jsonl")
    result = None
    for epoch in range(done + 1, spec.train.epochs + 1):
        time.sleep(behaviour("SECONDS") or 0.0)
        if sparsity in (behaviour("FAIL") or ()):
            error = TrialFailure("train/loss", epoch, "is nan")
            failure = {"reason": str(error), "quantity": error.quantity, "epoch": epoch, "traceback": ""}
            result = replace(blank, failure=failure)
            break
        if sparsity in (behaviour("DIE") or ()) and not checkpoint.exists():
            print("out of luck", file=os.sys.stderr, flush=True)
            if behaviour("ALWAYS") is None:
                checkpoint.write_text(str(epoch - 1))
            os._exit(9)
        if behaviour("RAISE"):
            raise RuntimeError(behaviour("RAISE"))
        line = {"epoch": epoch, "time": time.time(), "metrics": {"validation/loss": loss(spec, epoch)}}
        log.add(json.dumps(line))
        save(checkpoint, log, epoch)
        if (folder / "stop").exists():
            result = replace(blank, state="pruned", metrics=line["metrics"], epochs=epoch)
            break
        if leave():
            raise TrialInterrupted(f"interrupted after epoch {epoch}")
    if result is None:
        metrics = {"validation/loss": loss(spec, spec.train.epochs), "identifiability/mcc": number(spec.trial_id)}
        baselines = {"baseline/additive/ood/double/rmse_relative": 0.5}
        result = replace(blank, state="finished", metrics=metrics, baselines=baselines, epochs=spec.train.epochs)
    log.settle()
    result = replace(result, ended=time.time())
    write_when_room(folder / "result.json", result.to_json())
    return result
