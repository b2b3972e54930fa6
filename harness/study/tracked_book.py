"""What a study has brought to a tracking server, noted beside its trials.

A server tells of its runs only together with all their metrics and params, some thirty milliseconds each: with
thousands of finished trials it would be asked for minutes what has not changed. The book only spares questions; a
trial that it does not know is looked up on the server by its id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.files import append_whole, has_no_room

BOOK = "tracked.jsonl"


class TrackedBook:
    """One line for each result, and for each cell's scores, that a server holds.

    Parameters
    ----------
    path
        The file; created with its first line.
    store
        What tells this experiment on this server from every other; lines about another one count for nothing.
    """

    def __init__(self, path: Path, store: str) -> None:
        self._path, self._store = path, store

    def runs(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Run and tags of each trial that was brought, as `harness.study.mlflow_store.tagged_runs` gives them."""
        found: dict[str, dict[str, str]] = {}
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                entry = json.loads(line)
                if entry.pop("store") == self._store:
                    found.setdefault(entry.pop("run"), {}).update(entry)
            except (ValueError, KeyError, AttributeError):
                continue  # torn where a machine went down: the trial is looked up
        yield from found.items()

    def note(self, run_id: str, **tags: str) -> None:
        """Add what a run holds now; on a full disk it is not noted, and looked up another time."""
        try:
            append_whole(self._path, json.dumps({"store": self._store, "run": run_id, **tags}) + "\n")
        except OSError as error:
            if not has_no_room(error):
                raise
