"""Labels that name guides: which gene each is of, by the rule of the study file; and what rule would fit a file."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from harness.errors import UserError
from harness.reading_spec import GuideRule, expression_of
from harness.words import counted, first

CONTROL = "control"
#: Labels of control cells, in any case.
CONTROL_WORDS = frozenset({"control", "ctrl", "non-targeting"})
#: A template that fits any label.
_BARE = "{gene}"
#: How non-targeting guides are usually called; what is before their number.
_NON_TARGETING = re.compile(
    r"((?:nt|ntc|non[-_. ]?target\w*?|neg\w*?|scr\w*?|safe\w*?|control|ctrl)[-_. ]?(?:sg|g)?)\d+", re.IGNORECASE
)
#: A gene, a mark, and the number of a guide with letters before it or not.
_NUMBERED = re.compile(r"(?P<gene>.+)(?P<mark>[-_.:|])(?P<guide>[A-Za-z]{0,3}\d+)")
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
            if gene.lower() in CONTROL_WORDS and not self.is_control(name):
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


def propose(labels: Iterable[str]) -> GuideRule | None:
    """The rule that labels of guides seem to follow; None where they seem to be genes.

    Several numbers of one name are its guides: where most labels are so, or the labels of control are, the mark before
    the number gives the template. Nothing is merged by this: it is proposed to who writes the study file.
    """
    names = sorted({part.strip() for label in labels for part in re.split(r"[+,]", label)} - {""})
    names = [name for name in names if name.lower() not in CONTROL_WORDS]
    control = [name for name in names if _NON_TARGETING.fullmatch(name)]
    others = [name for name in names if not _NON_TARGETING.fullmatch(name)]
    numbered = {name: found for name in others if (found := _NUMBERED.fullmatch(name))}
    guides = Counter((found["gene"], found["mark"]) for found in numbered.values())
    marks = Counter({mark: number for (_, mark), number in guides.items() if number > 1})
    if marks:
        mark = marks.most_common(1)[0][0]
        fitting = [name for name, found in numbered.items() if found["mark"] == mark]
        if 2 * len(fitting) >= len(others):
            more = (_BARE,) if len(fitting) < len(others) else ()
            return GuideRule(pattern=(f"{{gene}}{mark}{{guide}}", *more), control=_templates(control))
    if control:
        return GuideRule(pattern=(_BARE,), control=_templates(control))
    return None


def as_written(rule: GuideRule) -> str:
    """The rule as a line under ``data`` in a study file."""
    parts = {"pattern": rule.pattern, "control": rule.control}
    return "guides: {" + ", ".join(f"{key}: {_flow(value)}" for key, value in parts.items() if value) + "}"


def _flow(templates: Sequence[str]) -> str:
    quoted = [f'"{template}"' for template in templates]
    return quoted[0] if len(quoted) == 1 else f"[{', '.join(quoted)}]"


def _templates(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted({_templated(name) for name in names}))


def _templated(name: str) -> str:
    """A name with its last number left open."""
    return re.sub(r"\d+$", "{guide}", name)


def _named(names: Sequence[str]) -> str:
    return first([repr(name) for name in names], _MOST_NAMED)
