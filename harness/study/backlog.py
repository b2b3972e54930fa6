"""Tasks that may fail for a while, done in a thread of their own so that nobody waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

#: Does one thing, all of it or to be done again; gives whether it is done.
Task = Callable[[], bool]

#: Seconds before a task that failed is tried again: after the first failure, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0
#: Failures in a row after which whoever waits for the end stops waiting.
PATIENCE = 3
#: Seconds that a task under way is given when its work is no longer wanted.
CLOSE_SECONDS = 30.0


class Backlog:
    """Does tasks in the order in which they came, each again until it succeeds, one at a time.

    A task that fails goes behind the others, so that one that never succeeds holds up nobody; after each failure
    there is a pause, longer after several in a row.

    Parameters
    ----------
    first_pause, longest_pause
        Seconds between two tries.
    """

    def __init__(self, *, first_pause: float = FIRST_PAUSE, longest_pause: float = LONGEST_PAUSE) -> None:
        self._first_pause, self._longest_pause = first_pause, longest_pause
        self._tasks: dict[str, Task] = {}
        self._changed = threading.Condition()
        self._failures = 0
        self._not_before = 0.0
        self._over = self._waited_for = False
        self._broken: BaseException | None = None
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        """Tasks that are not done."""
        return len(self._tasks)

    def put(self, name: str, task: Task) -> None:
        """Have a task done; one of the same name that is not done yet is replaced."""
        with self._changed:
            self._tasks[name] = task
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def offer(self, name: str, task: Task) -> None:
        """Have a task done, unless one of this name waits already."""
        if name not in self._tasks:
            self.put(name, task)

    def drain(self, patience: int = PATIENCE) -> bool:
        """Wait until every task is done, or until so many have failed in a row; gives whether every one is.

        Raises
        ------
        BaseException
            What a task raised, which ended all work.
        """
        with self._changed:
            self._failures, self._not_before, self._waited_for = 0, 0.0, True
            self._changed.notify_all()
            while self._tasks and self._failures < patience and self._broken is None:
                self._changed.wait(1.0)
            self._waited_for = False
            if self._broken is not None:
                raise self._broken
            return not self._tasks

    def close(self) -> None:
        """Do no more; a task under way is waited for, within reason."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)

    def _work(self) -> None:
        try:
            while (chosen := self._next()) is not None:
                self._settle(*chosen, done=chosen[1]())
        except BaseException as error:  # carried to whoever waits, not swallowed
            with self._changed:
                self._broken = error
                self._changed.notify_all()

    def _next(self) -> tuple[str, Task] | None:
        """The task to try next, once it is time to; None when there is to be no more."""
        with self._changed:
            while not self._over:
                pause = self._not_before - time.monotonic()
                if self._tasks and pause <= 0:
                    return next(iter(self._tasks.items()))
                self._changed.wait(pause if self._tasks else None)
            return None

    def _settle(self, name: str, task: Task, *, done: bool) -> None:
        with self._changed:
            replaced = self._tasks.get(name) is not task
            if done:
                self._failures, self._not_before = 0, 0.0
            else:
                pause = self._first_pause * 2.0 ** min(self._failures, 20)
                self._failures += 1
                longest = self._first_pause if self._waited_for else self._longest_pause
                self._not_before = time.monotonic() + min(pause, longest)
            if not replaced:
                del self._tasks[name]
                if not done:
                    self._tasks[name] = task
            self._changed.notify_all()
