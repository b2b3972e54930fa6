"""What a running study shows: trials and epochs done, time left, the best cell so far (on validation).

On a terminal a block of lines is rewritten; elsewhere a plain line comes now and then.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from harness.files import say_if_room
from harness.study.folder import TrialFolder
from harness.study.plan import PlannedTrial
from harness.study.spec import ObjectiveSpec
from harness.words import clock_words

if TYPE_CHECKING:
    from rich.live import Live

#: Seconds between plain lines.
PLAIN_SECONDS = 30.0
#: Share of a trial's time that its epochs take; the rest is scoring.
TRAINING_SHARE = 0.9
#: Trials in flight that are shown by name.
MOST_SHOWN = 6


class Curve:
    """The lines of one ``metrics.jsonl``, read on from where it was left.

    Parameters
    ----------
    path
        The file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.epochs: dict[int, Mapping[str, Any]] = {}

    def read(self) -> Curve:
        """Take in what was written since; a line not yet whole is left for later."""
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return self
        if size < self._offset:  # begun anew
            self._offset, self.epochs = 0, {}
        if size > self._offset:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
            whole = content.rfind(b"\n") + 1
            self._offset += whole
            for line in content[:whole].splitlines():
                self._take(line)
        return self

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            self.epochs[int(entry["epoch"])] = entry
        except (ValueError, KeyError, TypeError):
            return  # torn where a process died: the epoch is written again

    @property
    def last(self) -> int:
        """Number of the last epoch written; 0 before the first."""
        return max(self.epochs, default=0)

    def value(self, epoch: int, metric: str) -> float | None:
        """A metric in one epoch, if it was taken."""
        value = self.epochs.get(epoch, {}).get("metrics", {}).get(metric)
        return None if value is None else float(value)


def selection(objective: ObjectiveSpec) -> ObjectiveSpec:
    """What the running best is judged by: the objective, where it is one of validation."""
    if objective.metric.startswith("validation/"):
        return objective
    return ObjectiveSpec(metric="validation/loss", direction="minimize")


class Best:
    """The cell with the best mean over its finished seeds so far, on validation."""

    def __init__(self, objective: ObjectiveSpec) -> None:
        self._objective = selection(objective)
        self._values: dict[str, dict[int, float]] = {}

    def take(self, trial: PlannedTrial, result: Mapping[str, Any]) -> None:
        """Count a result in; one that is not finished or lacks the metric is passed over."""
        value = result.get("metrics", {}).get(self._objective.metric)
        if result.get("state") == "finished" and value is not None:
            self._values.setdefault(trial.cell, {})[trial.seed] = float(value)

    def __str__(self) -> str:
        if not self._values:
            return ""
        sign = -1.0 if self._objective.direction == "maximize" else 1.0
        means = {cell: sum(values.values()) / len(values) for cell, values in self._values.items()}
        cell = min(means, key=lambda name: sign * means[name])
        seeds = len(self._values[cell])
        return f"{cell} ({self._objective.metric} {means[cell]:.4g}, {seeds} seed{'s' if seeds > 1 else ''})"


class Clock:
    """Time left, in proportion to what was done since it was started."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start, or start again: what was done and waited for until now says nothing about the rest."""
        self._start = time.monotonic()
        self._base: float | None = None

    def left(self, done: float, total: float) -> float | None:
        """Seconds left; None before anything was done."""
        if self._base is None:
            self._base = done
        gained = done - self._base
        if gained <= 0:
            return None
        return (time.monotonic() - self._start) / gained * max(0.0, total - done)


class Screen(Protocol):
    """Where progress is shown."""

    def show(self, lines: Callable[[], list[str]]) -> None:
        """Show the state, if it is time to."""

    def say(self, sentence: str) -> None:
        """Say one sentence that stays."""

    def close(self) -> None:
        """Take down what is shown, until something is shown again."""


class PlainScreen:
    """A line now and then, for logs."""

    def __init__(self, stream: TextIO, every: float = PLAIN_SECONDS) -> None:
        self._stream = stream
        self._every = every
        self._last = time.monotonic()

    def show(self, lines: Callable[[], list[str]]) -> None:
        now = time.monotonic()
        if now - self._last >= self._every:
            self._last = now
            self.say(lines()[0])

    def say(self, sentence: str) -> None:
        say_if_room(sentence, self._stream)

    def close(self) -> None:
        return


class LiveScreen:
    """A block of lines at the bottom of a terminal."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self._console = Console(file=stream, highlight=False, markup=False)
        self._live: Live | None = None

    def show(self, lines: Callable[[], list[str]]) -> None:
        from rich.live import Live
        from rich.text import Text

        if self._live is None:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        width = self._console.width
        self._live.update(Text("\n".join(line[:width] for line in lines())))

    def say(self, sentence: str) -> None:
        self._console.print(sentence)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def make_screen(stream: TextIO | None = None) -> Screen:
    """A live block on a terminal, plain lines elsewhere."""
    stream = stream or sys.stderr
    return LiveScreen(stream) if stream.isatty() else PlainScreen(stream)


class Progress:
    """Counts what is done and shows it.

    Parameters
    ----------
    screen
        Where to show.
    objective
        The study's first objective.
    """

    def __init__(self, screen: Screen, objective: ObjectiveSpec) -> None:
        self._screen = screen
        self._best = Best(objective)
        self._clock = Clock()
        self._curves: dict[str, Curve] = {}
        self._expected: dict[str, int] = {}
        self._names: dict[str, str] = {}
        self._reused: set[str] = set()
        self._ended: dict[str, str] = {}
        self.to_come = 0

    def expect(self, trial: PlannedTrial) -> None:
        """Count a trial that will run."""
        self._expected[trial.trial_id] = trial.spec.train.epochs
        self._names[trial.trial_id] = trial.name

    def reuse(self, trial: PlannedTrial, result: Mapping[str, Any]) -> None:
        """Count a result that was there already."""
        self._reused.add(trial.trial_id)
        self._best.take(trial, result)

    def ended(self, trial: PlannedTrial, result: Mapping[str, Any]) -> None:
        """Count a trial that came to its end; a failure is said aloud."""
        self._ended[trial.trial_id] = str(result.get("state"))
        self._curves.pop(trial.trial_id, None)
        self._best.take(trial, result)
        if result.get("state") == "failed":
            reason = (result.get("failure") or {}).get("reason", "no reason recorded")
            self.say(f"failed: {trial.name}: {reason}")

    def curve(self, trial_id: str, folder: TrialFolder) -> Curve:
        """The curve of a trial in flight, read up to now."""
        curve = self._curves.get(trial_id)
        if curve is None:
            curve = self._curves[trial_id] = Curve(folder.metrics)
        return curve.read()

    def show(self, flights: Mapping[str, TrialFolder]) -> None:
        """Show the state of the study."""
        self._screen.show(lambda: self._lines(flights))

    def say(self, sentence: str) -> None:
        """Say one sentence that stays."""
        self._screen.say(sentence)

    def close(self) -> None:
        """Leave the screen to others, until something is shown again."""
        self._screen.close()

    def _lines(self, flights: Mapping[str, TrialFolder]) -> list[str]:
        at = {name: self.curve(name, folder).last for name, folder in flights.items()}
        running = [name for name in flights if at[name] or flights[name].claim.exists()]
        if not running and not self._ended:
            self._clock.start()  # data are being built, or jobs wait in a queue
        done = sum(self._expected.get(name, 0) for name in self._ended) + TRAINING_SHARE * sum(at.values())
        mean = sum(self._expected.values()) / max(1, len(self._expected))
        total = sum(self._expected.values()) + self.to_come * mean
        failed = sum(1 for state in self._ended.values() if state == "failed")
        trials = len(self._expected) + self.to_come
        words = [f"{len(self._ended)}/{trials} trials", f"{clock_words(self._clock.left(done, total))} left"]
        words += [f"{len(self._reused)} reused"] if self._reused else []
        words += [f"{failed} failed"] if failed else []
        best = str(self._best)
        words += [f"best {best}"] if best else []
        lines = [f"  {self._names.get(name, name)}: epoch {at[name]}/{self._expected.get(name, 0)}" for name in running]
        more = [f"  and {len(lines) - MOST_SHOWN} more"] if len(lines) > MOST_SHOWN else []
        return [", ".join(words), *lines[:MOST_SHOWN], *more]
