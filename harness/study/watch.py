"""A study as it runs: a table that is drawn again every few seconds, or plain lines where there is no terminal."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from harness.study.folder import StudyFolder
from harness.study.status import best_words, count_words, driver_words, what_next
from harness.study.survey import CANCELLED, Row, Survey, View, last_sign
from harness.words import clock_words

if TYPE_CHECKING:
    from rich.live import Live

#: Seconds between two looks, and between two plain lines.
LOOK_SECONDS, PLAIN_SECONDS = 2.0, 30.0
#: Seconds for which nothing must have happened in a suite whose next study may be about to begin.
QUIET_SECONDS = 20.0
#: Lines of a frame besides its running trials; the fewest and the most of those that are named.
_OTHER_LINES, _FEWEST, _MOST = 14, 3, 40
#: Failures that are named, the latest first.
_FAILURES = 4
#: Width of the columns epoch, metric and last sign.
_EPOCH, _VALUE, _AGE = 10, 14, 9
_BAR = 24

Studies = Callable[[], Sequence[StudyFolder]]


def watch(
    studies: Studies,
    stream: TextIO,
    *,
    is_suite: bool = False,
    every: float = LOOK_SECONDS,
    plain_every: float = PLAIN_SECONDS,
) -> None:
    """Show how studies stand until they are over and nobody drives them, or until Ctrl-C.

    Parameters
    ----------
    studies
        Gives the studies' folders; asked again at every look, since a suite grows while it runs.
    stream
        Where to show it.
    is_suite
        Whether a further study may begin once all are over.
    every, plain_every
        Seconds between two looks, and between two plain lines.

    Raises
    ------
    UserError
        If there is no such study.
    """
    screen = _Table(stream) if stream.isatty() else _Lines(stream, plain_every)
    surveys: dict[StudyFolder, Survey] = {}
    quiet_since: float | None = None
    try:
        while True:
            views = [surveys.setdefault(folder, Survey(folder)).look() for folder in studies()]
            screen.show(views)
            if not all(is_over(view) for view in views):
                quiet_since = None
            else:
                quiet_since = quiet_since or time.monotonic()
                if not is_suite or time.monotonic() - quiet_since >= QUIET_SECONDS:
                    break
            time.sleep(every)
    except KeyboardInterrupt:
        views = []
    finally:
        screen.close()
    for line in (line for view in views for line in what_next(view)):
        print(line, file=stream, flush=True)


def is_over(view: View) -> bool:
    """Whether nothing will happen any more: nobody drives, and no job that a dead driver left is running."""
    return not view.is_driven and not view.counts.get("running")


# ----------------------------------------------------------------------------------------------- frames


def frame(view: View, width: int, height: int = 50) -> list[str]:
    """The table of one look.

    Parameters
    ----------
    view
        The look.
    width, height
        Columns and lines of the terminal; no line is longer.
    """
    lines = [_bar_line(view), f"{count_words(view)}; {driver_words(view)}", *filter(None, [best_words(view)])]
    running = view.having("running")
    most = min(_MOST, max(_FEWEST, height - _OTHER_LINES))
    if running:
        lines += ["", *_running(view, running[:most], width)]
        lines += [f"and {len(running) - most} more"] if len(running) > most else []
    failures = _last_failures(view)
    if failures:
        lines += ["", "last failures", *(f"  {row.entry.name}: {row.reason}" for row in failures[:_FAILURES])]
        lines += [f"  and {len(failures) - _FAILURES} more"] if len(failures) > _FAILURES else []
    return [_cut(line, width) for line in lines]


def _bar_line(view: View) -> str:
    total = len(view.rows) + view.to_propose
    done = total - view.open
    share = done / total if total else 0.0
    full = int(share * _BAR)
    words = [f"{view.folder.name}  {'█' * full}{'░' * (_BAR - full)}  {done}/{total} trials, {share:.0%}"]
    if view.seconds_left:
        words.append(f"about {clock_words(view.seconds_left)} left")
    return ", ".join(words)


def _running(view: View, rows: Sequence[Row], width: int) -> Iterator[str]:
    """A header and a line for each running trial; names give way where the terminal is narrow."""
    metric = view.launch.judged_by[0] if view.launch is not None and view.launch.judged_by else "validation/loss"
    names = max(12, min(max(_length(row.entry.name) for row in rows), width - _EPOCH - _VALUE - _AGE - 3))
    value_title = metric if len(metric) <= _VALUE else metric.rpartition("/")[2]
    yield f"{_fit('running', names)} {'epoch':>{_EPOCH}} {_fit_right(value_title, _VALUE)} {'last sign':>{_AGE}}"
    for row in rows:
        sign = last_sign(view.folder.trial(row.entry.trial_id))
        value = sign.metrics.get(metric)
        shown = "" if value is None else f"{value:.5g}"
        epoch = f"{sign.epoch}/{row.entry.epochs}" if row.entry.epochs else str(sign.epoch)
        age = clock_words(sign.age)
        yield f"{_fit(row.entry.name, names)} {epoch:>{_EPOCH}} {shown:>{_VALUE}} {age:>{_AGE}}"


def _last_failures(view: View) -> list[Row]:
    failed = (row for row in view.rows if row.state in ("failed", CANCELLED) and row.ended)
    return sorted(failed, key=lambda row: row.ended, reverse=True)


def _length(text: str) -> int:
    """Columns that a text takes in a terminal."""
    from rich.cells import cell_len

    return cell_len(text)


def _fit(text: str, width: int) -> str:
    """A text cut or filled up to a number of columns."""
    from rich.cells import set_cell_size

    return set_cell_size(_cut(text, width), width)


def _fit_right(text: str, width: int) -> str:
    return f"{text[:width]:>{width}}"


def _cut(text: str, width: int) -> str:
    from rich.cells import set_cell_size

    line = " ".join(text.splitlines())
    return line if _length(line) <= width else set_cell_size(line, max(0, width - 1)).rstrip() + "…"


# ---------------------------------------------------------------------------------------------- screens


class _Table:
    """Frames drawn one over the other; the last one stays."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self._console = Console(file=stream, highlight=False, markup=False)
        self._live: Live | None = None

    def show(self, views: Sequence[View]) -> None:
        from rich.live import Live
        from rich.text import Text

        width, height = self._console.size
        lines = [line for view in views for line in [*frame(view, width, height // max(1, len(views))), ""]][:-1]
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(Text("\n".join(lines), no_wrap=True), refresh=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()


class _Lines:
    """A line now and then for each study, and one for each failure as it comes."""

    def __init__(self, stream: TextIO, every: float) -> None:
        self._stream, self._every = stream, every
        self._said: dict[str, str] = {}
        self._last: dict[str, float] = {}
        self._failures: set[tuple[str, float]] = set()
        self._left: dict[str, str] = {}

    def show(self, views: Sequence[View]) -> None:
        for view in views:
            for row in reversed(_last_failures(view)):
                mark = (row.entry.trial_id, row.ended)
                if mark not in self._failures:
                    self._failures.add(mark)
                    self._say(f"{row.state if row.state == CANCELLED else 'failed'}: {row.entry.name}: {row.reason}")
            self._head(view)

    def _head(self, view: View) -> None:
        name, now = view.folder.name, time.monotonic()
        words = [f"{name}: {count_words(view)}"]
        if view.seconds_left:
            words.append(f"about {clock_words(view.seconds_left)} left")
        best = best_words(view)
        line = "; ".join([*words, best] if best else words)
        self._left[name] = line
        if now - self._last.get(name, float("-inf")) >= self._every:
            self._last[name] = now
            self._flush(name)

    def _flush(self, name: str) -> None:
        if self._left[name] != self._said.get(name):
            self._said[name] = self._left[name]
            self._say(self._left[name])

    def _say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    def close(self) -> None:
        for name in self._left:
            self._flush(name)


def frames(folders: Sequence[StudyFolder]) -> str:
    """One frame of each study, as wide as the terminal."""
    width, height = shutil.get_terminal_size((120, 50))
    return "\n\n".join("\n".join(frame(Survey(folder).look(), width, height)) for folder in folders)
