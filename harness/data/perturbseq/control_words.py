"""Words of labels that name no perturbation: those for control, for other kinds of control, and for no guide at all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

CONTROL = "control"
#: Each kind of control, and its words in small letters without marks; the first kind is control wherever it occurs.
KINDS: dict[str, frozenset[str]] = {
    CONTROL: frozenset({"control", "ctrl", "nontargeting", "nontargetingcontrol", "nontargetingctrl"}),
    "non-targeting": frozenset({"nt", "ntc", "nontarget", "notarget", "nontargeted", "ntcontrol", "ntctrl"}),
    "negative control": frozenset({"nc", "neg", "negctrl", "negcontrol", "negativecontrol", "negativectrl"}),
    "safe-targeting": frozenset({"safe", "safetargeting", "safecutting", "safeharbor", "safeharbour"}),
    "AAVS1": frozenset({"aavs1"}),
    "ROSA26": frozenset({"rosa26"}),
    "scramble": frozenset({"scramble", "scrambled", "scr"}),
    "intergenic": frozenset({"intergenic"}),
    "vehicle": frozenset({"dmso", "dmsotf", "vehicle", "pbs"}),
    "untreated": frozenset({"untreated", "unstimulated", "unperturbed", "untransduced", "uninfected"}),
    "mock": frozenset({"mock", "mocktreated", "mockinfected"}),
    "wild type": frozenset({"wt", "wildtype", "parental"}),
    "reporter": frozenset({"gfp", "egfp", "mcherry", "lacz", "luciferase"}),
}
#: Kinds of which there are several guides, told apart by a number.
_NUMBERED_KINDS = (CONTROL, "non-targeting", "negative control", "safe-targeting", "AAVS1", "scramble", "intergenic")
_KIND_OF = {word: kind for kind, words in KINDS.items() for word in words}
_NUMBERED = re.compile(r"(?:sg)?(?P<stem>.*?\w)(?P<mark>[-_. :|]?)(?:sg|g)?\d+", re.IGNORECASE)
#: Words for a cell whose guide is not known, or that has none; in small letters without marks.
_NO_GUIDE = frozenset(
    {
        *("nan", "none", "na", "nat", "null", "missing", "undefined", "unassigned", "notassigned", "unknown"),
        *("undetermined", "unmapped", "multiplet", "multiplets", "doublet", "doublets", "ambiguous", "negative"),
        *("n.a.", "noguide", "noguides", "nosgrna", "nogrna", "nocall", "nohit"),
    }
)
#: Letters of the longest word; a label may join dozens of names, and there may be many such labels.
_LONGEST = 60
#: Letters of the shortest word that may be written with marks in it.
_LEAST_JOINED = 4
#: Names whose reading is kept: labels of many members repeat the same ones.
_REMEMBERED = 50_000
#: A mark that stands for nothing.
_BLANKS = re.compile(r"[^\w]*")


@dataclass(frozen=True)
class ControlWord:
    """A word for control.

    Attributes
    ----------
    kind : one of `KINDS`.
    mark : what is before the number of a guide, empty where nothing is; None where there is no number.
    """

    kind: str
    mark: str | None = None


@lru_cache(maxsize=_REMEMBERED)
def control_word(name: str) -> ControlWord | None:
    """The kind of control that a name is a word for, as ``Non-targeting``, ``NT`` or ``NegCtrl0``; else None."""
    if len(name) > _LONGEST:
        return None
    if kind := _KIND_OF.get(_bare(name)):
        return ControlWord(kind)
    found = _NUMBERED.fullmatch(name.strip())
    kind = found and _KIND_OF.get(_bare(found["stem"]))
    return ControlWord(kind, found["mark"]) if found and kind in _NUMBERED_KINDS else None


def is_control_word(name: str) -> bool:
    """Whether a name always means control: ``control``, ``ctrl`` or ``non-targeting``, in any case and spelling."""
    return _KIND_OF.get(_bare(name)) == CONTROL


@lru_cache(maxsize=_REMEMBERED)
def names_no_guide(name: str) -> bool:
    """Whether a label says that the guide of a cell is not known, or that it has none."""
    return bool(_BLANKS.fullmatch(name)) or (len(name) <= _LONGEST and _bare(name) in _NO_GUIDE)


def _bare(name: str) -> str:
    """A word in small letters, without what joins its parts; but ``N_T`` may be a pair of genes."""
    text = re.sub(r"[<>#/]", "", name.strip().lower())
    joined = re.sub(r"[-_. ]", "", text)
    return joined if len(joined) >= _LEAST_JOINED else text
