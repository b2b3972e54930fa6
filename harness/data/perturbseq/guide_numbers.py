"""Guides that a file numbers as ``KLF1_1`` and ``KLF1_2``: merged without a rule where nothing else can be meant."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Set

#: Largest step from one number of a gene's guides to the next; doses are further apart.
_LARGEST_STEP = 3


def numbered_guides(names: Iterable[str], genes: Set[str], is_control: Callable[[str], bool]) -> dict[str, str]:
    """The gene of each name that is a numbered guide.

    What is before the number is a gene of the file or a word for control. Where it is neither, the numbers of every
    name must run from 0 or 1, as those of guides do, and those of doses (``Trametinib_10``, ``Trametinib_100``) do not.

    Parameters
    ----------
    names
        Distinct names of genes or guides.
    genes
        Names of the file's genes; such a name is no guide.
    is_control
        Whether a name means control.
    """
    found: dict[str, str] = {}
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for name in names:
        gene, _, number = name.rpartition("_")
        if name not in genes and re.search(r"[^\W_]", gene) and re.fullmatch(r"\d+", number):
            found[name] = gene
            numbers[gene].append(int(number))
    sure = {gene for gene in numbers if gene in genes or is_control(gene)}
    others = {gene: sorted(each) for gene, each in numbers.items() if gene not in sure}
    several = any(len(each) > 1 for each in others.values())
    taken = sure | set(others) if several and all(map(_run, others.values())) else sure
    return {name: gene for name, gene in found.items() if gene in taken}


def _run(numbers: list[int]) -> bool:
    """Whether numbers, ascending, run from 0 or 1."""
    return numbers[0] <= 1 and all(b - a <= _LARGEST_STEP for a, b in zip(numbers, numbers[1:], strict=False))
