"""Search: proposals, budgets, repeated points, pruning, and going on after an interruption."""

import pytest

SEARCH = "search={{sampler: {sampler}, trials: {trials}, space: {{sparsity: {{low: 0.0, high: 1.0}}}}{more}}}"


def search(sampler="random", trials=6, more="", space=None):
    text = SEARCH.format(sampler=sampler, trials=trials, more=more)
    return text if space is None else f"search={{sampler: {sampler}, trials: {trials}, space: {space}{more}}}"


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_each_sampler_spends_its_budget_on_means_over_seeds(driving, sampler):
    outcome = driving.launch(search(sampler, trials=8), "grid=null")
    assert outcome.failed == []
    assert (outcome.ran, outcome.reused) == (16, 0)
    study = driving.optuna()
    assert study.user_attrs["sampler"]["kind"] == sampler
    results = driving.results()
    assert len(study.trials) == 8
    for trial in study.trials:
        losses = [results[trial_id]["validation/loss"] for trial_id in trial.user_attrs["trial_ids"]]
        assert trial.value == pytest.approx(sum(losses) / 2)
        assert 0 <= trial.params["sparsity"] <= 1
    assert "16 finished" in outcome.report.text


def test_launching_a_search_again_proposes_nothing(driving):
    driving.launch(search(), "grid=null")
    again = driving.launch(search(), "grid=null")
    assert (again.ran, again.failed) == (0, [])
    more = driving.launch(search(trials=8), "grid=null")
    assert more.ran == 4
    assert driving.optuna_states() == {"COMPLETE": 8}


def test_a_repeated_point_takes_the_results_that_are_there(driving):
    space = "{sparsity: {choices: [0.1, 0.2]}}"
    outcome = driving.launch(search(trials=6, space=space), "grid=null")
    assert outcome.ran == len(driving.results()) <= 4
    assert set(driving.starts().values()) == {1}
    study = driving.optuna()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 6


def test_a_search_runs_in_every_grid_cell_with_its_own_budget(driving):
    space = "{sparsity: {low: 0.0, high: 1.0}}"
    driving.launch(search(trials=3, space=space), "grid={latent_dim: [4, 5]}", "seeds=1")
    cells = [trial.user_attrs["search_cell"] for trial in driving.optuna().trials]
    assert sorted(cells) == ["perturbed_vae · latent_dim=4"] * 3 + ["perturbed_vae · latent_dim=5"] * 3


def test_a_failed_point_is_tried_again_by_a_retry_alone(driving, monkeypatch):
    space = "{sparsity: {choices: [0.1, 0.2]}}"
    changes = (search(trials=2, space=space), "grid=null", "seeds=1")
    monkeypatch.setenv("FAKE_FAIL", "[0.1, 0.2]")
    assert len(driving.launch(*changes).failed) >= 1
    monkeypatch.delenv("FAKE_FAIL")
    starts = driving.starts()
    assert driving.launch(*changes).ran == 0
    assert driving.starts() == starts
    outcome = driving.retry()
    assert (outcome.ran, outcome.failed) == (len(starts), [])
    states = driving.optuna_states()
    assert states["COMPLETE"] == 2
    assert len(driving.runs()[1]) == len(starts)
    assert driving.launch(*changes).ran == 0


def test_an_impossible_combination_counts_as_a_failed_proposal(driving):
    space = "{latent_dim: {low: 2, high: 3}}"
    outcome = driving.launch(search(trials=6, space=space), "grid=null", "seeds=1")
    states = driving.optuna_states()
    assert outcome.failed == []
    assert states["FAIL"] + states["COMPLETE"] == 6
    assert {trial.user_attrs["reason"].count("leaves no room") for trial in driving.optuna().trials if trial.state.name == "FAIL"} == {1}  # fmt: skip # noqa: E501


def test_several_objectives(driving):
    objectives = (
        "objective=[{metric: validation/loss, direction: minimize},"
        " {metric: identifiability/mcc, direction: maximize, oracle: true}]"
    )
    outcome = driving.launch(search("nsga2", trials=6), "grid=null", "seeds=1", objectives)
    assert outcome.failed == []
    study = driving.optuna()
    assert len(study.directions) == 2
    assert all(len(trial.values) == 2 for trial in study.trials)
    assert all(child.data.tags["oracle_selection"] == "true" for child in driving.runs()[1])


def test_poor_points_are_pruned_and_the_results_say_so(driving, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "0.05")
    monkeypatch.setattr("harness.study.driver.POLL_SECONDS", {"inline": 0.01})
    changes = (search(trials=9, more=", pruner: median"), "grid=null", "seeds=1", "train.epochs=6")
    outcome = driving.launch(*changes)
    assert outcome.pruned >= 1
    pruned = [trial for trial in driving.optuna().trials if trial.state.name == "PRUNED"]
    assert len(pruned) == outcome.pruned
    for trial in pruned:
        (trial_id,) = trial.user_attrs["trial_ids"]
        folder = driving.folder.trial(trial_id)
        assert folder.read_result()["state"] == "pruned"
        assert len(folder.read_metrics()) < 6
        assert 1 <= len(trial.intermediate_values) <= 6
    assert "KILLED" in {child.info.status for child in driving.runs()[1]}
    again = driving.launch(*changes)
    assert again.ran == 0


def test_a_pruned_point_that_the_grid_asks_for_is_run_to_its_end(driving):
    driving.launch("grid.sparsity=[0]", "seeds=1")
    (trial,) = driving.folder.trials()
    result = trial.result.read_text().replace('"finished"', '"pruned"')
    trial.result.write_text(result)
    outcome = driving.launch("grid.sparsity=[0]", "seeds=1")
    assert (outcome.ran, outcome.pruned) == (1, 0)
    assert trial.read_result()["state"] == "finished"


def test_an_interrupted_search_goes_on_with_the_proposals_it_would_have_made(driving, monkeypatch):
    driving.launch(search("tpe"), "grid=null", "seeds=1")
    whole = [trial.params["sparsity"] for trial in driving.optuna().trials]
    driving.folder.path.rename(driving.root / "whole")
    driving.interrupt_at_the_third(monkeypatch)
    assert driving.launch(search("tpe"), "grid=null", "seeds=1").interrupted
    assert driving.resume().failed == []
    done = [trial.params["sparsity"] for trial in driving.optuna().trials if trial.state.name == "COMPLETE"]
    assert done == whole
