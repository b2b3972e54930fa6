"""Run again what failed or was cancelled in a study, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from harness.study.cells import matching_of
from harness.study.folder import StudyFolder
from harness.study.survey import CANCELLED, Survey


def retryable(folders: Sequence[StudyFolder], words: str | None = None) -> dict[StudyFolder, frozenset[str]]:
    """Ids of the trials that failed or were cancelled, of those studies that have any.

    Trials of earlier launches whose cells are no part of a study any more do not count.

    Parameters
    ----------
    folders
        The studies.
    words
        Only trials of cells with these words in their name.

    Raises
    ------
    UserError
        If there is no such study, or no such cell in any of them.
    """
    views = [Survey(folder).look() for folder in folders]
    cells = {view.folder: set(names) for view, names in matching_of(views, words)} if words is not None else None
    found = {
        view.folder: frozenset(
            row.entry.trial_id
            for row in view.rows
            if row.state in ("failed", CANCELLED) and (cells is None or row.entry.cell in cells.get(view.folder, ()))
        )
        for view in views
    }
    return {folder: ids for folder, ids in found.items() if ids}
