"""What a user means by a study's or suite's name or file, found without reading more than must be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError
from harness.study.folder import StudyFolder

#: The key that tells a suite file from a study file.
STUDIES = "studies"


@dataclass(frozen=True)
class Named:
    """A study, or a suite with the studies it is made of.

    Attributes
    ----------
    name : its own.
    is_suite : whether it is a suite.
    studies : folders of its studies that were launched.
    waiting : names of a suite's studies that were not.
    """

    name: str
    is_suite: bool
    studies: tuple[StudyFolder, ...]
    waiting: tuple[str, ...] = ()


def named(what: str, root: Path) -> Named:
    """The study or suite that a name, or the path of a file, stands for.

    Raises
    ------
    UserError
        If no such study or suite was launched.
    """
    root = root.absolute()
    name, is_suite = _from_file(Path(what)) if what.endswith((".yaml", ".yml")) else (what, False)
    folder = StudyFolder(root, name)
    if folder.suite_file.exists():
        members = _members(folder)
        there = tuple(member for member in members if member.study_file.exists())
        waiting = tuple(member.name for member in members if not member.study_file.exists())
        return Named(name, True, there, waiting)
    if is_suite:
        raise UserError(f"no suite {name!r} was launched in {root}; launch it first, or say where with --root")
    if not folder.study_file.exists():
        known = sorted(path.parent.name for path in root.glob("*/study.yaml"))
        there_are = f"there are {', '.join(known[:10])}{' and more' if len(known) > 10 else ''}" if known else "is none"
        raise UserError(f"no study {name!r} was launched in {root}, where {there_are}; say where with --root")
    return Named(name, False, (folder,))


def _from_file(path: Path) -> tuple[str, bool]:
    """Name that a study or suite file gives, and whether it is a suite's."""
    from harness.study import yaml12
    from harness.study.load import read_text

    values, _ = yaml12.parse(read_text(path, "study file"), str(path))
    values = values if isinstance(values, dict) else {}
    return str(values.get("name") or path.stem), STUDIES in values


def _members(folder: StudyFolder) -> list[StudyFolder]:
    """Studies of a suite that was launched; their resolved files bear their names."""
    from harness.study import yaml12
    from harness.study.load import read_text

    values, _ = yaml12.parse(read_text(folder.suite_file, "suite file"), str(folder.suite_file))
    files = [member["study"] if isinstance(member, dict) else member for member in values[STUDIES]]
    return [StudyFolder(folder.root, Path(file).stem) for file in files]
