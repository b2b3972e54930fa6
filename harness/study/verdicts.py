"""Whether prediction and measurement agree: one stated rule, applied to every cell of a study."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.helps import Help, words
from harness.study.columns import MCC, Column
from harness.study.expectation import Expectation
from harness.study.records import MODEL, AxisValue, Records
from harness.study.statistics import Estimate, above_untrained
from harness.study.tables import Row, Score, Table, axis_text, axis_title, model_text, short_title, with_helps

#: Mean MCC over seeds from which latents count as identified. A random rotation of four latents scores 0.74 to 0.78,
#: so that 0.9 is out of its reach; it leaves room for noise and few cells below the 0.98 of a model that identifies.
IDENTIFIED = 0.9

RULE = (
    f"Identified: the mean MCC over seeds is at least {IDENTIFIED:g} and above the untrained encoder's 95 % interval; "
    f"undecided: the score's own 95 % interval holds {IDENTIFIED:g}."
)

Measured = Literal["identified", "not identified", "undecided", "nothing yet"]
Agreement = Literal["agree", "disagree", "undecided", "-"]


@dataclass(frozen=True)
class Verdict:
    """Prediction and measurement at one cell.

    Attributes
    ----------
    axis, value : the axis of the prediction and the cell's value on it; the model's label where it is ``model``.
    model, cell : label of the model, name of the cell.
    setting : values on the further axes of the grid.
    predicted : to identify; None where the study predicts nothing.
    score, untrained : MCC of the model and of its untrained encoder; None where nothing has finished.
    helps : what the score rests on and no user with her own cells has.
    """

    axis: str
    value: AxisValue
    model: str
    cell: str
    setting: Mapping[str, AxisValue]
    predicted: bool | None
    score: Estimate | None
    untrained: Estimate | None
    helps: tuple[Help, ...] = ()

    @property
    def measured(self) -> Measured:
        """What ``RULE`` makes of the score. One seed has no interval, and its value decides."""
        if self.score is None:
            return "nothing yet"
        low, high = self.score.low, self.score.high
        if low is not None and high is not None and low < IDENTIFIED <= high:
            return "undecided"
        above = self.untrained is None or above_untrained(self.score, self.untrained)
        return "identified" if self.score.mean >= IDENTIFIED and above else "not identified"

    @property
    def agreement(self) -> Agreement:
        """Whether prediction and measurement agree; a dash where one of them is missing."""
        if self.predicted is None or self.score is None:
            return "-"
        if self.measured == "undecided":
            return "undecided"
        return "agree" if self.predicted == (self.measured == "identified") else "disagree"

    @property
    def place(self) -> str:
        """The cell among those of its model, in prose."""
        further = [f"{short_title(axis)} {axis_text(value)}" for axis, value in self.setting.items()]
        value = model_text(self.model) if self.axis == MODEL else axis_text(self.value)
        return f"{value} with {' and '.join(further)}" if further else value


def verdicts(records: Records, expectation: Expectation) -> list[Verdict]:
    """A verdict on each cell that has the axis of the prediction, values rising, in each model by itself.

    Parameters
    ----------
    records
        All records of the study.
    expectation
        Its prediction.
    """
    axis = expectation.axis
    made = []
    for model in records.models:
        its = records.where(model=model)
        for value in its.axis_values(axis):
            for cell in its.on(axis, value).group(lambda record: record.cell).values():
                setting = next(iter(cell)).axes
                made.append(
                    Verdict(
                        axis=axis,
                        value=value,
                        model=model,
                        cell=next(iter(cell)).cell,
                        setting={key: one for key, one in setting.items() if key != axis},
                        predicted=expectation.predicts(value, model, setting),
                        score=cell.estimate(MCC),
                        untrained=cell.estimate(f"{MCC}_untrained"),
                        helps=cell.helps,
                    )
                )
    return made


def counts(made: Sequence[Verdict]) -> dict[Agreement, int]:
    """How many verdicts agree, disagree and are undecided."""
    states: tuple[Agreement, ...] = ("agree", "disagree", "undecided")
    return {state: sum(one.agreement == state for one in made) for state in states}


def summary(made: Sequence[Verdict]) -> str:
    """One sentence: at how many cells prediction and measurement agree, and at which they do not."""
    found = counts(made)
    total = sum(found.values())
    if total == 0:
        return "Prediction and measurement cannot be compared yet: nothing that is predicted has been measured."
    several = len({one.model for one in made}) > 1 and made[0].axis != MODEL
    what = "cell" if several or any(one.setting for one in made) else "value"
    parts = [f"Prediction and measurement agree at {found['agree']} of {total} {what}{'' if total == 1 else 's'}"]
    for state, verb in (("disagree", "they disagree at"), ("undecided", "undecided at")):
        chosen = [one for one in made if one.agreement == state]
        if chosen:
            parts.append(f"{verb} {_places(chosen, several)}")
    return "; ".join(parts) + "."


def _places(chosen: Sequence[Verdict], several: bool) -> str:
    """``environments 3, 4 (PerturbedVAE), 20 (β-VAE)``."""
    by_model: dict[str, list[str]] = {}
    for one in chosen:
        by_model.setdefault(one.model if several else "", []).append(one.place)
    words = [", ".join(places) + (f" ({model_text(model)})" if model else "") for model, places in by_model.items()]
    axis = chosen[0].axis
    return ("" if axis == MODEL else f"{short_title(axis)} ") + ", ".join(words)


def _words(predicted: bool | None) -> str:
    return {True: "identified", False: "not identified", None: "nothing"}[predicted]


def _further(made: Sequence[Verdict]) -> list[str]:
    return list(dict.fromkeys(axis for one in made for axis in one.setting))


def verdict_table(made: Sequence[Verdict]) -> Table:
    """Prediction, measurement and verdict of every cell, as a table like the others."""
    further = _further(made)
    along = [] if not made or made[0].axis == MODEL else [made[0].axis]
    rows = []
    for one in made:
        axes = [axis_text(value) for value in ([one.value] if along else [])]
        axes += [axis_text(one.setting[axis]) if axis in one.setting else "" for axis in further]
        labels = (model_text(one.model), *axes, _words(one.predicted), one.measured, one.agreement)
        rows.append(Row(labels, (Score(one.score), Score(one.untrained))))
    heads = ("model", *map(axis_title, [*along, *further]), "predicted", "measured", "verdict")
    columns = (Column(MCC, "MCC"), Column(f"{MCC}_untrained", "MCC untrained"))
    table = Table("Prediction and measurement", heads, columns, tuple(rows))
    return with_helps(table, [words(one.helps) for one in made], at=len(heads) - 3)


def verdicts_csv(made: Sequence[Verdict]) -> str:
    """The same as CSV, floats in full precision."""
    further = _further(made)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    numbers = ("mcc", "low", "high", "n", "mcc_untrained")
    writer.writerow(["model", "axis", "value", *further, "helps", "predicted", "measured", "verdict", *numbers])
    for one in made:
        axes = [axis_text(one.setting[axis]) if axis in one.setting else "" for axis in further]
        score = one.score
        ends = [*map(_exact, (None,) * 3 if score is None else (score.mean, score.low, score.high))]
        ends += [str(score.n if score else 0), _exact(one.untrained.mean if one.untrained else None)]
        row = [one.model, one.axis, axis_text(one.value), *axes, words(one.helps)]
        writer.writerow([*row, _words(one.predicted), one.measured, one.agreement, *ends])
    return buffer.getvalue()


def _exact(value: float | None) -> str:
    return "" if value is None else repr(value)
