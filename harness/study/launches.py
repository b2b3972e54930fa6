"""The record of a study's launches: one JSON file each, which `resume` goes on from."""

from __future__ import annotations

import json
import platform
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

from harness.study.folder import StudyFolder, read_json, write_atomic


@dataclass
class Launch:
    """One launch of a study.

    Attributes
    ----------
    number : from 1.
    state : ``running``, ``finished``, ``failed`` (some trials did) or ``interrupted``.
    started, ended : unix time.
    study : the resolved study file.
    trials : ids of the grid's trials.
    reused : ids of trials whose result was there already.
    epochs : the leases under which it was driven; more than one if it was resumed.
    begun : unix time of each of these.
    judged_by : metric and direction of the running best.
    to_search : most trials that the study's search adds; 0 without a search.
    """

    number: int
    state: str = "running"
    started: float = field(default_factory=time.time)
    ended: float | None = None
    study: str = ""
    trials: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    begun: list[float] = field(default_factory=list)
    judged_by: list[str] = field(default_factory=list)
    to_search: int = 0

    def write(self, folder: StudyFolder) -> None:
        """Keep the record."""
        write_atomic(folder.launches / f"{self.number}.json", json.dumps(asdict(self), indent=1))


def last_launch(folder: StudyFolder) -> Launch | None:
    """The latest launch of a study; None before the first."""
    numbers = [int(path.stem) for path in folder.launches.glob("*.json") if path.stem.isdecimal()]
    if not numbers:
        return None
    body = read_json(folder.launches / f"{max(numbers)}.json") or {}
    known = Launch.__dataclass_fields__
    return Launch(**{"number": max(numbers), **{key: value for key, value in body.items() if key in known}})


def environment() -> dict[str, Any]:
    """What is installed where the driver runs: Python, platform, and every package with its version."""
    packages = {found.metadata["Name"]: found.version for found in metadata.distributions() if found.metadata["Name"]}
    return {
        "python": sys.version,
        "platform": platform.platform(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }
