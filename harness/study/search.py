"""Proposals of a search: Optuna's samplers and pruner over an in-memory study that is filled from the journal.

In memory, so that samplers see the space as it stands today, with its categories and logarithms, and no
grid trials; the journal keeps the record. Every proposal has a number, counted in its cell, which is kept with it.

What is deterministic: the sampler is made anew for every proposal, seeded by study, cell and number, and Hyperband's
bracket is chosen by the same three. A random search therefore proposes the same points however it is run. TPE and
NSGA-II also depend on what has ended by the time they are asked: where points come one at a time and run to their end
(``cluster: inline`` without a pruner) they propose the same points again, interrupted or not. A pruner depends on the
order in which curves arrive, and how far a point comes before it stops on when that is seen. In every case no point is
lost or run twice.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from harness.study.spec import AxisSpec, ObjectiveSpec, SearchSpec
from harness.trial_spec import TrainSpec

#: One in so many points is promoted at a rung of Hyperband; Li et al. (2018) advise 3 or 4.
HYPERBAND_FACTOR = 3


@dataclass
class Proposal:
    """A setting that the sampler proposes.

    Attributes
    ----------
    number : of the trial in the in-memory study.
    setting : search key -> value.
    system : the sampler's own attributes, to be kept with the trial.
    """

    number: int
    setting: dict[str, Any]
    system: dict[str, Any]


class Proposals:
    """Sampler and pruner of one search.

    Parameters
    ----------
    search
        Sampler, budget and pruner.
    axes
        The space, the model's axis included.
    objectives
        What is minimised or maximised.
    seed_words
        What the sampler's random stream depends on, e.g. the study's name.
    train
        How long trials of this cell train, and how often they validate.
    """

    def __init__(
        self,
        search: SearchSpec,
        axes: Mapping[str, AxisSpec],
        objectives: Sequence[ObjectiveSpec],
        seed_words: Sequence[str],
        train: TrainSpec,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._search = search
        self._seed_words = list(seed_words)
        self._space = {key: distribution(axis) for key, axis in axes.items()}
        self._trials: dict[int, optuna.trial.Trial] = {}
        self._generation = 0
        self._storage = optuna.storages.InMemoryStorage()
        self._study = optuna.create_study(
            study_name=json.dumps(self._seed_words),  # Hyperband draws a trial's bracket from it
            storage=self._storage,
            directions=[one.direction for one in objectives],
            pruner=make_pruner(search, train),
        )

    @property
    def count(self) -> int:
        """Proposals known so far; the number of the next one."""
        return len(self._study.get_trials(deepcopy=False))

    def replay(self, trial: FrozenTrial) -> None:
        """Learn from the next proposal of an earlier driver; one that failed, or left the space, teaches nothing."""
        setting = trial.user_attrs["proposal"]
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED) or not self._is_inside(setting):
            self.skip()
            return
        self._select_parents(trial)
        known = {"params": setting, "distributions": self._space, "system_attrs": trial.system_attrs}
        if self._search.pruner == "hyperband":
            self._relive(trial, known)
            return
        self._study.add_trial(
            optuna.create_trial(
                state=trial.state, values=trial.values, intermediate_values=trial.intermediate_values, **known
            )
        )

    def _select_parents(self, trial: FrozenTrial) -> None:
        """Have NSGA-II choose a generation's parents when it first did: later they come in another order."""
        sampler = make_sampler(self._search, 0)
        if not isinstance(sampler, optuna.samplers.NSGAIISampler) or not trial.system_attrs:
            return
        # a study keeps the trials that it saw at its last proposal: a fresh view sees those of today
        view = optuna.load_study(study_name=self._study.study_name, storage=self._storage)
        generation = sampler.get_trial_generation(view, trial)
        if generation > self._generation:
            self._generation = generation
            sampler.get_parent_population(view, generation)

    def _relive(self, trial: FrozenTrial, known: Mapping[str, Any]) -> None:
        """Show a curve to the pruner again, which notes for itself the rungs that it reached."""
        self._study.add_trial(optuna.create_trial(state=TrialState.RUNNING, **known))
        relived = self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, self.count - 1)
        for step, value in sorted(trial.intermediate_values.items()):
            self._storage.set_trial_intermediate_value(relived, step, value)
            self._study.pruner.prune(self._study, self._storage.get_trial(relived))
        self._storage.set_trial_state_values(relived, trial.state, trial.values)

    def skip(self) -> None:
        """Count a proposal that teaches nothing, so that those after it keep their numbers."""
        self._study.add_trial(optuna.create_trial(state=TrialState.FAIL))

    def repeat(self, setting: Mapping[str, Any]) -> bool:
        """Propose this setting again, before anything new: it was in flight when a driver died, or it failed.

        Returns
        -------
        Whether it lies in today's space; it is skipped if not.
        """
        inside = self._is_inside(setting)
        if inside:
            self._study.enqueue_trial(dict(setting))
        else:
            self.skip()
        return inside

    def _is_inside(self, setting: Mapping[str, Any]) -> bool:
        return set(setting) == set(self._space) and all(_contains(self._space[key], setting[key]) for key in setting)

    def ask(self) -> Proposal:
        """The next proposal."""
        self._study.sampler = make_sampler(self._search, _seed([*self._seed_words, self.count]))
        trial = self._study.ask(fixed_distributions=self._space)
        self._trials[trial.number] = trial
        frozen = self._study.trials[trial.number]
        return Proposal(trial.number, dict(trial.params), dict(frozen.system_attrs))

    def report(self, number: int, step: int, value: float, *, is_last: bool = False) -> bool:
        """Report an intermediate value; gives whether the point should be stopped.

        Nothing is left to stop at the last step, where a rung of Hyperband may lie.
        """
        trial = self._trials[number]
        trial.report(value, step)
        return not is_last and bool(trial.should_prune())

    def tell(self, number: int, state: TrialState, values: Sequence[float] | None = None) -> None:
        """Tell how a proposal ended."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._study.tell(number, list(values) if values is not None else None, state=state)


def distribution(axis: AxisSpec) -> BaseDistribution:
    """Optuna's distribution for one axis of the space."""
    if axis.choices is not None:
        return CategoricalDistribution(list(axis.choices))
    if axis.low is None or axis.high is None:
        raise ValueError("an axis has low and high, or choices")  # AxisSpec has checked this
    if axis.is_integer:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
    return FloatDistribution(float(axis.low), float(axis.high), log=axis.log, step=axis.step)


def sampler_arguments(search: SearchSpec) -> dict[str, Any]:
    """The sampler's arguments, for the record; what is not named is Optuna's default."""
    if search.sampler == "tpe":
        return {"multivariate": True, "constant_liar": True, "n_startup_trials": max(1, min(10, search.trials // 3))}
    if search.sampler == "nsga2":
        return {"population_size": max(2, min(50, search.trials // 4))}
    return {}


def make_sampler(search: SearchSpec, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler a study asks for."""
    arguments = sampler_arguments(search)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
        if search.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed, **arguments)
        if search.sampler == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, **arguments)
    return optuna.samplers.RandomSampler(seed=seed)


def make_pruner(search: SearchSpec, train: TrainSpec) -> optuna.pruners.BasePruner:
    """The pruner a study asks for.

    Hyperband's resource is the epoch: from the first validation to the last epoch, a third promoted at each rung, so
    that rungs lie at 1, 3, 9, ... validations (Li et al. 2018, with the asynchronous promotion of Li et al. 2020).
    """
    if search.pruner == "median":
        return optuna.pruners.MedianPruner()
    if search.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(
            min_resource=train.validate_every, max_resource=train.epochs, reduction_factor=HYPERBAND_FACTOR
        )
    return optuna.pruners.NopPruner()


def _contains(kind: BaseDistribution, value: Any) -> bool:
    if isinstance(kind, CategoricalDistribution):
        return value in kind.choices
    if not isinstance(value, int | float):
        return False
    return bool(kind._contains(kind.to_internal_repr(value)))


def _seed(words: Sequence[str | int]) -> int:
    """A 32-bit seed from words, so that no stream depends on the order of another's draws."""
    return int.from_bytes(hashlib.sha256(json.dumps(list(words)).encode()).digest()[:4], "big")
