"""A real trial whose epochs take their time, so that something can happen to it in one of them."""

import os
import time

import harness.trial


def run_trial(spec, folder, **keys):
    seconds = float(os.environ.get("SLOW_SECONDS", "0"))
    hit = os.environ.get("SLOW_DIES", "")
    if hit and getattr(spec.model, "sparsity", None) == float(hit):
        raise RuntimeError("out of luck")
    return harness.trial.run_trial(spec, folder, on_epoch=lambda epoch: time.sleep(seconds), **keys)
