"""The study as Optuna sees it: one study in one journal file, every trial of ours a trial of Optuna's.

Grid trials are (cell, seed); under a search one Optuna trial is a point, whose value is the mean over its
seeds. Only the driver writes here, and the journal can be rebuilt from the trial folders at any time.

How values are kept: a number is a ``FloatDistribution`` (Optuna insists that a parameter keeps its class,
and a grid over 4 may be widened by 0.5); anything else is an index into a table that only grows, since a
categorical distribution can never be widened. The table stands in the study's user attributes.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from harness.files import FOREVER, append_whole, patiently
from harness.study.spec import ObjectiveSpec

#: Largest index a table of values may grow to; a bound that moved would be a change of distribution.
_TABLE_SIZE = 1_000_000


@dataclass(frozen=True)
class Entry:
    """An Optuna trial of ours: its number, its state and the values it was told."""

    number: int
    state: TrialState
    values: tuple[float, ...] | None


class OptunaStore:
    """Reads and writes the study's journal.

    Parameters
    ----------
    path
        The journal file; created if missing, mended if a dead driver left half a line.
    name
        The study's name.
    objectives
        What trials are judged by. A journal kept for other objectives is set aside and begun anew.
    check
        Called before every write; raises if this driver may not write any more.
    mend
        Whether to mend the file, which only the driver may; who only reads leaves it alone.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        objectives: Sequence[ObjectiveSpec],
        check: Callable[[], None] = lambda: None,
        *,
        mend: bool = True,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._check = check
        check()
        wanted = [[objective.metric, objective.direction] for objective in objectives]
        if mend:
            _mend(path)
        self._journal = _Journal(path, check)
        self._storage = JournalStorage(self._journal)
        if mend and _objectives_in(self._storage, name) not in (None, wanted):
            _set_aside(path)
            self._journal = _Journal(path, check)
            self._storage = JournalStorage(self._journal)
        self.study = optuna.create_study(
            study_name=name,
            storage=self._storage,
            directions=[objective.direction for objective in objectives],
            load_if_exists=True,
        )
        if "objective" not in self.study.user_attrs:
            self.study.set_user_attr("objective", wanted)
            if len(wanted) > 1:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
                    self.study.set_metric_names([metric for metric, _ in wanted])
        self._tables: dict[str, list[Any]] = dict(self.study.user_attrs.get("values", {}))
        self._ranges: dict[str, list[float]] = dict(self.study.user_attrs.get("ranges", {}))

    # ------------------------------------------------------------------------------------ reading

    def trials(self) -> list[FrozenTrial]:
        """All Optuna trials, by number."""
        return self.study.get_trials(deepcopy=False)

    def entries(self) -> dict[str, Entry]:
        """The latest Optuna trial of each key (trial id of a grid trial, point key of a search)."""
        found = {}
        for trial in self.trials():
            if "key" in trial.user_attrs:
                values = tuple(trial.values) if trial.values else None
                found[trial.user_attrs["key"]] = Entry(trial.number, trial.state, values)
        return found

    # ------------------------------------------------------------------------------------ writing

    @contextmanager
    def together(self) -> Iterator[None]:
        """Wait for the disk once at the end of the block, and not at every write in it."""
        self._journal.waits = False
        try:
            yield
        finally:
            self._journal.waits = True
            self._journal.wait()

    def recover(self, kept: Collection[str] = ()) -> None:
        """Mark what a dead driver left running as failed; what waits goes on waiting.

        Parameters
        ----------
        kept
            Keys of trials that go on under the number they have.
        """
        for trial in self.trials():
            if trial.state is TrialState.RUNNING and trial.user_attrs.get("key") not in kept:
                self.fail(trial.number, "the driver died")

    def add(
        self,
        setting: Mapping[str, Any],
        *,
        key: str,
        attributes: Mapping[str, Any],
        system: Mapping[str, Any] | None = None,
    ) -> int:
        """Add a waiting trial; gives its number.

        Parameters
        ----------
        setting
            Its parameters: grid or search keys, ``model`` and ``seed``.
        key
            What finds it again: trial id or point key.
        attributes
            User attributes: ids, cell, and what else is worth reading in Optuna's tools.
        system
            Sampler's own attributes, which NSGA-II needs to know its generations.
        """
        self._check()
        params, distributions = self._encode(setting)
        trial = optuna.create_trial(
            state=TrialState.WAITING,
            params=params,
            distributions=distributions,
            user_attrs={**attributes, "key": key, "setting": dict(setting)},
            system_attrs=dict(system or {}),
        )
        study_id = self._storage.get_study_id_from_name(self.study.study_name)
        trial_id = self._storage.create_new_trial(study_id, template_trial=trial)
        return int(self._storage.get_trial_number_from_id(trial_id))

    def begin(self, number: int) -> None:
        """A waiting trial was submitted."""
        self._set_state(number, TrialState.RUNNING)

    def complete(self, number: int, values: Sequence[float]) -> None:
        """Tell the objective values; one that is not finite makes the trial a failed one."""
        if all(math.isfinite(value) for value in values):
            self._set_state(number, TrialState.COMPLETE, [float(value) for value in values])
        else:
            self.fail(number, f"objective is {list(values)}")

    def prune(self, number: int, value: float | None) -> None:
        """A point was stopped; its value is the last that was reported."""
        self._set_state(number, TrialState.PRUNED, None if value is None else [value])

    def fail(self, number: int, reason: str) -> None:
        """A trial failed, for a reason worth reading."""
        self._check()
        self._storage.set_trial_user_attr(self._id(number), "reason", reason)
        self._set_state(number, TrialState.FAIL)

    def report(self, number: int, step: int, value: float) -> None:
        """An intermediate value of a running trial."""
        self._check()
        self._storage.set_trial_intermediate_value(self._id(number), step, value)

    def note(self, name: str, value: Any) -> None:
        """Keep something about the whole study, e.g. the sampler's arguments."""
        if self.study.user_attrs.get(name) != value:
            self._check()
            self.study.set_user_attr(name, value)

    def widen(self, settings: Iterable[Mapping[str, Any]]) -> None:
        """Let the ranges of numbers span these settings, so that Optuna's tools see one range a parameter."""
        before = json.dumps(self._ranges)
        for setting in settings:
            for key, value in setting.items():
                if _is_number(value):
                    low, high = self._ranges.get(key, [float(value), float(value)])
                    self._ranges[key] = [min(low, float(value)), max(high, float(value))]
        if json.dumps(self._ranges) != before:
            self._check()
            self.study.set_user_attr("ranges", self._ranges)

    def _set_state(self, number: int, state: TrialState, values: Sequence[float] | None = None) -> None:
        self._check()
        self._storage.set_trial_state_values(self._id(number), state, values)

    def _id(self, number: int) -> int:
        study_id = self._storage.get_study_id_from_name(self.study.study_name)
        return int(self._storage.get_trial_id_from_study_id_trial_number(study_id, number))

    def _encode(self, setting: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
        """Parameters and distributions that stay compatible however the study is widened later."""
        self.widen([setting])
        params: dict[str, Any] = {}
        distributions: dict[str, BaseDistribution] = {}
        for key, value in setting.items():
            if _is_number(value):
                params[key] = float(value)
                distributions[key] = FloatDistribution(self._ranges[key][0], self._ranges[key][1])
            else:
                params[f"{key} (index)"] = self._index(key, value)
                distributions[f"{key} (index)"] = IntDistribution(0, _TABLE_SIZE)
        return params, distributions

    def _index(self, key: str, value: Any) -> int:
        value = json.loads(json.dumps(value))  # as it will come back from the journal
        table = self._tables.setdefault(key, [])
        for index, known in enumerate(table):
            if known == value and type(known) is type(value):
                return index
        table.append(value)
        self._check()
        self.study.set_user_attr("values", self._tables)
        return len(table) - 1


class _Journal(JournalFileBackend):
    """Optuna's journal file, to which a line is added whole or not at all, waiting while the disk is full.

    Half a line, followed by others, could not be read by anybody any more.
    """

    def __init__(self, path: Path, check: Callable[[], None]) -> None:
        self._path, self._check = path, check
        self._line_lock = JournalFileSymlinkLock(str(path))
        self.waits = True
        super().__init__(str(path), lock_obj=self._line_lock)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)

        def write() -> None:
            self._check()  # again after a wait: another driver may have taken over meanwhile
            self._line_lock.acquire()
            try:
                append_whole(self._path, text, sync=self.waits)
            finally:
                self._line_lock.release()

        patiently(write, self._path, seconds=FOREVER)

    def wait(self) -> None:
        """Until all lines are on the disk."""
        patiently(lambda: append_whole(self._path, "", sync=True), self._path, seconds=FOREVER)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mend(path: Path) -> None:
    """Cut a last line that a killed driver left half written, and drop the lock it held.

    Safe since the caller holds the study's lease: nobody else writes here.
    """
    lock = path.with_name(path.name + ".lock")
    if lock.is_symlink() or lock.exists():
        lock.unlink()
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)


def _objectives_in(storage: JournalStorage, name: str) -> Any:
    """The objectives a journal was kept for; None in a new one, or before they were written."""
    attributes = (study.user_attrs for study in storage.get_all_studies() if study.study_name == name)
    return next(attributes, {}).get("objective")


def _set_aside(path: Path) -> None:
    number = 1
    while (aside := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    path.rename(aside)
