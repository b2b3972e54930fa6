"""What a job saw on its node, judged: one finding each, and for what is wrong a remedy."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness import __version__
from harness.errors import UserError
from harness.study.profile_spec import ProfileSpec

#: Seconds by which clocks may differ: leases and signs of life are compared in minutes.
CLOCK_SECONDS = 5.0
#: Least room in the study root, in bytes.
LEAST_ROOM = 2e9


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes
    ----------
    ok : whether it is right.
    what : what was found.
    remedy : what would do, where it is wrong.
    """

    ok: bool
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{'ok   ' if self.ok else 'wrong'}  {self.what}" + (f"; {self.remedy}" if self.remedy else "")


def of_error(error: UserError) -> Finding:
    """What a user is told elsewhere, as a finding; its sentence ends with what would do."""
    what, _, remedy = str(error).rpartition("; ")
    return Finding(False, what or remedy, remedy if what else "")


def judge(
    answer: Mapping[str, Any], profile: ProfileSpec, token: str, *, here: float, ahead: float
) -> Iterator[Finding]:
    """Findings on a job's answer.

    Parameters
    ----------
    answer
        As `harness.study.doctor_probe.look_around` gives it.
    profile
        What the job was to have.
    token
        What the job should have read.
    here
        Unix time of this machine's clock when the answer was seen.
    ahead
        Seconds by which that clock is ahead of the file system's.
    """
    yield _python(answer)
    yield _torch(answer, profile.gpus)
    yield _folder(answer, token)
    yield _room(answer)
    yield _clock(answer, here, ahead)


def _python(answer: Mapping[str, Any]) -> Finding:
    found = f"Python {answer['python']} and harness {answer['harness']}"
    wanted = f"Python {platform.python_version()} and harness {__version__}"
    if found == wanted:
        return Finding(True, f"{found} are the same there")
    remedy = f"see that {sys.executable} is the same installation there (it found {answer['executable']})"
    return Finding(False, f"there runs {found}, here {wanted}", remedy)


def _torch(answer: Mapping[str, Any], asked: int) -> Finding:
    torch = answer["torch"]
    if "error" in torch:
        return Finding(False, f"torch cannot be used there ({torch['error']})", "install it there, or load its modules")
    names = torch["gpus"]
    listed = f" ({', '.join(names)})" if names else ""
    gpus = f"{len(names)} GPU{'' if len(names) == 1 else 's'}{listed}"
    if len(names) >= asked:
        return Finding(True, f"torch {torch['version']} sees {gpus}, {asked} asked for")
    granted = answer["devices"]
    if granted:
        why = f"SLURM granted device {granted}, so load the driver's modules in setup, or install a torch for its CUDA"
    else:
        why = "SLURM granted none, so correct gpus, gpu_type or partition"
    return Finding(False, f"torch {torch['version']} sees {gpus}, but {asked} were asked for", why)


def _folder(answer: Mapping[str, Any], token: str) -> Finding:
    if answer["token"] == token:
        return Finding(True, "the study root is the same there: each side reads what the other writes")
    return Finding(
        False, "the study root there is another folder", "give one with --root that lies on a shared file system"
    )


def _room(answer: Mapping[str, Any]) -> Finding:
    free = f"{answer['free'] / 1e9:.1f} GB are free in the study root"
    if answer["free"] >= LEAST_ROOM:
        return Finding(True, free)
    return Finding(False, f"only {free}", "make room, or give another folder with --root")


def _clock(answer: Mapping[str, Any], here: float, ahead: float) -> Finding:
    """Compared by way of the file system's clock; and no answer is written after it was read."""
    apart = answer["ahead"] - ahead
    if answer["now"] - here > CLOCK_SECONDS:
        apart = max(apart, answer["now"] - here)
    if abs(apart) <= CLOCK_SECONDS:
        return Finding(True, f"the clocks agree to {abs(apart):.1f} s")
    word = "ahead" if apart > 0 else "behind"
    return Finding(False, f"the node's clock is {abs(apart):.0f} s {word}", "have the administrators synchronise it")
