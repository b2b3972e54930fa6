"""Suites: several studies launched as one, with some of their keys changed, e.g. all sweeps at a reduced size.

A suite keeps nothing of its own but which studies it is made of; each of them is a study like any other, under a
name that begins with the suite's, so that its results never mix with those of the same study launched by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from harness.errors import UserError
from harness.helps import footnotes, words
from harness.spec_part import Part
from harness.study import explain, yaml12
from harness.study.explain import shown
from harness.study.folder import StudyFolder, write_atomic
from harness.study.load import Override, dump_study, load_study, read_text
from harness.study.named import STUDIES
from harness.study.spec import StudySpec, checked_name
from harness.words import clock_words, counted

if TYPE_CHECKING:
    from harness.study.dry_run import DryRun, Warmed


def _as_mapping(value: object) -> object:
    """A member may be written as its file alone."""
    return {"study": value} if isinstance(value, str) else value


class MemberSpec(Part):
    """One study of a suite."""

    study: str = Field(min_length=1, description="study file, relative to the suite's")
    set: dict[str, Any] = Field({}, description="{dotted.key: value}, on top of the suite's own")


class SuiteSpec(Part):
    """A suite file."""

    name: str = Field(description="begins the name of each study; default: the file's")
    description: str = ""
    studies: tuple[Annotated[MemberSpec, BeforeValidator(_as_mapping)], ...] = Field(
        strict=False, min_length=1, description="study files, each alone or with keys to set in it"
    )
    set: dict[str, Any] = Field({}, description="{dotted.key: value}, set in every study")


@dataclass(frozen=True)
class Suite:
    """A suite with its studies as they are to run.

    Attributes
    ----------
    name, description : of the suite.
    studies : in the file's order, each under the suite's name and its own.
    """

    name: str
    description: str
    studies: tuple[StudySpec, ...]


# ---------------------------------------------------------------------------------------------- reading


def is_suite(path: Path) -> bool:
    """Whether a file is a suite's; a file that is not there, or is no YAML, is not."""
    try:
        values, _ = yaml12.parse(read_text(path, "study file"), str(path))
    except UserError:
        return False
    return isinstance(values, dict) and STUDIES in values


def load_suite(path: Path, overrides: Sequence[str] = ()) -> Suite:
    """Read a suite file and every study it names.

    Parameters
    ----------
    path
        The YAML file.
    overrides
        ``dotted.key=value`` each, set in every study after the suite's own.

    Raises
    ------
    UserError
        With one sentence on what is wrong in the suite or in a study.
    """
    spec, lines = _spec_of(path)
    studies: dict[str, StudySpec] = {}
    for number, member in enumerate(spec.studies):
        written = f"{path}, line {lines.get((STUDIES, number), 1)}: "
        file = path.parent / member.study
        if not file.is_file():
            raise UserError(f"{written}{STUDIES}.{number} is {member.study}, but there is no such file")
        changes = [*_overrides(spec.set, f"{path}: set"), *_overrides(member.set, f"{written}set")]
        study = load_study(file, [*changes, *overrides])
        try:
            name = checked_name(f"{spec.name}-{study.name}")
        except ValueError as error:
            raise UserError(f"{written}{error}") from error
        if name in studies:
            raise UserError(f"{written}the study {study.name!r} is in the suite twice; set name in one of the two")
        studies[name] = study.model_copy(update={"name": name})
    return Suite(spec.name, spec.description, tuple(studies.values()))


def _spec_of(path: Path) -> tuple[SuiteSpec, Mapping[explain.Path, int]]:
    values, lines = yaml12.parse(read_text(path, "suite file"), str(path))
    if not isinstance(values, dict):
        raise UserError(f"{path} is {shown(values)}, but a suite file is a mapping of keys such as {STUDIES}")
    values = {"name": path.stem, **values}
    spec = explain.validated(SuiteSpec, values, path, lines)
    try:
        checked_name(spec.name)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return spec, lines


def _overrides(changes: Mapping[str, Any], said: str) -> list[Override]:
    # JSON is YAML, so that a value is read back as it stands in the suite file
    return [Override(f"{key}={json.dumps(value)}", f"{said}.{key}={shown(value)}") for key, value in changes.items()]


# ---------------------------------------------------------------------------------------------- keeping


def record(suite: Suite, root: Path) -> None:
    """Keep what a suite is made of, so that it is found again by name.

    Raises
    ------
    UserError
        Where a study has the suite's name, or the folder cannot be written.
    """
    folder = StudyFolder(root.absolute(), suite.name)
    if folder.study_file.exists():
        raise UserError(f"{suite.name!r} is a study in {root}; give the suite another name")
    for study in suite.studies:
        write_atomic(folder.path / _member_file(study), dump_study(study))
    body = {"name": suite.name, "description": suite.description, STUDIES: [_member_file(s) for s in suite.studies]}
    write_atomic(folder.suite_file, yaml12.dump(body))


def recorded(root: Path, name: str) -> Suite | None:
    """A suite as it was last launched; None where no suite of this name was.

    Raises
    ------
    UserError
        Where its files cannot be read.
    """
    folder = StudyFolder(root.absolute(), name)
    if not folder.suite_file.exists():
        return None
    spec, _ = _spec_of(folder.suite_file)
    return Suite(spec.name, spec.description, tuple(load_study(folder.path / member.study) for member in spec.studies))


def launched_suite(named: str, root: Path) -> Suite | None:
    """The suite that a file or a name stands for, as it was last launched; None where it stands for a study.

    Raises
    ------
    UserError
        Where it is the file of a suite that was never launched.
    """
    if not named.endswith((".yaml", ".yml")):
        return recorded(root, named)
    if not is_suite(Path(named)):
        return None
    spec, _ = _spec_of(Path(named))
    found = recorded(root, spec.name)
    if found is None:
        raise UserError(f"no suite {spec.name!r} was launched in {root}; launch it first, or say where with --root")
    return found


def _member_file(study: StudySpec) -> str:
    """Where a study's resolved file lies in the suite's folder."""
    return f"{STUDIES}/{study.name}.yaml"


# ----------------------------------------------------------------------------------------------- asking


def suite_dry_run(suite: Suite, root: Path) -> str:
    """Size, estimated cost and helps of each study of a suite, and their sum.

    Raises
    ------
    UserError
        Whatever launching one of them would refuse.
    """
    from harness.study.dry_run import dry_run  # heavy, and asked for by dry runs alone

    warmed: Warmed = {}
    runs = {study.name: dry_run(study, root, warmed=warmed) for study in suite.studies}
    seconds = sum(run.seconds for run in runs.values())
    trials = sum(run.preview.trials for run in runs.values())
    to_run = sum(run.to_run for run in runs.values())
    return "\n".join(
        [
            *(f"  {name}: {_run_words(run)}" for name, run in runs.items()),
            f"{counted(len(runs), 'study') if len(runs) == 1 else f'{len(runs)} studies'}, "
            f"{counted(trials, 'trial')}; {to_run} to run",
            f"estimated cost: {seconds / 3600:.2g} device-hours ({clock_words(seconds)} on one core)",
            *footnotes(one for run in runs.values() for one in run.helps),
            "nothing was run or written",
        ]
    )


def _run_words(run: DryRun) -> str:
    size = f"{counted(run.preview.cells, 'cell')}, {counted(run.preview.trials, 'trial')}"
    return f"{size}; {run.to_run} to run, {clock_words(run.seconds)}; helps: {words(run.helps)}"
