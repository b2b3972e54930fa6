"""The verb ``harness predict``."""

from __future__ import annotations

import argparse


def predict(options: argparse.Namespace) -> int:
    """Predict cells with the model of a finished trial, and write them; gives the exit status."""
    from harness.predicting import predict as cells_of
    from harness.predicting import refuse_taken, write_predicted
    from harness.study.find_run import find_run
    from harness.trial_model import load_fitted

    refuse_taken(options.out)  # before minutes of loading
    folder = find_run(options.run, options.root)
    predicted = cells_of(
        load_fitted(folder, options.root / "cache"), options.perturb, cells=options.cells, seed=options.seed
    )
    write_predicted(predicted, options.out)
    named = ", ".join(predicted.obs["perturbation"].cat.categories)
    print(f"wrote {options.out}: {predicted.n_obs:,} cells × {predicted.n_vars:,} features, of {named}")
    return 0
