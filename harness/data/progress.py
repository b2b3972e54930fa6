"""A line on stderr for work of more than two seconds: what is done, and how long the rest takes."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class ProgressLine:
    """Callable with (done, total). On a terminal one line is rewritten; elsewhere a line comes every half minute.

    Parameters
    ----------
    label
        What is being done, e.g. ``rendering images``.
    stream
        Where to write; default stderr.
    """

    def __init__(self, label: str, stream: TextIO | None = None) -> None:
        self._label = label
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._every = 0.5 if self._live else 30.0
        self._start = time.monotonic()
        self._last = self._start + (2.0 if self._live else 0.0) - self._every
        self._first: int | None = None
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        """Show ``done`` of ``total``, if it is time to."""
        now = time.monotonic()
        if self._first is None:
            self._first = done
            self._start, self._last = now, now + (2.0 if self._live else 30.0) - self._every
        if self._shown and self._live and done >= total:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
            return
        if now - self._last < self._every or done == self._first:
            return
        self._last, self._shown = now, True
        left = (now - self._start) / (done - self._first) * (total - done)
        text = f"{self._label}: {done:,} of {total:,}, {_clock(left)} left"
        self._stream.write(f"\r\x1b[2K{text}" if self._live else f"{text}\n")
        self._stream.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
