"""Proposals of a search: Optuna's samplers and pruner over an in-memory study that is filled from the journal.

In memory, so that samplers see the space as it stands today, with its categories and logarithms, and no
grid trials; the journal keeps the record. The sampler is made anew for every proposal, seeded by the
proposal's number: a search that was interrupted goes on with the very proposals it would have made, where
they come one at a time.
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
    """

    def __init__(
        self,
        search: SearchSpec,
        axes: Mapping[str, AxisSpec],
        objectives: Sequence[ObjectiveSpec],
        seed_words: Sequence[str],
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._search = search
        self._seed_words = list(seed_words)
        self._space = {key: distribution(axis) for key, axis in axes.items()}
        self._trials: dict[int, optuna.trial.Trial] = {}
        pruner = optuna.pruners.MedianPruner() if search.pruner == "median" else optuna.pruners.NopPruner()
        self._study = optuna.create_study(directions=[one.direction for one in objectives], pruner=pruner)

    def replay(self, trial: FrozenTrial) -> None:
        """Learn from a trial of an earlier driver; one outside today's space teaches nothing."""
        setting = trial.user_attrs["proposal"]
        inside = set(setting) == set(self._space) and all(_contains(self._space[key], setting[key]) for key in setting)
        if not inside or not trial.state.is_finished() or trial.state is TrialState.FAIL:
            return
        self._study.add_trial(
            optuna.create_trial(
                state=trial.state,
                values=trial.values,
                params=setting,
                distributions=self._space,
                system_attrs=trial.system_attrs,
                intermediate_values=trial.intermediate_values,
            )
        )

    def repeat(self, setting: Mapping[str, Any]) -> None:
        """Propose this setting next: it was in flight when a driver died, or it failed."""
        if set(setting) == set(self._space) and all(_contains(self._space[key], setting[key]) for key in setting):
            self._study.enqueue_trial(dict(setting))

    def ask(self) -> Proposal:
        """The next proposal."""
        count = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = make_sampler(self._search, _seed([*self._seed_words, count]))
        trial = self._study.ask(fixed_distributions=self._space)
        self._trials[trial.number] = trial
        frozen = self._study.trials[trial.number]
        return Proposal(trial.number, dict(trial.params), dict(frozen.system_attrs))

    def report(self, number: int, step: int, value: float) -> bool:
        """Report an intermediate value; gives whether the point should be stopped."""
        trial = self._trials[number]
        trial.report(value, step)
        return bool(trial.should_prune())

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


def _contains(kind: BaseDistribution, value: Any) -> bool:
    if isinstance(kind, CategoricalDistribution):
        return value in kind.choices
    if not isinstance(value, int | float):
        return False
    return bool(kind._contains(kind.to_internal_repr(value)))


def _seed(words: Sequence[str | int]) -> int:
    """A 32-bit seed from words, so that no stream depends on the order of another's draws."""
    return int.from_bytes(hashlib.sha256(json.dumps(list(words)).encode()).digest()[:4], "big")
