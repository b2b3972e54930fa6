"""A disk of a few megabytes that tests fill and empty."""

import contextlib
import subprocess
from pathlib import Path

import pytest

from harness.files import has_no_room


class SmallDisk:
    """A mounted file system; ``fill`` leaves no byte free, ``free`` gives all back."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self):
        with (self.path / "filling").open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError as error:
                    if not has_no_room(error):
                        raise

    def free(self):
        (self.path / "filling").unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(path: Path, megabytes: int):
    """Mount a small file system at an empty folder; the test is skipped where that is not permitted."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        why = done.stderr.strip() if done.returncode else ""
    except FileNotFoundError:
        why = "there is no mount command"
    if why:
        pytest.skip(f"a small disk cannot be mounted here: {why}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False)
