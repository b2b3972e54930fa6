"""How the labels of public files write pairs, and the names each label is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations, pairwise
from typing import Literal

from harness.data.perturbseq.guides import CONTROL_WORDS, Guides
from harness.errors import UserError

Grammar = Literal["plus", "comma", "underscore"]
#: How a pair is written, by grammar.
PAIR_FORMS: dict[Grammar, str] = {"plus": "A+B", "comma": "A,B", "underscore": "A_B"}


def find_grammar(labels: Iterable[str], column: str) -> Grammar:
    """How pairs are written: with ``+`` or ``,`` where one occurs, else with ``_`` (whose pairs need evidence)."""
    text = list(labels)
    if any("+" in label for label in text):
        return "plus"
    if column == "guide_ids" or any("," in label for label in text):
        return "comma"
    return "underscore"


def members_of_labels(
    labels: Iterable[str],
    grammar: Grammar,
    control: Iterable[str],
    gene_counts: Mapping[str, int],
    where: str,
    guides: Guides | None = None,
) -> dict[str, tuple[str, ...]]:
    """Split distinct labels into the names of genes or guides; none for control.

    Parameters
    ----------
    labels
        Distinct labels.
    grammar
        How pairs are written.
    control
        The labels that mean control, alone or as a member (``KLF1+ctrl``).
    gene_counts
        Number of perturbed genes of a label where the file says so (scPerturb's ``nperts``); used with
        ``underscore`` only, where ``A_B`` may as well be one gene's name.
    where
        Name of the column, for error messages.
    guides
        How guides are read, where labels name guides.

    Raises
    ------
    UserError
        If a label has two readings, or names nothing.
    """
    controls = set(control)
    named = [label for label in labels if label not in controls]
    if grammar == "underscore" and guides is None:
        split = _split_underscores(named, gene_counts, controls, where)
    elif grammar == "underscore" and guides is not None:
        split = _split_guides(named, gene_counts, controls, guides, where)
    else:
        mark = "+" if grammar == "plus" else ","
        split = {label: tuple(part.strip() for part in label.split(mark)) for label in named}
    table: dict[str, tuple[str, ...]] = dict.fromkeys(controls, ())
    for label, parts in split.items():
        table[label] = tuple(part for part in parts if part not in controls and part.lower() not in CONTROL_WORDS)
        if any(not name for name in table[label]):
            raise UserError(
                f"{where}: label {label!r} names an empty gene; write a pair as two names, "
                "or set data.control if this is the control label"
            )
        if not table[label] and not controls.issuperset(parts):
            raise UserError(
                f"{where}: label {label!r} too reads as control, beside {', '.join(map(repr, sorted(controls)))}; "
                "remove the cells of one of them"
            )
    return table


def _split_underscores(
    labels: list[str], gene_counts: Mapping[str, int], controls: set[str], where: str
) -> dict[str, tuple[str, ...]]:
    """Members of each label where ``_`` joins a pair but may be part of a name.

    A stated number of genes decides. Without one, both halves being labels of their own proves a pair, and one
    proven pair shows that the file writes pairs so.
    """
    single = {label for label in labels if gene_counts.get(label, 1) == 1} | controls
    split: dict[str, tuple[str, ...]] = {}
    unclear: list[str] = []
    for label in labels:
        count = gene_counts.get(label)
        if count == 0:
            raise UserError(f"{where}: {label!r} has nperts 0 but is no known control label; set data.control to it")
        if count == 1 or "_" not in label:
            split[label] = (label,)
        elif count is not None:
            split[label] = _only_reading(label, _partitions(label, count), single, where)
        elif any(set(halves) <= single for halves in _partitions(label, 2)):
            split[label] = _only_reading(label, _partitions(label, 2), single, where)
        else:
            unclear.append(label)
    pairs_proven = any(len(parts) > 1 for parts in split.values())
    for label in unclear:
        halves = _partitions(label, 2)
        if pairs_proven and len(halves) == 1:
            split[label] = halves[0]
        elif pairs_proven or any(set(parts) & single for parts in halves):
            raise UserError(
                f"{where}: {label!r} may be one gene or a pair; give the number of genes in obs['nperts'], "
                "or write pairs as A+B"
            )
        else:
            split[label] = (label,)
    return split


def _split_guides(
    labels: list[str], gene_counts: Mapping[str, int], controls: set[str], guides: Guides, where: str
) -> dict[str, tuple[str, ...]]:
    """Members of each label where ``_`` joins pairs of guides, and may be part of a guide's name too.

    Each member must be a guide, or occur alone in the file. Where a label can be one guide or a pair, both guides
    being labels of their own proves the pair.
    """
    alone = set(labels) | controls
    split: dict[str, tuple[str, ...]] = {}
    for label in labels:
        count = gene_counts.get(label, 0)
        ways = [
            way
            for size in ((count,) if count else (1, 2))
            for way in _partitions(label, size)
            if len(way) == 1 or all(guides.is_guide(part) or part in alone for part in way)
        ]
        proven = [way for way in ways if len(way) > 1 and set(way) <= alone]
        if len(ways) > 1:
            split[label] = _only_reading(label, proven or ways, alone if proven else set(), where)
        else:
            split[label] = ways[0] if ways else (label,)
    return split


def _partitions(label: str, count: int) -> list[tuple[str, ...]]:
    """All ways to cut ``label`` at underscores into ``count`` names."""
    tokens = label.split("_")
    ways = []
    for cuts in combinations(range(1, len(tokens)), count - 1):
        edges = (0, *cuts, len(tokens))
        ways.append(tuple("_".join(tokens[a:b]) for a, b in pairwise(edges)))
    return ways


def _only_reading(label: str, ways: list[tuple[str, ...]], single: set[str], where: str) -> tuple[str, ...]:
    """The one way to cut the label, or the one whose names all occur alone in the file."""
    fitting = ways if len(ways) == 1 else [way for way in ways if set(way) <= single]
    if len(fitting) != 1:
        readings = " or ".join(" and ".join(way) for way in (fitting or ways)[:3]) or "nothing"
        raise UserError(f"{where}: {label!r} can be read as {readings}; write pairs as A+B to make it clear")
    return fitting[0]
