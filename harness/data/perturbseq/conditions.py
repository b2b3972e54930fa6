"""Names of conditions: ``control``, ``A``, or ``A+B`` with the members sorted, since the order of a pair says nothing.

A name that holds a ``+`` itself, as ``(+)-JQ1`` does, has it written ``＋`` (U+FF0B), so that a condition can be cut at
each ``+``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from harness.data.perturbseq.control_words import CONTROL, is_control_word

_JOINS, _OWN = "+", "＋"


def canonical(members: Iterable[str]) -> str:
    """The canonical condition of a set of perturbed genes: ``control``, ``A``, ``A+B``, ..."""
    return _JOINS.join(sorted({in_condition(name) for name in members})) or CONTROL


def in_condition(name: str) -> str:
    """A name as it stands in conditions, where a ``+`` of its own is ``＋``."""
    return name.replace(_JOINS, _OWN)


def members_of(condition: str) -> tuple[str, ...]:
    """The perturbed genes of a canonical condition; none for control, and for a cell that is left out."""
    return () if condition in (CONTROL, "") else tuple(condition.split(_JOINS))


def members_asked(name: str, known: Collection[str]) -> list[str]:
    """The members of a combination as somebody writes it, in which the names of a file may hold a ``+`` themselves.

    Parameters
    ----------
    name
        ``A+B``, or a name alone, with ``+`` or ``＋``; blanks around it and around each of these say nothing.
    known
        Names as they stand in conditions; of several that fit the longest is taken.

    Returns
    -------
    Names as they stand in conditions, without words for control; empty ones where nothing stands beside a ``+``.
    """
    spelled = {_OWN.join(part.strip() for part in one.split(_OWN)): one for one in known}
    parts = [part.strip() for part in name.replace(_OWN, _JOINS).split(_JOINS)]
    found: list[str] = []
    while parts:
        ends = range(len(parts), 0, -1)
        end = next((end for end in ends if _OWN.join(parts[:end]) in spelled), 1)
        member = _OWN.join(parts[:end])
        found.append(spelled.get(member, member))
        parts = parts[end:]
    return [member for member in found if member in spelled or not is_control_word(member)]
