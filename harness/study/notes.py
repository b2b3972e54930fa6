"""The sentences under a study's tables: what was averaged, what was not, and what the marks mean."""

from __future__ import annotations

from collections.abc import Sequence

from harness.helps import footnotes
from harness.study.axes import kind_of_label
from harness.study.columns import GRAPH_STABILITY, MCC, MCC_ACROSS_SEEDS, TARGET_STABILITY
from harness.study.expectation import ORACLES, Expectation
from harness.study.records import FINISHED, Record, Records
from harness.study.spec import SettingsBy
from harness.study.tables import (
    FLOOR,
    NOT_ABOVE_UNTRAINED,
    NOT_BETTER_THAN_BASELINE,
    WARNED,
    Table,
    model_text,
    trial_text,
)
from harness.study.verdicts import RULE, Verdict, summary

#: Longest list of names in a sentence; the rest are counted.
MOST_NAMES = 8
#: How settings were chosen where that is no help.
_SETTINGS: dict[SettingsBy, str] = {
    "simulation": "The settings of this study were chosen on simulated data, by scores that need their truth; no score "
    "of other data chose them.",
    "validation": "The settings of this study were chosen by validation scores, which a user with her own cells has.",
    "published": "The settings of this study are those published with its models; no score chose them here.",
}


def notes(
    records: Records,
    made: Sequence[Table],
    *,
    oracle_selection: bool = False,
    settings_by: SettingsBy = "none",
    expectation: Expectation | None = None,
    verdicts: Sequence[Verdict] = (),
    most: int = MOST_NAMES,
) -> list[str]:
    """Footnotes of a study's tables, in reading order.

    Parameters
    ----------
    records
        All records of the study.
    made
        The tables, whose marks are explained.
    oracle_selection
        The study selected on truth or test scores.
    settings_by
        How the study file says that its settings were chosen.
    expectation
        The study's prediction.
    verdicts
        What became of it, cell by cell.
    most
        Longest list of names in one sentence.
    """
    lines = [*_data_notes(records), _interval_note(records), *_mark_notes(made, records)]
    if any(kind_of_label(model) in ORACLES for model in records.models):
        lines.append(
            "Supervised (oracle): an encoder of the same kind, trained on the true latents of the training frames. It "
            "is no rival: what it cannot say of a latent, no model that sees no truth can be expected to say."
        )
    lines += footnotes(records.helps)
    if settings_by in _SETTINGS:
        lines.append(_SETTINGS[settings_by])
    if oracle_selection:
        lines.append("ORACLE SELECTION: this study selects on truth or test scores; its best cells are optimistic.")
    if expectation is not None:
        lines += _expectation_notes(expectation, verdicts)
    lines += _unfinished_notes(records, most)
    lines += _warning_notes(records, most)
    lines += _excluded_notes(records, most)
    lines += _transport_note(records)
    return lines + _not_finite_notes(records)


def _data_notes(records: Records) -> list[str]:
    """What was read, and how many control cells either side of a change has."""
    lines = [f"Data: {read}." for read in dict.fromkeys(record.read for record in records) if read]
    sides = dict.fromkeys(
        (record.controls["true"], record.controls["predicted"]) for record in records if record.controls
    )
    if sides:
        counts = " or ".join(f"{true:,} and {predicted:,}" for true, predicted in sides)
        lines.append(
            f"Changes from control are taken from two sets of control cells, {counts}: the true ones from cells that "
            "no prediction, baseline or training used, the predicted ones from cells of the training split."
        )
    return lines


def _interval_note(records: Records) -> str:
    seeds = ", ".join(map(str, records.seeds)) or "none"
    done = records.finished
    most = max((len(cell) for cell in done.group(lambda record: record.cell).values()), default=0)
    if most == 1:
        return f"One finished seed a cell (seeds {seeds}): no interval can be given."
    baselines = " Baselines belong to the data, not to a seed." if records.baseline_names else ""
    return (
        f"Each score: mean ± half-width of the 95 % t-interval over seeds {seeds}; "
        f"one without ± rests on a single value.{baselines}"
    )


def _transport_note(records: Records) -> list[str]:
    """That a metric lacks its package, where other metrics of its trials are there that are taken beside it."""
    ranks = [name.removesuffix("perturbation_rank") for name in records.metrics if name.endswith("/perturbation_rank")]
    if not ranks or any(f"{under}wasserstein" in records.metrics for under in ranks):
        return []
    return ["No wasserstein: it needs POT, which was not installed where the trials ran (pip install pot)."]


def _mark_notes(made: Sequence[Table], records: Records) -> list[str]:
    marks = set().union(*(table.marks for table in made))
    lines = []
    if NOT_ABOVE_UNTRAINED in marks:
        lines.append(
            f"{NOT_ABOVE_UNTRAINED} Not above the untrained encoder: the mean does not exceed the upper end of the "
            "95 % interval that the untrained encoders of the same seeds reach (their value, where there is one seed)."
        )
    elif records.estimate(f"{MCC}_untrained"):
        lines.append("Every MCC lies above the 95 % interval of its untrained encoder.")
    if NOT_BETTER_THAN_BASELINE in marks:
        lines.append(
            f"{NOT_BETTER_THAN_BASELINE} Not better than the best baseline on the same data, mean against mean."
        )
    if any(column.metric == MCC_ACROSS_SEEDS for table in made for column in table.columns):
        lines.append(
            "MCC between seeds: how far the responsive latents of two seeds agree on the same test cells, mean over "
            "pairs; seeds may agree on latents that are not the true ones."
        )
    if any(column.metric in (GRAPH_STABILITY, TARGET_STABILITY) for table in made for column in table.columns):
        lines.append(
            "Graph and targets between seeds: F1 of one seed's edges against another's, and the share of perturbations "
            "with the same targets, latents renamed by their match; by chance: the same under a random renaming."
        )
    if any(row.labels[0] == FLOOR for table in made for row in table.rows):
        lines.append(
            f"{FLOOR}: one half of the measured cells predicts the other. Both halves are noisy, so that a model may "
            "score better: where halves agree with Pearson Δ r, the true means reach about √(2r / (1 + r)), and a row "
            "clearly above that is warned of. In relative RMSE, cell against cell, too little variance scores better."
        )
    if WARNED in marks:
        lines.append(f"{WARNED} The evaluation left a warning, below.")
    return lines


def _expectation_notes(expectation: Expectation, verdicts: Sequence[Verdict]) -> list[str]:
    return [f"Predicted: {expectation.statement}.", RULE, summary(verdicts)]


def _unfinished_notes(records: Records, most: int) -> list[str]:
    lines = []
    for state, group in records.filter(lambda record: record.state != FINISHED).group(_state).items():
        verb = "" if state == "failed" else "is " if len(group) == 1 else "are "
        named = state in ("failed", "pruned")
        lines.append(f"{_trials(len(group))} {verb}{state}; not averaged in{':' if named else '.'}")
        if named:
            lines += _listed(
                [f"{trial_text(record)}: {record.failure or 'no reason recorded'}" for record in group], most
            )
    return lines


def _state(record: Record) -> str:
    return record.state


def _trials(count: int) -> str:
    return "1 trial" if count == 1 else f"{count} trials"


def _listed(items: Sequence[str], most: int) -> list[str]:
    shown = [f"  {item}" for item in items[:most]]
    return shown if len(items) <= most else [*shown, f"  and {len(items) - most} more (all in table.md)"]


def _warning_notes(records: Records, most: int) -> list[str]:
    found: dict[str, list[Record]] = {}
    for record in records.finished:
        for warning in dict.fromkeys(record.warnings):
            found.setdefault(warning, []).append(record)
    lines = []
    for warning, group in found.items():
        cells = list(dict.fromkeys(model_text(record.cell) for record in group))
        lines.append(f"Warning in {_trials(len(group))}: {warning.rstrip('.')} - in {_names(cells, most)}.")
    rest = len(lines) - most
    return lines if rest <= 0 else [*lines[:most], f"{rest} more warnings (all in table.md)."]


def _excluded_notes(records: Records, most: int) -> list[str]:
    reasons: dict[str, dict[str, None]] = {}
    for record in records:
        for condition, reason in record.excluded.items():
            reasons.setdefault(reason, {})[condition] = None
    lines = []
    for reason, conditions in reasons.items():
        count = "1 condition" if len(conditions) == 1 else f"{len(conditions)} conditions"
        lines.append(f"Excluded, {count} ({reason}): {_names(list(conditions), most)}.")
    return lines


def _names(names: Sequence[str], most: int) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _not_finite_notes(records: Records) -> list[str]:
    broken = {name: value.not_finite for name in records.metrics if (value := records.estimate(name))}
    lost = [name for name, count in broken.items() if count]
    # A metric without a single finite value has no estimate at all.
    lost += [name for name in records.metrics if name not in broken]
    return [f"Not finite in some finished trials, and left out of the means: {', '.join(lost)}."] if lost else []
