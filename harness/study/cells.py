"""Cells named by words of theirs: ``--cell "perturbed_vae sparsity=0.1"``."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from harness.errors import UserError
from harness.study.survey import View
from harness.words import first

#: Cells that are named where none is meant.
_MOST_NAMED = 6


def matching(cells: Iterable[str], words: str, study: str) -> list[str]:
    """The cells in whose name all words occur.

    A word is a part of the name as it stands there, e.g. ``sparsity=0.1``, or its key or value alone; ``0.1`` is
    not found in ``0.15``.

    Parameters
    ----------
    cells
        Names, e.g. ``perturbed_vae · sparsity=0.1``.
    words
        What the user typed.
    study
        Whose cells they are, for the message.

    Raises
    ------
    UserError
        If there is no such cell; the sentence says which there are.
    """
    names = list(dict.fromkeys(cells))
    wanted = _normal(words).replace("·", " ").split()
    if not wanted:
        raise UserError('--cell is empty; give words of a cell\'s name, e.g. --cell "sparsity=0.1"')
    found = [name for name in names if all(word in parts_of(name) for word in wanted)]
    if not found:
        there = f"its cells are: {first(names, _MOST_NAMED, '; ')}" if names else "it has no cell yet"
        raise UserError(f"no cell of {study!r} has the words {words!r} in its name; {there}")
    return found


def matching_of(views: Sequence[View], words: str) -> list[tuple[View, list[str]]]:
    """`matching` in several studies, those alone that have such a cell.

    Raises
    ------
    UserError
        If none of them has; the sentence is about the first.
    """
    found, refusals = [], []
    for view in views:
        try:
            found.append((view, matching((row.entry.cell for row in view.rows), words, view.folder.name)))
        except UserError as error:
            refusals.append(error)
    if refusals and not found:
        raise refusals[0]
    return found


def parts_of(name: str) -> set[str]:
    """Words that a cell goes by."""
    parts: set[str] = set()
    for part in _normal(name).replace("·", " ").split():
        key, equals, value = part.partition("=")
        parts.update((part, key, value) if equals else (part,))
    return parts


def _normal(text: str) -> str:
    """An accent counts as one letter, however the terminal has put it together."""
    return unicodedata.normalize("NFC", text)
