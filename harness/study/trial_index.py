"""Which cell and seed each trial of a study is: one line a trial, so that nobody has to plan the study to name them.

The driver appends; everybody else reads. The file can be lost: the next launch or resume writes it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.files import FOREVER, append_whole, patiently
from harness.study.folder import StudyFolder

if TYPE_CHECKING:
    from harness.study.plan import PlannedTrial


@dataclass(frozen=True)
class Entry:
    """One trial.

    Attributes
    ----------
    trial_id : sixteen hex digits.
    cell : readable name of its point.
    seed : of initialisation and batches.
    epochs : at most.
    searched : whether a search proposed it.
    """

    trial_id: str
    cell: str
    seed: int
    epochs: int
    searched: bool = False

    @property
    def name(self) -> str:
        """For people: cell and seed."""
        return f"{self.cell} · seed {self.seed}"


class TrialIndex:
    """The index of one study, as its driver writes it.

    Parameters
    ----------
    folder
        The study's.
    """

    def __init__(self, folder: StudyFolder) -> None:
        self._path = _path(folder)
        self._known = read_index(folder)

    def note(self, trials: Iterable[PlannedTrial], *, searched: bool = False) -> None:
        """Add trials, or what is new about them; a trial noted as it is adds nothing."""
        entries = (Entry(t.trial_id, t.cell, t.seed, t.spec.train.epochs, searched) for t in trials)
        fresh = {entry.trial_id: entry for entry in entries if self._known.get(entry.trial_id) != entry}
        if not fresh:
            return
        lines = "".join(json.dumps(asdict(entry)) + "\n" for entry in fresh.values())
        before = "" if _ends_whole(self._path) else "\n"  # a driver died in the middle of a line
        patiently(lambda: append_whole(self._path, before + lines), self._path, seconds=FOREVER)
        self._known.update(fresh)


def _ends_whole(path: Path) -> bool:
    if not path.exists():
        return True
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size == 0:
            return True
        file.seek(size - 1)
        return file.read() == b"\n"


def read_index(folder: StudyFolder) -> dict[str, Entry]:
    """Every trial that a driver has noted, by id; a later line of a trial stands."""
    try:
        lines = _path(folder).read_bytes().splitlines()
    except FileNotFoundError:
        return {}
    found: dict[str, Entry] = {}
    for line in lines:
        try:
            entry = Entry(**json.loads(line))
        except (ValueError, TypeError):
            continue  # torn: the driver that died here noted nothing further
        found[entry.trial_id] = entry
    return found


def _path(folder: StudyFolder) -> Path:
    return folder.path / "trials.jsonl"


def left_over(there: Iterable[str], grid: Iterable[str], index: Mapping[str, Entry], *, searching: bool) -> list[str]:
    """Ids of trials of earlier launches that are no part of the study any more; their folders are kept.

    Parameters
    ----------
    there
        Ids of the trials that have a folder.
    grid
        Ids of the study's grid as it is now.
    index
        What its drivers have noted.
    searching
        Whether it is searched: what its search has proposed then belongs to it.
    """
    mine = set(grid)
    if searching:
        mine.update(entry.trial_id for entry in index.values() if entry.searched)
    return [trial_id for trial_id in there if trial_id not in mine]


def left_over_words(count: int) -> str:
    """What is said of them."""
    trials, are, results = ("trial", "is", "result is") if count == 1 else ("trials", "are", "results are")
    return f"{count} {trials} of earlier launches {are} no longer part of the study; the {results} kept"
