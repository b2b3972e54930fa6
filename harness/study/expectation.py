"""A study's prediction: for which models, and where on one axis, the truth should be identified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.study.axes import MODEL_AXIS, kind_of_label, model_labels, worded
from harness.study.explain import SpecError, did_you_mean
from harness.study.spec import ExpectSpec, StudySpec, Where, predicts

#: Kinds of models that are in a study to fail: predicted not to identify anywhere, unless the study names them.
CONTROLS = ("beta_vae",)

#: Kinds of models that are told the truth: what they find is no matter of prediction, unless the study names them.
ORACLES = ("supervised",)

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Expectation:
    """A study's prediction, ready to be asked about one cell.

    Attributes
    ----------
    axis : the axis of the grid, or ``model``.
    rules : where the truth is identified, each for the models and settings its words name; no words name all.
    entries : label of each model -> its fields as the study file writes them.
    """

    axis: str
    rules: tuple[tuple[str, Where], ...]
    entries: Mapping[str, Entry]

    @property
    def statement(self) -> str:
        """The prediction in words."""
        if len(self.rules) == 1 and not self.rules[0][0]:
            return f"the truth is identified where {self.axis} {_worded_where(self.rules[0][1])}"
        parts = [f"{words} {_worded_where(where, nowhere='nowhere')}" for words, where in self.rules]
        return f"the truth is identified, over {self.axis}, by {'; '.join(parts)}"

    def predicts(self, value: object, model: str, setting: Mapping[str, object]) -> bool | None:
        """Whether a model is predicted to identify at one value of the axis.

        Parameters
        ----------
        value
            On the axis; the model's label where the axis is ``model``.
        model
            Label of the model.
        setting
            The cell's values on all axes of the grid.

        Returns
        -------
        bool or None
            None where the study predicts nothing. Of several rules that name a cell, the one of most words counts.
        """
        entry = self.entries[model]
        if self.axis == MODEL_AXIS:
            where = self.rules[0][1]
            named = not isinstance(where, str) and any(_names(str(words), entry, setting) for words in where)
            return None if not named and kind_of_label(model) in ORACLES else named
        fitting = [(words, where) for words, where in self.rules if words and _names(words, entry, setting)]
        if fitting:
            return predicts(max(fitting, key=lambda rule: len(_split(rule[0])))[1], value)
        if kind_of_label(model) in ORACLES:
            return None
        if kind_of_label(model) in CONTROLS:
            return False
        return next((predicts(where, value) for words, where in self.rules if not words), None)


def expectation_of(study: StudySpec) -> Expectation | None:
    """What a study predicts; None where it says nothing."""
    if study.expect is None:
        return None
    entries = dict(zip(model_labels(study), study.models, strict=True))
    return Expectation(study.expect.axis, _rules(study.expect), entries)


def check_expectation(study: StudySpec) -> None:
    """Refuse a prediction that names a model or setting which the study does not have.

    Raises
    ------
    SpecError
        With the key path and one sentence.
    """
    if study.expect is None:
        return
    rules, axes = _rules(study.expect), [*study.grid, *(study.search.space if study.search else ())]
    named = [words for words, _ in rules if words]
    if study.expect.axis == MODEL_AXIS:
        named = [str(words) for words in rules[0][1]]
    for words in named:
        of_model = " ".join(word for word in _split(words) if word.partition("=")[0] not in axes)
        if not words.strip() or not any(_names(of_model, entry, {}) for entry in study.models):
            known = dict.fromkeys(str(value) for entry in study.models for value in entry.values())
            raise SpecError(
                ("expect", "identifies_where"),
                f"expect.identifies_where names {words!r}, but no entry of models is that"
                f"{did_you_mean(words, [*known, *(f'{axis}=...' for axis in axes)])}",
            )


def _rules(expect: ExpectSpec) -> tuple[tuple[str, Where], ...]:
    where = expect.identifies_where
    return tuple(where.items()) if isinstance(where, dict) else (("", where),)


def _split(words: str) -> list[str]:
    return words.replace("·", " ").replace(",", " ").split()


def _names(words: str, entry: Entry, setting: Mapping[str, object]) -> bool:
    """Whether every word is the kind or a value of the entry, or ``key=value`` of the entry or of the setting."""

    def holds(word: str) -> bool:
        key, equals, value = word.partition("=")
        if not equals:
            return word in {worded(each) for each in entry.values()}
        return any(key in place and worded(place[key]) == value for place in (entry, setting))

    return all(map(holds, _split(words)))


def _worded_where(where: Where, nowhere: str = "has no value at all") -> str:
    if isinstance(where, str):
        return where
    return f"in {', '.join(map(worded, where))}" if where else nowhere
