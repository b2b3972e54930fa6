"""Sentences on how labels were read, where more than one reading was possible, each with the line that changes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from harness.data.perturbseq.conditions import in_condition
from harness.data.perturbseq.control_words import CONTROL
from harness.data.perturbseq.controls import Controls
from harness.data.perturbseq.guides import as_written, rule_of_controls
from harness.data.perturbseq.label_texts import respelled, tidy
from harness.data.perturbseq.pair_marks import Cuts
from harness.words import first, flow

_MOST_NAMED = 6
#: More words for control than this are told by a template.
_MOST_WORDS = 8
_LINE = "put under data: in the study file   "


def on_spelling(written: Sequence[str], mark: str | None) -> list[str]:
    """Blanks that were ignored, and labels that were written twice."""
    bare = {label: respelled(label.strip(), mark) if mark else label.strip() for label in written}
    times = Counter(bare.values())
    blank = [label for label in written if label != label.strip() or (label != bare[label] and times[bare[label]] > 1)]
    twice = [label for label in written if tidy(label) != label.strip()]
    notes = []
    if blank:
        notes.append(
            f"blanks at the ends of labels and around marks are ignored ({_quoted(blank)}); labels that differ in "
            "nothing else are counted together"
        )
    if twice:
        notes.append(f"labels that are written twice are read once ({_quoted(twice)})")
    return notes


def on_lists(labels: Iterable[str]) -> list[str]:
    """Lists of drugs and doses."""
    found = sorted(labels)
    if not found:
        return []
    return [f"labels that are lists are read as their items, a drug with its dose and unit ({_quoted(found)})"]


def on_plus(names: Iterable[str]) -> list[str]:
    """Names that hold a ``+`` themselves."""
    found = sorted(name for name in names if "+" in name)
    if not found:
        return []
    return [
        f"{_quoted(found)} {'holds' if len(found) == 1 else 'hold'} a + without being a pair; names of conditions have "
        f"＋ there ({in_condition(found[0])}), and harness predict takes the name as the file has it"
    ]


def on_cuts(cuts: Cuts) -> list[str]:
    """Labels that look like pairs, and are read as one name; and those that are read as pairs for their looks."""
    if cuts.assumed:
        return [
            f"{_quoted(cuts.assumed)} {_are(cuts.assumed)} read as joined by {cuts.mark}, as is usual, though not all "
            f"their members occur alone; to read each as one name {_LINE}pair_mark: none"
        ]
    if not cuts.whole:
        return []
    labels = _quoted(sorted(cuts.whole))
    if cuts.mark is not None:
        return [
            f"{labels} may be pairs, but most pairs are joined by {cuts.mark}, so that each is read as one name; "
            "write all pairs with one mark if they are pairs"
        ]
    mark, _ = Counter(cuts.whole.values()).most_common(1)[0]
    return [
        f"{labels} may be pairs, but nothing shows it, so that each is read as one name; to read labels with "
        f"{mark} as pairs {_LINE}pair_mark: {flow([mark])}"
    ]


def on_numbers(guides: Mapping[str, str], is_control: Callable[[str], bool]) -> list[str]:
    """Guides that were merged without a rule."""
    if not guides:
        return []
    names = sorted(guides)
    return [
        f"{_quoted(names)} {'is' if len(names) == 1 else 'are'} read as guides of "
        f"{first(sorted(set(guides.values())), _MOST_NAMED)}, and merged; to keep each apart {_LINE}"
        f"{as_written(rule_of_controls([name for name in names if is_control(guides[name])], ()))}"
    ]


def on_controls(controls: Controls, chosen: Sequence[str], names: Collection[str], has_guides: bool) -> list[str]:
    """Which word was taken for control where it was not the usual one, and other kinds of control beside it.

    Parameters
    ----------
    controls
        What means control.
    chosen
        Names that do.
    names
        Names of perturbations.
    has_guides
        Whether guides are merged, which a rule proposed here would undo.
    """
    notes = []
    if len(controls.kinds) > 1:
        notes.append(
            f"{_quoted(chosen)} {_are(chosen)} taken for control, since there is no usual word for it; to say so "
            f"{_LINE}control: {flow(chosen)}"
        )
    others = sorted(name for name in names if controls.another(name))
    if others:
        line = f"control: {flow([*chosen, *others])}"
        if len(others) > _MOST_WORDS and not has_guides:
            rule = as_written(rule_of_controls(others, names))
            line = f"control: {flow(chosen)}   and   {rule}" if chosen else rule
        notes.append(
            f"{_quoted(others)} may be control too, beside {_quoted(chosen) or CONTROL}, but {_are(others)} read as "
            f"{'a perturbation' if len(others) == 1 else 'perturbations'}; to make all of them control {_LINE}{line}"
        )
    return notes


def on_words_of_user(
    controls: Controls, chosen: Sequence[str], others: Sequence[str], absent: Sequence[str]
) -> list[str]:
    """Labels that mean control but which the user does not name, and those named that no cell has."""
    notes = []
    if others:
        notes.append(
            f"{_quoted(others)} {'means' if len(others) == 1 else 'mean'} control too, but data.control names "
            f"{_quoted(controls.named)} alone, so that these cells are left out; to make all of them control {_LINE}"
            f"control: {flow([*chosen, *others])}"
        )
    if absent:
        notes.append(f"data.control names {_quoted(absent)}, which no cell is labelled; leave it out or correct it")
    return notes


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _quoted(names: Sequence[str]) -> str:
    return first([repr(name) for name in names], _MOST_NAMED)
