"""Studies that were launched: found again by name, and reported from their folders."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.errors import UserError
from harness.study import report
from harness.study.folder import StudyFolder
from harness.study.load import load_study
from harness.study.optuna_store import OptunaStore
from harness.study.plan import Plan, Point, plan
from harness.study.report import Report
from harness.study.search_loop import recorded_points
from harness.study.spec import StudySpec


def report_of(name: str, root: Path) -> Report:
    """Write the report of a study that was launched, finished or not.

    Raises
    ------
    UserError
        If no study of this name was launched.
    """
    study, folder = launched(name, root)
    return write_report(study, folder, plan(study), _store(study, folder))


def launched(name: str, root: Path) -> tuple[StudySpec, StudyFolder]:
    """A study as it was resolved at its last launch, and its folder.

    Raises
    ------
    UserError
        If no study of this name was launched.
    """
    folder = StudyFolder(root.absolute(), name)
    if not folder.study_file.exists():
        known = sorted(path.parent.name for path in root.glob("*/study.yaml"))
        there = f"; in {root} there are {', '.join(known)}" if known else f"; {root} holds no study"
        raise UserError(f"no study {name!r} was launched{there}")
    return load_study(folder.study_file), folder


def known_points(study: StudySpec, folder: StudyFolder, planned: Plan) -> list[Point]:
    """The points of a study, launched or not: grid cells, and what a search has proposed so far."""
    return all_points(study, planned, _store(study, folder))


def _store(study: StudySpec, folder: StudyFolder) -> OptunaStore | None:
    """What a search has proposed, to be read; None where there is no search, or it has not begun."""
    if study.search is None or not folder.journal.exists():
        return None
    return OptunaStore(folder.journal, study.name, study.objective, mend=False)


def all_points(study: StudySpec, planned: Plan, store: OptunaStore | None) -> list[Point]:
    """The points to report: grid cells, and what a search has proposed in them."""
    grid = [point for point in planned.points if not point.space]
    return grid + (recorded_points(study, store.trials()) if store is not None and study.search is not None else [])


def write_report(study: StudySpec, folder: StudyFolder, planned: Plan, store: OptunaStore | None) -> Report:
    """Write the study's report from its folders."""
    width = shutil.get_terminal_size((160, 50)).columns
    points = all_points(study, planned, store)
    return report.write_report(folder, study, planned, points=points, width=width)
