"""Several drawing processes, and the chunks they are given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

from harness.data.causal3dident.renderer import Pixels
from harness.errors import UserError

#: Chunks a process holds at a time: one to draw, one to go on with while its pixels are taken.
IN_HAND = 2
MODULE = "harness.data.causal3dident.worker"


class Worker:
    """A drawing process, ended on leaving its context."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        # inherited, so that the process never sees them, not even while it starts: this one answers them
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2))
        try:
            # this process's own path, so that the program finds this very package, however it was found here;
            # -P: and nothing else that happens to lie in the working directory
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path)), "OMP_NUM_THREADS": "1"}
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment,
            )
        except OSError:
            self.connection.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()  # or its end would never be seen

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self._process.kill()
        self._process.wait()

    def give(self, message: tuple[Any, ...]) -> None:
        """Hand over a message, as ``worker.main`` expects them.

        Raises
        ------
        RuntimeError
            If the process has died.
        """
        try:
            self.connection.send(message)
        except OSError:
            raise self._died() from None

    def take(self) -> tuple[int, Pixels]:
        """Wait for the next chunk's first row and pixels.

        Raises
        ------
        UserError
            If it cannot draw here.
        RuntimeError
            If the process has died.
        """
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            raise self._died() from None
        if isinstance(answer, UserError):
            raise answer
        return answer

    def _died(self) -> RuntimeError:
        status = self._process.wait()
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return RuntimeError(
            f"a process that renders images {how}; what was drawn is kept, and a new run goes on from there"
        )


def drawn(
    chunks: Sequence[int], part: Callable[[int], tuple[Any, ...]], setting: tuple[Any, ...], processes: int
) -> Iterator[tuple[int, Pixels]]:
    """First row and pixels of each chunk, in whatever order they are ready.

    Parameters
    ----------
    chunks
        First rows.
    part
        Classes, latents and seeds of the chunk that begins at a row.
    setting
        What ``worker.Draughtsman`` is made from.
    processes
        How many draw.

    Raises
    ------
    UserError
        If images cannot be drawn here.
    RuntimeError
        If a process has died.
    """
    left = iter(chunks)
    in_hand: dict[Connection, int] = {}
    with ExitStack() as stack:
        workers = {worker.connection: worker for worker in (stack.enter_context(Worker()) for _ in range(processes))}

        def hand_over(to: Connection) -> None:
            for start in islice(left, 1):
                workers[to].give((start, *part(start)))
                in_hand[to] = in_hand.get(to, 0) + 1

        for worker in workers.values():
            worker.give(setting)
        for connection in list(workers) * IN_HAND:
            hand_over(connection)
        while busy := [connection for connection, count in in_hand.items() if count]:
            for ready in wait(busy):
                assert isinstance(ready, Connection)
                yield workers[ready].take()
                in_hand[ready] -= 1
                hand_over(ready)
