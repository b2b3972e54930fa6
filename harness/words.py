"""Numbers and lists as people read them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence


def counted(number: int, what: str) -> str:
    """``1 cell``, ``2 cells``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def clock_words(seconds: float | None) -> str:
    """A duration for people: ``42 s``, ``3:05 min``, ``2:10 h``."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def first(names: Sequence[str], most: int, joined: str = ", ") -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return joined.join(names[:most]) + more


def flow(words: Sequence[str]) -> str:
    """Words as YAML on one line: a list, or the word alone where there is one."""
    plain = [word if _is_plain(word) else json.dumps(word, ensure_ascii=False) for word in words]
    return plain[0] if len(plain) == 1 else f"[{', '.join(plain)}]"


def _is_plain(word: str) -> bool:
    """Whether YAML reads a word as itself without quotes, in a list too."""
    if not re.fullmatch(r"[\w./+-](?:[\w ./+-]*[\w./+-])?", word):
        return False
    import yaml

    try:
        return bool(yaml.safe_load(f"[{word}]") == [word])
    except yaml.YAMLError:
        return False
