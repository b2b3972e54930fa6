"""The text of labels before names are read in it: blanks at ends, two copies of a label, lists of drugs and doses."""

from __future__ import annotations

import ast
import re

from harness.data.perturbseq.control_words import control_word

#: What stands between the two copies of ``A_B__A_B`` in the column guide_identity of Norman et al. 2019.
_TWICE = "__"


def tidy(label: str) -> str:
    """A label without blanks at its ends, once where it is written twice (``A_B__A_B``)."""
    text = label.strip()
    half = (len(text) - len(_TWICE)) // 2
    twice = half > 0 and text == text[:half] + _TWICE + text[:half]
    return text[:half] if twice else text


def respelled(label: str, mark: str) -> str:
    """A label without blanks around a mark."""
    return mark.join(part.strip() for part in label.split(mark.strip() or mark)) if mark in label else label


def listed(label: str) -> tuple[str, ...] | None:
    """Names in a list written as text, None where a label is no such list.

    A drug comes with its dose and unit: ``[('Bortezomib', 0.05, 'uM')]``, as Tahoe-100M has it, is
    ``Bortezomib 0.05 uM``. A vehicle's dose says nothing, and is not named.
    """
    if not re.match(r"\[\s*[(\['\"]", label):
        return None
    try:
        items = ast.literal_eval(label)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    rows = [(item,) if isinstance(item, str) else item for item in items] if isinstance(items, list) else []
    if not rows or not all(isinstance(row, tuple | list) and row and isinstance(row[0], str) for row in rows):
        return None
    return tuple(" ".join(str(part).strip() for part in (row[:1] if control_word(row[0]) else row)) for row in rows)
