"""What a file of cells holds and what stands in a study's way, found by reading it; the file is only read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.data.perturbseq.blocks import empty_rows
from harness.data.perturbseq.cell_file import CellFile, refuse_too_large
from harness.data.perturbseq.cell_kinds import CellKinds
from harness.data.perturbseq.cells_in_use import CellsInUse, cells_in_use
from harness.data.perturbseq.checked_blocks import checked_blocks
from harness.data.perturbseq.guides import BARE, as_written, propose
from harness.data.perturbseq.labels import (
    COLUMNS,
    CONTROL,
    MISSING,
    Labels,
    members_of,
    read_labels,
)
from harness.data.perturbseq.matrix_choice import ValuesWord, expression_matrix, matrix_holds, notes_on, refuse_mixed
from harness.data.perturbseq.splits import CONTROL_TEST_SHARE, TEST_SHARE, Assignment, Shares, assign
from harness.data.perturbseq.time_points import TimePoints, columns_of_times, orders, read_times
from harness.data.perturbseq.uneven_columns import accounted_for, uneven_columns
from harness.data_spec import PerturbseqData
from harness.errors import UserError
from harness.split_spec import LeavePerturbationOut, LeaveTimeOut, RuledSplit, SinglesToDoubles
from harness.words import first

if TYPE_CHECKING:
    import pandas as pd

#: Columns shown where a file has them, and what they usually say.
OTHER_COLUMNS = {
    "guide column": ("guide_ids", "guide_identity", "guide_id", "guide", "sgRNA", "sgRNA_ID", "grna"),
    "batches": ("batch", "gem_group", "replicate", "donor", "lane", "sample"),
}
#: Why a matrix is taken for what it is taken for.
_WHY = {
    "counts": "counts: the values are whole numbers",
    "lognorm": "log-normalised values: within a cell, exp(x) - 1 is a whole multiple of what one count gives",
}
#: Columns of var that hold gene symbols where the index holds other identifiers.
_SYMBOLS = ("gene_name", "gene_names", "gene_symbol", "gene_symbols", "gene_short_name", "symbol", "feature_name")
#: Conditions and values that are named; the rest is counted.
_MOST_NAMED = 6
#: Labels that are looked at for guides.
_MOST_LABELS = 20_000
#: Letters of a label that are shown.
_LONGEST_LABEL = 60


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes
    ----------
    found : (what, words) in the order in which they are told.
    problems : sentences, each with its remedy; a study of the file is refused.
    notes : sentences on what a study would leave out, or a user may want to know.
    """

    found: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """As people read it."""
        width = max(len(what) for what, _ in self.found)
        said = [f"{what:{width}}  {words}" for what, words in self.found]
        said += [f"problem: {sentence}" for sentence in self.problems]
        return said + [f"note: {sentence}" for sentence in self.notes]


def inspect_file(spec: PerturbseqData, progress: Callable[[int, int], None] = lambda done, total: None) -> Inspection:
    """Look through a file as a study would, and go on where a study would stop.

    Parameters
    ----------
    spec
        The study file's ``data``, with a path.
    progress
        Called with cells read and cells in all.

    Raises
    ------
    UserError
        If it is no ``.h5ad`` at all, names a gene twice, or lacks a column of var, a kind of features or a layer that
        was named.
    """
    assert spec.path is not None
    path = Path(spec.path)
    with CellFile(path, spec.gene_names, layer=spec.layer, features=spec.features) as file:
        found = [("file", f"{path}: {len(file.obs):,} cells × {len(file.genes):,} genes")]
        problems: list[str] = []
        notes = list(file.notes)
        for name in file.sources():
            found.append((name, _holds(file, name)))
        _check_values(file, spec.values, problems, notes, progress)
        labels: Labels | None
        try:
            labels = read_labels(file.obs, str(path), spec, file.genes)
        except UserError as refusal:
            labels = None
            problems.append(str(refusal))
            found += _others(file, spec.column or "")
        else:
            found += _perturbations(labels)
            notes += labels.notes
            _check_cells(spec, file, labels, found, problems, notes)
            _check_targets(labels, file, notes)
            if spec.column is None:
                _other_perturbations(file, labels, spec, notes)
            found += _others(file, labels.column)
        if spec.guides is None:
            _propose_guides(file, spec, labels, notes)
        _check_names(file, notes)
        return Inspection(tuple(found), tuple(problems), tuple(notes))


def _holds(file: CellFile, name: str) -> str:
    held, why = matrix_holds(file, name)
    return f"unclear: it {why}" if held is None else _WHY[held]


def _check_values(
    file: CellFile,
    word: ValuesWord,
    problems: list[str],
    notes: list[str],
    progress: Callable[[int, int], None],
) -> None:
    """Read the matrix a study would take, whole: NaN, negative values, counts among logs, cells without a count."""
    try:
        source, held = expression_matrix(file, word)
        notes += notes_on(file, source, held, word)
        empty = 0
        kinds = CellKinds(len(file.obs), held)
        for _, rows, block in checked_blocks(file, source, held, None, kinds):
            empty += int(np.sum(empty_rows(block)))
            progress(int(rows[-1]) + 1, len(file.obs))
        refuse_mixed(file, source, kinds, word)
        refuse_too_large(file.path, len(file.obs), len(file.genes))
    except UserError as refusal:
        problems.append(str(refusal))
        return
    if empty:
        notes.append(f"{empty:,} cells have no count in these genes; they are kept, and stay zero")


def _perturbations(labels: Labels) -> list[tuple[str, str]]:
    counts = Counter(labels.conditions[labels.used].tolist())
    of = {size: {n: c for n, c in counts.items() if len(members_of(n)) == size} for size in (1, 2)}
    named = " or ".join(map(repr, labels.control))
    told = [
        ("perturbation", f"obs[{labels.column!r}], pairs written {labels.form}; their order does not matter"),
        ("control", f"{counts[CONTROL]:,} cells labelled {named}"),
        ("singles", _sizes(of[1])),
        ("doubles", _sizes(of[2])),
    ]
    if of[2]:
        seen = Counter(sum(gene in of[1] for gene in members_of(name)) for name in of[2])
        words = f"{seen[2]:,} with both members among the singles, {seen[1]:,} with one, {seen[0]:,} with neither"
        told.append(("", words))
    if labels.guides:
        told.append(("guides", _merged(labels)))
    if labels.left_out:
        told.append(("left out", _left_out(labels)))
    return told


def _left_out(labels: Labels) -> str:
    """The labels whose cells no study uses, the largest first."""
    largest = sorted(labels.left_out.items(), key=lambda item: (-item[1].cells, item[0]))
    told = [f"{name if name == MISSING else repr(_short(name))} ({of.cells:,}; {of.reason})" for name, of in largest]
    return f"{int(np.sum(labels.conditions == '')):,} cells, labelled {first(told, _MOST_NAMED)}"


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else f"{label[:_LONGEST_LABEL]}…"


def _sizes(counts: dict[str, int]) -> str:
    if not counts:
        return "none"
    return f"{len(counts):,}, of {min(counts.values()):,} to {max(counts.values()):,} cells"


def _check_split(
    spec: PerturbseqData,
    use: CellsInUse,
    times: TimePoints | None,
    file: CellFile,
    problems: list[str],
    notes: list[str],
) -> None:
    """Split the cells as a study would that says nothing of it, and propose other splits that the file can serve."""

    def split(by: RuledSplit, known: frozenset[str] | None = None) -> Assignment:
        shares, where = Shares(spec.validation, TEST_SHARE, CONTROL_TEST_SHARE, spec.min_cells), str(file.path)
        return assign(by, use.conditions, 0, shares, where, known=known, times=times, strata=use.stratum)

    def serves(by: RuledSplit, known: frozenset[str] | None = None) -> bool:
        try:
            split(by, known)
        except UserError:
            return False
        return True

    try:
        assignment = split(SinglesToDoubles())
    except UserError as refusal:
        problems.append(str(refusal))
        return
    if assignment.excluded:
        names = first(sorted(assignment.excluded), _MOST_NAMED)
        notes.append(f"{len(assignment.excluded)} conditions cannot be predicted, and are left out by name: {names}")
    if not assignment.ood:
        notes.append("there is no pair whose members are both seen as singles, so that no unseen pair can be scored")
        if serves(LeavePerturbationOut(), frozenset(file.genes)):
            notes.append(
                "to predict unseen perturbations put under data: in the study file   split: leave_perturbation_out   "
                "and   perturbation_features: loadings   (or the path of a .csv with a vector of each gene)"
            )
        elif serves(LeavePerturbationOut(), frozenset(gene for name in use.conditions for gene in members_of(name))):
            notes.append(
                "to predict unseen perturbations put under data: in the study file   split: leave_perturbation_out   "
                "and   perturbation_features: genes.csv   (your file, with a vector of each perturbed gene)"
            )
    if times is not None and serves(LeaveTimeOut()):
        notes.append(
            f"to predict the last time, {times.labels[-1]}, from those before put under data: in the study file   "
            "split: leave_time_out"
        )


def _check_names(file: CellFile, notes: list[str]) -> None:
    """Cells of one name, which a kept split can tell apart by their order alone."""
    repeated = file.obs.index[file.obs.index.duplicated()]
    if len(repeated):
        notes.append(
            f"{len(set(repeated)):,} cell names occur more than once, first {repeated[0]!r}, so that a trial's split "
            "can be replayed on this very file alone; make them unique with AnnData.obs_names_make_unique"
        )


def _other_perturbations(file: CellFile, labels: Labels, spec: PerturbseqData, notes: list[str]) -> None:
    """Columns of perturbations that say the same; those that differ are told with the labels."""
    for name in (name for name in COLUMNS if name in file.obs.columns and name != labels.column):
        try:
            other = read_labels(file.obs, str(file.path), spec.model_copy(update={"column": name}), file.genes)
        except UserError:  # of no use
            continue
        if np.array_equal(other.conditions, labels.conditions):
            notes.append(
                f"obs[{labels.column!r}] is taken for the perturbation; obs[{name!r}], which says the same, is not: to "
                f"take it put under data: in the study file   column: {name}   (here: --column {name})"
            )


def _check_cells(
    spec: PerturbseqData,
    file: CellFile,
    labels: Labels,
    found: list[tuple[str, str]],
    problems: list[str],
    notes: list[str],
) -> None:
    """Which cells a study would use, whether they are a time course, and how they would be split."""
    where = str(file.path)
    try:
        use = cells_in_use(spec, file.obs, labels.conditions, where)
        obs = file.obs.iloc[use.rows]
        times = read_times(obs, use.conditions, where, spec.time, labels.column)
    except UserError as refusal:
        problems.append(str(refusal))
        return
    for why, cells in use.left_out.items():
        found.append(("left out", f"{cells:,} cells {why}"))
    if use.stratum is not None:
        told = [f"{name} ({np.sum(use.stratum == k):,} cells)" for k, name in enumerate(use.strata)]
        found.append(("strata", f"obs[{spec.strata!r}]: {first(told, _MOST_NAMED)}"))
    if times is not None:
        counts = np.bincount(times.of_cell, minlength=len(times.points))
        told = [f"{label} ({number:,} cells)" for label, number in zip(times.labels, counts, strict=True)]
        found.append(("time", f"obs[{times.column!r}]: {len(told)} time points, {first(told, _MOST_NAMED)}"))
    _check_split(spec, use, times, file, problems, notes)
    if spec.time is None:
        _other_times(obs, use.conditions, labels.column, times, notes)
    notes += [one.sentence for one in uneven_columns(obs, use.conditions, accounted_for(spec, labels.column, times))]


def _other_times(
    obs: pd.DataFrame, conditions: Sequence[str], column: str, taken: TimePoints | None, notes: list[str]
) -> None:
    """Columns of times that were not taken, and how to take them."""
    for name in columns_of_times(obs, column):
        try:
            other = read_times(obs, conditions, "the file", name, column)
        except UserError:  # of no use
            continue
        if other is None or (taken is not None and name == taken.column):
            continue
        if taken is not None:
            same = np.array_equal(other.of_cell, taken.of_cell)
            words = (
                f"obs[{taken.column!r}] is taken for the times; obs[{name!r}], which "
                f"{'puts cells in the same order' if same else 'differs from it'}, is not"
            )
        elif not orders(conditions, other):
            words = (
                f"obs[{name!r}] holds {len(other.points)} times, but perturbations do not begin after the first of "
                "them, so that it is taken for no time course"
            )
        notes.append(f"{words}: to take it put under data: in the study file   time: {name}   (here: --time {name})")


def _merged(labels: Labels) -> str:
    """How many guides were merged into genes, and into control."""
    targeting = {gene: names for gene, names in labels.guides.items() if gene != CONTROL}
    each = [len(names) for names in targeting.values()]
    apart = len(labels.guides.get(CONTROL, ()))
    words = f"{sum(each):,} guides of {len(each):,} genes, {min(each, default=0)} to {max(each, default=0)} each"
    largest = max(targeting, key=lambda gene: len(targeting[gene]), default=None)
    shown = f" ({largest}: {first(targeting[largest], _MOST_NAMED)})" if largest is not None else ""
    return f"{words}{shown}; {apart:,} non-targeting"


def _propose_guides(file: CellFile, spec: PerturbseqData, labels: Labels | None, notes: list[str]) -> None:
    """Where labels look like those of guides, the line that would merge them."""
    columns = (spec.column, *COLUMNS) if labels is None else (labels.column,)
    name = next((name for name in columns if name in file.obs.columns), None)
    if name is None or (labels is not None and labels.guides):
        return
    found = [label for label in file.obs[name].unique() if isinstance(label, str)]
    rule = propose(found[:_MOST_LABELS], frozenset(file.genes))
    if rule is None or (labels is not None and rule.pattern == BARE):  # a second kind of control is told already
        return
    try:
        read_labels(file.obs, str(file.path), spec.model_copy(update={"column": name, "guides": rule}), file.genes)
    except UserError:  # of no use
        return
    notes.append(
        f"obs[{name!r}] seems to name guides ({first(sorted(found), 3)}), each a condition of its own unless "
        f"merged; to merge those of one gene put under data: in the study file   {as_written(rule)}"
    )


def _check_targets(labels: Labels, file: CellFile, notes: list[str]) -> None:
    perturbed = labels.perturbed
    absent = sorted(set(perturbed).difference(file.genes))
    if not absent:
        return
    notes.append(
        f"{len(absent)} of {len(perturbed)} perturbed genes are not among the genes: {first(absent, _MOST_NAMED)}"
    )
    for name in (name for name in _SYMBOLS if name in file.var.columns):
        known = set(file.var[name].astype(str))
        if len(known.intersection(absent)) > len(absent) / 2:
            notes.append(f"var[{name!r}] names most of them; put under data: in the study file   gene_names: {name}")
            return


def _others(file: CellFile, taken: str) -> list[tuple[str, str]]:
    """Other columns of guides, times and batches, by the names they usually have; in any case."""
    present = {str(name).lower(): str(name) for name in file.obs.columns if str(name) != taken}
    found = []
    for what, names in OTHER_COLUMNS.items():
        for name in names:
            if name.lower() in present:
                values = sorted(map(str, file.obs[present[name.lower()]].dropna().unique()))
                found.append(
                    (what, f"obs[{present[name.lower()]!r}]: {len(values):,} values, {first(values, _MOST_NAMED)}")
                )
    return found
