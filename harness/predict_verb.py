"""The verb ``harness predict``."""

from __future__ import annotations

import argparse


def predict(options: argparse.Namespace) -> int:
    """Predict cells with the model of a finished trial, and write them; gives the exit status."""
    from harness.api import predict_run
    from harness.outputs import refuse_taken
    from harness.predicting import ENDING, write_predicted

    refuse_taken(options.out, ending=ENDING)  # before minutes of loading
    predicted = predict_run(options.run, options.perturb, cells=options.cells, seed=options.seed, root=options.root)
    write_predicted(predicted, options.out)
    named = ", ".join(predicted.obs["perturbation"].cat.categories)
    print(f"wrote {options.out}: {predicted.n_obs:,} cells × {predicted.n_vars:,} features, of {named}")
    return 0
