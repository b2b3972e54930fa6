"""What `harness doctor` has a job do on its node: look around, write down what it sees, wait for a signal.

An instance is pickled into submitit's job; it holds strings and finds everything else by path.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

#: Written here before the job is submitted; what the job finds in it shows that both see one folder.
TOKEN = "token"
#: What the job saw.
ANSWER = "answer.json"
#: Whether SLURM's signal reached it.
SIGNALLED = "signalled.json"
#: Seconds for which the job waits for that signal.
SIGNAL_SECONDS = 30.0


class Probe:
    """Looks around on a node.

    Parameters
    ----------
    folder
        The folder to answer in.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self) -> None:
        from harness.study.leaving import warning_signal

        seen: list[int] = []
        signal.signal(warning_signal(), lambda number, frame: seen.append(number))
        folder = Path(self.folder)
        write(folder / ANSWER, look_around(folder))
        until = time.monotonic() + SIGNAL_SECONDS
        while not seen and time.monotonic() < until:
            time.sleep(0.1)
        write(folder / SIGNALLED, {"signalled": bool(seen)})


def look_around(folder: Path) -> dict[str, Any]:
    """What there is to know of this node, as JSON has it."""
    from harness import __version__

    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "harness": __version__,
        "token": _text(folder / TOKEN),
        "free": shutil.disk_usage(folder).free,
        "now": time.time(),
        "ahead": clock_ahead(folder),
        "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "torch": _torch(),
    }


def clock_ahead(folder: Path) -> float:
    """Seconds by which this machine's clock is ahead of that of the folder's file system."""
    mark = folder / f".clock.{socket.gethostname()}.{os.getpid()}"
    try:
        mark.write_text("tick")
        return time.time() - mark.stat().st_mtime
    finally:
        mark.unlink(missing_ok=True)


def write(path: Path, value: object) -> None:
    """Write JSON that is there whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _torch() -> dict[str, Any]:
    try:
        import torch

        count = torch.cuda.device_count()
        names = [torch.cuda.get_device_name(number) for number in range(count)]
    except Exception as error:  # whatever a broken installation raises is what we are here to report
        return {"error": f"{type(error).__name__}: {error}"}
    return {"version": torch.__version__, "gpus": names}
