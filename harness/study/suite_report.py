"""The report of a suite: one row a study, and every figure of a prediction on one page."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.helps import footnotes, words
from harness.study.folder import StudyFolder, write_atomic
from harness.study.page import Picture, page
from harness.study.past import report_of
from harness.study.report import Report
from harness.study.suite import Suite
from harness.study.tables import HELPS, MISSING, Row, Table, with_helps
from harness.study.verdicts import RULE, Verdict, counts, summary
from harness.study.written import markdown, terminal

HEADS = ("study", "over", "agree", "disagree", "undecided", "MCC where predicted", "MCC where not")


@dataclass(frozen=True)
class SuiteReport:
    """What ``write_suite_report`` made.

    Attributes
    ----------
    text : the table and its footnotes for a terminal.
    files : every file written, the page first.
    """

    text: str
    files: tuple[Path, ...]


def suite_report(suite: Suite, root: Path) -> SuiteReport:
    """Write the reports of a suite's studies, as far as they were launched, and that of the suite.

    Raises
    ------
    UserError
        Where a folder cannot be read or written.
    """
    launched = [s.name for s in suite.studies if StudyFolder(root.absolute(), s.name).study_file.exists()]
    return write_suite_report(suite, root, {name: report_of(name, root) for name in launched})


def write_suite_report(suite: Suite, root: Path, reports: Mapping[str, Report]) -> SuiteReport:
    """Write the report of a suite into ``<root>/<suite>/report``.

    Parameters
    ----------
    suite
        The suite.
    root
        Folder of all studies.
    reports
        Name of each study that was launched -> its report.
    """
    out = StudyFolder(root.absolute(), suite.name).report
    judged = {study.name: reports[study.name].verdicts for study in suite.studies if study.name in reports}
    rows = [_row(suite, name, its) for name, its in judged.items()]
    helps = [words(reports[name].helps) for name in judged]
    table = Table("Prediction and measurement", HEADS, (), tuple(Row(row, ()) for row in rows))
    table = with_helps(table, helps, at=len(HEADS))
    lines = _lines(suite, judged) + footnotes(one for report in reports.values() for one in report.helps)
    heading = " - ".join(filter(None, (suite.name, " ".join(suite.description.split()))))
    pictures = [
        Picture(_short(suite, name), report.axis, f"MCC over the axis of {name}")
        for name, report in reports.items()
        if report.axis is not None
    ]
    html = page(
        suite.name,
        " ".join(suite.description.split()),
        [table],
        lines,
        pictures,
        tables_first=True,
        footer="Each study has a report of its own, with every score.",
    )
    written = {
        out / "index.html": html,
        out / "summary.csv": _csv([(*row, its) for row, its in zip(rows, helps, strict=True)]),
        out / "summary.md": markdown(heading, [table], lines),
    }
    for path, content in written.items():
        write_atomic(path, content)
    width = shutil.get_terminal_size((160, 50)).columns
    return SuiteReport(terminal([heading], [[table]], lines, width=width, colour=False), tuple(written))


def _short(suite: Suite, name: str) -> str:
    return name.removeprefix(f"{suite.name}-")


def _row(suite: Suite, name: str, judged: Sequence[Verdict]) -> tuple[str, ...]:
    found = counts(judged)
    numbers = (str(found["agree"]), str(found["disagree"]), str(found["undecided"]))
    over = judged[0].axis if judged else MISSING
    return (_short(suite, name), over, *numbers, _level(judged, True), _level(judged, False))


def _level(judged: Sequence[Verdict], predicted: bool) -> str:
    """Mean of the cells' MCC, and the lowest and highest of them."""
    means = [one.score.mean for one in judged if one.predicted is predicted and one.score is not None]
    if not means:
        return MISSING
    spread = f" ({min(means):.2f} to {max(means):.2f})" if len(means) > 1 else ""
    return f"{sum(means) / len(means):.2f}{spread}"


def _lines(suite: Suite, judged: Mapping[str, Sequence[Verdict]]) -> list[str]:
    every = [one for its in judged.values() for one in its]
    found = counts(every)
    lines = [
        f"Over all studies prediction and measurement agree at {found['agree']} of {sum(found.values())} cells, "
        f"disagree at {found['disagree']}, and {found['undecided']} are undecided.",
        RULE,
        "MCC: mean of the cells' means over seeds, in brackets the lowest and highest cell.",
    ]
    lines += [f"{_short(suite, name)}: {summary(its)}" for name, its in judged.items() if its]
    silent = [_short(suite, name) for name, its in judged.items() if not its]
    waiting = [_short(suite, study.name) for study in suite.studies if study.name not in judged]
    if silent:
        lines.append(f"Without a prediction: {', '.join(silent)}.")
    if waiting:
        lines.append(f"Not launched yet: {', '.join(waiting)}.")
    return lines


def _csv(rows: Sequence[Sequence[str]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow((*HEADS, HELPS))
    writer.writerows(rows)
    return buffer.getvalue()
