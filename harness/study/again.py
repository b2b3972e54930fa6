"""Which trials run again, and how one that ended is made to.

A failure of a trial's own (its numbers, its data, the time its jobs may take) would only repeat itself: it stands,
like a cancelled trial, until it is retried by name. What the driver gave up for it, because its processes died or its
data could not be built, is taken up by the next launch or resume.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from harness.study.folder import TrialFolder
from harness.study.leaving import TIMEOUTS

#: Key of a failure that the driver wrote in a trial's name.
GIVEN_UP = "given_up"
#: Key of a failure that is a user's wish.
CANCELLED = "cancelled"


def stands(result: Mapping[str, Any] | None) -> bool:
    """Whether a result is a failure that stands until it is retried."""
    return result is not None and result.get("state") == "failed" and not (result.get("failure") or {}).get(GIVEN_UP)


def open_again(folder: TrialFolder, result: Mapping[str, Any] | None, only: Container[str] | None = None) -> bool:
    """Make a trial that has not finished run; gives whether it shall.

    Parameters
    ----------
    folder, result
        The trial's, and what is in it.
    only
        Ids of the trials that are retried; None where a study is launched or resumed.
    """
    if only is None:
        if stands(result):
            return False
    elif folder.trial_id not in only:
        return False
    else:
        folder.cancelled.unlink(missing_ok=True)
    reopen(folder)
    return True


def reopen(folder: TrialFolder) -> None:
    """Make a trial that failed or was stopped run again; its old result is kept beside it.

    One that failed by its own numbers starts afresh; one whose process died goes on from its checkpoint.
    """
    if not folder.result.exists():
        return
    result = folder.read_result() or {}  # torn: it would keep the trial from running
    number = 1
    while (kept := folder.path / f"result.{number}.json").exists():
        number += 1
    folder.result.rename(kept)
    folder.stop.unlink(missing_ok=True)
    (folder.path / TIMEOUTS).unlink(missing_ok=True)
    if (result.get("failure") or {}).get("quantity"):
        folder.checkpoint.unlink(missing_ok=True)
        folder.metrics.unlink(missing_ok=True)
