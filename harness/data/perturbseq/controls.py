"""Which names mean control in a column: those that the user names, and words for control."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from harness.data.perturbseq.control_words import CONTROL, control_word, names_no_guide
from harness.data.perturbseq.guides import Guides
from harness.data.perturbseq.pair_marks import MARKS
from harness.errors import UserError
from harness.words import first, flow

#: The column whose control cells have an empty label (CPA).
_BLANK_COLUMN = "guide_ids"
_MOST_NAMED = 5


class NoControlCells(UserError):
    """A column has no control cells."""


@dataclass(frozen=True)
class Controls:
    """What means control; called with a name, says whether it does.

    Attributes
    ----------
    named : the user's labels.
    kinds : kinds of words that mean control, see `control_words.KINDS`.
    blank : whether an empty label does.
    numbered : whether ``non-targeting_1`` does, where no rule says how guides are written.
    genes : names of the file's genes, which only a word of the first kind cannot be.
    """

    named: tuple[str, ...]
    kinds: tuple[str, ...]
    blank: bool
    numbered: bool
    genes: Set[str]

    def __call__(self, name: str) -> bool:
        if name in self.named:
            return True
        if not name:
            return self.blank
        kind = self.kind(name)
        return kind is not None and kind in self.kinds

    def kind(self, name: str) -> str | None:
        """The kind of control that a name means, chosen or not; None where it is a perturbation's or a lone guide's."""
        word = control_word(name)
        if word is None or (word.kind != CONTROL and name in self.genes):
            return None
        return word.kind if word.mark is None or (word.mark == "_" and self.numbered) else None

    def names_nothing(self, name: str) -> bool:
        """Whether a name says that there is no guide, or that it is not known."""
        return names_no_guide(name) and name not in self.genes and not self(name)

    def another(self, name: str) -> bool:
        """Whether a name is a word, or a guide, of a kind of control that is not chosen."""
        word = control_word(name)
        return word is not None and name not in self.genes and not self(name)


def choose_controls(
    labels: Iterable[str], column: str, named: Sequence[str], guides: Guides | None, genes: Set[str], where: str
) -> Controls:
    """What means control in a column.

    Words of the first kind (``control``, ``ctrl``, ``non-targeting``) always do. Where no label is made of them, and
    neither the user nor the rule says more, the one other kind of word for control that is there does.

    Parameters
    ----------
    labels
        Distinct tidy labels.
    column
        Their column.
    named
        The user's labels of control.
    guides
        How guides are read, where labels name guides.
    genes
        Names of the file's genes.
    where
        Name of the column, for error messages.

    Raises
    ------
    NoControlCells
        If there are words of several other kinds.
    """
    own = tuple(label.strip() for label in named)
    if own:
        return Controls(own, (CONTROL,), False, guides is None, genes)
    distinct = set(labels)
    blank = column == _BLANK_COLUMN and "" in distinct
    look = Controls((), (CONTROL,), False, guides is None, genes)
    found: dict[str, list[str]] = {}
    for label in sorted(distinct):
        if kind := _kind_of_all(label, look, guides):
            found.setdefault(kind, []).append(label)
    if CONTROL in found or blank or not found:
        return Controls((), (CONTROL,), blank and CONTROL not in found, guides is None, genes)
    if len(found) > 1:
        each = [words[0] for words in found.values()]
        every = [label for words in found.values() for label in words]
        raise NoControlCells(
            f"{where} has several words for control ({first([repr(label) for label in every], _MOST_NAMED)}), and none "
            f"of them is chosen; put under data: in the study file   control: {flow(each[:1])}   "
            f"or, where all are control,   control: {flow(every)}"
        )
    (kind,) = found
    return Controls((), (CONTROL, kind), False, guides is None, genes)


def _kind_of_all(label: str, look: Controls, guides: Guides | None) -> str | None:
    """The one kind of control that all parts of a label mean; None where a part means none."""

    def kind_of(part: str) -> str | None:
        text = part.strip()
        return CONTROL if guides and guides.is_control(text) else look.kind(text)

    for parts in ([label], *(label.split(mark) for mark in MARKS if mark in label)):
        kind = kind_of(parts[0])
        if kind is not None and all(kind_of(part) == kind for part in parts[1:]):
            return kind
    return None


def no_control(
    labels: Sequence[str], where: str, column: str, named: Sequence[str], left_out: Sequence[str]
) -> NoControlCells:
    """The refusal of a column without control cells."""
    sought = ", ".join(map(repr, named)) if named else "control, ctrl, non-targeting"
    seen = ", ".join(repr(label) for label in labels[:_MOST_NAMED])
    out = f"; left out, as naming no perturbation, are {first(left_out, _MOST_NAMED)}" if left_out else ""
    return NoControlCells(
        f"{where}: no control cells in obs[{column!r}] (looked for {sought}; labels begin {seen}{out}); "
        "set data.control to the label of control cells, or data.column to the column of perturbations"
    )
