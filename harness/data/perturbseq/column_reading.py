"""One column of labels, read into conditions: which cells are control, which single or pair the others carry, or none.

The canonical form is ``control``, ``A``, or ``A+B`` with the members sorted, see `conditions`. A cell whose label names
no perturbation, or more than two, is left out by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from harness.data.perturbseq.conditions import canonical, members_of
from harness.data.perturbseq.control_words import CONTROL
from harness.data.perturbseq.controls import Controls, choose_controls, no_control
from harness.data.perturbseq.gene_counts import gene_counts
from harness.data.perturbseq.guide_numbers import numbered_guides
from harness.data.perturbseq.guides import Guides, by_gene
from harness.data.perturbseq.label_notes import (
    on_controls,
    on_cuts,
    on_lists,
    on_numbers,
    on_plus,
    on_spelling,
    on_words_of_user,
)
from harness.data.perturbseq.label_texts import listed, tidy
from harness.data.perturbseq.pair_marks import Cuts, Known, cut_at, cut_labels
from harness.data_spec import PerturbseqData
from harness.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

#: What a missing label is called.
MISSING = "(missing)"
#: Members of the largest condition that can be predicted.
_MOST_MEMBERS = 2
_OTHER_CONTROL = "it means control, but data.control names other labels"
_AUTO, _NONE = "auto", "none"


@dataclass(frozen=True)
class LeftOut:
    """Cells that no study uses.

    Attributes
    ----------
    reason : why.
    cells : how many.
    """

    reason: str
    cells: int


@dataclass(frozen=True)
class Labels:
    """What each cell carries.

    Attributes
    ----------
    column : obs column the labels came from.
    form : how a pair is written there, for people: ``A+B``, ``A|B``, ...; ``none`` where there is no pair.
    control : the column's own label(s) for control cells.
    conditions : (cells,) canonical condition of each cell; the empty string for a cell that is left out.
    guides : the guides merged into each gene, and into control, where labels name guides.
    left_out : label, as the file writes it or `MISSING` -> why its cells are left out, and how many they are.
    notes : sentences on how labels were read.
    """

    column: str
    form: str
    control: tuple[str, ...]
    conditions: npt.NDArray[np.object_]
    guides: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: Mapping[str, LeftOut] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def perturbed(self) -> tuple[str, ...]:
        """Names of all perturbed genes, sorted."""
        return tuple(sorted({gene for name in set(self.conditions) for gene in members_of(name)}))

    @property
    def used(self) -> npt.NDArray[np.int64]:
        """Rows of the cells that are not left out, ascending."""
        return np.flatnonzero(self.conditions != "").astype(np.int64)


@dataclass(frozen=True)
class _Column:
    """A column's distinct labels.

    Attributes
    ----------
    name : of the column.
    data : name of the data, for error messages.
    written : distinct labels as the file has them, in the order they occur.
    texts : the same, tidy.
    codes : (cells,) which label each cell has; -1 where none.
    lists : labels that are lists -> their items.
    """

    name: str
    data: str
    written: tuple[str, ...]
    texts: tuple[str, ...]
    codes: npt.NDArray[np.int64]
    lists: Mapping[str, tuple[str, ...]]

    @property
    def where(self) -> str:
        """Name of the column in the data, for error messages."""
        return f"{self.data}: obs[{self.name!r}]"


def read_column(obs: pd.DataFrame, where: str, name: str, spec: PerturbseqData, genes: Set[str]) -> Labels:
    """Read one column.

    Parameters
    ----------
    obs
        One row a cell.
    where
        Name of the data, for error messages.
    name
        The column.
    spec
        The study file's ``data``: its word on control labels, marks of pairs and guides; default: detected.
    genes
        Names of the file's genes.

    Raises
    ------
    NoControlCells
        If no label means control.
    UserError
        If labels are no text, one has two readings, or the rule does not fit the labels.
    """
    column = _texts(obs[name], where, name)
    guides = None if spec.guides is None else Guides(spec.guides)
    single = [items[0] for items in column.lists.values() if len(items) == 1]
    plain = [text for text in column.texts if text not in column.lists]
    controls = choose_controls([*plain, *single], name, spec.control, guides, genes, column.where)
    unnamed = {text for text in column.texts if controls.names_nothing(text)}
    counts = gene_counts(obs, column.codes, column.texts, unnamed, where)
    reading = _Reading(column, controls, guides, genes, counts)
    cuts = reading.cuts(spec.pair_mark)
    return _labels(column, reading, cuts, spec)


class _Reading:
    """From distinct labels to conditions.

    Attributes
    ----------
    left_out : tidy label -> why its cells are left out.
    controls : what means control.
    by_number : whether guides are merged by their numbers, since there is no rule.
    """

    def __init__(
        self,
        column: _Column,
        controls: Controls,
        guides: Guides | None,
        genes: Set[str],
        counts: Mapping[str, int],
    ) -> None:
        self.controls = controls
        self.by_number = guides is None
        self.left_out: dict[str, str] = {}
        self._column = column
        self._guides = guides
        self._genes = genes
        self._counts = counts
        own = set(controls.named)
        both = zip(column.written, column.texts, strict=True)
        self._named = {text for written, text in both if own & {written.strip(), text}}

    def cuts(self, pair_mark: str) -> Cuts:
        """Names of each label that carries one or two of them; others are noted as left out."""
        whole: dict[str, tuple[str, ...]] = {}
        cut: list[str] = []
        for text in dict.fromkeys(self._column.texts):
            if text in self._named:
                whole[text] = ()
            elif self.controls(text):
                whole[text] = (text,)
            elif self.controls.names_nothing(text):
                self.left_out[text] = "it names no perturbation"
            elif text in self._column.lists:
                whole[text] = self._column.lists[text]
            elif self._counts.get(text, 0) > _MOST_MEMBERS:
                self.left_out[text] = _too_many(self._counts[text])
            else:
                cut.append(text)
        found = self._cut(cut, pair_mark)
        self.left_out |= dict.fromkeys(found.crowded, _too_many("more than two"))
        whole |= {text: parts for text, parts in found.parts.items() if text not in self.left_out}
        return replace(found, parts=whole)

    def _cut(self, labels: list[str], pair_mark: str) -> Cuts:
        guides, where = self._guides, self._column.where
        by_rule = (lambda name: False) if guides is None else guides.is_control
        known = Known(
            is_control=lambda name: self.controls(name) or by_rule(name),
            is_guide=(lambda name: False) if guides is None else guides.is_guide,
            in_rule=(lambda mark: False) if guides is None else guides.writes,
            genes=self._genes,
            counts=self._counts,
        )
        if pair_mark == _NONE:
            return Cuts(None, {label: (label,) for label in labels})
        if pair_mark != _AUTO:
            return cut_at(pair_mark.strip() or pair_mark, labels, known, where)
        found = cut_labels(labels, known, where)
        torn = next((label for label in labels if self._counts.get(label) == 2 and len(found.parts[label]) == 1), None)
        if torn is not None:
            raise UserError(
                f"{where}: obs['nperts'] gives {torn!r} 2 genes, but no mark in it joins two names; set data.pair_mark "
                "to what does, or to none if it names one gene"
            )
        return found

    def genes_of(self, parts: Iterable[str]) -> dict[str, str]:
        """The gene of each name that is a guide's; `CONTROL` of a guide of control."""
        names = {part for part in parts if not self.controls.names_nothing(part)}
        if self._guides is not None:
            return self._guides.genes((name for name in names if not self.controls(name)), self._column.where)
        found = numbered_guides(names, self._genes, self.controls)
        return {name: CONTROL if self.controls(gene) else gene for name, gene in found.items()}

    def condition(self, text: str, parts: tuple[str, ...], gene_of: Mapping[str, str]) -> str:
        """The condition of a label; the empty string where it is left out, which is noted."""
        strange = next((part for part in parts if self.controls.names_nothing(part)), None)
        members = {gene_of.get(part, part) for part in parts if not self.controls(part)} - {CONTROL}
        why = ""
        if strange is not None:
            why = f"{strange!r} in it names no perturbation"
        elif len(members) > _MOST_MEMBERS:
            why = _too_many(len(members))
        elif not members and self._is_other_control(text, parts, gene_of):
            why = _OTHER_CONTROL
        if why:
            self.left_out[text] = why
            return ""
        if members and self._counts.get(text) == 0:
            raise UserError(
                f"{self._column.where}: {text!r} has nperts 0 but is no known control label; set data.control to it, "
                "and to the other labels of control"
            )
        return canonical(members)

    def _is_other_control(self, text: str, parts: tuple[str, ...], gene_of: Mapping[str, str]) -> bool:
        """Whether a label of control is one that neither the user, who names others, nor the rule means."""
        if not self.controls.named or text in self._named:
            return False
        by_rule = any(gene_of.get(part) == CONTROL for part in parts) and not self.by_number
        stems = {part.rpartition("_")[0] for part in parts if part in gene_of}
        return not by_rule and not stems.union(parts).intersection(self.controls.named)


def _labels(column: _Column, reading: _Reading, cuts: Cuts, spec: PerturbseqData) -> Labels:
    gene_of = reading.genes_of(part for parts in cuts.parts.values() for part in parts)
    table = {text: reading.condition(text, parts, gene_of) for text, parts in cuts.parts.items()}
    table |= dict.fromkeys(reading.left_out, "")
    conditions = np.array([*(table[text] for text in column.texts), ""], dtype=object)[column.codes]
    cells = np.bincount(column.codes + 1, minlength=len(column.written) + 1)
    both = list(zip(column.written, column.texts, strict=True))
    left_out = {MISSING: LeftOut("it has no label", int(cells[0]))} if cells[0] else {}
    for k, (written, text) in enumerate(both, start=1):
        if text in reading.left_out:
            left_out[written] = LeftOut(reading.left_out[text], int(cells[k]))
    control = tuple(written for written, text in both if table[text] == CONTROL)
    if not control:
        out = [repr(label) for label in left_out]
        raise no_control(column.written, column.data, column.name, spec.control, out)
    return Labels(
        column=column.name,
        form=_form(cuts, table, column.lists),
        control=control,
        conditions=conditions,
        guides=by_gene(gene_of),
        left_out=left_out,
        notes=_notes(column, reading, cuts, gene_of, table),
    )


def _notes(
    column: _Column, reading: _Reading, cuts: Cuts, gene_of: Mapping[str, str], table: Mapping[str, str]
) -> tuple[str, ...]:
    """How the labels were read, where they may be read otherwise."""
    controls = reading.controls
    used = {part for text, parts in cuts.parts.items() if table[text] for part in parts}
    names = {gene_of.get(part, part) for part in used if not controls(part)} - {CONTROL}
    found = {text for label in column.written for text in (label.strip(), tidy(label))} | used | names
    words = {part for part in used if controls(part)} | found.intersection(controls.named)
    others = [text for text, why in reading.left_out.items() if why == _OTHER_CONTROL]
    return (
        *on_spelling(column.written, cuts.mark),
        *on_lists(text for text in column.lists if table[text]),
        *on_plus(names),
        *on_cuts(cuts),
        *(on_numbers(gene_of, controls) if reading.by_number else ()),
        *on_controls(controls, sorted(words), names, bool(gene_of)),
        *on_words_of_user(controls, sorted(words), sorted(others), [n for n in controls.named if n not in found]),
    )


def _too_many(members: int | str) -> str:
    return f"it names {members} perturbations together, and only pairs are predicted"


def _form(cuts: Cuts, table: Mapping[str, str], lists: Mapping[str, tuple[str, ...]]) -> str:
    pairs = [text for text, condition in table.items() if len(members_of(condition)) == _MOST_MEMBERS]
    if not pairs:
        return "none"
    if all(text in lists for text in pairs):
        return "[A, B]"
    return "A || B" if cuts.mark == "||" else f"A{cuts.mark}B"


def _texts(column: pd.Series[str], where: str, name: str) -> _Column:
    """The distinct labels of a column, looked at once each: it may have a million cells and a hundred labels.

    Raises
    ------
    UserError
        If they are no text.
    """
    import pandas as pd

    codes, found = pd.factorize(column, use_na_sentinel=True)
    odd = next((value for value in found if not isinstance(value, str)), None)
    if odd is not None:
        raise UserError(
            f"{where}: obs[{name!r}] holds {type(odd).__name__} values such as {odd}, not names of perturbations; "
            "set data.column to a column of names"
        )
    texts = tuple(map(tidy, found))
    lists = {text: items for text in texts if (items := listed(text)) is not None}
    return _Column(name, where, tuple(found), texts, codes.astype(np.int64), lists)
