"""Predictions of a finished trial: the very model that was trained, asked for perturbations it never saw together."""

from dataclasses import replace

import anndata
import numpy as np
import pytest
import torch

from harness import cli
from harness.data.fingerprint import fingerprint
from harness.data_spec import PerturbseqData
from harness.errors import UserError
from harness.model_spec import BetaVAESpec, CiteVAESpec, PerturbedVAESpec
from harness.predicting import ordered, predict, write_predicted
from harness.scoring import encode_split
from harness.study.find_run import find_run
from harness.trial import run_trial
from harness.trial_model import load_fitted, load_predictor
from harness.trial_spec import EvaluateSpec, TrainSpec, TrialSpec

PROCESS = {"responsive": 2, "invariant": 2}
DATA = PerturbseqData(
    environments=3, doubles=2, cells=200, test_cells=100, double_cells=20, genes=15, process=PROCESS, min_cells=5
)
MODELS = {
    "perturbed_vae": PerturbedVAESpec(latent_dim=4, responsive_dim=2, hidden=8, input_pca=6),
    "cite_vae": CiteVAESpec(latent_dim=4, responsive_dim=2, hidden=8),
    "beta_vae": BetaVAESpec(latent_dim=4, hidden=8),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A root with one study, one finished trial of each model."""
    root = tmp_path_factory.mktemp("runs")
    for model in MODELS.values():
        spec = TrialSpec(
            model=model,
            data=DATA,
            train=TrainSpec(epochs=2, second_stage={"restarts": 0}),
            evaluate=EvaluateSpec(identifiability=False, ood=False, conditions=False, cell_noise="none"),
            data_fingerprint=fingerprint(DATA),
        )
        result = run_trial(spec, root / "study" / "trials" / spec.trial_id, cache_dir=root / "cache", device="cpu")
        assert result.state == "finished", result.failure
    return root


@pytest.fixture(scope="module")
def trials(root):
    folders = sorted((root / "study" / "trials").iterdir())
    loaded = [load_fitted(folder, root / "cache") for folder in folders]
    return {fitted.spec.model.kind: (folder, fitted) for folder, fitted in zip(folders, loaded, strict=True)}


@pytest.mark.parametrize("kind", MODELS)
def test_the_model_is_the_one_that_was_trained(trials, kind):
    folder, fitted = trials[kind]
    prepared = fitted.model.transform.prepare(fitted.data.frames)
    again = encode_split(fitted.model, fitted.data, prepared, "test")
    kept = np.load(folder / "latents.npz")
    np.testing.assert_allclose(again.responsive.numpy(), kept["responsive"], atol=1e-6)


def test_a_pair_is_predicted_in_any_order_with_its_latents(trials):
    _, fitted = trials["perturbed_vae"]
    first, second = fitted.data.perturbations[:2]
    found = predict(fitted, [f"{second}+{first}", "control"], cells=30, seed=4)
    assert found.shape == (60, 15)
    assert list(found.obs["perturbation"]) == [f"{first}+{second}"] * 30 + ["control"] * 30
    assert list(found.var_names) == list(fitted.data.feature_names)
    latents = [torch.from_numpy(found.obsm[block]) for block in ("responsive", "invariant")]
    with torch.no_grad():
        np.testing.assert_allclose(fitted.model.to_frames(*latents).numpy(), found.X, atol=1e-5)
    assert found.uns["harness"]["trial_id"] == fitted.spec.trial_id
    again = predict(fitted, [f"{first}+{second}"], cells=30, seed=4)
    np.testing.assert_array_equal(again.X, found.X[:30])
    assert not np.array_equal(predict(fitted, [f"{first}+{second}"], cells=30, seed=5).X, again.X)


def test_more_cells_than_controls_are_drawn_with_replacement(trials):
    found = predict(trials["cite_vae"][1], ["control"], cells=300)
    assert found.n_obs == 300
    assert np.isfinite(found.X).all()


def test_a_model_without_predicted_latents_gives_cells_alone(trials):
    found = predict(trials["beta_vae"][1], ["control"], cells=5)
    assert found.shape == (5, 15)
    assert len(found.obsm) == 0


def test_an_unseen_gene_is_refused_in_a_sentence(trials):
    _, fitted = trials["perturbed_vae"]
    seen = fitted.data.perturbations[0]
    with pytest.raises(UserError, match=r"MYC was never seen in training.*perturbations seen are"):
        predict(fitted, [f"{seen}+MYC"])


@pytest.mark.parametrize("name", ["{}+control", "{}+ctrl", "control+{}", " ctrl + {}", "{}"])
def test_a_perturbation_beside_control_is_itself(trials, name):
    _, fitted = trials["perturbed_vae"]
    seen = fitted.data.perturbations[0]
    assert list(predict(fitted, [name.format(seen)], cells=1).obs["perturbation"]) == [seen]


@pytest.mark.parametrize("name", ["ctrl", "control+ctrl", "Control"])
def test_control_has_other_names(trials, name):
    assert list(predict(trials["perturbed_vae"][1], [name], cells=1).obs["perturbation"]) == ["control"]


@pytest.mark.parametrize(
    ("asked", "members"),
    [
        ("(+)-JQ1", ["(＋)-JQ1"]),
        (" (＋)-JQ1 ", ["(＋)-JQ1"]),
        ("SET+(+)-JQ1", ["(＋)-JQ1", "SET"]),
        ("(+)-JQ1 + Atenolol-(+|-)", ["(＋)-JQ1", "Atenolol-(＋|-)"]),
        ("ctrl+(+)-JQ1", ["(＋)-JQ1"]),
        ("[('JQ1', 0.05, 'uM')]", ["JQ1 0.05 uM"]),
        ("[('SET', ), ('JQ1', 0.05, 'uM'), ('DMSO_TF', 0.0, 'uM')]", ["JQ1 0.05 uM", "SET"]),
        ("[('DMSO_TF', 0.0, 'uM')]", []),
    ],
)
def test_a_perturbation_is_found_by_the_name_its_file_has(trials, asked, members):
    _, fitted = trials["perturbed_vae"]
    known = replace(fitted.data, perturbations=("(＋)-JQ1", "Atenolol-(＋|-)", "JQ1 0.05 uM", "SET"))
    assert ordered(asked, known) == ("+".join(members) or "control")


def test_cells_are_predicted_of_a_name_that_holds_a_plus(trials):
    _, fitted = trials["perturbed_vae"]
    names = ("(＋)-JQ1", *fitted.data.perturbations[1:])
    found = predict(replace(fitted, data=replace(fitted.data, perturbations=names)), ["(+)-JQ1"], cells=4, seed=1)
    assert set(found.obs["perturbation"]) == {"(＋)-JQ1"}
    assert found.shape == (4, 15)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", r"perturbation '' is no name; give a name, a combination A\+B, or control"),
        ("g1+", r"perturbation 'g1\+' names nothing beside a \+; give"),
        ("+g1", r"names nothing beside a \+"),
        ("+", r"perturbation '\+' is no name"),
    ],
)
def test_an_empty_name_is_named(trials, name, said):
    with pytest.raises(UserError, match=said):
        predict(trials["perturbed_vae"][1], [name])


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("cells.csv", "what is written is .h5ad; give an --out that ends so"),
        ("/proc/x.h5ad", "/proc/x.h5ad cannot be written (No such file or directory); give another --out"),
        ("none/x.h5ad", "its folder is not there"),
    ],
)
def test_a_file_that_cannot_be_written_is_one_sentence_before_the_work(tmp_path, monkeypatch, capsys, out, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("harness.api.predict_run", None)
    assert cli.main(["predict", "3f09", "--perturb", "SET", "--out", out]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_finished_leaves_nothing(trials, tmp_path, monkeypatch):
    predicted = predict(trials["beta_vae"][1], ["control"], cells=2)

    def torn(path):
        path.write_text("half")
        raise OSError("Can't write data (file write failed: errno = 28, error message = '…')")

    monkeypatch.setattr(type(predicted), "write_h5ad", lambda _, path: torn(path))
    with pytest.raises(UserError, match=r"x\.h5ad cannot be written \(No space left on device\); give another --out"):
        write_predicted(predicted, tmp_path / "x.h5ad")
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_what_scanpy_opens_and_keeps_what_is_there(root, trials, tmp_path, capsys):
    folder, fitted = trials["perturbed_vae"]
    pair, out = "+".join(fitted.data.perturbations[:2]), tmp_path / "predicted.h5ad"
    command = ["predict", folder.name[:8], "--root", str(root), "--perturb", pair, "--cells", "7", "--out", str(out)]
    assert cli.main(command) == 0
    assert f"7 cells × 15 features, of {pair}" in capsys.readouterr().out
    written = anndata.read_h5ad(out)
    np.testing.assert_array_equal(written.X, predict(fitted, [pair], cells=7).X)
    assert cli.main(command) == 2
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["predicted.h5ad"]


def test_what_is_written_goes_through_scanpy(trials, tmp_path):
    scanpy = pytest.importorskip("scanpy")
    _, fitted = trials["cite_vae"]
    write_predicted(predict(fitted, [*fitted.data.perturbations, "control"], cells=20), tmp_path / "cells.h5ad")
    cells = scanpy.read_h5ad(tmp_path / "cells.h5ad")
    scanpy.pp.pca(cells, n_comps=5)
    scanpy.tl.rank_genes_groups(cells, "perturbation", reference="control")
    assert cells.obsm["X_pca"].shape == (80, 5)
    assert set(cells.uns["rank_genes_groups"]["names"].dtype.names) == set(fitted.data.perturbations)


def test_a_prediction_is_the_same_from_all_data_and_from_what_is_kept(root, trials, monkeypatch):
    folder, fitted = trials["perturbed_vae"]
    expected = predict(fitted, ["control"], cells=9, seed=2)
    monkeypatch.setattr("harness.trial_model.load", None)  # no data are read
    small = load_predictor(folder, root / "cache")
    np.testing.assert_array_equal(predict(small, ["control"], cells=9, seed=2).X, expected.X)
    assert set(small.data.splits["validation"].tolist()) == set()


def test_a_file_in_no_folder_is_refused(trials, tmp_path):
    with pytest.raises(UserError, match="its folder is not there"):
        write_predicted(predict(trials["beta_vae"][1], ["control"], cells=2), tmp_path / "none" / "out.h5ad")


def test_a_trial_is_found_by_its_folder_or_the_beginning_of_its_id(root, trials):
    folder, _ = trials["cite_vae"]
    assert find_run(str(folder), root) == folder
    assert find_run(folder.name, root) == folder
    assert find_run(folder.name[:8], root) == folder
    for wrong in ("zz", "ffffffff", "../study", "*", "f" * 32):
        with pytest.raises(UserError, match="no trial"):
            find_run(wrong, root)


def test_an_id_with_two_readings_is_refused(tmp_path):
    for name in ("abcd1", "abcd2"):
        (tmp_path / "study" / "trials" / name).mkdir(parents=True)
    with pytest.raises(UserError, match="'abcd' may mean abcd1, abcd2"):
        find_run("abcd", tmp_path)


def test_a_trial_that_has_no_model_says_why(root, tmp_path):
    with pytest.raises(UserError, match=r"no readable spec\.json"):
        load_fitted(tmp_path, root / "cache")
    spec = TrialSpec(model=MODELS["beta_vae"], data=DATA, data_fingerprint=fingerprint(DATA))
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    with pytest.raises(UserError, match="has not finished"):
        load_fitted(tmp_path, root / "cache")


def test_data_that_changed_since_are_refused(root, trials, tmp_path):
    folder, fitted = trials["beta_vae"]
    for name in ("model.pt", "result.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "spec.json").write_text(replace_fingerprint(fitted.spec).model_dump_json())
    with pytest.raises(UserError, match="are not what it was trained on"):
        load_fitted(tmp_path, root / "cache")


def replace_fingerprint(spec):
    return spec.model_copy(update={"data_fingerprint": "other"})
