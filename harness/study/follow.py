"""The logs of one trial as they come: its epochs, and what its job writes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.study.folder import StudyFolder, TrialFolder
from harness.study.survey import OPEN, Row, Survey, View, last_line
from harness.study.watch import LOOK_SECONDS
from harness.words import first

#: Lines of a log, and epochs, that are shown of what was there before.
_EARLIER = 10
#: Metrics of an epoch that are shown.
_METRICS = 5
#: Shortest beginning of an id that is looked for.
_SHORTEST = 3
_MOST_NAMED = 5


def find_trial(view: View, wanted: str) -> Row:
    """The trial that a user means: by its id or an unambiguous beginning of it, or by cell and seed.

    Parameters
    ----------
    view
        The study.
    wanted
        E.g. ``3f09``, or ``perturbed_vae · sparsity=0.1 · seed 2``; the dots may be left out.

    Raises
    ------
    UserError
        If there is no such trial, or more than one.
    """
    words = _words(wanted)
    found = [row for row in view.rows if _words(row.entry.name) == words or row.entry.trial_id == wanted]
    if not found and len(wanted) >= _SHORTEST:
        found = [row for row in view.rows if row.entry.trial_id.startswith(wanted.lower())]
    if len(found) == 1:
        return found[0]
    if found:
        names = [f"{row.entry.trial_id} ({row.entry.name})" for row in found]
        raise UserError(f"{wanted!r} may mean {first(names, _MOST_NAMED)}; give more of the id")
    near = [row for row in view.rows if words and set(words) <= set(_words(row.entry.name))]
    there = [row.entry.name for row in near or view.rows]
    some = first(there, _MOST_NAMED, "; ") or "none yet"
    raise UserError(
        f"no trial {wanted!r} in {view.folder.name!r}; {'did you mean' if near else 'its trials are'}: {some}"
    )


def _words(name: str) -> list[str]:
    return name.replace("·", " ").split()


class Tail:
    """The whole lines that were added to a file.

    Parameters
    ----------
    path
        The file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def new(self) -> list[str]:
        """Lines added since the last call; a file begun anew is read from its beginning."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, 2)
                self._offset = 0 if size < self._offset else self._offset
                file.seek(self._offset)
                content = file.read()
        except OSError:
            return []
        whole = content.rfind(b"\n") + 1
        self._offset += whole
        return content[:whole].decode(errors="replace").splitlines()


def follow(folder: StudyFolder, wanted: str, say: Callable[[str], None], every: float = LOOK_SECONDS) -> None:
    """Show the logs of a trial until it has ended, or nobody works on it; Ctrl-C ends it earlier.

    Parameters
    ----------
    folder
        The study's.
    wanted
        The trial, as `find_trial` takes it.
    say
        Told each line.
    every
        Seconds between two looks.

    Raises
    ------
    UserError
        As `find_trial`.
    """
    survey = Survey(folder)
    view = survey.look()
    row = find_trial(view, wanted)
    trial_id = row.entry.trial_id
    say(f"{row.entry.name} ({trial_id}): {row.state}")
    logs = _Logs(folder, folder.trial(trial_id), row.entry.epochs)
    try:
        while True:
            view = survey.look()  # before the logs, so that nothing is written after the last look at them
            row = next(row for row in view.rows if row.entry.trial_id == trial_id)
            for line in logs.new():
                say(line)
            if row.state not in OPEN:
                say(f"{row.state}{f': {row.reason}' if row.reason else ''}")
                return
            if not view.is_driven and row.state != "running":
                say(f"{row.state}, and nobody drives {folder.name}; go on with: {folder.command('resume')}")
                return
            time.sleep(every)
    except KeyboardInterrupt:
        return


class _Logs:
    """What a trial and its jobs have written."""

    def __init__(self, folder: StudyFolder, trial: TrialFolder, epochs: int) -> None:
        self._folder, self._trial, self._epochs = folder, trial, epochs
        self._metrics = Tail(trial.metrics)
        self._job: list[tuple[str, Tail]] = []
        self._attempt: Mapping[str, Any] = {}
        self._is_first = True

    def new(self) -> Iterator[str]:
        """Lines since the last call."""
        yield from self._new_attempt()
        for stream, tail in self._job:
            yield from (f"{stream} | {line}" for line in self._recent(tail.new()))
        yield from filter(None, (_epoch_words(line, self._epochs) for line in self._recent(self._metrics.new())))
        self._is_first = False

    def _recent(self, lines: list[str]) -> list[str]:
        return lines[-_EARLIER:] if self._is_first else lines

    def _new_attempt(self) -> Iterator[str]:
        """Say where the trial runs, whenever that changes, and look into that job's logs."""
        attempt = last_line(self._trial.path / "attempts.jsonl") or {}
        if attempt == self._attempt:
            return
        self._attempt = attempt
        log = attempt.get("log") or ""
        files = [(name, self._folder.job_logs / f"{log}_0_log.{name}") for name in ("out", "err")]
        self._job = [(name, Tail(path)) for name, path in files] if log else []
        job = f", job {attempt['job']}" if attempt.get("job") else ""
        yield f"on {attempt.get('host')}, process {attempt.get('pid')}{job}"
        if not self._job:
            yield "its output goes to its driver's own, since it runs in that process"


def _epoch_words(line: str, epochs: int) -> str:
    """One line of ``metrics.jsonl`` for people; empty where it is torn."""
    try:
        entry = json.loads(line)
        metrics = {name: value for name, value in entry["metrics"].items() if isinstance(value, int | float)}
        of = f"/{epochs}" if epochs else ""
        head = f"epoch {int(entry['epoch'])}{of}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    order = sorted(metrics, key=lambda name: not name.startswith("validation/"))
    more = [f"and {len(order) - _METRICS} more"] if len(order) > _METRICS else []
    return "  ".join([head, *(f"{name} {metrics[name]:.5g}" for name in order[:_METRICS]), *more])
