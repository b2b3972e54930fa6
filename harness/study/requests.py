"""What other processes ask of a study's driver, on whatever host it runs: small files in the study's folder.

To end: ``cancel.json``, addressed to one taking of the lease, so that a later driver does not obey it. To drop single
trials: a ``cancelled`` marker in each of their folders, which also keeps them from being started, and a new
``cancelled`` file in the study's folder, which spares the driver looking into every folder.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable

from harness.study.folder import StudyFolder, TrialFolder, read_json, write_atomic
from harness.study.ownership import Owner, read_owner


def who_asks() -> str:
    """User and host, for the record."""
    user = f"user {os.getuid()}" if hasattr(os, "getuid") else "somebody"
    with contextlib.suppress(KeyError, OSError):  # a user that no password file knows, as in some containers
        user = getpass.getuser()
    return f"{user}@{socket.gethostname()}"


def ask_to_end(folder: StudyFolder, driver: Owner) -> None:
    """Ask the driver that holds the lease to end as on Ctrl-C."""
    write_atomic(folder.path / "cancel.json", json.dumps({"epoch": driver.epoch, "by": who_asks()}))


def mark_cancelled(folder: StudyFolder, trials: Iterable[TrialFolder]) -> None:
    """Drop trials: none is started any more, and one that runs is stopped at the end of its epoch."""
    reason = f"cancelled by {who_asks()}"
    for trial in trials:
        write_atomic(trial.cancelled, reason + "\n")
        held = read_owner(trial.claim)  # after the marker: who claims later sees it
        if held is not None and held.is_alive is not False:
            trial.request_stop(reason)
    write_atomic(folder.path / "cancelled", f"{time.time()}\n")


class Requests:
    """What is asked of one driver.

    Parameters
    ----------
    folder
        The study's.
    epoch
        Of the driver's lease.
    """

    def __init__(self, folder: StudyFolder, epoch: int) -> None:
        self._folder, self._epoch = folder, epoch
        self._seen: tuple[int, int] | None = None
        self._interrupted = False

    def end_asked(self) -> bool:
        """Whether this driver was asked to end."""
        asked = read_json(self._folder.path / "cancel.json")
        return isinstance(asked, dict) and asked.get("epoch") == self._epoch

    def interrupt_if_asked(self) -> None:
        """From a second thread, while the first one runs a trial itself: interrupt that as Ctrl-C does, once."""
        main = threading.main_thread()
        if self._interrupted or threading.current_thread() is main or not self.end_asked():
            return
        self._interrupted = True
        if main.ident is not None and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.pthread_kill(main.ident, signal.SIGINT)

    def marks_changed(self) -> bool:
        """Whether trials were marked since the last call."""
        try:
            stat = (self._folder.path / "cancelled").stat()
        except FileNotFoundError:
            return False
        seen = (stat.st_mtime_ns, stat.st_ino)
        changed, self._seen = seen != self._seen, seen
        return changed
