"""Study folders with made-up results, for the tests of tables and figures."""

import json

import numpy as np

from harness.study.folder import StudyFolder
from harness.study.plan import plan
from harness.study.records import Record
from harness.study.spec import StudySpec

MCC = "identifiability/mcc"


def record(cell="a", seed=0, *, model="perturbed_vae", state="finished", axes=None, metrics=None, **other):
    """A record with defaults."""
    name = f"{cell}-{seed}"
    return Record(name, cell, model, axes or {}, seed, state, metrics or {}, **{"fingerprint": "data", **other})


def study(**changes):
    """A small study: two models over sparsity and latent_dim, three seeds."""
    return StudySpec.model_validate(
        {
            "name": "sample",
            "description": "Two models on a small grid.",
            "models": [{"kind": "perturbed_vae"}, {"kind": "cite_vae"}],
            "data": {"kind": "simulation"},
            "grid": {"sparsity": [0.0, 0.01], "latent_dim": [6, 8]},
            "seeds": 3,
            **changes,
        }
    )


def planned(spec):
    """Its plan, without looking at data."""
    return plan(spec, lambda data: data.model_dump_json())


def scores(rng, *, level, untrained, splits):
    """Plausible final metrics and baselines of one trial."""
    jitter = lambda centre, sd=0.02: float(centre + sd * rng.standard_normal())  # noqa: E731
    metrics = {"validation/loss": jitter(123.4, 1.0)}
    if level is not None:
        metrics |= {
            MCC: min(jitter(level), 0.999),
            f"{MCC}_untrained": jitter(untrained),
            f"{MCC}_shuffled": jitter(0.08, 0.01),
            "identifiability/r2_responsive": jitter(level - 0.05),
            "identifiability/r2_invariant": jitter(0.93),
        }
    baselines = {}
    for split in splits:
        model = {"rmse_relative": 0.46, "rmse_relative_mean": 0.40, "pearson_delta": 0.72, "r2": 0.93}
        metrics |= {f"ood/{split}/{name}": jitter(value) for name, value in model.items()}
        metrics[f"ood/{split}/energy_distance"] = jitter(0.012, 0.002)
        metrics[f"ood/{split}/rmse_relative_floor"] = 0.41
        for name, shift in (("control_mean", 0.15), ("mean_effect", 0.08), ("additive", 0.01)):
            base = f"baseline/{name}/ood/{split}"
            baselines |= {f"{base}/rmse_relative": 0.46 + shift, f"{base}/rmse_relative_mean": 0.4 + shift}
            baselines |= {f"{base}/pearson_delta": 0.7 - 4 * shift, f"{base}/r2": 0.9 - shift}
            baselines |= {f"{base}/energy_distance": 0.014 + 0.1 * shift}
    return metrics, baselines


def fill(folder: StudyFolder, points, *, splits=("double",), truth=True, skip=()):
    """Write a result for every trial of the points, except those whose number is in ``skip``."""
    rng = np.random.default_rng(0)
    levels = {"perturbed_vae": 0.76, "cite_vae": 0.83, "beta_vae": 0.66}
    for number, (point, trial) in enumerate((p, t) for p in points for t in p.trials):
        if number in skip:
            continue
        level = levels[point.kind] + (0.08 if point.values.get("sparsity") else 0.0)
        metrics, baselines = scores(rng, level=level if truth else None, untrained=0.69, splits=splits)
        write_result(folder, trial.trial_id, metrics=metrics, baselines=baselines)


def write_result(folder, trial_id, *, state="finished", **fields):
    """Write one ``result.json``."""
    trial = folder.trial(trial_id)
    trial.path.mkdir(parents=True, exist_ok=True)
    trial.result.write_text(json.dumps({"trial_id": trial_id, "state": state, **fields}))


def latents(path, *, cells=400, learned=5, invariant=True):
    """Write a ``latents.npz`` whose learned latents are a permuted, sign-flipped, noisy truth."""
    rng = np.random.default_rng(1)
    true, kept = rng.standard_normal((cells, 3)), rng.standard_normal((cells, 2))
    block = np.column_stack([-true[:, 2], true[:, 0], true[:, 1], rng.standard_normal((cells, 2))])[:, :learned]
    arrays = {
        "responsive_true": true,
        "responsive": block + 0.2 * rng.standard_normal(block.shape),
        "invariant": kept @ rng.standard_normal((2, 2)),
        "condition": rng.integers(0, 4, cells),
        "names_responsive": np.array(["x", "y", "theta"]),
    }
    if invariant:
        arrays |= {"invariant_true": kept, "names_invariant": np.array(["light", "hue"])}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
