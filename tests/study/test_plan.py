import hashlib
import json
import subprocess
import sys

import pytest

from harness.errors import UserError
from harness.study.load import load_study
from harness.study.plan import axes_of, check, find, into_jobs, plan, point_for
from harness.study.spec import StudySpec

SIMULATION = {"kind": "simulation", "preset": "tiny"}


def study(**keys):
    values = {"name": "s", "models": [{"kind": "perturbed_vae"}], "data": SIMULATION, "seeds": [0, 1], **keys}
    return StudySpec.model_validate(values)


def mark(data):
    return f"print-of-{data.seed}-{data.noise}"


def planned(**keys):
    return plan(study(**keys), mark)


def test_cells_are_models_times_grid_in_the_files_order():
    points = planned(
        models=[{"kind": "perturbed_vae"}, {"kind": "cite_vae"}], grid={"sparsity": [0.0, 0.1], "latent_dim": [5, 8]}
    ).points
    assert [point.cell for point in points] == [
        f"{kind} · sparsity={sparsity} · latent_dim={dim}"
        for kind in ("perturbed_vae", "cite_vae")
        for sparsity in ("0.0", "0.1")
        for dim in (5, 8)
    ]
    assert points[3].values == {"sparsity": 0.1, "latent_dim": 8}
    assert points[3].setting == {"model": "perturbed_vae", "sparsity": 0.1, "latent_dim": 8}
    assert points[3].trials[1].spec.model.latent_dim == 8
    assert points[3].trials[1].spec.model.sparsity == 0.1
    assert [trial.seed for trial in points[0].trials] == [0, 1]


def test_a_bare_key_passes_over_models_without_that_field():
    points = planned(
        models=[{"kind": "perturbed_vae"}, {"kind": "beta_vae"}], grid={"sparsity": [0.0, 0.1], "latent_dim": [5, 8]}
    ).points
    beta = [point for point in points if point.kind == "beta_vae"]
    assert [point.values for point in beta] == [{"latent_dim": 5}, {"latent_dim": 8}]
    assert len(points) == 6


def test_keys_reach_every_part():
    point = planned(
        grid={
            "alignment.weight": [7.0],
            "data.process.responsive": [3],
            "train.epochs": [2],
            "evaluate.cells": [50],
            "models.perturbed_vae.posterior": ["noise"],
        }
    ).points[0]
    spec = point.trials[0].spec
    assert spec.model.alignment.weight == 7.0
    assert spec.data.process.responsive == 3
    assert spec.data.process.invariant == 2, "the preset's other sizes stay"
    assert (spec.train.epochs, spec.evaluate.cells, spec.model.posterior) == (2, 50, "noise")


def test_a_key_of_one_kind_leaves_the_others_alone():
    points = planned(
        models=[{"kind": "perturbed_vae"}, {"kind": "cite_vae"}], grid={"models.cite_vae.lagged": ["diagonal", "dense"]}
    ).points
    assert [point.cell for point in points] == [
        "perturbed_vae",
        "cite_vae · cite_vae.lagged=diagonal",
        "cite_vae · cite_vae.lagged=dense",
    ]


def test_the_grid_may_complete_a_model_that_is_impossible_alone():
    points = planned(
        models=[{"kind": "perturbed_vae", "mechanisms": "free", "latent_dim": 4}], grid={"responsive_dim": [1, 2]}
    ).points
    assert [point.trials[0].spec.model.d_v for point in points] == [1, 2]


def test_two_models_of_one_kind_are_named_by_what_differs():
    models = [{"kind": "perturbed_vae", "hidden": 8}, {"kind": "perturbed_vae", "hidden": 8, "mechanisms": "free"}]
    points = planned(models=models).points
    assert [point.model for point in points] == ["perturbed_vae", "perturbed_vae · mechanisms=free"]


def test_without_grid_each_model_is_a_cell():
    assert [point.cell for point in planned(models=[{"kind": "cite_vae"}, {"kind": "beta_vae"}]).points] == [
        "cite_vae",
        "beta_vae",
    ]


def test_ids_are_stable_unique_and_blind_to_where_trials_run():
    first, again = planned(grid={"sparsity": [0, 1]}), planned(grid={"sparsity": [0, 1]})
    ids = [trial.trial_id for trial in first.trials]
    assert ids == [trial.trial_id for trial in again.trials]
    assert len(set(ids)) == 4
    elsewhere = planned(grid={"sparsity": [0, 1]}, compute={"cluster": "inline", "retries": 3}, name="other")
    assert ids == [trial.trial_id for trial in elsewhere.trials]
    assert ids != [trial.trial_id for trial in planned(grid={"sparsity": [0, 1]}, compute={"threads": 2}).trials]


def test_widening_the_grid_keeps_the_trials_there_were():
    narrow = {trial.trial_id for trial in planned(grid={"sparsity": [0, 1]}).trials}
    wide = planned(models=[{"kind": "cite_vae"}, {"kind": "perturbed_vae"}], grid={"sparsity": [0.5, 1, 0]})
    assert narrow < {trial.trial_id for trial in wide.trials}


def test_whole_and_real_numbers_give_the_same_trial():
    assert planned(grid={"sparsity": [1]}).trials[0].trial_id == planned(grid={"sparsity": [1.0]}).trials[0].trial_id


def test_data_seed_per_trial_becomes_the_trials_seed():
    trials = planned(data={**SIMULATION, "seed": "per_trial"}, seeds=[3, 5]).trials
    assert [trial.spec.data.seed for trial in trials] == [3, 5]
    assert [trial.spec.data_fingerprint for trial in trials] == ["print-of-3-0.05", "print-of-5-0.05"]


def test_each_dataset_is_fingerprinted_once():
    asked = []

    def count(data):
        asked.append(data.noise)
        return str(data.noise)

    plan(study(grid={"data.noise": [0.1, 0.2], "latent_dim": [5, 6, 7]}), count)
    assert asked == [0.1, 0.2]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"grid": {"latent_dims": [5]}}, "grid.latent_dims is over an unknown field; did you mean latent_dim?"),
        ({"grid": {"environments": [5]}}, "did you mean data.environments?"),
        ({"grid": {"data.process.respnsive": [5]}}, "did you mean data.process.responsive?"),
        ({"grid": {"data": [5]}}, "grid.data is over an unknown field"),
        ({"grid": {"foo": [5]}}, "grid.foo is over an unknown field; give a field of a model, such as sparsity"),
        ({"grid": {"lagged": ["dense"]}}, "grid.lagged is a field of cite_vae, and models lists none of these"),
        ({"grid": {"models.cite_vae.lagged": ["dense"]}}, "which models does not list"),
        ({"grid": {"kind": ["cite_vae"]}}, "list the kinds under models"),
        ({"grid": {"latent_dim": [8, -3]}}, "grid.latent_dim.1 is -3, but must be at least 1"),
        ({"grid": {"latent_dim": [8, 8.5]}}, "grid.latent_dim.1 is 8.5, but must be an integer"),
        ({"grid": {"latent_dim": [8, True]}}, "grid.latent_dim.1 is true, but must be an integer"),
        ({"grid": {"alignment.weight": ["x"]}}, 'grid.alignment.weight.0 is "x", but must be a number'),
        ({"grid": {"latent_dim": [8, 8]}}, "grid.latent_dim lists 8 twice"),
        ({"grid": {"sparsity": [1], "models.perturbed_vae.sparsity": [2]}}, "sets the same field"),
        ({"grid": {"latent_dim": [8, 3]}}, "models.0: responsive_dim 4 leaves no room in latent_dim 3 (in the cell"),
        ({"models": [{"kind": "perturbed_vae", "alignment": 3}], "grid": {"alignment.weight": [1]}}, "alignment"),
        ({"models": [{"kind": "pertrubed_vae"}]}, "did you mean perturbed_vae?"),
        ({"models": [{}]}, "models.0 needs a kind"),
        ({"models": [{"kind": "beta_vae", "sparsity": 1}]}, "key models.0.sparsity is unknown"),
        ({"models": [{"kind": "beta_vae", "latent_dim": "x"}], "grid": {"latent_dim": [5]}}, "models.0.latent_dim is"),
        ({"models": [{"kind": "beta_vae"}] * 2}, "models.1 repeats models.0"),
        ({"data": {"kind": "sim"}}, "data.kind"),
        ({"data": {}}, "data needs a kind"),
    ],
)
def test_what_cannot_be_planned_is_said_in_one_sentence(keys, said):
    with pytest.raises(UserError) as caught:
        check(study(**keys))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_cells_that_are_one_trial_are_refused():
    with pytest.raises(UserError, match=r"sparsity=0 and .*sparsity=0\.0 are the same trial"):
        planned(grid={"sparsity": [0, 0.0]})


# ------------------------------------------------------------------------------------------------ search

SEARCH = {
    "trials": 6,
    "space": {"sparsity": {"low": 0.001, "high": 1.0, "log": True}, "latent_dim": {"low": 5, "high": 9}},
}


def test_a_search_has_each_model_as_a_cell_without_trials():
    searched = planned(
        models=[{"kind": "perturbed_vae"}, {"kind": "cite_vae"}], search=SEARCH, compute={"trials_per_job": 2}
    )
    assert [point.cell for point in searched.points] == ["perturbed_vae", "cite_vae"]
    assert searched.trials == ()
    assert list(searched.points[0].space) == ["sparsity", "latent_dim"]
    preview = searched.preview()
    assert (preview.cells, preview.proposals, preview.trials, preview.jobs) == (2, 12, 24, 12)


def test_a_search_runs_in_every_grid_cell():
    searched = planned(search=SEARCH, grid={"hidden": [8, 16]})
    assert [point.values for point in searched.points] == [{"hidden": 8}, {"hidden": 16}]
    assert searched.preview().proposals == 12


def test_a_model_without_any_searched_key_runs_as_it_is():
    space = {"sparsity": {"low": 0.0, "high": 1.0}}
    searched = planned(models=[{"kind": "perturbed_vae"}, {"kind": "beta_vae"}], search={"trials": 6, "space": space})
    causal, beta = searched.points
    assert (len(causal.trials), list(causal.space)) == (0, ["sparsity"])
    assert (len(beta.trials), list(beta.space)) == (2, [])
    assert searched.preview().trials == 6 * 2 + 2


def test_a_cell_may_be_impossible_until_a_proposal_completes_it():
    keys = {"search": {"trials": 2, "space": {"responsive_dim": {"low": 1, "high": 2}}}, "grid": {"latent_dim": [3, 4]}}
    cell = planned(**keys).points[0]
    point = point_for(study(**keys), {**cell.setting, "responsive_dim": 2}, mark)
    assert point.trials[0].spec.model.d_i == 1


def test_a_proposal_becomes_a_point_and_a_repeated_one_the_same_trials():
    two = study(models=[{"kind": "perturbed_vae"}, {"kind": "beta_vae"}], search=SEARCH)
    point = point_for(two, {"model": "perturbed_vae", "sparsity": 0.01, "latent_dim": 7}, mark)
    assert point.cell == "perturbed_vae · sparsity=0.01 · latent_dim=7"
    assert point == point_for(two, point.setting, mark)
    beta = [point_for(two, {"model": "beta_vae", "sparsity": s, "latent_dim": 7}, mark) for s in (0.01, 0.02)]
    assert beta[0] == beta[1]
    assert beta[0].values == {"latent_dim": 7}


def test_a_proposal_is_the_trial_a_grid_would_give():
    proposed = point_for(study(search=SEARCH), {"latent_dim": 5}, mark)
    assert proposed.trials == planned(grid={"latent_dim": [5]}).points[0].trials


def test_a_proposal_that_is_impossible_in_combination_is_refused():
    with pytest.raises(UserError, match="leaves no room"):
        point_for(study(search=SEARCH), {"latent_dim": 3}, mark)


def test_a_key_is_searched_or_in_the_grid():
    with pytest.raises(UserError, match=r"search\.space\.latent_dim is in the grid too"):
        check(study(search=SEARCH, grid={"latent_dim": [5]}))


def test_a_proposal_without_its_model_or_with_an_unknown_key_is_refused():
    two = study(models=[{"kind": "perturbed_vae"}, {"kind": "beta_vae"}], search=SEARCH)
    with pytest.raises(UserError, match="known are perturbed_vae, beta_vae"):
        point_for(two, {"latent_dim": 7}, mark)
    with pytest.raises(UserError, match="unknown field"):
        point_for(study(search=SEARCH), {"latent_dimm": 7}, mark)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"latent_dim": {"low": 0, "high": 9}}, "search.space.latent_dim.low is 0, but must be at least 1"),
        ({"latent_dim": {"low": 5, "high": 9.5}}, "search.space.latent_dim.high is 9.5, but must be an integer"),
        ({"mechanisms": {"choices": ["free", "fre"]}}, "search.space.mechanisms.choices.1"),
        ({"latnt_dim": {"low": 5, "high": 9}}, "did you mean latent_dim?"),
        ({"mechanisms": {"choices": ["free", "free"]}}, "lists free twice"),
    ],
)
def test_impossible_search_spaces_are_refused(space, said):
    with pytest.raises(UserError) as caught:
        check(study(search={"trials": 2, "space": space}))
    assert said in str(caught.value)


def test_a_range_may_be_impossible_only_in_combination():
    check(study(search={"trials": 2, "space": {"latent_dim": {"low": 3, "high": 9}}}))


# -------------------------------------------------------------------------------------------------- jobs


def test_jobs_hold_one_dataset_each_and_every_trial_once():
    cells = study(
        data={"kind": "perturbseq"},
        grid={"data.genes": [10, 20], "latent_dim": [5, 6, 7]},
        seeds=1,
        compute={"trials_per_job": 2},
    )
    planned_jobs = plan(cells, lambda data: f"print-of-{data.genes}")
    jobs = planned_jobs.jobs()
    assert [len(job) for job in jobs] == [2, 1, 2, 1]
    assert all(len({trial.spec.data_fingerprint for trial in job}) == 1 for job in jobs)
    assert sorted(t.trial_id for job in jobs for t in job) == sorted(t.trial_id for t in planned_jobs.trials)
    assert into_jobs([], 3) == ()


def test_vectors_generated_in_each_trial_share_a_job():
    planned_jobs = planned(data={**SIMULATION, "seed": "per_trial"}, seeds=5, compute={"trials_per_job": 3})
    assert [len(job) for job in planned_jobs.jobs()] == [3, 2]
    assert len({trial.spec.data_fingerprint for trial in planned_jobs.trials}) == 5


def test_preview_counts_and_estimates():
    preview = planned(grid={"latent_dim": [5, 6, 7]}, compute={"trials_per_job": 4}).preview()
    assert (preview.cells, preview.trials, preview.jobs) == (3, 6, 2)
    assert preview.estimate(600.0) == pytest.approx(1.0)


def test_axes_and_search_among_points():
    points = planned(grid={"sparsity": [0, 1], "latent_dim": [5, 6, 7]}).points
    assert axes_of(points) == {"sparsity": [0, 1], "latent_dim": [5, 6, 7]}
    assert [point.cell for point in find(points, {"sparsity": 1, "latent_dim": 6})] == [
        "perturbed_vae · sparsity=1 · latent_dim=6"
    ]
    assert find(points, {"no": 1}) == ()


def test_planning_imports_nothing_heavy():
    code = (
        "import sys, harness.study.load, harness.study.plan, harness.study.folder;"
        "assert not {'torch', 'mlflow', 'optuna', 'numpy', 'submitit'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_id_is_the_hash_of_all_that_determines_the_result(tiny_study):
    """Written out here once more as `TrialSpec.trial_id` describes it; a plan writes shared parts only once."""
    changes = ("grid.sparsity=[0, 0.1]", "grid.data.seed=[0, 1]", "grid.train.learning_rate=[0.01, 1e-3]")
    for trial in plan(load_study(tiny_study, changes)).trials:
        body = trial.spec.model_dump(mode="json")
        del body["data"], body["train"]["checkpoint_seconds"], body["train"]["keep"]
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        assert trial.trial_id == trial.spec.trial_id == hashlib.sha256(text.encode()).hexdigest()[:16]
