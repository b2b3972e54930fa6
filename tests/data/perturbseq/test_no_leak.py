"""No cell, and no statistic, of a test or predicted condition reaches training: those cells are poisoned, and nothing
that training leaves behind changes by a bit."""

import dataclasses
import importlib
import json

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from harness.data import load
from harness.data_spec import PerturbseqData
from harness.model_spec import CiteVAESpec, PerturbedVAESpec
from harness.trial import _Trial, run_trial
from harness.trial_spec import EvaluateSpec, SecondStageSpec, TrainSpec, TrialSpec

#: The module; the package names its function so too.
building = importlib.import_module("harness.data.perturbseq.build")
GENES = [f"g{k}" for k in range(30)]
LABELS = {"control": 60, "g0": 40, "g1": 40, "g2": 40, "g0+g1": 30, "g1+g2": 30}
MARK = "0123456789abcdef"
OPTIONS = {"latent_dim": 4, "responsive_dim": 2, "hidden": 8, "layers": 1, "mechanisms": "free", "input_pca": 6}
#: name -> fields of the data, whether they are a time course, and the model.
CASES = {
    "perturbed_vae": ({}, False, PerturbedVAESpec),
    "cite_vae": ({}, False, CiteVAESpec),
    "highly variable genes": ({"preprocess": {"highly_variable": {"genes": 10}}}, False, PerturbedVAESpec),
    "loadings": (
        {
            "perturbation_features": "loadings",
            "loading_components": 4,
            "split": {"kind": "leave_perturbation_out", "held_out": ["g2"]},
        },
        False,
        CiteVAESpec,
    ),
    "time course": (
        {
            "time": "day",
            "time_pairs": "ot",
            "split": "leave_time_out",
            "preprocess": {"highly_variable": {"genes": 10}},
        },
        True,
        CiteVAESpec,
    ),
}


@pytest.fixture(autouse=True)
def held_fingerprint(monkeypatch):
    monkeypatch.setattr("harness.data.fingerprint.fingerprint", lambda spec: MARK)


def screen(path, timed):
    random = np.random.default_rng(0)
    labels = random.permutation(np.repeat(list(LABELS), list(LABELS.values())))
    counts = random.poisson(random.gamma(2.0, 2.0, len(GENES)) * random.gamma(4.0, 0.25, (len(labels), len(GENES))))
    obs = pd.DataFrame({"condition": labels}, index=[f"cell{k}" for k in range(len(labels))])
    if timed:
        obs["day"] = [f"D{k}" for k in 3 * (np.arange(len(labels)) % 3)]
    anndata.AnnData(counts.astype(np.float32), obs, pd.DataFrame(index=GENES)).write_h5ad(path)


def poison(path, data):
    """Change the counts of every cell that only tests or is predicted."""
    cells = anndata.read_h5ad(path)
    own = data.split_record["cells"]
    poisoned = {
        name for split in own if split not in ("train", "validation") for part in own[split].values() for name in part
    }
    assert len(poisoned) > 40
    where = cells.obs_names.isin(poisoned)
    random = np.random.default_rng(1)
    cells.X[where] = cells.X[where] * random.integers(1, 40, len(GENES)) + random.integers(
        0, 9, (where.sum(), len(GENES))
    )
    cells.write_h5ad(path)


def trained(case, path, folder):
    """What training leaves: weights, and its numbers epoch by epoch; and the data it saw."""
    fields, _, kind = CASES[case]
    spec = TrialSpec(
        model=kind(**OPTIONS),
        data=PerturbseqData(path=str(path), min_cells=2, validation=0.25, **fields),
        train=TrainSpec(epochs=2, second_stage=SecondStageSpec(restarts=0)),
        evaluate=EvaluateSpec(ood=False, conditions=False),
        data_fingerprint=MARK,
    )
    result = run_trial(spec, folder, device="cpu")
    assert result.state == "finished", result.failure
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    weights = torch.load(folder / "model.pt", weights_only=True)
    return weights, [line["metrics"] for line in lines], load(spec.data, folder)


def before_and_after(case, tmp_path):
    """The same trial on clean and on poisoned cells."""
    path = tmp_path / "cells.h5ad"
    screen(path, CASES[case][1])
    clean = trained(case, path, tmp_path / "clean")
    poison(path, clean[2])
    return clean, trained(case, path, tmp_path / "poisoned")


def equal(clean, poisoned):
    same = clean[0].keys() == poisoned[0].keys()
    return same and clean[1] == poisoned[1] and all(torch.equal(clean[0][name], poisoned[0][name]) for name in clean[0])


@pytest.mark.parametrize("case", CASES)
def test_poisoned_test_cells_leave_training_as_it_was(case, tmp_path):
    clean, poisoned = before_and_after(case, tmp_path)
    assert equal(clean, poisoned)
    assert clean[2].feature_names == poisoned[2].feature_names
    rows = clean[2].splits["test"]
    frames = clean[2].index[rows, -1]
    assert not torch.equal(clean[2].frames[frames], poisoned[2].frames[frames])


def components_of_all_cells(monkeypatch):
    fresh = _Trial._fresh_model

    def leaky(self, *arguments):
        model = fresh(self, *arguments)
        model.transform.fit(self.data.frames, torch.Generator().manual_seed(0))
        return model

    monkeypatch.setattr(_Trial, "_fresh_model", leaky)


def statistics_of_all_cells(monkeypatch):
    laid_out = building.lay_out

    def leaky(*arguments):
        layout = laid_out(*arguments)
        return dataclasses.replace(layout, training=np.arange(len(layout.cells)))

    monkeypatch.setattr(building, "lay_out", leaky)


def test_cells_in_the_wrong_split_would_be_seen(tmp_path, monkeypatch):
    laid_out = building.lay_out

    def leaky(*arguments):
        layout = laid_out(*arguments)
        splits = dict(layout.splits)
        splits["train"] = np.concatenate([splits["train"], splits["test"][:1]])
        return dataclasses.replace(layout, splits=splits)

    monkeypatch.setattr(building, "lay_out", leaky)
    assert not equal(*before_and_after("cite_vae", tmp_path))


@pytest.mark.parametrize(
    ("case", "leak"),
    [
        ("perturbed_vae", components_of_all_cells),
        ("highly variable genes", statistics_of_all_cells),
        ("loadings", statistics_of_all_cells),
        ("time course", statistics_of_all_cells),
    ],
)
def test_a_leak_would_be_seen(case, leak, tmp_path, monkeypatch):
    leak(monkeypatch)
    assert not equal(*before_and_after(case, tmp_path))
