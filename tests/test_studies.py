"""The studies that ship: they plan as they are, and run whole when made small."""

import json
import math
import os
from pathlib import Path

import pytest

from harness.cli import main
from harness.helps import words
from harness.study.expectation import expectation_of
from harness.study.load import load_study
from harness.study.plan import plan
from harness.study.planned_helps import helps_of_all, planned_helps
from harness.study.suite import load_suite

STUDIES = Path(__file__).parent.parent / "studies"
SHIPPED = sorted(STUDIES.glob("*.yaml"))
CONDITIONS = STUDIES / "conditions"
REAL_CELLS = sorted((STUDIES / "reach").glob("norman_subset*.yaml"))
REACH = sorted(set((STUDIES / "reach").glob("*.yaml")) - set(REAL_CELLS))
SWEEPS = sorted(path for path in CONDITIONS.glob("*.yaml") if path.stem not in ("all", "recipe"))


def _launch(name, root, *changes):
    arguments = ["launch", str(STUDIES / f"{name}.yaml"), "--root", str(root)]
    for change in (*changes, "compute.cluster=inline"):
        arguments += ["--set", change]
    return main(arguments)


def _runs(root, experiment):
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return [run for run in client.search_runs([found.experiment_id]) if "trial_id" in run.data.tags]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_study_plans_as_it_is(path):
    study = load_study(path)
    planned = plan(study)
    kinds = {trial.spec.model.kind for trial in planned.trials}
    assert {"perturbed_vae", "cite_vae"} <= kinds or path.stem == "causal3dident_ceiling"
    assert len({trial.trial_id for trial in planned.trials}) == len(planned.trials)


def test_the_studies_ship():
    assert {path.stem for path in SHIPPED} >= {
        "causal3dident",
        "causal3dident_ceiling",
        "perturbseq",
        "quickstart",
        "simulation",
        "temporal_causal3dident",
    }


def test_the_ceiling_of_every_class_is_taken_from_20000_images():
    planned = plan(load_study(STUDIES / "causal3dident_ceiling.yaml"))
    assert [trial.spec.data.classes for trial in planned.trials] == [(c,) for c in range(7)]
    for trial in planned.trials:
        assert trial.spec.model.kind == "supervised"
        rows = trial.spec.data.cells - round(trial.spec.data.validation * trial.spec.data.cells)
        assert 20_000 <= 2 * rows < 20_010  # each row has a twin


SAID = {path: "truth" for path in [*SWEEPS, *REACH, CONDITIONS / "recipe.yaml"]}
SAID |= {
    STUDIES / "quickstart.yaml": "truth",
    STUDIES / "simulation.yaml": "truth",
    STUDIES / "perturbseq.yaml": "simulation",
}
SAID |= {path: "validation" if path.stem == "norman_subset" else "published" for path in REAL_CELLS}


@pytest.mark.parametrize("path", [*SAID, *SHIPPED], ids=lambda path: f"{path.parent.stem}-{path.stem}")
def test_a_shipped_study_says_how_its_settings_were_chosen(path):
    study = load_study(path)
    assert study.settings_by == SAID.get(path, "none")
    assert ("selection" in words(helps_of_all(study, plan(study).points))) == (
        SAID.get(path) in ("truth", "simulation")
    )


def test_the_quickstart_has_every_help_but_the_latents():
    study = load_study(STUDIES / "quickstart.yaml")
    helps = {point.cell: words(planned_helps(study, point)) for point in plan(study).points}
    whole = {helps for cell, helps in helps.items() if "beta_vae" not in cell}
    assert whole == {"targets, pairs, sizes, squash, selection"}
    control = {helps[cell] for cell in helps if "beta_vae" in cell}
    assert control == {"sizes, squash, selection", "squash, selection"}  # latent_dim is the truth's, or larger


def test_counts_that_are_compared_with_twins_say_so():
    study = load_study(STUDIES / "reach/count_simulation.yaml")
    *causal, control, told = plan(study).points[::2]  # each with and without interaction
    assert [words(planned_helps(study, point)) for point in causal] == ["targets, pairs, sizes, selection"] * 2
    assert words(planned_helps(study, control)) == "sizes, selection"
    assert words(planned_helps(study, told)) == "latents, selection"


def test_every_condition_has_its_sweep():
    assert {path.stem for path in SWEEPS} == {
        "alignment",
        "cells",
        "changes",
        "edges",
        "environments",
        "families",
        "injective",
        "intervention",
        "lagged",
        "latent_dim",
        "mixing_depth",
        "pairs",
        "soft_time",
    }


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_states_its_prediction_and_draws_new_truths(path):
    study = load_study(path)
    assert "redicted: " in study.description
    assert study.expect is not None
    assert len(study.grid[study.expect.axis]) > 1
    assert study.seeds == tuple(range(10))
    assert study.data["seed"] == "per_trial"
    assert study.data["preset"] == "published_sizes"
    expectation = expectation_of(study)
    predicted = {
        expectation.predicts(value, point.model, point.values)
        for point in plan(study).points
        for value in [point.values.get(study.expect.axis)]
    }
    assert None not in predicted  # every cell is predicted, one way or the other


def test_the_suite_runs_every_sweep_at_a_reduced_size():
    suite = load_suite(CONDITIONS / "all.yaml")
    full = {f"{suite.name}-{path.stem}": load_study(path) for path in SWEEPS}
    assert {study.name for study in suite.studies} == set(full)
    for study in suite.studies:
        whole = full[study.name]
        assert len(study.seeds) < len(whole.seeds)
        assert study.expect == whole.expect
        assert all(set(study.grid[key]) <= set(values) for key, values in whole.grid.items())


def test_the_quickstart_spans_its_grid():
    planned = plan(load_study(STUDIES / "quickstart.yaml"))
    causal = [point for point in planned.points if point.kind != "beta_vae"]
    assert {len({point.values[key] for point in causal}) for key in ("sparsity", "latent_dim")} == {2}
    assert {len(point.trials) for point in planned.points} == {3}


def test_the_quickstart_made_small_runs_whole(tmp_path, capsys):
    small = [
        "train.second_stage.steps=10",
        "evaluate.rotation_steps=10",
        "train.epochs=2",
        "seeds=2",
        "data.cells=60",
        "data.test_cells=50",
        "data.double_cells=10",
    ]
    small += ["data.image_size=16", "data.samples=1", "grid.latent_dim=[4]"]
    assert _launch("quickstart", tmp_path, *small) == 0
    printed = capsys.readouterr().out
    assert "MCC" in printed
    assert "additive" in printed
    assert "heatmap.png" in printed
    assert "harness ui" in printed
    runs = _runs(tmp_path, "quickstart")
    assert len(runs) == 10
    for run in runs:
        assert {"identifiability/mcc", "identifiability/mcc_untrained", "ood/double/mmd"} <= set(run.data.metrics)
        for tag in ("oracle_targets", "oracle_pairs"):
            assert (run.data.tags.get(tag) == "true") == (run.data.tags["model"] != "beta_vae")
        assert (run.data.tags["oracle_squash"], run.data.tags["oracle_selection"]) == ("8", "true")
    assert _launch("quickstart", tmp_path, *small) == 0
    assert len(_runs(tmp_path, "quickstart")) == 10


@pytest.mark.skipif("HARNESS_REAL_DATA" not in os.environ, reason="HARNESS_REAL_DATA names no folder of real cells")
def test_real_cells_are_scored_on_held_out_doubles_beside_the_baselines(tmp_path):
    cells = Path(os.environ["HARNESS_REAL_DATA"]) / "norman19_subset.h5ad"
    changes = ["train.second_stage.steps=10", "evaluate.rotation_steps=10"]
    changes += [f"data.path={cells}", "train.epochs=3", "seeds=1", "grid.sparsity=[0]", "grid.latent_dim=[10]"]
    assert _launch("perturbseq", tmp_path, *changes) == 0
    runs = _runs(tmp_path, "perturbseq")
    assert {run.data.tags["model"] for run in runs} == {"perturbed_vae", "cite_vae"}
    baselines = set()
    for run in runs:
        for metric in ("rmse_relative", "rmse", "r2", "pearson_delta", "mmd", "energy_distance"):
            assert math.isfinite(run.data.metrics[f"ood/double_seen2/{metric}"])
        found = {name for name in run.data.metrics if name.startswith("baseline/")}
        assert all(math.isfinite(run.data.metrics[name]) for name in found)
        baselines |= {name.split("/")[1] for name in found}
        folder = tmp_path / "perturbseq/trials" / run.data.tags["trial_id"]
        result = json.loads((folder / "result.json").read_text())
        uploaded = Path(run.info.artifact_uri.removeprefix("file://")) / "ood.csv"
        assert uploaded.read_bytes() == (folder / "ood.csv").read_bytes()
        assert len([name for name in result["data"]["excluded"] if "+" in name]) == 10  # a member was never seen alone
        assert "identifiability/mcc" not in run.data.metrics  # real cells have no truth to be scored against
    assert baselines == {"control_mean", "mean_effect", "additive", "linear", "nearest"}
