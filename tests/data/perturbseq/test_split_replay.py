"""A split is kept by the names of its cells, and a trial that replays it has the same numbers."""

import json

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from file_order import as_filed

from harness.data import load
from harness.data.fingerprint import fingerprint
from harness.data_spec import PerturbseqData
from harness.errors import UserError
from harness.model_spec import PerturbedVAESpec
from harness.study.load import load_study
from harness.trial import run_trial
from harness.trial_spec import EvaluateSpec, SecondStageSpec, TrainSpec, TrialSpec

LABELS = {"control": 60, "A": 40, "B": 40, "C": 40, "A+B": 24, "A+C": 24, "B+C": 24, "A+Z": 24}
RULE = {"kind": "combo_seen_k", "held_out": ["C"], "train_doubles": 0.0, "validation_conditions": None}


def screen(path, seed=0, names=None, labels=None):
    random = np.random.default_rng(seed)
    condition = random.permutation(np.repeat(list(LABELS), list(LABELS.values()))) if labels is None else labels
    counts = random.poisson(3.0, (len(condition), 12)).astype(np.float32)
    index = [f"cell{k}" for k in range(len(condition))] if names is None else names
    obs = pd.DataFrame({"condition": condition}, index=index)
    anndata.AnnData(counts, obs, pd.DataFrame(index=[f"g{k}" for k in range(12)])).write_h5ad(path)
    return str(path)


def trial(data, tmp_path, name):
    spec = TrialSpec(
        model=PerturbedVAESpec(latent_dim=4, responsive_dim=2, hidden=8, layers=1, mechanisms="free"),
        data=data,
        train=TrainSpec(epochs=2, second_stage=SecondStageSpec(restarts=0)),
        evaluate=EvaluateSpec(rotation_steps=0, cells=20),
        data_fingerprint=fingerprint(data),
    )
    folder = tmp_path / name
    return run_trial(spec, folder, device="cpu"), folder


def numbers(result):
    return {name: value for name, value in result.metrics.items() if not name.startswith("time/")}, result.baselines


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "singles_to_doubles", "validation_conditions": ["A+C"]},
        {"kind": "combo_seen_k", "held_out": ["C"], "train_doubles": 0.0},
        "random_cells",
    ],
)
def test_a_trial_that_replays_a_split_has_the_same_numbers(rule, tmp_path):
    path = screen(tmp_path / "cells.h5ad")
    first, folder = trial(PerturbseqData(path=path, split=rule), tmp_path, "first")
    replay = {"kind": "replay", "path": str(folder / "split.json")}
    second, again = trial(PerturbseqData(path=path, split=replay), tmp_path, "second")
    assert first.state == second.state == "finished", first.failure or second.failure
    assert numbers(first) == numbers(second)
    weights = [torch.load(one / "model.pt", weights_only=True) for one in (folder, again)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    kept = [json.loads((one / "split.json").read_text()) for one in (folder, again)]
    for body in kept:
        del body["fingerprint"]
    assert kept[0] == kept[1]


def replayed(tmp_path, rule=RULE, **changes):
    """Data of one split, and those of its replay on a file that differs by ``changes``."""
    path = screen(tmp_path / "cells.h5ad")
    data = load(PerturbseqData(path=path, split=rule), tmp_path)
    kept = tmp_path / "split.json"
    kept.write_text(json.dumps({"fingerprint": data.fingerprint, "rows": {}, **data.split_record}))
    if changes:
        screen(tmp_path / "cells.h5ad", **changes)
    return data, load(PerturbseqData(path=path, split={"kind": "replay", "path": str(kept)}), tmp_path)


def test_names_say_which_cells_are_in_a_split(tmp_path):
    data, again = replayed(tmp_path)
    filed = as_filed(data, tmp_path / "cells.h5ad")
    obs = anndata.read_h5ad(tmp_path / "cells.h5ad").obs
    for split, own in data.split_record["cells"].items():
        for condition, cells in own.items():
            assert set(obs.loc[cells, "condition"]) == {condition}
        frames = filed.frames[filed.index[data.splits[split], -1].sort().values]
        everyone = {cell for cells in own.values() for cell in cells}
        used = [name for name in obs.index if name in everyone]
        counts = anndata.read_h5ad(tmp_path / "cells.h5ad")[used].X
        logs = np.log1p(1e4 * counts / counts.sum(1, keepdims=True))
        np.testing.assert_allclose(frames.numpy(), logs, rtol=1e-5)
    assert torch.equal(data.index, again.index)
    assert (data.conditions, data.ood, data.excluded) == (again.conditions, again.ood, again.excluded)


REPEATED = [f"cell{k % 50}" for k in range(sum(LABELS.values()))]


@pytest.mark.parametrize("names", [REPEATED, ["a", "a", "a#2", *(f"cell{k}" for k in range(sum(LABELS.values()) - 3))]])
def test_cells_of_one_name_are_told_apart(tmp_path, names):
    path = screen(tmp_path / "cells.h5ad", names=names)
    data = load(PerturbseqData(path=path), tmp_path)
    cells = [cell for own in data.split_record["cells"].values() for part in own.values() for cell in part]
    assert len(set(cells)) == len(cells) == sum(LABELS.values()) - LABELS["A+Z"]
    kept = tmp_path / "split.json"
    kept.write_text(json.dumps(data.split_record))
    again = load(PerturbseqData(path=path, split={"kind": "replay", "path": str(kept)}), tmp_path)
    assert all(torch.equal(again.splits[name], rows) for name, rows in data.splits.items())


def test_cells_of_one_name_can_be_told_apart_in_the_same_file_only(tmp_path):
    """The same names and conditions in the same order may be other cells: files joined the other way round."""
    path = screen(tmp_path / "cells.h5ad", names=REPEATED)
    kept = tmp_path / "split.json"
    kept.write_text(json.dumps(load(PerturbseqData(path=path), tmp_path).split_record))
    labels = anndata.read_h5ad(path).obs["condition"].to_numpy()
    screen(tmp_path / "cells.h5ad", seed=1, names=REPEATED, labels=labels)
    sentence = r"cell names occur more than once, .* give that file, or make names unique with AnnData\.obs_names_make"
    with pytest.raises(UserError, match=sentence):
        load(PerturbseqData(path=path, split={"kind": "replay", "path": str(kept)}), tmp_path)


def relabelled():
    labels = np.random.default_rng(0).permutation(np.repeat(list(LABELS), list(LABELS.values())))
    labels[np.flatnonzero(labels == "A")[0]] = "B"
    return labels


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"names": [f"other{k}" for k in range(276)]},
            r"cells of .*split\.json are not in this file, or are left out of it \(first 'cell",
        ),
        ({"labels": relabelled()}, r"1 cells have another condition here .* B and not A"),
        (
            {
                "labels": np.append(
                    np.random.default_rng(0).permutation(np.repeat(list(LABELS), list(LABELS.values()))), "A"
                ),
            },
            r"1 cells of this file are in no split .*first 'cell276'",
        ),
    ],
)
def test_another_file_is_refused(changes, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        replayed(tmp_path, **changes)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("{", "cannot be read as a split.json"),
        ('{"rows": {"train": {}}}', "does not name cells"),
        ('{"cells": {"train": {"A": ["x"]}}, "ood": [], "excluded": {}}', "has no cells of validation"),
    ],
)
def test_what_is_no_split_is_refused(body, sentence, tmp_path):
    path = screen(tmp_path / "cells.h5ad")
    (tmp_path / "split.json").write_text(body)
    with pytest.raises(UserError, match=sentence):
        load(PerturbseqData(path=path, split={"kind": "replay", "path": str(tmp_path / "split.json")}), tmp_path)


def test_a_split_with_unseen_genes_needs_their_vectors_again(tmp_path):
    path = screen(tmp_path / "cells.h5ad")
    (tmp_path / "genes.csv").write_text("gene,x\nA,1\nB,2\nC,3\nZ,4\n")
    features = {"perturbation_features": str(tmp_path / "genes.csv")}
    data = load(PerturbseqData(path=path, split=RULE, **features), tmp_path)
    assert "single_unseen" in data.ood
    (tmp_path / "split.json").write_text(json.dumps(data.split_record))
    split = {"kind": "replay", "path": str(tmp_path / "split.json")}
    again = load(PerturbseqData(path=path, split=split, **features), tmp_path)
    assert torch.equal(data.u, again.u)
    with pytest.raises(UserError, match=r"cannot be used, since data\.perturbation_features say nothing"):
        load(PerturbseqData(path=path, split=split), tmp_path)


def test_the_content_of_a_split_names_the_data_and_its_path_does_not(tmp_path):
    path = screen(tmp_path / "cells.h5ad")
    for name, text in (("a.json", "1"), ("b.json", "1"), ("c.json", "2")):
        (tmp_path / name).write_text(text)
    names = [
        fingerprint(PerturbseqData(path=path, split={"kind": "replay", "path": str(tmp_path / name)}))
        for name in ("a.json", "b.json", "c.json")
    ]
    assert names[0] == names[1] != names[2]


def test_a_study_file_names_them_from_where_it_lies(tmp_path, monkeypatch):
    folder = tmp_path / "studies"
    folder.mkdir()
    for name in ("cells.h5ad", "split.json", "genes.csv"):
        (folder / name).write_text("")
    text = (
        "models: [{kind: beta_vae}]\n"
        "data: {kind: perturbseq, path: cells.h5ad, perturbation_features: genes.csv,\n"
        "       split: {kind: replay, path: split.json}}\n"
    )
    (folder / "study.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    data = load_study(folder / "study.yaml").data
    assert data["split"]["path"] == str(folder / "split.json")
    assert data["perturbation_features"] == str(folder / "genes.csv")
    (folder / "study.yaml").write_text(text.replace("genes.csv", "loadings"))
    assert load_study(folder / "study.yaml").data["perturbation_features"] == "loadings"
    (folder / "split.json").unlink()
    with pytest.raises(UserError, match=r"line 3: data\.split\.path is .*split\.json, but nothing is there"):
        load_study(folder / "study.yaml")
