"""The split of an earlier trial, cell by cell, from the ``split.json`` it left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field, ValidationError

from harness.data.perturbseq.labels import CONTROL, members_of
from harness.data.perturbseq.split_roles import Roles
from harness.data.perturbseq.splits import Assignment, assembled
from harness.data.perturbseq.time_points import TimePoints
from harness.errors import UserError
from harness.spec_part import Part

#: Splits that are no OOD splits.
_INNER = ("train", "validation", "test")


class KeptSplit(Part):
    """What a ``split.json`` holds of cells.

    Attributes
    ----------
    cells : split -> condition -> names of its cells.
    ood : names of the OOD splits that cells were assigned to.
    excluded : condition -> why its cells are in no split.
    seen : for each excluded double, how many of its members were seen.
    held_out : last times that only test.
    file : SHA-256 of the file, where it names cells more than once, so that only their order tells them apart.
    """

    cells: dict[str, dict[str, list[str]]]
    ood: list[str]
    excluded: dict[str, str]
    seen: dict[str, int] = Field(default_factory=dict)
    held_out: int = 0
    file: str | None = None


def cell_names(index: pd.Index[str]) -> npt.NDArray[np.object_]:
    """A name of each cell, no two alike: its index in obs, and where that is not unique also which one it is."""
    names = np.array(index.astype(str), dtype=object)
    # a name so made may be another cell's own, and is then told apart in turn
    while (again := pd.Series(names).groupby(names, sort=False).cumcount().to_numpy()).any():
        names = np.where(again > 0, names + "#" + (again + 1).astype(str).astype(object), names)
    return names


def kept_split(
    assignment: Assignment, names: dict[str, dict[str, tuple[str, ...]]], file: str | None = None
) -> dict[str, Any]:
    """What to keep of an assignment, so that `replayed` gives it again; see `KeptSplit`."""
    kept = KeptSplit(
        cells={split: {name: list(cells) for name, cells in own.items()} for split, own in names.items()},
        ood=list(assignment.ood),
        excluded=assignment.excluded,
        seen=assignment.seen,
        held_out=assignment.held_out,
        file=file,
    )
    return kept.model_dump()


def replayed(
    path: Path,
    names: Sequence[str],
    conditions: Sequence[str],
    where: str,
    known: frozenset[str] | None,
    times: TimePoints | None,
    file: str | None = None,
) -> Assignment:
    """The assignment that a ``split.json`` holds.

    Parameters
    ----------
    path
        The file.
    names, conditions
        Name of each cell, from `cell_names`, and canonical condition.
    where
        Name of the data, for error messages.
    known
        Genes that have a vector; None where perturbations are one-hot.
    times
        Of each cell, in a time course.
    file
        SHA-256 of the file of cells, where it names cells more than once.

    Raises
    ------
    UserError
        If it is no ``split.json`` with names of cells, or of other cells: some missing here, some not in it, some
        with another condition; if names occur more than once and the file is not the very same; or if a condition it
        trains on or predicts cannot be told by this study's features.
    """
    kept = _read(path)
    if file is not None and file != kept.file:
        raise UserError(
            f"{where}: cell names occur more than once, so that only the very file that {path} was made on can replay "
            "it; give that file, or make names unique with AnnData.obs_names_make_unique and split anew"
        )
    groups = [(split, name, cells) for split, own in kept.cells.items() for name, cells in own.items()]
    sizes = [len(cells) for _, _, cells in groups]
    listed = np.array([cell for _, _, cells in groups for cell in cells], dtype=object)
    rows = pd.Index(names).get_indexer(pd.Index(listed)).astype(np.int64)
    absent = listed[rows < 0]
    if len(absent):
        raise UserError(
            f"{where}: {len(absent)} of the {len(listed)} cells of {path} are not in this file, or are left out of it "
            f"(first {absent[0]!r}); replay a split with the file and the data.where it was made with"
        )
    if len(np.unique(rows)) < len(rows):
        raise UserError(f"{path}: names a cell in two splits, so that it is no split that a trial wrote")
    own = np.asarray(conditions, dtype=object)
    wanted = np.repeat(np.array([name for _, name, _ in groups], dtype=object), sizes)
    if (other := np.flatnonzero(own[rows] != wanted)).size:
        k = other[0]
        raise UserError(
            f"{where}: {other.size} cells have another condition here than in {path} (first {listed[k]!r}, "
            f"{own[rows[k]]} and not {wanted[k]}); replay a split with the file it was made on"
        )
    left = np.setdiff1d(np.arange(len(names)), rows)
    strange = left[~np.isin(own[left], list(kept.excluded))]
    if len(strange):
        raise UserError(
            f"{where}: {len(strange)} cells of this file are in no split of {path} (first {names[strange[0]]!r}); "
            "replay a split with the file it was made on"
        )
    if times is None and kept.held_out:
        raise UserError(f"{path}: holds out times, but data.time finds none in {where}; set data.time to their column")
    which = np.repeat(np.array([split for split, _, _ in groups], dtype=object), sizes)
    splits = {split: np.sort(rows[which == split]) for split in kept.cells}
    return assembled(splits, _roles(kept, known, path), kept.held_out)


def _read(path: Path) -> KeptSplit:
    try:
        body = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a split.json ({error}); give the one in a trial's folder") from error
    own = {key: body[key] for key in KeptSplit.model_fields if key in body} if isinstance(body, dict) else {}
    try:
        kept = KeptSplit.model_validate(own)
    except ValidationError as error:
        raise UserError(
            f"{path} does not name cells, as the split.json of a trial on cells does; give one of such a trial"
        ) from error
    lacking = [name for name in (*_INNER, *kept.ood) if name not in kept.cells]
    if lacking or CONTROL not in kept.cells["train"]:
        raise UserError(
            f"{path} has no cells of {lacking[0] if lacking else 'control in train'}; give a whole split.json"
        )
    return kept


def _roles(kept: KeptSplit, known: frozenset[str] | None, path: Path) -> Roles:
    trained = [name for name in kept.cells["train"] if name != CONTROL]
    predicted = {name: split for split in kept.ood for name in kept.cells[split]}
    validating = [name for name in kept.cells["validation"] if name != CONTROL and name not in trained]
    seen = {gene for name in trained for gene in members_of(name)} if known is None else known
    for name in (*trained, *predicted, *validating):
        if not seen.issuperset(members_of(name)):
            raise UserError(
                f"{path}: {name} cannot be used, since data.perturbation_features say nothing of one of its genes; "
                "set them as they were when the split was made"
            )
    return Roles(tuple(trained), tuple(validating), predicted, kept.excluded, kept.seen)
