"""Lines that a user can run as they stand, or put into a study file, to mend what a sentence complains of."""

from __future__ import annotations

import json
import shlex
from pathlib import Path


def python_line(code: str) -> str:
    """A line for a shell that runs Python statements."""
    return f"python -c {shlex.quote(code)}"


def quoted(text: Path | str) -> str:
    """A text as a literal of Python that `python_line` leaves readable."""
    return json.dumps(str(text), ensure_ascii=False)


def unused(path: Path) -> Path:
    """The path, or the first like it, ``cells_2.h5ad``, that would overwrite nothing."""
    number, free = 2, path
    while free.exists():
        free, number = path.with_name(f"{path.stem}_{number}{path.suffix}"), number + 1
    return free


def study_line(key: str, value: str) -> str:
    """What to put into the study file's ``data``, and the option of ``harness data inspect`` that says the same."""
    option = f"--{key.replace('_', '-')} {shlex.quote(value)}"
    return f"put under data: in the study file   {key}: {value}   (harness data inspect: {option})"
