"""Labels that name guides: which gene each is of, by the rule of the study file; and what rule would fit a file."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence, Set

from harness.data.perturbseq.control_words import CONTROL, control_word, is_control_word, names_no_guide
from harness.data.perturbseq.label_texts import tidy
from harness.data.perturbseq.pair_marks import Known, cut_labels
from harness.errors import UserError
from harness.reading_spec import GuideRule, expression_of, literal_of
from harness.words import counted, first

#: A template that fits any label.
_BARE = "{gene}"
#: The pattern of labels that name genes.
BARE = (_BARE,)
#: A gene, a mark, and the number of a guide with letters before it or not.
_NUMBERED = re.compile(r"(?P<gene>.+)(?P<mark>[-_.:|])(?P<guide>[A-Za-z]{0,3}\d+)")
#: A gene, and the strand and place of a guide in it, as in KLF1_-_12345.23-P1P2.
_STRANDED = re.compile(r"(?P<gene>.+)_(?P<strand>[+-])_\d[\d.]*(?:-.+)?")
_MOST_NAMED = 3


class Guides:
    """The rule of a study file, ready to read.

    Parameters
    ----------
    rule
        The study file's ``data.guides``.
    """

    def __init__(self, rule: GuideRule) -> None:
        self.rule = rule
        self._patterns = [expression_of(template) for template in rule.pattern]
        self._control = [expression_of(template) for template in rule.control]
        self._with_number = [expression_of(template) for template in rule.pattern if template != _BARE]

    def writes(self, mark: str) -> bool:
        """Whether a mark is part of how guides are written."""
        return any(mark in literal_of(template) for template in (*self.rule.pattern, *self.rule.control))

    def is_control(self, name: str) -> bool:
        """Whether a name is a non-targeting guide's."""
        return any(expression.fullmatch(name) for expression in self._control)

    def gene(self, name: str) -> str | None:
        """The gene of the first template that fits, whether or not the name is a non-targeting guide's too."""
        for expression in self._patterns:
            found = expression.fullmatch(name)
            if found:
                return found["gene"].strip()
        return None

    def is_guide(self, name: str) -> bool:
        """Whether a name is that of a guide, not of a bare gene."""
        return self.is_control(name) or any(expression.fullmatch(name) for expression in self._with_number)

    def genes(self, names: Iterable[str], where: str) -> dict[str, str]:
        """The gene of each name, `CONTROL` for non-targeting guides.

        Parameters
        ----------
        names
            Members of the labels, without words that always mean control.
        where
            Name of the column, for error messages.

        Raises
        ------
        UserError
            If a name fits no template, all are merged into one, or a name may be a gene's guide or control.
        """
        distinct = sorted(set(names))
        table = {name: CONTROL if self.is_control(name) else self.gene(name) for name in distinct}
        templates = " or ".join(map(repr, self.rule.pattern))
        unfit = [name for name, gene in table.items() if gene is None]
        if unfit:
            raise UserError(
                f"{where}: {len(unfit)} of {counted(len(distinct), 'name')} fit no template of data.guides ({templates}"
                f"), such as {_named(unfit)}; add to data.guides.pattern a template that fits them ({_BARE} for a gene "
                "alone), or to data.guides.control if they are non-targeting guides"
            )
        read = {name: gene for name, gene in table.items() if gene is not None}
        self._refuse_two_readings(read, where)
        self._refuse_merging_all(read, where, templates)
        return read

    def _refuse_merging_all(self, table: Mapping[str, str], where: str, templates: str) -> None:
        if len(table) > 1 and len(set(table.values())) == 1:
            (gene,) = set(table.values())
            which = f"the one gene {gene!r}" if gene != CONTROL else "control"
            narrower = f"data.guides.pattern ({templates})" if gene != CONTROL else "data.guides.control"
            raise UserError(
                f"{where}: data.guides reads all {len(table)} names as {which}; make {narrower} narrower, "
                "or leave data.guides out if labels name genes"
            )

    def _refuse_two_readings(self, table: Mapping[str, str], where: str) -> None:
        targeted = {gene for gene in table.values() if gene != CONTROL}
        for name, gene in table.items():
            other = self.gene(name)
            if gene == CONTROL and other in targeted:
                raise UserError(
                    f"{where}: data.guides reads {name!r} as a non-targeting guide, but it may be one of {other!r}, "
                    "which other labels name; make data.guides.control narrower"
                )
            if is_control_word(gene) and not self.is_control(name):
                raise UserError(
                    f"{where}: data.guides reads {name!r} as a guide of {gene!r}, which is a word for control; "
                    f"add a template such as {_templated(name)!r} to data.guides.control"
                )


def by_gene(genes: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The guides of each gene, and of control, as `Guides.genes` read them."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for guide, gene in genes.items():
        found[gene].append(guide)
    return {gene: tuple(sorted(guides)) for gene, guides in sorted(found.items())}


def propose(labels: Iterable[str], genes: Set[str] = frozenset()) -> GuideRule | None:
    """The rule that labels of guides seem to follow; None where they seem to be genes.

    Several numbers of one name are its guides: where most labels are so, or the labels of control are, the mark before
    the number gives the template. Nothing is merged by this: it is proposed to who writes the study file.

    Parameters
    ----------
    labels
        Distinct labels, as the file writes them.
    genes
        Names of the file's genes, none of which is read as a guide.
    """
    names = sorted(name for name in _names_in(labels, genes) if not is_control_word(name))
    control = [name for name in names if _is_control_guide(name, genes)]
    others = [name for name in names if name not in control]
    for templates, read in (_by_strand(others), _by_number(others)):
        bare = BARE if len(read) < len(others) else ()
        if 2 * len(read) < len(others) or not templates:
            continue
        rule = GuideRule(pattern=(*templates, *bare), control=_templates(control, others))
        expected = {**dict.fromkeys(control, CONTROL), **{name: read.get(name, name) for name in others}}
        if not genes & set(read) and _reads(rule, expected):
            return rule
    return rule_of_controls(control, others) if control else None


def rule_of_controls(control: Sequence[str], others: Collection[str]) -> GuideRule:
    """The rule that reads some names as guides of control, and each other name as a gene."""
    return GuideRule(pattern=BARE, control=_templates(control, [name for name in others if name not in control]))


def _names_in(labels: Iterable[str], genes: Set[str]) -> set[str]:
    """Names of genes and guides in labels, pairs taken apart where there is evidence."""
    texts = {text for label in labels if (text := tidy(label)) and not names_no_guide(text)}

    def is_control(name: str) -> bool:
        return control_word(name) is not None and name not in genes

    known = Known(is_control, lambda name: bool(_NUMBERED.fullmatch(name)), lambda mark: mark in "-_.:|", genes)
    try:
        cuts = cut_labels([text for text in texts if not is_control(text)], known, "labels").parts
    except UserError:  # two readings of one: each label is then looked at as it is
        return texts
    return {part for parts in cuts.values() for part in parts} | {text for text in texts if is_control(text)}


def _is_control_guide(name: str, genes: Set[str]) -> bool:
    word = control_word(name)
    return word is not None and word.mark is not None and name not in genes


def _by_number(names: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The template of names with the mark that most genes have before several numbers, and the gene of each such."""
    numbered = {name: found for name in names if (found := _NUMBERED.fullmatch(name))}
    guides = Counter((found["gene"], found["mark"]) for found in numbered.values())
    marks = Counter({mark: number for (_, mark), number in guides.items() if number > 1})
    if not marks:
        return (), {}
    mark = marks.most_common(1)[0][0]
    read = {name: found["gene"] for name, found in numbered.items() if found["mark"] == mark}
    return (f"{{gene}}{mark}{{guide}}",), read


def _by_strand(names: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Templates of names with the strand and place of a guide, and the gene of each such."""
    found = {name: match for name in names if (match := _STRANDED.fullmatch(name))}
    strands = sorted({match["strand"] for match in found.values()})
    return tuple(f"{{gene}}_{strand}_*" for strand in strands), {name: match["gene"] for name, match in found.items()}


def _reads(rule: GuideRule, expected: Mapping[str, str]) -> bool:
    """Whether a rule reads names as they are meant."""
    try:
        return Guides(rule).genes(expected, "labels") == expected
    except UserError:
        return False


def as_written(rule: GuideRule) -> str:
    """The rule as a line under ``data`` in a study file."""
    parts = {"pattern": rule.pattern, "control": rule.control}
    return "guides: {" + ", ".join(f"{key}: {_flow(value)}" for key, value in parts.items() if value) + "}"


def _flow(templates: Sequence[str]) -> str:
    quoted = [f'"{template}"' for template in templates]
    return quoted[0] if len(quoted) == 1 else f"[{', '.join(quoted)}]"


def _templates(control: Sequence[str], others: Collection[str]) -> tuple[str, ...]:
    """Templates of names of control that fit no other name; where one would, the names themselves."""
    found: set[str] = set()
    for name in control:
        template = _templated(name)
        expression = expression_of(template)
        found.add(name if any(expression.fullmatch(other) for other in others) else template)
    return tuple(sorted(found))


def _templated(name: str) -> str:
    """A name with its last number left open."""
    return re.sub(r"\d+$", "{guide}", name)


def _named(names: Sequence[str]) -> str:
    return first([repr(name) for name in names], _MOST_NAMED)
