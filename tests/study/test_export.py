"""Models in MLflow: a launch brings the best of each kind, any other on demand; all load without the data."""

import shutil
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

import harness
from harness import cli
from harness.data.batch import PerturbationData
from harness.errors import UserError
from harness.study.driver import launch, resume
from harness.study.exported import exported
from harness.study.find_run import find_run
from harness.study.folder import StudyFolder
from harness.study.load import load_study
from harness.study.mlflow_store import default_uri
from harness.trial_model import load_predictor
from harness.trial_result import KEPT_DATA

STUDY = """\
name: cells
models:
  - {kind: perturbed_vae, latent_dim: 4, responsive_dim: 2, hidden: 8, input_pca: 6}
  - {kind: beta_vae, latent_dim: 3, hidden: 8}
data:
  kind: perturbseq
  environments: 3
  doubles: 2
  cells: 200
  test_cells: 100
  double_cells: 20
  genes: 15
  min_cells: 5
  process: {kind: linear_gaussian, responsive: 2, invariant: 2}
seeds: 2
train: {epochs: 1, second_stage: {restarts: 0}}
evaluate: {identifiability: false, ood: false, conditions: false}
objective: {metric: validation/loss, direction: minimize}
compute: {cluster: inline}
"""


class Silent:
    def show(self, lines):
        pass

    def say(self, line):
        pass

    def close(self):
        pass


class Launched:
    """A root with a launched study, and its MLflow."""

    def __init__(self, root, uri=None):
        self.root, self.uri = root, uri or default_uri(root)
        self.folder = StudyFolder(root, "cells")

    def runs(self):
        """Run id of each trial."""
        client = MlflowClient(tracking_uri=self.uri)
        experiment = client.get_experiment_by_name("cells").experiment_id
        found = client.search_runs([experiment], "tags.trial_id != ''")
        return {run.data.tags["trial_id"]: run.info.run_id for run in found}

    def with_model(self):
        """Trials whose runs hold a model."""
        client = MlflowClient(tracking_uri=self.uri)
        return {trial for trial, run in self.runs().items() if client.list_artifacts(run, "model")}

    def load(self, uri):
        mlflow.set_tracking_uri(self.uri)
        return mlflow.pyfunc.load_model(uri)

    def kind(self, trial):
        return load_predictor(self.folder.trial(trial).path, None).spec.model.kind


@pytest.fixture(scope="module")
def launched(tmp_path_factory, empty_database):
    folder = tmp_path_factory.mktemp("export")
    root = folder / "runs"
    root.mkdir()
    shutil.copy(empty_database, root / "mlflow.db")
    (folder / "cells.yaml").write_text(STUDY)
    outcome = launch(load_study(folder / "cells.yaml", []), root, screen=Silent())
    assert not outcome.failed
    assert outcome.untracked is None
    return Launched(root)


@pytest.fixture(scope="module")
def best(launched):
    """The perturbed VAE that the launch exported."""
    (trial,) = (one for one in launched.with_model() if launched.kind(one) == "perturbed_vae")
    return trial


def asked(*names, **columns):
    return pd.DataFrame({"perturbation": list(names), **columns})


def test_a_launch_brings_the_best_trial_of_each_model(launched):
    scores = {}
    for trial in launched.folder.trials():
        loss = trial.read_result()["metrics"]["validation/loss"]
        kind = launched.kind(trial.trial_id)
        scores[kind] = min(scores.get(kind, (np.inf, "")), (loss, trial.trial_id))
    assert launched.with_model() == {trial for _, trial in scores.values()} == set(exported(launched.folder))


def test_the_pyfunc_model_predicts_what_the_command_predicts(launched, best, tmp_path):
    first, second = load_predictor(launched.folder.trial(best).path, None).data.perturbations[:2]
    out = tmp_path / "predicted.h5ad"
    pair = f"{second}+{first}"
    command = ["predict", launched.runs()[best], "--root", str(launched.root), "--cells", "7", "--seed", "3"]
    assert cli.main([*command, "--perturb", pair, "--perturb", "control", "--out", str(out)]) == 0
    import anndata

    written = anndata.read_h5ad(out)
    model = launched.load(f"runs:/{launched.runs()[best]}/model")
    found = model.predict(asked(pair, "control", cells=[7, 7]), params={"seed": 3})
    assert list(found.columns) == ["perturbation", *written.var_names]
    assert list(found["perturbation"]) == list(written.obs["perturbation"])
    np.testing.assert_array_equal(found[list(written.var_names)].to_numpy(), written.X)


def test_python_predicts_what_the_command_predicts(launched, best):
    found = harness.predict_run(best[:10], ["control"], cells=4, root=launched.root)
    model = launched.load(f"runs:/{launched.runs()[best]}/model")
    np.testing.assert_array_equal(model.predict(asked("control", cells=[4])).iloc[:, 1:].to_numpy(), found.X)
    assert len(model.predict(asked("control"))) == 500


def test_what_cannot_be_predicted_is_refused_in_a_sentence(launched, best):
    model = launched.load(f"runs:/{launched.runs()[best]}/model")
    for table, sentence in (
        (asked("MYC", cells=[3]), "MYC was never seen in training"),
        (asked("control", "control", cells=[3, 4]), "with different numbers of cells"),
        (asked("control", cells=[0]), "with 0 cells"),
        (asked(None, cells=[5]), "row 1 of the table names no perturbation; give a name"),
        (asked("control", None), "row 2 of the table names no perturbation"),
        (asked("", cells=[5]), "perturbation '' is no name"),
        (asked("control", cells=[1]).iloc[:0], "no perturbation is asked for"),
    ):
        with pytest.raises(UserError, match=sentence):
            model.predict(table)


def test_a_model_needs_neither_the_study_nor_the_data(launched, best, tmp_path, monkeypatch):
    out = tmp_path / "model"
    assert harness.export_model(best, out, root=launched.root) == str(out)
    expected = harness.predict_run(best, ["control"], cells=4, root=launched.root)
    moved = tmp_path / "elsewhere"
    shutil.move(out, moved)
    monkeypatch.setattr("harness.trial_model.load", refuse)
    monkeypatch.delitem(sys.modules, "harness.pyfunc_code", raising=False)
    found = mlflow.pyfunc.load_model(str(moved)).predict(asked("control", cells=[4]))
    np.testing.assert_array_equal(found.iloc[:, 1:].to_numpy(), expected.X)
    assert not list(moved.rglob("*.pkl"))
    files = {path.name for path in (moved / "artifacts").iterdir()}
    assert files == {"spec.json", "result.json", "model.pt", KEPT_DATA}
    with pytest.raises(UserError, match="is there already"):
        harness.export_model(best, moved, root=launched.root)


def test_an_interrupted_export_leaves_no_folder(launched, best, tmp_path, monkeypatch):
    def interrupted(trial, out):
        (out / "MLmodel").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.study.exported.write_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        harness.export_model(best, tmp_path / "model", root=launched.root)
    assert list(tmp_path.iterdir()) == []


def refuse(*_):
    raise AssertionError("the data were read")


def test_only_control_cells_of_the_training_split_are_kept(launched, best):
    fitted = load_predictor(launched.folder.trial(best).path, None)
    from harness.trial_model import load_fitted

    whole = load_fitted(launched.folder.trial(best).path, launched.root / "cache").data
    control = whole.frames[whole.last_frames(whole.control_rows("train"))]
    assert isinstance(fitted.data, PerturbationData)
    np.testing.assert_array_equal(fitted.data.frames.numpy(), control.numpy())
    assert fitted.data.truth is None


def copied(launched, tmp_path):
    """A root of its own, with the trials and without the models' notes of the other."""
    root = tmp_path / "runs"
    shutil.copytree(launched.root, root, ignore=shutil.ignore_patterns("mlflow.db", "mlartifacts"))
    return Launched(root)


@pytest.fixture
def another(launched, best):
    """The other perturbed VAE."""
    return next(
        trial for trial in launched.folder.trial_ids() if trial != best and launched.kind(trial) == "perturbed_vae"
    )


def test_any_other_is_brought_on_demand_and_all_are_rebuilt(launched, another, empty_database, tmp_path, capsys):
    mine = copied(launched, tmp_path)
    command = ["export", another, "--root", str(mine.root)]
    shutil.copy(empty_database, mine.root / "mlflow.db")
    assert cli.main(command) == 2
    assert "has no run in MLflow" in capsys.readouterr().err
    resume("cells", mine.root, screen=Silent())
    assert another not in mine.with_model()
    assert cli.main(command) == 0
    uri = f"runs:/{mine.runs()[another]}/model"
    assert uri in capsys.readouterr().out
    expected = harness.predict_run(another, ["control"], cells=3, root=mine.root)
    np.testing.assert_array_equal(
        mine.load(uri).predict(asked("control", cells=[3])).iloc[:, 1:].to_numpy(), expected.X
    )
    brought = mine.with_model()
    assert brought == {*exported(mine.folder)} == {*exported(launched.folder), another}
    shutil.rmtree(mine.root / "mlartifacts")
    shutil.copy(empty_database, mine.root / "mlflow.db")
    resume("cells", mine.root, screen=Silent())
    assert mine.with_model() == brought


def test_an_older_trial_without_control_cells_is_exported_from_its_data(launched, another, tmp_path):
    mine = copied(launched, tmp_path)
    (mine.folder.trial(another).path / KEPT_DATA).unlink()
    with pytest.raises(UserError, match="holds no kept_data"):
        load_predictor(mine.folder.trial(another).path, None)
    harness.export_model(another, tmp_path / "model", root=mine.root)
    found = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(asked("control", cells=[3]))
    expected = harness.predict_run(another, ["control"], cells=3, root=launched.root)
    np.testing.assert_array_equal(found.iloc[:, 1:].to_numpy(), expected.X)


def test_a_run_is_found_in_the_store_that_its_study_names(launched, tmp_path, empty_database):
    mine = copied(launched, tmp_path)
    database = tmp_path / "elsewhere.db"
    shutil.copy(empty_database, database)
    uri = f"sqlite:///{database}"
    text = (tmp_path / "runs" / "cells" / "study.yaml").read_text()
    assert "uri: null" in text
    (tmp_path / "runs" / "cells" / "study.yaml").write_text(text.replace("uri: null", f"uri: {uri}"))
    resume("cells", mine.root, screen=Silent())
    assert not (mine.root / "mlflow.db").exists()
    elsewhere = Launched(mine.root, uri)
    for trial, run in elsewhere.runs().items():
        assert find_run(run, mine.root) == Path(mine.folder.trial(trial).path)
    (parent,) = MlflowClient(tracking_uri=uri).search_runs(
        [MlflowClient(tracking_uri=uri).get_experiment_by_name("cells").experiment_id], "tags.launch = '1'"
    )
    with pytest.raises(UserError, match="is a launch, and no trial"):
        find_run(parent.info.run_id, mine.root)


def test_a_run_on_a_server_is_found_in_the_notes_of_its_driver(launched, best, tmp_path):
    mine = copied(launched, tmp_path)
    run = "0123456789abcdef" * 2
    notes = f'{{"store": "http://127.0.0.1:1 1", "run": "{run}", "trial_id": "{best}"}}\n{{"run": "{run}'
    (mine.folder.path / "tracked.jsonl").write_text(notes)
    assert find_run(run, mine.root) == mine.folder.trial(best).path


def test_a_store_that_does_not_answer_is_named(launched, tmp_path):
    mine = copied(launched, tmp_path)
    path = mine.folder.path / "study.yaml"
    path.write_text(path.read_text().replace("uri: null", "uri: http://127.0.0.1:1"))
    with pytest.raises(UserError, match=r"no trial .*; MLflow at http://127\.0\.0\.1:1 could not be asked"):
        find_run("f" * 32, mine.root)
