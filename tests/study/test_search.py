"""Proposals: what a sampler and a pruner make of a search that goes on from its journal."""

import math

import optuna
import pytest
from optuna.trial import TrialState

from harness.study.search import Proposals
from harness.study.spec import AxisSpec, ObjectiveSpec, SearchSpec
from harness.trial_spec import TrainSpec

AXES = {"sparsity": AxisSpec(low=0.0, high=1.0), "latent_dim": AxisSpec(low=4, high=20)}
LOSS = ObjectiveSpec(metric="validation/loss", direction="minimize")


def curve(setting, epoch):
    """A loss that falls towards a level far from which a point is poor."""
    return abs(setting["sparsity"] - 0.3) + 0.01 * setting["latent_dim"] + 1.0 / epoch


def proposals(sampler="tpe", pruner="none", epochs=9, objectives=(LOSS,), **train):
    search = SearchSpec(sampler=sampler, trials=40, space=AXES, pruner=pruner)
    return Proposals(search, AXES, objectives, ["study", "search", "cell"], TrainSpec(epochs=epochs, **train))


def run(search, count, epochs=9, every=1):
    """Run proposals one at a time, as a driver would; gives each as the journal keeps it."""
    kept = []
    for _ in range(count):
        proposal = search.ask()
        seen, state, values = {}, TrialState.COMPLETE, None
        for epoch in sorted({*range(every, epochs + 1, every), epochs}):
            seen[epoch] = curve(proposal.setting, epoch)
            if search.report(proposal.number, epoch, seen[epoch], is_last=epoch == epochs):
                state = TrialState.PRUNED
                break
        else:
            values = [seen[epochs]]
        search.tell(proposal.number, state, values)
        kept.append(
            optuna.create_trial(
                state=state,
                values=values or [seen[epoch]],
                intermediate_values=seen,
                system_attrs=proposal.system,
                user_attrs={"proposal": proposal.setting},
            )
        )
    return kept


def points(trials):
    return [trial.user_attrs["proposal"] for trial in trials]


@pytest.mark.parametrize("pruner", ["none", "median", "hyperband"])
@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_a_replayed_search_goes_on_as_the_undisturbed_one(sampler, pruner):
    whole = run(proposals(sampler, pruner), 24)
    for stop in (1, 13):
        again = proposals(sampler, pruner)
        for trial in whole[:stop]:
            again.replay(trial)
        rest = run(again, 24 - stop)
        assert points(rest) == points(whole[stop:])
        assert [trial.state for trial in rest] == [trial.state for trial in whole[stop:]]
        assert [trial.intermediate_values for trial in rest] == [trial.intermediate_values for trial in whole[stop:]]
    assert (TrialState.PRUNED in {trial.state for trial in whole}) == (pruner != "none")


def test_two_objectives_are_replayed_by_nsga2():
    two = (LOSS, ObjectiveSpec(metric="validation/sparse", direction="maximize"))

    def more(search, count):
        for _ in range(count):
            proposal = search.ask()
            values = [curve(proposal.setting, 9), proposal.setting["sparsity"]]
            search.tell(proposal.number, TrialState.COMPLETE, values)
            attributes = {"proposal": proposal.setting}
            yield optuna.create_trial(values=values, system_attrs=proposal.system, user_attrs=attributes)

    whole = list(more(proposals("nsga2", objectives=two), 40))
    again = proposals("nsga2", objectives=two)
    for trial in whole[:25]:
        again.replay(trial)
    assert points(more(again, 15)) == points(whole[25:])


def test_what_failed_teaches_nothing_but_keeps_its_number():
    whole = run(proposals("random"), 3)
    again = proposals("random")
    again.replay(whole[0])
    again.skip()
    assert again.count == 2
    assert again.ask().setting == points(whole)[2]


def test_what_was_in_flight_is_proposed_first_and_the_rest_follows_as_it_would_have():
    whole = run(proposals("random"), 4)
    again = proposals("random")
    again.replay(whole[0])
    assert again.repeat(points(whole)[1])
    asked = [again.ask() for _ in range(3)]
    assert [one.number for one in asked] == [1, 2, 3]
    assert [one.setting for one in asked] == points(whole)[1:]


def test_what_left_the_space_is_not_proposed_again():
    search = proposals("random")
    assert not search.repeat({"sparsity": 2.0, "latent_dim": 4})
    assert search.ask().number == 1


@pytest.mark.parametrize(("epochs", "every"), [(9, 1), (9, 3), (10, 3), (3, 2), (27, 1)])
def test_hyperband_stops_points_at_its_rungs_alone_and_never_at_the_last_epoch(epochs, every):
    search = proposals("random", "hyperband", epochs=epochs, validate_every=every)
    kept = run(search, 40, epochs=epochs, every=every)
    rungs = {every * 3**power for power in range(1 + int(math.log(epochs / every, 3) + 1e-9))}
    stopped = {max(trial.intermediate_values) for trial in kept if trial.state is TrialState.PRUNED}
    assert stopped
    assert stopped <= rungs - {epochs}
    assert TrialState.COMPLETE in {trial.state for trial in kept}


def test_hyperband_maximises_where_it_is_asked_to():
    search = proposals("random", "hyperband", objectives=(LOSS.model_copy(update={"direction": "maximize"}),))
    kept = run(search, 40)
    ended = {state: [trial.value for trial in kept if trial.state is state] for state in (TrialState.COMPLETE,)}
    stopped = [trial.intermediate_values[1] for trial in kept if set(trial.intermediate_values) == {1}]
    through = [trial.intermediate_values[1] for trial in kept if trial.state is TrialState.COMPLETE]
    assert ended[TrialState.COMPLETE]
    assert sum(stopped) / len(stopped) < sum(through) / len(through)
