import json

import pytest
from pydantic import ValidationError

from harness.data_spec import PerturbseqData
from harness.study.profile_spec import ProfileSpec
from harness.study.spec import (
    AxisSpec,
    ComputeSpec,
    ExpectSpec,
    ObjectiveSpec,
    StudySpec,
    predicts,
)

SMALL = {"name": "s", "models": [{"kind": "perturbed_vae"}], "data": {"kind": "simulation"}}


def study(**keys):
    return StudySpec.model_validate_json(json.dumps({**SMALL, **keys}))


def refused(**keys):
    with pytest.raises(ValidationError) as caught:
        study(**keys)
    return str(caught.value)


def test_a_count_of_seeds_is_the_first_integers():
    assert study(seeds=4).seeds == (0, 1, 2, 3)
    assert study(seeds=[7, 3]).seeds == (7, 3)


@pytest.mark.parametrize("seeds", [0, -1, [], [1, 1], True, [True], [-1], "3", 2.0, [1.5], {"a": 1}])
def test_impossible_seeds_are_refused(seeds):
    assert "seeds" in refused(seeds=seeds)


def test_one_objective_needs_no_list():
    one = {"metric": "validation/loss", "direction": "minimize"}
    assert study(objective=one).objective == study(objective=[one]).objective == study().objective


def test_truth_and_test_select_only_when_marked():
    metric = {"metric": "identifiability/mcc", "direction": "maximize"}
    assert "oracle: true" in refused(objective=metric)
    assert study(objective={**metric, "oracle": True}).oracle_selection
    assert not study().oracle_selection


@pytest.mark.parametrize(
    ("settings_by", "by_truth"),
    [("truth", True), ("simulation", True), ("validation", False), ("published", False), ("none", False)],
)
def test_a_file_says_how_its_settings_were_chosen(settings_by, by_truth):
    said = study(settings_by=settings_by)
    assert said.selected_by_truth(PerturbseqData()) == by_truth
    assert said.selected_by_truth(PerturbseqData(path="cells.h5ad")) == (settings_by == "truth")
    assert not said.oracle_selection  # of which the objective alone decides


def test_settings_were_chosen_by_truth_where_the_objective_looks_at_it():
    metric = {"metric": "identifiability/mcc", "direction": "maximize", "oracle": True}
    assert study(objective=metric).selected_by_truth(PerturbseqData(path="cells.h5ad"))
    assert study().settings_by == "none"
    assert "settings_by" in refused(settings_by="mcc")


@pytest.mark.parametrize("metric", ["train/loss", "baseline/additive/ood/x/r2", "loss"])
def test_some_metrics_never_select(metric):
    with pytest.raises(ValidationError, match="cannot select"):
        ObjectiveSpec(metric=metric, direction="minimize", oracle=True)


def test_oracle_on_a_validation_metric_is_a_contradiction():
    with pytest.raises(ValidationError, match="neither"):
        ObjectiveSpec(metric="validation/loss", direction="minimize", oracle=True)


TWO = [{"metric": "validation/loss", "direction": "minimize"}, {"metric": "validation/x", "direction": "minimize"}]
SEARCH = {"trials": 3, "space": {"latent_dim": {"low": 5, "high": 9}}}


def test_an_objective_that_is_measured_only_where_training_goes_by_it_says_so():
    objective = {"metric": "validation/pearson_delta", "direction": "maximize"}
    assert "set train.monitor: validation/pearson_delta" in refused(objective=objective)
    for train in ("validation/rmse", "validation/pearson_delta"):
        assert study(objective=objective, train={"monitor": train}).objective[0].metric == objective["metric"]
    swept = {"train.monitor": ["validation/loss", "validation/rmse"]}
    assert study(objective=objective, grid=swept).train.monitor == "validation/loss"


def test_sampler_follows_the_number_of_objectives():
    assert study(search=SEARCH).search.sampler == "tpe"
    assert study(search=SEARCH, objective=TWO).search.sampler == "nsga2"
    assert study(search={**SEARCH, "sampler": "random"}, objective=TWO).search.sampler == "random"


def test_pruning_needs_a_single_validation_curve():
    median = {**SEARCH, "pruner": "median"}
    assert study(search=median).search.pruner == "median"
    assert "single objective" in refused(search=median, objective=TWO)
    oracle = {"metric": "ood/double/r2", "direction": "maximize", "oracle": True}
    assert "validation/" in refused(search=median, objective=oracle)


@pytest.mark.parametrize(
    ("metric", "right", "wrong"),
    [("ood/double/pearson_delta_top20de", "maximize", "minimize"), ("ood/x/rmse_relative", "minimize", "maximize")],
)
def test_an_objective_knows_which_way_its_metric_is_better(metric, right, wrong):
    objective = {"metric": metric, "oracle": True}
    assert study(search=SEARCH, objective={**objective, "direction": right}).objective[0].direction == right
    assert f"say direction: {right}" in refused(search=SEARCH, objective={**objective, "direction": wrong})


def test_hyperband_compares_trials_of_one_length():
    assert study(search={**SEARCH, "pruner": "hyperband"}).search.pruner == "hyperband"
    space = {"train.epochs": {"low": 5, "high": 9}}
    wrong = refused(search={**SEARCH, "space": space, "pruner": "hyperband"})
    assert "search.space has train.epochs" in wrong
    assert "pruner: median" in wrong
    assert study(search={**SEARCH, "space": space, "pruner": "median"}).search.pruner == "median"


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
@pytest.mark.parametrize(
    "keys",
    [
        {"train": {"epochs": 1}},
        {"train": {"epochs": 10, "validate_every": 10}},
        {"grid": {"train.epochs": [50, 4]}, "train": {"validate_every": 4}},
        {"grid": {"train.validate_every": [1, 100]}},
    ],
)
def test_a_pruner_needs_a_validation_before_the_last_epoch(pruner, keys):
    assert "before the last epoch" in refused(search={**SEARCH, "pruner": pruner}, **keys)
    assert study(search=SEARCH, **keys).search.pruner == "none"


def test_axis_is_integer_only_where_all_ends_are():
    assert AxisSpec(low=2, high=8).is_integer
    assert AxisSpec(low=2, high=8, step=2).is_integer
    assert not AxisSpec(low=2, high=8.0).is_integer
    assert not AxisSpec(low=2, high=8, step=0.5).is_integer
    assert not AxisSpec(choices=(1, 2)).is_integer


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"low": 1},
        {"low": 2, "high": 2},
        {"low": 3, "high": 2},
        {"low": 0, "high": 2, "log": True},
        {"low": 1, "high": 9, "log": True, "step": 2},
        {"low": 1, "high": 9, "step": 0},
        {"choices": []},
        {"choices": [1], "low": 1},
        {"choices": [1], "log": True},
    ],
)
def test_impossible_axes_are_refused(keys):
    with pytest.raises(ValidationError):
        AxisSpec(**keys)


def test_packing_is_refused_with_what_would_do():
    with pytest.raises(ValidationError, match=r"not available.*trials_per_job"):
        ComputeSpec(pack=4)
    assert ComputeSpec(pack=1).pack == 1


def test_slurm_needs_a_profile():
    with pytest.raises(ValidationError, match="profile"):
        ComputeSpec(cluster="slurm")


def test_profile_is_closed_and_its_gpu_type_needs_gpus():
    assert ProfileSpec(setup=["module load cuda"]).setup == ("module load cuda",)
    with pytest.raises(ValidationError):
        ProfileSpec(partitoin="gpu")
    with pytest.raises(ValidationError, match="gpus"):
        ProfileSpec(gpu_type="a100")


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "-x", "a b", "x" * 65, "cache", "mlartifacts", "a\n"])
def test_names_that_are_no_safe_folder_are_refused(name):
    assert "name" in refused(name=name)


@pytest.mark.parametrize(
    ("where", "yes", "no"),
    [(">= 4", 4, 3), ("<0.1", 0.01, 0.1), ("== 3", 3, 4), ((1, "a"), "a", 2), ("> 1e-3", 0.01, 0.0)],
)
def test_expectation_predicts(where, yes, no):
    assert ExpectSpec(axis="x", identifies_where=where).identifies_where == where
    assert predicts(where, yes)
    assert not predicts(where, no)


def test_comparison_with_a_word_predicts_nothing():
    assert not predicts(">= 4", "free")


def test_true_is_no_number():
    assert predicts((True,), True)
    assert not predicts((True,), 1)
    assert not predicts(">= 0", True)


@pytest.mark.parametrize("where", ["about 4", {"targeted": "about 4"}])
def test_an_expectation_is_a_comparison_or_a_list(where):
    said = refused(grid={"sparsity": [0, 1]}, expect={"axis": "sparsity", "identifies_where": where})
    assert "'about 4' is neither a comparison" in said


@pytest.mark.parametrize("where", [">= 4", {"targeted": [1]}])
def test_an_expectation_over_models_lists_models(where):
    assert "must be a list of models" in refused(expect={"axis": "model", "identifies_where": where})


def test_expectation_is_about_an_axis_of_the_study():
    assert study(grid={"sparsity": [0, 1]}, expect={"axis": "sparsity", "identifies_where": "> 0"}).expect is not None
    assert study(expect={"axis": "model", "identifies_where": ["cite_vae"]}).expect is not None
    assert "its axes are model, sparsity" in refused(
        grid={"sparsity": [0, 1]}, expect={"axis": "latent_dim", "identifies_where": "> 0"}
    )
