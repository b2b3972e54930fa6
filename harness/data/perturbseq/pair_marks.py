"""What joins the names of a pair in labels: found by evidence, since each such mark may as well be part of a name.

A label is a pair where both of its halves are names of their own: other labels, words for control, guides by the study
file's rule, or genes of the file. What stands beside a word for control (``KLF1+ctrl``) is a name of its own too. One
proven pair shows that the file writes pairs with that mark, and then its other labels with it are pairs, as long as
their halves look like names; the marks in ``(+)-JQ1`` and ``2,3-DCPE`` join nothing. Where nothing is proven, ``+``
alone is taken to join what looks like names, since it is the mark of most public files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from harness.data.perturbseq.name_shapes import is_in_locants, is_number, looks_like_name
from harness.errors import UserError
from harness.words import first

#: Marks that are looked for, those that are least often part of a name first.
MARKS = ("||", "|", ";", "&", "+", ",", "/", ":", "_")
#: The mark that names hold most often, so that a label with two readings is refused.
UNDERSCORE = "_"
#: The mark that needs no evidence but names on both sides.
_USUAL = "+"
#: Most tokens of a name that holds the mark itself; a word for control such as non_targeting has two.
_LONGEST, _LEAST_TOKENS = 6, 2
_MOST_NAMED = 3

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Known:
    """What is known of names before labels are cut.

    Attributes
    ----------
    is_control : whether a name means control.
    is_guide : whether a name is a guide's, by the study file's rule.
    in_rule : whether a mark is part of how that rule writes guides.
    genes : names of the file's genes.
    counts : number of perturbed genes of a label, where the file says so (scPerturb's ``nperts``).
    """

    is_control: Callable[[str], bool]
    is_guide: Callable[[str], bool] = lambda name: False
    in_rule: Callable[[str], bool] = lambda mark: False
    genes: Set[str] = frozenset()
    counts: Mapping[str, int] = field(default_factory=dict)

    def is_one(self, label: str) -> bool:
        """Whether the file says that a label is one name."""
        return label in self.genes or self.counts.get(label) == 1


@dataclass(frozen=True)
class Cuts:
    """How labels were cut.

    Attributes
    ----------
    mark : what joins the names of a pair; None where nothing does.
    parts : names of each label, one or more.
    whole : labels that may be pairs with some mark, but are read as one name, and that mark.
    assumed : labels that are read as pairs by their looks alone.
    crowded : labels with so many marks that they name more than two, whatever these are; each is its own part.
    """

    mark: str | None
    parts: dict[str, Parts]
    whole: Mapping[str, str] = field(default_factory=dict)
    assumed: Parts = ()
    crowded: Parts = ()


def cut_labels(labels: Iterable[str], known: Known, where: str) -> Cuts:
    """Find the mark that explains most labels, and cut them at it.

    Parameters
    ----------
    labels
        Distinct tidy labels, none of which is control as a whole.
    known
        What else the file says.
    where
        Name of the column, for error messages.

    Raises
    ------
    UserError
        If a label has two readings, or names nothing beside a mark.
    """
    named = tuple(labels)
    found = [_Marked(mark, named, known, where) for mark in MARKS if any(mark in label for label in named)]
    best = max(found, key=lambda marked: len(marked.proven), default=None)
    if best is None or not best.proven:
        usual = next((marked for marked in found if marked.mark == _USUAL), None)
        if usual is not None and (assumed := usual.like_pairs()):
            return Cuts(_USUAL, usual.all_parts(), assumed=tuple(sorted(assumed)), crowded=usual.crowded())
        for marked in found:
            marked.refuse_unclear()
        doubtful = {label: marked.mark for marked in reversed(found) for label in marked.like_pairs()}
        return Cuts(None, {label: (label,) for label in named}, doubtful)
    parts = best.all_parts()
    elsewhere = {label: marked.mark for marked in found for label in marked.proven if len(parts[label]) == 1}
    return Cuts(best.mark, parts, elsewhere, crowded=best.crowded())


class _Marked:
    """Labels under one mark.

    Attributes
    ----------
    mark : the mark.
    proven : names of each label that evidence shows to be joined by it.
    """

    def __init__(self, mark: str, labels: Sequence[str], known: Known, where: str) -> None:
        self.mark = mark
        self.proven: dict[str, Parts] = {}
        self._refusals: list[str] = []
        self._labels = labels
        self._known = known
        self._where = where
        self._cuts = {label: Cutting(label, mark, known.is_control) for label in labels if mark in label}
        self._alone = {label for label in labels if label not in self._cuts}
        short = {label: cut for label, cut in self._cuts.items() if not cut.is_long}
        self._alone |= {cut.text for label, cut in short.items() if known.is_one(label) or not cut.clean}
        self._gain_beside_control()
        most = max((name.count(mark) + 1 for name in (*self._alone, *short)), default=1)
        self._longest = _LONGEST if known.in_rule(mark) else min(_LONGEST, max(_LEAST_TOKENS, most))
        for label in sorted(self._cuts, key=lambda label: len(self._cuts[label].tokens)):
            self._prove(label)
        self._halves = {part for parts in self.proven.values() for part in parts}

    def _gain_beside_control(self) -> None:
        """Take what stands beside a word for control as a name of its own, unless it is a pair itself."""
        is_control = self._known.is_control
        pairs = [pair for cut in self._cuts.values() for pair in cut.halves if any(map(is_control, pair))]
        beside = {name for pair in pairs for name in pair if not is_control(name) and looks_like_name(name)}
        self._alone |= {name for name in beside if self.mark not in name}
        if self.mark == UNDERSCORE:
            within = {name: Cutting(name, self.mark, is_control) for name in beside if self.mark in name}
            self._alone |= {name for name, cut in within.items() if not cut.pairs_of(self._is_name)}

    def _is_name(self, name: str) -> bool:
        known = self._known
        return name in self._alone or name in known.genes or known.is_control(name) or self._is_guide_for_sure(name)

    def _is_guide_for_sure(self, name: str) -> bool:
        return not self._known.in_rule(self.mark) and self.mark not in name and self._known.is_guide(name)

    def _prove(self, label: str) -> None:
        known, cut = self._known, self._cuts[label]
        pairs: list[Parts] = list(cut.pairs_of(self._is_name))
        if known.is_one(label):
            pairs = [pair for pair in pairs if any(map(known.is_control, pair))]
        elif not pairs:
            stated = known.counts.get(label) == 2
            pairs = self._by_rule(label, stated) or [*((cut.clean or cut.halves) if stated else ())]
        if len(pairs) > 1:
            self._refusals.append(self._two_readings(label, pairs))
            return
        found = pairs[0] if pairs else () if known.is_one(label) else cut.segments(self._is_name, self._longest)
        if found:
            self.proven[label] = found
        elif self.mark == UNDERSCORE and not cut.is_long:
            self._alone.add(label)

    def _by_rule(self, label: str, stated: bool) -> list[Parts]:
        """Pairs of guides where the mark is part of a guide's name too; unless stated a label may be one guide too."""
        known = self._known
        if not known.in_rule(self.mark):
            return []
        pairs = self._cuts[label].pairs_of(lambda name: self._is_name(name) or known.is_guide(name))
        alone = [("one guide",)] if pairs and known.is_guide(label) and not stated else []
        return [*alone, *pairs]

    def crowded(self) -> Parts:
        """Labels that hold the mark too often for a pair, and are not proven to be made of known names."""
        left = {label: cut for label, cut in self._cuts.items() if cut.is_long and label not in self.proven}
        return tuple(
            label
            for label, cut in left.items()
            if not self._known.is_one(label) and (self.mark == UNDERSCORE or all(map(looks_like_name, cut.tokens)))
        )

    def all_parts(self) -> dict[str, Parts]:
        """Names of every label, once the mark is known to join pairs."""
        self._refuse_two_readings()
        return {label: self.proven.get(label) or self._shown(label) for label in self._labels}

    def _shown(self, label: str) -> Parts:
        """Names of a label for which nothing but the other pairs speaks."""
        if label not in self._cuts or self._known.is_one(label):
            return (label,)
        cut = self._cuts[label]
        if self.mark == UNDERSCORE:
            if cut.text in self._halves:
                return (cut.text,)
            if len(cut.clean) > 1:
                raise UserError(self._either(label))
        elif not cut.is_long:
            if "" in (cut.tokens[0], cut.tokens[-1]):
                raise UserError(_empty(label, self._where))
            if len(cut.halves) == len(cut.tokens) - 1 and all(map(looks_like_name, cut.tokens)):
                return cut.tokens
        return cut.clean[0] if len(cut.clean) == 1 else (cut.text,)

    def refuse_unclear(self) -> None:
        """Refuse a label of which one half is a name of its own, and the other may be one."""
        self._refuse_two_readings()
        for label, cut in self._cuts.items():
            halves = [half for pair in cut.clean for half in pair]
            known = any(half in self._alone or self._known.is_control(half) for half in halves)
            if known and not self._known.is_one(label):
                raise UserError(self._either(label))

    def _refuse_two_readings(self) -> None:
        if self._refusals:
            raise UserError(self._refusals[0])

    def like_pairs(self) -> list[str]:
        """Labels whose halves look like names."""
        return [label for label, cut in self._cuts.items() if cut.clean and not self._known.is_one(label)]

    def _either(self, label: str) -> str:
        return (
            f"{self._where}: {label!r} may be one gene or a pair; give the number of genes in obs['nperts'], or set "
            f"data.pair_mark to {self.mark!r} if every label with it is a pair, or to none if no label is"
        )

    def _two_readings(self, label: str, ways: Sequence[Parts]) -> str:
        readings = first([" and ".join(way) for way in ways], _MOST_NAMED, " or ")
        stated = "" if label in self._known.counts else "give the number of genes in obs['nperts'], "
        return (
            f"{self._where}: {label!r} can be read as {readings}; write pairs as A+B, {stated}or set data.pair_mark to "
            f"{self.mark!r} if each one in a label joins two names, or to none if no label is a pair"
        )


class Cutting:
    """A label, and where it may be cut at a mark.

    Attributes
    ----------
    tokens : what stands between marks.
    text : the label without blanks around marks.
    is_long : whether there are more of them than in two names.
    halves : the two parts of each cut that leaves no bare number; a number belongs to what is before it. None of a long
        label, of which there may be many, and whose halves would fill memory.
    clean : those of which both look like names.
    """

    def __init__(self, label: str, mark: str, is_control: Callable[[str], bool]) -> None:
        self._mark = mark
        self.tokens = tuple(part.strip() for part in label.split(mark))
        self.text = mark.join(self.tokens)
        self.is_long = len(self.tokens) > 2 * _LONGEST
        two = () if self.is_long else self._two()
        self.halves = [pair for pair in two if all(half or is_control(half) for half in pair)]
        self.clean = [pair for pair in self.halves if all(map(looks_like_name, pair))]

    def _two(self) -> Iterable[tuple[str, str]]:
        place = -len(self._mark)
        for token, after in zip(self.tokens, self.tokens[1:], strict=False):
            place += len(self._mark) + len(token)
            before = self.text[:place]
            if is_number(before) or is_number(after) or (self._mark == "," and is_in_locants(self.text, place)):
                continue
            yield before, self.text[place + len(self._mark) :]

    def pairs_of(self, is_name: Callable[[str], bool]) -> list[tuple[str, str]]:
        """Cuts into two names, each looked up."""
        return [pair for pair in self.halves if all(map(is_name, pair))]

    def segments(self, is_name: Callable[[str], bool], longest: int) -> Parts:
        """Three names or more that the label is made of, each as long as may be; none where there are no such.

        No name has more tokens than the longest.

        Names are looked up from the left, so that the time grows with the length of the label alone.
        """
        found: list[str] = []
        start = 0
        while start < len(self.tokens):
            ends = range(min(len(self.tokens), start + longest), start, -1)
            names = ((end, self._mark.join(self.tokens[start:end])) for end in ends)
            end, name = next(((end, name) for end, name in names if name and is_name(name)), (0, ""))
            if not end:
                return ()
            found.append(name)
            start = end
        return tuple(found) if len(found) > 2 else ()


def cut_at(mark: str, labels: Iterable[str], known: Known, where: str) -> Cuts:
    """Cut every label at each mark that the study file names, but before no bare number.

    Where the study file's rule writes guides with the same mark, a guide is one part.

    Raises
    ------
    UserError
        If no label holds the mark, or one names nothing beside it.
    """
    parts = {label: _all_names(label, mark, known) if mark in label else (label,) for label in labels}
    if not any(mark in label for label in parts):
        raise UserError(
            f"{where}: data.pair_mark is {mark!r}, but no label holds it; leave data.pair_mark out, or give the mark "
            "that joins two names here"
        )
    for label, names in parts.items():
        if any(not name and not known.is_control(name) for name in names):
            raise UserError(_empty(label, where))
    return Cuts(mark, parts)


def _all_names(label: str, mark: str, known: Known) -> Parts:
    tokens = [part.strip() for part in label.split(mark)]
    found: list[str] = []
    start = 0
    while start < len(tokens):
        ends = range(start + 1, min(len(tokens), start + _LONGEST) + 1) if known.in_rule(mark) else ()
        guide = next((end for end in ends if known.is_guide(mark.join(tokens[start:end]))), start + 1)
        while guide < len(tokens) and (is_number(tokens[guide]) or is_number(mark.join(tokens[start:guide]))):
            guide += 1
        found.append(mark.join(tokens[start:guide]))
        start = guide
    return tuple(found)


def _empty(label: str, where: str) -> str:
    return (
        f"{where}: label {label!r} names an empty gene; write it as one name or as a pair of two names, or set "
        "data.control if this is the control label"
    )
