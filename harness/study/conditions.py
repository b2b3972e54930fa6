"""The theorem's conditions on a study: on the truth of its data, and on the models that were fitted to them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.data_spec import AnyDataSpec
from harness.study.data_stage import datasets
from harness.study.folder import StudyFolder
from harness.study.past import known_points
from harness.study.plan import Plan, Point, plan, point_for
from harness.study.planned_helps import help_lines
from harness.study.spec import StudySpec
from harness.study.statistics import estimate

_LEARNED = re.compile(r"conditions/(?P<name>.+)/(?:holds|margin)_learned")


def conditions_of(study: StudySpec, root: Path) -> str:
    """Verdicts on each dataset of a study and on each cell's fitted models, one condition a line; the cells' helps.

    Data that need building are built. The learned side is read from the trials that have finished in ``root``; where
    the truth is unknown, it is the only one.

    Raises
    ------
    UserError
        If the data cannot be had, or a result cannot be read.
    """
    planned = plan(study)
    lines = []
    for fingerprint, spec in _datasets(study, planned).items():
        lines.append(f"data {fingerprint} ({spec.kind}, seed {spec.seed})")
        lines += [f"  truth: {line}" for line in _true_side(spec, root.absolute() / "cache")]
    lines += help_lines(study, planned.points)
    folder = StudyFolder(root.absolute(), study.name)
    learned = [line for point in known_points(study, folder, planned) for line in _learned_side(folder, point)]
    return "\n".join(
        [*lines, *(learned or ["learned: no trial has finished yet; launch the study to judge its models"])]
    )


# ------------------------------------------------------------------------------------------------ truth


def _true_side(spec: AnyDataSpec, cache: Path) -> list[str]:
    """A line for each condition that the generator can be judged by, and one for those it cannot."""
    from harness.condition_scoring import CONDITIONS, conditions_of_truth
    from harness.data import load

    verdicts = conditions_of_truth(load(spec, cache), seed=0)
    lines = [
        f"{name} {'holds' if verdict.holds else 'does not hold'}, margin {verdict.margin:.3g}: {verdict.reason}"
        for name, verdict in verdicts.items()
    ]
    if not verdicts:
        return ["unknown on these data, so that only the learned side can be reported"]
    absent = [name for name in CONDITIONS if name not in verdicts]
    if absent:
        lines.append(f"{', '.join(absent)}: unknown on these data, so that only the learned side can be reported")
    return lines


def _datasets(study: StudySpec, planned: Plan) -> dict[str, AnyDataSpec]:
    """Each dataset of the grid once; of a searched cell, those at the first choice or low end of its space."""
    found = datasets(planned.trials)
    for point in planned.points:
        if point.space:
            found.update(datasets(point_for(study, _corner(point)).trials))
    return found


def _corner(point: Point) -> dict[str, object]:
    ends = {key: axis.choices[0] if axis.choices is not None else axis.low for key, axis in point.space.items()}
    return {**point.setting, **ends}


# ---------------------------------------------------------------------------------------------- learned


def _learned_side(folder: StudyFolder, point: Point) -> list[str]:
    """The cell and a line for each condition its fitted models were judged by; nothing before a trial has finished."""
    read = (folder.trial(trial.trial_id).read_result() or {} for trial in point.trials)
    results = [result for result in read if result.get("state") == "finished"]
    if not results:
        return []
    lines = [f"learned by {point.cell} ({len(results)} of {len(point.trials)} trials)"]
    for name in _judged(results):
        lines.append(f"  learned: {_learned(name, results)}")
    if len(lines) == 1:
        lines.append("  learned: no condition, since the model has no mechanisms and blocks of latents to judge it by")
    return lines


def _judged(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Conditions that any trial's model was judged by, in the order of their metrics."""
    names = (match["name"] for result in results for key in result["metrics"] if (match := _LEARNED.fullmatch(key)))
    return list(dict.fromkeys(names))


def _learned(name: str, results: Iterable[Mapping[str, Any]]) -> str:
    """In how many trials a condition holds, its mean margin, and the sentence of the first trial that has one."""

    def numbers(what: str) -> list[float]:
        key = f"conditions/{name}/{what}_learned"
        return [float(value) for result in results if (value := result["metrics"].get(key)) is not None]

    holds, margin = numbers("holds"), estimate(numbers("margin"))
    parts = [name]
    if holds:
        parts.append(f"holds in {sum(value > 0 for value in holds)} of {len(holds)} trials")
    if margin is not None:
        parts.append(f"mean margin {margin.mean:.3g}")
    said = next((s for result in results if (s := (result.get("conditions") or {}).get(f"{name}_learned"))), None)
    head = " ".join(parts[:2]) + "".join(f", {part}" for part in parts[2:])
    return head if said is None else f"{head}; in the first: {said}"
