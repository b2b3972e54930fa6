"""Perturbations that are vectors: what u is then, which unseen genes it tells, and what still cannot be predicted."""

import re

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from harness.data import load
from harness.data.fingerprint import fingerprint
from harness.data.perturbseq.gene_vectors import GeneVectors, loadings, read_vectors
from harness.data_spec import PerturbseqData
from harness.errors import UserError
from harness.evaluation.baselines import CannotPredict
from harness.latent_scoring import u_of
from harness.model_spec import BetaVAESpec, CiteVAESpec, DiscrepancyVAESpec, PerturbedVAESpec
from harness.predicting import predict
from harness.study.matching import mismatch
from harness.trial import run_trial
from harness.trial_model import load_fitted
from harness.trial_spec import EvaluateSpec, SecondStageSpec, TrainSpec, TrialSpec

GENES = [f"g{k}" for k in range(24)]
LABELS = {"control": 80, "g0": 40, "g1": 40, "g2": 40, "g3": 40, "g0+g1": 24, "g0+g5": 24, "g5+g6": 24, "g1+NOVEL": 24}
TABLE = {
    "g0": (1.0, 0.0),
    "g1": (0.0, 2.0),
    "g2": (1.0, 1.0),
    "g3": (-1.0, 0.5),
    "g5": (2.0, 1.0),
    "UNUSED": (0.0, 1.0),
}


def screen(tmp_path, effects=None, labels=None):
    """Counts whose genes move together in control; a perturbation shifts the first gene by its effect."""
    random = np.random.default_rng(0)
    labels = LABELS if labels is None else labels
    condition = random.permutation(np.repeat(list(labels), list(labels.values())))
    programs = random.normal(0, 0.8, (len(condition), 2)) @ random.normal(0, 1.0, (2, len(GENES)))
    rate = 20 * np.exp(0.3 * programs)
    for name, effect in (effects or {}).items():
        rate[condition == name] *= np.exp(effect)
    obs = pd.DataFrame({"condition": condition}, index=[f"cell{k}" for k in range(len(condition))])
    adata = anndata.AnnData(random.poisson(rate).astype(np.float32), obs, pd.DataFrame(index=GENES))
    adata.write_h5ad(tmp_path / "cells.h5ad")
    return str(tmp_path / "cells.h5ad")


def table(tmp_path, rows=TABLE):
    path = tmp_path / "genes.csv"
    pd.DataFrame(rows, index=["a", "b"]).T.to_csv(path, index_label="gene")
    return str(path)


def read(tmp_path, features, **fields):
    return load(PerturbseqData(path=screen(tmp_path), perturbation_features=features, **fields), tmp_path)


def test_u_is_the_sum_of_the_members_standardised_vectors(tmp_path):
    data = read(tmp_path, table(tmp_path))
    given = np.array([TABLE[name] for name in ("g0", "g1", "g2", "g3")])
    unit = {name: np.array([1, *(np.array(row) - given.mean(0)) / given.std(0)]) for name, row in TABLE.items()}
    assert data.perturbations == ("g0", "g1", "g2", "g3")
    assert data.ood == ("double_seen2", "double_seen1")
    for k, name in enumerate(data.conditions):
        wanted = sum((unit[gene] for gene in name.split("+") if name != "control"), np.zeros(3))
        rows = data.u[data.condition == k]
        np.testing.assert_allclose(rows, np.broadcast_to(wanted, rows.shape), atol=1e-6)
        np.testing.assert_allclose(u_of(name, data), wanted, atol=1e-6)
    np.testing.assert_allclose(u_of("UNUSED+g5", data), unit["UNUSED"] + unit["g5"], atol=1e-6)
    assert data.vector_names == tuple(TABLE)
    assert data.perturbation_vectors.shape == (len(TABLE), 3)


def test_a_name_that_holds_a_plus_is_found_in_the_table_as_the_file_has_it(tmp_path):
    labels = {"control": 80, "(+)-JQ1": 40, "Atenolol-(+|-)": 40, "g0": 40, "g1": 40}
    path = screen(tmp_path, labels=labels)
    vectors = table(tmp_path, {"(+)-JQ1": (1.0, 0.0), "Atenolol-(+|-)": (0.0, 1.0), "g0": (1.0, 1.0), "g1": (2.0, 0.0)})
    held_out = {"kind": "leave_perturbation_out", "held_out": ["(＋)-JQ1"]}
    data = load(PerturbseqData(path=path, perturbation_features=vectors, split=held_out), tmp_path)
    assert data.perturbations == ("Atenolol-(＋|-)", "g0", "g1")
    assert not data.excluded
    assert len(data.splits["single_unseen"]) == 40
    assert data.vector_names[0] == "(＋)-JQ1"


def test_genes_without_a_vector_are_left_out_by_name(tmp_path):
    data = read(tmp_path, table(tmp_path))
    assert data.excluded == {
        "NOVEL+g1": "data.perturbation_features have no vector of NOVEL",
        "g5+g6": "data.perturbation_features have no vector of g6",
    }
    assert read(tmp_path, "loadings").excluded.keys() == {"NOVEL+g1"}
    with pytest.raises(CannotPredict, match=r"NOVEL has no vector in data\.perturbation_features"):
        u_of("g0+NOVEL", data)


def test_onehot_excludes_what_it_cannot_tell(tmp_path):
    data = read(tmp_path, "onehot")
    assert data.ood == ("double_seen2",)
    assert data.perturbation_vectors is None
    assert data.quality["double_seen1_excluded"] == 2
    with pytest.raises(CannotPredict, match="g5 was never seen in training"):
        u_of("g0+g5", data)


def test_loadings_are_those_of_control_cells_that_train(tmp_path):
    data = read(tmp_path, "loadings", loading_components=2)
    cells = data.frames[data.index[data.control_rows("train"), -1]].double().numpy()
    found = loadings(cells.astype(np.float32), GENES, 2, 0)
    covariance = np.cov(cells.T)
    values, vectors = np.linalg.eigh(covariance)
    best = vectors[:, -2:] * np.sqrt(values[-2:]) @ (vectors[:, -2:] * np.sqrt(values[-2:])).T
    np.testing.assert_allclose(found.values @ found.values.T, best, atol=1e-4 * np.abs(best).max())
    np.testing.assert_allclose(data.perturbation_vectors, found.standardised(data.perturbations).values, atol=1e-5)
    assert data.vector_names == tuple(GENES)
    assert data.u.shape[1] == 3


def test_a_column_without_a_difference_says_nothing():
    vectors = GeneVectors(("a", "b", "c"), np.array([[1.0, 3.0], [1.0, 5.0], [4.0, 4.0]])).standardised(("a", "b"))
    np.testing.assert_allclose(vectors.values, [[1, 0, -1], [1, 0, 1], [1, 3, 0]])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("gene,a\ng0,1\ng0,2\n", "names 'g0' more than once"),
        ("gene,a\ng0,1\n g0 ,2\n", "names 'g0' more than once"),
        ("gene,a,b\ng0,1,\n", "g0 has no number in column 'b'"),
        ("gene,a\ng0,high\n", "g0 has no number in column 'a'"),
        ("gene\ng0\n", "holds no numbers"),
        ("", "cannot be read as a .csv"),
    ],
)
def test_a_table_that_is_none_is_refused(text, sentence, tmp_path):
    path = tmp_path / "genes.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_vectors(path)


def test_a_table_is_a_csv_and_is_there(tmp_path):
    with pytest.raises(ValueError, match=r"must be onehot, loadings or the path of a \.csv"):
        PerturbseqData(path="x.h5ad", perturbation_features="one_hot")
    with pytest.raises(UserError, match=r"none\.csv"):
        read(tmp_path, str(tmp_path / "none.csv"))


def test_the_content_of_a_table_names_the_data(tmp_path):
    path = screen(tmp_path)
    names = []
    for folder, rows in (("one", TABLE), ("same", TABLE), ("other", {**TABLE, "g0": (9.0, 9.0)})):
        (tmp_path / folder).mkdir()
        given = table(tmp_path / folder, rows)
        names.append(fingerprint(PerturbseqData(path=path, perturbation_features=given)))
    assert names[0] == names[1] != names[2]
    assert fingerprint(PerturbseqData(path=path)) not in names


# ------------------------------------------------------------------------------------------- models

SIZES = {"latent_dim": 4, "responsive_dim": 2}
VECTORS = PerturbseqData(path="cells.h5ad", perturbation_features="loadings")


@pytest.mark.parametrize(
    ("model", "field"),
    [
        (PerturbedVAESpec(**SIZES, mechanisms="targeted"), "mechanisms"),
        (CiteVAESpec(**SIZES, mechanisms="group_sparse"), "mechanisms"),
        (DiscrepancyVAESpec(latent_dim=4), "kind"),
    ],
)
def test_models_that_need_a_column_a_perturbation_are_refused_at_planning(model, field):
    found = mismatch(model, VECTORS)
    assert (found.part, found.field) == ("model", field)
    assert re.search(r"data\.perturbation_features \(loadings\) make u a sum of vectors", found.says)
    assert mismatch(model, VECTORS.model_copy(update={"perturbation_features": "onehot"})) is None


@pytest.mark.parametrize(
    "model",
    [
        PerturbedVAESpec(**SIZES, mechanisms="free"),
        CiteVAESpec(**SIZES, mechanisms="diagonal"),
        BetaVAESpec(latent_dim=4),
    ],
)
def test_models_that_are_linear_in_u_are_let_through(model):
    assert mismatch(model, VECTORS) is None


def trial(tmp_path, model, train=None, evaluate=None, **fields):
    data = PerturbseqData(path=str(tmp_path / "cells.h5ad"), **fields)
    spec = TrialSpec(
        model=model,
        data=data,
        train=TrainSpec(**{"epochs": 2, **(train or {})}, second_stage=SecondStageSpec(restarts=0)),
        evaluate=EvaluateSpec(rotation_steps=0, cells=40, cell_noise="none", **(evaluate or {})),
        data_fingerprint=fingerprint(data),
    )
    result = run_trial(spec, tmp_path / "trial", device="cpu")
    assert result.state == "finished", result.failure
    return result


@pytest.mark.parametrize("kind", [PerturbedVAESpec, CiteVAESpec])
@pytest.mark.parametrize("mechanisms", ["free", "diagonal"])
def test_an_unseen_perturbation_is_trained_without_and_scored(kind, mechanisms, tmp_path):
    screen(tmp_path)
    model = kind(**SIZES, hidden=8, layers=1, mechanisms=mechanisms)
    split = {"kind": "leave_perturbation_out", "held_out": ["g3", "g0"]}
    result = trial(tmp_path, model, split=split, perturbation_features="loadings")
    for name in ("single_unseen", "double_seen1"):
        assert np.isfinite(result.metrics[f"ood/{name}/pearson_delta"])


def test_an_unseen_gene_is_predicted_from_what_is_like_it(tmp_path):
    """Genes of like vectors have like effects, and so has one that no cell carries."""
    signs = {"g0": 1.0, "g1": 1.0, "g2": -1.0, "g3": -1.0}
    direction = np.zeros(len(GENES))
    direction[10:20] = 1.0
    effects = {name: sign * direction for name, sign in signs.items()}
    screen(tmp_path, effects, dict.fromkeys(("control", *effects), 60))
    # the second feature says nothing: it is the same for one gene of each kind
    rows = {"g0": (1, 1), "g1": (1, -1), "g2": (-1, 1), "g3": (-1, -1), "UP": (1, 0), "DOWN": (-1, 0)}
    model = PerturbedVAESpec(
        **SIZES, hidden=16, layers=1, mechanisms="diagonal", input_pca=4, alignment={"weight": 0.0}
    )
    train = {"epochs": 25, "batch_size": 32, "learning_rate": 1e-2}
    evaluate = {"identifiability": False, "ood": False, "conditions": False}
    trial(tmp_path, model, train, evaluate, perturbation_features=table(tmp_path, rows))
    fitted = load_fitted(tmp_path / "trial", tmp_path / "cache")
    cells = predict(fitted, ["UP", "DOWN", "control"], cells=200)
    moved = {name: cells[cells.obs["perturbation"] == name].X[:, 10:20].mean() for name in ("UP", "DOWN", "control")}
    data, seen = fitted.data, fitted.data.by_condition("train")
    true = {name: data.frames[data.last_frames(seen[name]), 10:20].mean() for name in ("g0", "g2", "control")}
    for unseen, like in (("UP", "g0"), ("DOWN", "g2")):
        share = (moved[unseen] - moved["control"]) / float(true[like] - true["control"])
        assert 0.4 < share < 1.6, (unseen, share)
    with pytest.raises(UserError, match="NOVEL has no vector"):
        predict(fitted, ["NOVEL"])
    torch.testing.assert_close(data.perturbation_vectors[:, 0], torch.ones(6))
