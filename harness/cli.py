"""The command line: verbs only. Everything heavy is imported inside the verb that needs it."""

from __future__ import annotations

import argparse
import errno
import functools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from harness.data_verbs import data
from harness.errors import UserError
from harness.export_verb import export
from harness.parser import Verb, make_parser
from harness.predict_verb import predict
from harness.programs_verb import programs

if TYPE_CHECKING:
    from harness.study.named import Named
    from harness.study.running import Outcome
    from harness.study.spec import StudySpec
    from harness.study.suite import Suite

OK, SOME_FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
#: Trials of earlier launches that are named.
MOST_NAMED = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status."""
    parser = make_parser(_verbs())
    options = parser.parse_args(arguments)
    if "verb" not in options:
        parser.print_help()
        return WRONG_INPUT
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored
                signal.signal(number, _interrupt)
        verb: Verb = options.verb
        return verb(options)
    except UserError as error:
        if options.debug:
            raise
        return _complain(str(error), WRONG_INPUT)
    except KeyboardInterrupt:
        if options.debug:
            raise
        return _complain("interrupted; what ran is kept", INTERRUPTED)
    except BrokenPipeError:
        # the reader (head, less) has gone: what is still buffered has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        # a file or disk that fails under a verb: what ran is on disk, and whatever was cut short is resumed
        if options.debug or error.strerror is None:
            raise
        return _complain(_of_system(error), WRONG_INPUT if isinstance(error, PermissionError) else SOME_FAILED)


def _of_system(error: OSError) -> str:
    """What the operating system refused, in a sentence."""
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    remedy = {
        errno.EACCES: "give a folder that you may use with --root",
        errno.EPERM: "give a folder that you may use with --root",
        errno.ENOSPC: "what ran is kept, so make room and resume",
        errno.EDQUOT: "what ran is kept, so make room and resume",
    }.get(error.errno or 0, "what ran is kept, so resume once this is mended")
    return f"{where}{error.strerror}; {remedy}"


def _interrupt(number: int, frame: object) -> NoReturn:
    """SIGTERM, or a terminal that closes, ends a command as politely as Ctrl-C does."""
    raise KeyboardInterrupt


def _complain(sentence: str, status: int) -> int:
    print(f"harness: {sentence}", file=sys.stderr)
    return status


# ------------------------------------------------------------------------------------------------ verbs


def _verbs() -> dict[str, Verb]:
    """What carries each command out."""
    return {
        "launch": _launch,
        "resume": _resume,
        "status": _status,
        "watch": _watch,
        "report": _report,
        "cancel": _cancel,
        "retry": _retry,
        "doctor": _doctor,
        "check": _check,
        "data": data,
        "predict": predict,
        "programs": programs,
        "export": export,
        "ui": _ui,
        "schema": _schema,
    }


def _launch(options: argparse.Namespace) -> int:
    from harness.study.load import load_study
    from harness.study.suite import is_suite

    if is_suite(options.study):
        return _launch_suite(options)
    study = load_study(options.study, options.set)
    if options.dry_run:
        from harness.study.dry_run import dry_run

        print(dry_run(study, options.root))
        return OK
    if options.detach:
        from harness.study.detach import write_down

        write_down(study, options.root)
        return _detach(study.name, options.root, [study])
    from harness.study.driver import launch

    return _driven(options.root, study.name, lambda: launch(study, options.root))


def _launch_suite(options: argparse.Namespace) -> int:
    from harness.study.suite import load_suite, record, suite_dry_run

    suite = load_suite(options.study, options.set)
    if options.dry_run:
        print(suite_dry_run(suite, options.root))
        return OK
    if options.detach:
        from harness.study.driver import admit

        for study in suite.studies:
            admit(study, options.root)
    record(suite, options.root)
    if options.detach:
        return _detach(suite.name, options.root, suite.studies)
    return _drive_suite(suite, options.root)


def _drive_suite(suite: Suite, root: Path) -> int:
    """Run what is missing of each study of a suite in turn; one that fails does not keep the others from running."""
    from harness.study.driver import launch
    from harness.study.folder import StudyFolder
    from harness.study.suite_report import suite_report

    worst = OK
    for number, study in enumerate(suite.studies, start=1):
        print(f"study {number} of {len(suite.studies)}: {study.name}", flush=True)
        status = _driven(root, study.name, lambda study=study: launch(study, root), is_member=True)  # type: ignore[misc]
        if status == INTERRUPTED:
            again = StudyFolder(root, suite.name).command("resume")
            return _complain(f"the suite stops here; go on with: {again}", INTERRUPTED)
        worst = max(worst, status)
    made = suite_report(suite, root)
    print(f"\n{made.text}\npage:      {made.files[0]}")
    return worst


def _resume(options: argparse.Namespace) -> int:
    from harness.study.suite import launched_suite

    suite = launched_suite(options.study, options.root)
    name = _name(options.study) if suite is None else suite.name
    if options.detach:
        from harness.study.past import launched

        studies = suite.studies if suite is not None else [launched(name, options.root)[0]]
        return _detach(name, options.root, studies)

    def go_on() -> int:
        from harness.study.driver import resume

        if suite is not None:
            return _drive_suite(suite, options.root)
        return _driven(options.root, name, lambda: resume(name, options.root))

    if options.as_job:
        from harness.study.detach import as_job

        return as_job(go_on)
    return go_on()


def _detach(name: str, root: Path, studies: Sequence[StudySpec]) -> int:
    """Send a driver off, and say how to follow it."""
    from harness.study.detach import detach
    from harness.study.folder import StudyFolder

    sent, folder = detach(name, root, studies), StudyFolder(root, name)
    print(f"{name} goes on without this shell, driven by {sent}")
    for what, value in (("watch", folder.command("watch")), ("log", sent.log), ("cancel", folder.command("cancel"))):
        print(f"{what + ':':10s} {value}")
    return OK


def _driven(root: Path, name: str, drive: Callable[[], Outcome], *, is_member: bool = False) -> int:
    from harness.study.lease import LeaseLost

    try:
        return _ended(drive(), root, name, is_member=is_member)
    except LeaseLost as error:
        return _complain(f"{error}; this one stops", SOME_FAILED)


def _ended(outcome: Outcome, root: Path, name: str, *, is_member: bool = False) -> int:
    """Print what a launch came to; gives the exit status."""
    from harness.study.folder import StudyFolder

    folder = StudyFolder(root, name)
    again, retry = folder.command("resume"), f"{folder.command('retry')} --failed"
    _print_report(outcome, root, is_member=is_member)
    if outcome.untracked is not None:
        _complain(f"MLflow could not be written ({outcome.untracked}); {again} brings it up to date", OK)
    for trial, reason in outcome.failed:
        _complain(f"failed: {trial}: {reason}", SOME_FAILED)
    for trial, reason in outcome.left[:MOST_NAMED]:
        _complain(f"left as it is: {trial}: {reason}", SOME_FAILED)
    if outcome.interrupted:
        return _complain(f"interrupted; what ran is kept, go on with: {again}", INTERRUPTED)
    if outcome.gave_up:
        return _complain(
            f"stopped early: {len(outcome.failed)} trials failed, more than compute.max_failures; go on with: {again}",
            SOME_FAILED,
        )
    if outcome.unfinished:
        _complain(f"{outcome.unfinished} unfinished trials were left; go on with: {again}", OK)
    without = len(outcome.failed) + len(outcome.left)
    if without:
        trials = "trial" if without == 1 else "trials"
        return _complain(f"{without} {trials} failed or cancelled; run again with: {retry}", SOME_FAILED)
    return OK


def _print_report(outcome: Outcome, root: Path, *, is_member: bool) -> None:
    """Print the report of a launch; of a member of a suite only what became of its prediction."""
    from harness.study.folder import root_option

    if outcome.report is not None and is_member:
        from harness.study.verdicts import summary

        print(f"  {outcome.ran} trials ran, {outcome.reused} were there already")
        if outcome.report.verdicts:
            print(f"  {summary(outcome.report.verdicts)}")
    elif outcome.report is not None:
        print(outcome.report.text)
        print()
        if outcome.report.heatmap is not None:
            print(f"heat map:  {outcome.report.heatmap}")
        if outcome.report.files:
            print(f"page:      {outcome.report.files[0]}")
        own = outcome.tracking_uri is None
        print(f"browse:    harness ui{root_option(root)}" if own else f"browse:    MLflow at {outcome.tracking_uri}")
    sys.stdout.flush()


def _status(options: argparse.Namespace) -> int:
    from harness.study.named import named
    from harness.study.status import status

    meant = named(options.study, options.root)
    for folder in meant.studies:
        print(status(folder))
    for name in meant.waiting:
        print(f"{name}: not launched yet")
    return OK


def _watch(options: argparse.Namespace) -> int:
    from harness.study.named import named
    from harness.study.watch import frames, watch

    meant = named(options.study, options.root)
    if options.follow is not None:
        return _follow(meant, options.follow)
    if options.once:
        print(frames(meant.studies))
    else:
        watch(lambda: named(options.study, options.root).studies, sys.stdout, is_suite=meant.is_suite)
    return OK


def _follow(meant: Named, trial: str) -> int:
    from harness.study.follow import follow

    if meant.is_suite:
        studies = ", ".join(folder.name for folder in meant.studies)
        raise UserError(f"{meant.name!r} is a suite; follow a trial of one of its studies: {studies}")
    follow(meant.studies[0], trial, lambda line: print(line, flush=True))
    return OK


def _report(options: argparse.Namespace) -> int:
    from harness.study.past import report_of
    from harness.study.suite import launched_suite
    from harness.study.suite_report import suite_report

    suite = launched_suite(options.study, options.root)
    report = report_of(_name(options.study), options.root) if suite is None else suite_report(suite, options.root)
    print(report.text)
    for path in report.files:
        print(path)
    return OK


def _cancel(options: argparse.Namespace) -> int:
    from harness.study.cancel import cancel, cancel_cells
    from harness.study.named import named

    meant = named(options.study, options.root)
    if options.cell is not None:
        said = cancel_cells(meant.studies, options.cell)
    else:
        said = [*_cancel_suite(meant, options.root), *(cancel(folder) for folder in meant.studies)]
    print("\n".join(said))
    return OK


def _cancel_suite(meant: Named, root: Path) -> list[str]:
    """End the driver of a suite that was sent off and drives none of its studies yet."""
    from harness.study.folder import StudyFolder
    from harness.study.sent_off import end_sent_off, is_driven

    if not meant.is_suite:
        return []
    sent = end_sent_off(StudyFolder(root, meant.name), lambda: any(is_driven(folder) for folder in meant.studies))
    return [] if sent is None else [f"ended the driver of {meant.name} ({sent}) before it began"]


def _retry(options: argparse.Namespace) -> int:
    from harness.study.named import named
    from harness.study.retry import retryable

    chosen = retryable(named(options.study, options.root).studies, options.cell)
    if not chosen:
        print("nothing to run again: no trial failed or was cancelled")
        return OK
    from harness.study.driver import resume

    worst = OK
    for folder, ids in chosen.items():
        drive = functools.partial(resume, folder.name, options.root, only=ids)
        status = _driven(options.root, folder.name, drive, is_member=len(chosen) > 1)
        if status == INTERRUPTED:
            return status
        worst = max(worst, status)
    return worst


def _doctor(options: argparse.Namespace) -> int:
    from harness.study.doctor import examine

    findings = examine(options.profile, options.root, tracking=options.tracking, patience=options.patience)
    well = True
    for finding in findings:
        print(finding, flush=True)
        well = well and finding.ok
    return OK if well else SOME_FAILED


def _check(options: argparse.Namespace) -> int:
    from harness.study.conditions import conditions_of
    from harness.study.load import load_study
    from harness.study.suite import is_suite, load_suite

    if is_suite(options.study):
        for study in load_suite(options.study, options.set).studies:
            print(f"{study.name}\n{conditions_of(study, options.root)}\n")
    else:
        print(conditions_of(load_study(options.study, options.set), options.root))
    return OK


def _schema(options: argparse.Namespace) -> int:
    import json

    from harness.study.schema import json_schema

    text = json.dumps(json_schema(), indent=2)
    if options.out is None:
        print(text)
        return OK
    from harness.files import write_atomic
    from harness.outputs import refuse_taken, writing

    refuse_taken(options.out)
    with writing(options.out):
        write_atomic(options.out, text + "\n")
    print(f"wrote {options.out}")
    return OK


def _ui(options: argparse.Namespace) -> int:
    from harness.study.ui import serve

    return serve(options.root, options.port)


def _name(study: str) -> str:
    """A study's name, from itself or from its file."""
    if not study.endswith((".yaml", ".yml")):
        return study
    from harness.study.load import load_study

    return load_study(Path(study)).name
