"""The commands that README and the heads of files under ``studies`` and ``slurm`` tell people to type."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_PROGRAM = "harness"
#: ``--set KEY=VALUE`` as a shell reads it.
_SET = re.compile(r"--set\s+((?:'[^']*'|\"[^\"]*\"|[^\s'\"])+)")


@dataclass(frozen=True)
class Command:
    """What follows ``harness`` in a command, and where it stands."""

    where: str
    words: tuple[str, ...]

    def __str__(self):
        return f"{self.where}: {shlex.join(self.words)}"


def printed_commands(root=ROOT):
    """Every command, in the order of the text; the same words in the same file once."""
    found = of_readme((root / "README.md").read_text(encoding="utf-8"))
    for folder in ("studies", "slurm"):
        for path in sorted((root / folder).rglob("*.yaml")):
            found += of_head(path.read_text(encoding="utf-8"), path.relative_to(root).as_posix())
    return list(dict.fromkeys(found))


# -------------------------------------------------------------------------------------------- README


def of_readme(text):
    """Commands of the bash blocks, then those in running text."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    commands = [command for language, block in blocks if language == "bash" for command in _of_shell(block)]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`(harness [^`]+)`", prose):
        words = shlex.split(span)[1:]
        if any(not word.startswith("-") for word in words[1:]):  # a mere verb is spoken of, not given
            commands.append(words)
    return [Command("README.md", tuple(words)) for words in commands]


def _of_shell(block):
    """Words of each ``harness`` command of a shell script, its variables put in."""
    variables = {}
    for line in block.replace("\\\n", " ").splitlines():
        assigned = re.fullmatch(r"(\w+)=(\"[^\"]*\"|'[^']*'|\S*)", line.strip())
        if assigned:
            variables[assigned[1]] = assigned[2].strip("\"'")
            continue
        whole = re.sub(r"\$\{?(\w+)\}?", lambda name: variables[name[1]], line)
        command = []
        for word in [*_words(whole), ";"]:
            if word in ("&&", "||", "|", ";", "&"):
                if command and Path(command[0]).name == _PROGRAM:
                    yield command[1:]
                command = []
            else:
                command.append(word)


def _words(line):
    """Words of a line of shell, without its comment."""
    return shlex.split(line, comments=True)


# --------------------------------------------------------------------------------------------- heads


def of_head(text, name):
    """Commands of a file's first comment: those given whole, and ``--set`` lines, which are added to its launch.

    Indented lines are commands; lines that begin with an option go on with the one above. In running text each
    ``--set`` is a launch by itself.
    """
    commands, current = [], None
    for comment in text.splitlines():
        if not comment.startswith("#"):
            break
        indented, line = comment.startswith("#  "), comment.removeprefix("#").strip()
        if indented and line.startswith(f"{_PROGRAM} "):
            current = _words(line)[1:]
            commands.append(current)
        elif indented and line.startswith("-"):
            if current is None:
                current = ["launch", name]
                commands.append(current)
            current += _words(line)
        else:
            current = None
            commands += [["launch", name, "--set", *_words(value)] for value in _SET.findall(line)]
    return [Command(name, tuple(words)) for words in commands]
