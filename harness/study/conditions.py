"""The theorem's conditions on a study's data, before anything is trained."""

from __future__ import annotations

from pathlib import Path

from harness.data_spec import AnyDataSpec
from harness.study.data_stage import datasets
from harness.study.plan import Plan, Point, plan, point_for
from harness.study.spec import StudySpec


def conditions_of(study: StudySpec, root: Path) -> str:
    """Verdicts on each dataset of a study, one condition a line; data that need building are built.

    Raises
    ------
    UserError
        If the data cannot be had.
    """
    from harness.data import load
    from harness.evaluation.conditions import check_conditions

    lines = []
    for fingerprint, spec in _datasets(study, plan(study)).items():
        data = load(spec, root.absolute() / "cache")
        mechanisms = data.truth.mechanisms if data.truth is not None else None
        verdicts = check_conditions(mechanisms, pairs=data.pairs, environments=data.perturbations)
        lines.append(f"data {fingerprint} ({spec.kind}, seed {spec.seed})")
        lines += [
            f"  {name}: {'holds' if verdict.holds else 'does not hold'}, margin {verdict.margin:.3g}: {verdict.reason}"
            for name, verdict in verdicts.items()
        ]
        if mechanisms is None:
            lines.append("  the other conditions need known linear-Gaussian mechanisms, which these data have not")
    return "\n".join(lines)


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
