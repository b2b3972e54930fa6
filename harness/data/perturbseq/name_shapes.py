"""What a part of a label must look like to be a name: no number, no dose, and no torn bracket."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_DOSE = re.compile(r"\d+(?:\.\d+)?\s*(?:[pnuµμm]M|[pnuµμm]?g(?:/m?l)?|%|sec|min|hr?|hrs|days?)", re.IGNORECASE)
_LETTER = re.compile(r"[^\W\d_]")
#: A torn name begins or ends with a mark, as the parts of KLF1_+_123.23-P1 do.
_BEGINS, _ENDS = re.compile(r"[^\W_]|[(\[]"), re.compile(r"(?:[^\W_][-_]?|[)\]*'.])\Z")
#: Positions at a molecule's atoms, as in 2,3-DCPE and N,N-dimethyltryptamine.
_LOCANTS = re.compile(r"(?<!\w)(?:\d+|[NOSP])'*(?:,(?:\d+|[NOSP])'*)+-")


def is_number(text: str) -> bool:
    """Whether a text is a bare number, which names no gene."""
    return bool(_NUMBER.fullmatch(text))


def looks_like_name(text: str) -> bool:
    """Whether a text can be a name: with a letter, no dose or time, whole brackets, and no mark at an end."""
    if not _LETTER.search(text) or _DOSE.fullmatch(text):
        return False
    return bool(_BEGINS.match(text) and _ENDS.search(text)) and _brackets_close(text)


def is_in_locants(text: str, place: int) -> bool:
    """Whether the comma at a place stands between positions at a molecule's atoms."""
    return any(found.start() < place < found.end() for found in _LOCANTS.finditer(text))


def _brackets_close(text: str) -> bool:
    for opening, closing in ("()", "[]"):
        depth = 0
        for letter in text:
            depth += (letter == opening) - (letter == closing)
            if depth < 0:
                return False
        if depth:
            return False
    return True
