"""How a study stands, in a few lines, read from its folder alone: no database, no cluster."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime

from harness.study.folder import StudyFolder, read_json
from harness.study.ownership import Owner
from harness.study.survey import CANCELLED, OPEN, Row, Survey, View, last_sign
from harness.study.trial_index import left_over_words
from harness.words import clock_words, counted

#: Running trials and reasons that are named; the rest is counted.
MOST_NAMED = 8
#: Longest reason that is shown.
_LONGEST = 300


def status(folder: StudyFolder) -> str:
    """How a study stands.

    Raises
    ------
    UserError
        If there is no such study.
    """
    return "\n".join(lines(Survey(folder).look()))


def lines(view: View) -> list[str]:
    """What one look at a study shows, a line each."""
    said = [f"{view.folder.name}: {count_words(view)}; {driver_words(view)}"]
    said += [f"  {words}" for words in (pace_words(view), best_words(view)) if words]
    said += _running(view)
    said += _grouped("failed", view.having("failed"))
    said += _grouped(CANCELLED, view.having(CANCELLED))
    torn = [row.entry for row in view.rows if row.torn]
    if torn:
        path = view.folder.trial(torn[0].trial_id).result
        said.append(f"  {counted(len(torn), 'result')} cannot be read and count as missing, e.g. {path}")
    if view.left_over:
        said.append(f"  {left_over_words(view.left_over)}")
    return said + what_next(view)


def count_words(view: View) -> str:
    """How many trials are in which state."""
    words = ", ".join(f"{count} {state}" for state, count in view.counts.items())
    proposals = f"up to {view.to_propose} to be proposed" if view.to_propose else ""
    return ", ".join(filter(None, (words, proposals))) or "no trials yet"


def driver_words(view: View) -> str:
    """Who drives the study, and when that was last seen."""
    if view.driver is not None:
        return f"driven by {_process(view.driver)}, last seen {_ago(view.driver.silence)}"
    if view.sent_off is not None:
        return f"to be driven by {view.sent_off}, which was sent off {_ago(view.time - view.sent_off.time)}"
    last = view.last_driver
    if last is None or last.pid < 0 or last.released or not view.open:
        return "not being driven"
    return f"not being driven; {_process(last)} was last seen {_ago(last.silence)}"


def _process(owner: Owner) -> str:
    return f"process {owner.pid} on {owner.host}" + (f" (job {owner.job})" if owner.job else "")


def _ago(seconds: float) -> str:
    if seconds > 2 * 86_400:
        return f"{seconds / 86_400:.0f} days ago"
    return f"{clock_words(max(0.0, seconds))} ago"


def pace_words(view: View) -> str:
    """Trials an hour, and time left; empty before any trial of this launch has ended."""
    rate, left = view.per_hour, view.seconds_left
    if rate is None or view.begun is None:
        return ""
    since = datetime.fromtimestamp(view.begun).strftime("%Y-%m-%d %H:%M")
    pace = f"{rate:,.0f} trials an hour since {since}" if rate >= 10 else f"{rate:.2g} trials an hour since {since}"
    return f"{pace}, about {clock_words(left)} left" if left else pace


def best_words(view: View) -> str:
    """The best cell so far; empty where none has a value."""
    best = view.best
    if best is None or view.launch is None:
        return ""
    cell, mean, seeds = best
    return f"best so far: {cell} ({view.launch.judged_by[0]} {mean:.4g}, {counted(seeds, 'seed')})"


def _running(view: View) -> list[str]:
    running = view.having("running")
    said = []
    for row in running[:MOST_NAMED]:
        sign = last_sign(view.folder.trial(row.entry.trial_id))
        of = f"/{row.entry.epochs}" if row.entry.epochs else ""
        said.append(f"  running   {row.entry.name}: epoch {sign.epoch}{of}")
    return said + _and_more(len(running))


def _and_more(number: int) -> list[str]:
    return [f"            and {number - MOST_NAMED} more"] if number > MOST_NAMED else []


def reasons(rows: Iterable[Row]) -> list[tuple[list[Row], str]]:
    """Trials by why they failed, numbers aside; the most frequent first, each with the reason of its first trial."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(re.sub(r"\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", "#", row.reason), []).append(row)
    ordered = sorted(groups.values(), key=len, reverse=True)
    return [(group, group[0].reason) for group in ordered]


def _grouped(state: str, rows: Sequence[Row]) -> list[str]:
    groups = reasons(rows)
    said = []
    for group, reason in groups[:MOST_NAMED]:
        why = f": {reason[:_LONGEST]}" if reason else ""
        example = group[0].entry.name
        said.append(
            f"  {state:9} " + (f"{example}{why}" if len(group) == 1 else f"{len(group)} times{why} (e.g. {example})")
        )
    return said + _and_more(len(groups))


def what_next(view: View) -> list[str]:
    """Commands to go on with, while nobody drives."""
    if view.is_driven:
        return []
    unfinished = any(view.counts.get(state) for state in OPEN) or view.to_propose
    said = [f"go on with: {view.folder.command('resume')}"] if unfinished else []
    if view.counts.get("failed") or view.counts.get(CANCELLED):
        said.append(f"run again what failed or was cancelled: {view.folder.command('retry')} --failed")
    return said


def job_names(folder: StudyFolder) -> list[str]:
    """Names under which a driver has submitted jobs to SLURM."""
    records = (read_json(path) for path in sorted((folder.path / "jobs").glob("*.json")))
    return [record["name"] for record in records if isinstance(record, dict) and "name" in record]
