"""What each condition of a screen is for under a split: to train, to validate, to be predicted, or nothing.

What can be predicted depends on what a perturbation is to a model. With one-hot perturbations nothing is known about a
gene that training never saw, so that a condition with one is excluded by name; where genes have vectors, it is
predicted. Conditions are predicted in OOD splits named by what training saw of them: ``single_unseen``, and
``double_seen2``, ``double_seen1``, ``double_seen0`` by the number of members seen.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

import numpy as np

from harness.data.perturbseq.labels import CONTROL, members_of
from harness.data.seeding import derive
from harness.errors import UserError
from harness.split_spec import ComboSeenK, LeavePerturbationOut, RuledSplit, SinglesToDoubles
from harness.words import first

#: Names listed where one is not known.
_MOST_NAMED = 10


@dataclass(frozen=True)
class Roles:
    """What each condition is for; control, which always trains, is in none of them.

    Attributes
    ----------
    trained : conditions whose cells train, validate and test.
    validating : conditions all of whose cells validate.
    predicted : condition -> its OOD split.
    excluded : condition -> why its cells are in no split.
    seen : for each double excluded for a member that training does not see, how many it sees.
    """

    trained: tuple[str, ...]
    validating: tuple[str, ...]
    predicted: dict[str, str]
    excluded: dict[str, str]
    seen: dict[str, int]


def roles_of(
    split: RuledSplit,
    names: Sequence[str],
    seed: int,
    where: str,
    *,
    known: Set[str] | None = None,
    excluded: dict[str, str] | None = None,
) -> Roles:
    """Sort the conditions of a screen.

    Parameters
    ----------
    split
        The rule.
    names
        Canonical conditions, control left out or not.
    seed
        The data seed, which governs what a share holds out.
    where
        Name of the data, for error messages.
    known
        Genes that have a vector; None where perturbations are one-hot.
    excluded
        Conditions that cannot be used for another reason -> that reason.

    Raises
    ------
    UserError
        If no single trains, a name is unknown, or nothing can be held out as asked.
    """
    why = {**(excluded or {}), **_unusable(names, known, excluded or {})}
    usable = [name for name in sorted(names) if name != CONTROL and name not in why]
    named = split.validation_conditions if isinstance(split.validation_conditions, tuple) else ()
    for name in named:
        if name not in usable:
            raise UserError(
                f"{where}: data.split.validation_conditions names {name!r}, but {_why_not(name, why, usable)}"
            )
    trained = _trained(split, [name for name in usable if name not in named], seed, where)
    roles = _sorted_out(trained, [name for name in usable if name not in trained], known, why)
    for name in named:
        if name in roles.excluded:
            raise UserError(f"{where}: data.split.validation_conditions names {name!r}, but {roles.excluded[name]}")
    roles = _validating(roles, named)
    if isinstance(split.validation_conditions, float):
        roles = _validating(roles, _drawn(roles, split.validation_conditions, known, seed, where))
    if not any(len(members_of(name)) == 1 for name in roles.trained):
        left_out = [f"; {name} is left out: {reason}" for name, reason in why.items() if len(members_of(name)) == 1]
        raise UserError(
            f"{where}: no single perturbation to train on; {split.word} needs some{left_out[0] if left_out else ''}"
        )
    return roles


def _unusable(names: Sequence[str], known: Set[str] | None, already: dict[str, str]) -> dict[str, str]:
    """Conditions that no split can use -> why."""
    found = {}
    for name in names:
        members = members_of(name)
        lacking = [] if known is None else [gene for gene in members if gene not in known]
        if name in already:
            continue
        if len(members) > 2:
            found[name] = f"{len(members)} genes perturbed together; only pairs are predicted"
        elif lacking:
            found[name] = f"data.perturbation_features have no vector of {' and '.join(lacking)}"
    return found


def _trained(split: RuledSplit, usable: list[str], seed: int, where: str) -> list[str]:
    """Perturbed conditions that train."""
    singles = [name for name in usable if len(members_of(name)) == 1]
    if isinstance(split, SinglesToDoubles):
        return singles
    if isinstance(split, LeavePerturbationOut):
        genes = sorted({gene for name in usable for gene in members_of(name)})
        out = _held_out(split.held_out, genes, seed, where)
        return _without(usable, out)
    if isinstance(split, ComboSeenK):
        kept = _without(singles, _held_out(split.held_out, singles, seed, where))
        both = [name for name in usable if len(members_of(name)) == 2 and set(members_of(name)) <= set(kept)]
        return kept + _share(both, split.train_doubles, derive(seed, "trained doubles"), len(both))
    return list(usable)


def _without(names: list[str], genes: Set[str]) -> list[str]:
    return [name for name in names if not genes & set(members_of(name))]


def _held_out(asked: float | tuple[str, ...], genes: list[str], seed: int, where: str) -> Set[str]:
    """The genes that training never sees; some are left to see."""
    if isinstance(asked, tuple):
        unknown = [name for name in asked if name not in genes]
        if unknown:
            raise UserError(
                f"{where}: data.split.held_out names {unknown[0]!r}, which is no perturbation that can be held out; "
                f"these are {first(genes, _MOST_NAMED)}"
            )
        return set(asked)
    if len(genes) < 2:
        raise UserError(f"{where}: data.split.held_out needs 2 perturbations or more, one of them to train on")
    count = min(max(1, round(asked * len(genes))), len(genes) - 1)
    return set(_share(genes, count / len(genes), derive(seed, "held-out perturbations"), len(genes) - 1))


def _share(names: list[str], share: float, seed: int, most: int) -> list[str]:
    """A share of the names, rounded, at random; in their order."""
    count = min(round(share * len(names)), most)
    chosen = np.random.default_rng(seed).permutation(len(names))[:count]
    return [names[k] for k in np.sort(chosen)]


def _sorted_out(trained: list[str], rest: list[str], known: Set[str] | None, why: dict[str, str]) -> Roles:
    """Roles where nothing validates whole."""
    genes = {gene for name in trained for gene in members_of(name)}
    predicted: dict[str, str] = {}
    excluded, seen = dict(why), {}
    for name in rest:
        members = members_of(name)
        unseen = [gene for gene in members if gene not in genes]
        split = "single_unseen" if len(members) == 1 else f"double_seen{2 - len(unseen)}"
        if known is not None or not unseen:
            predicted[name] = split
            continue
        if len(members) == 2:
            seen[name] = 2 - len(unseen)
        excluded[name] = (
            f"{split}: {' and '.join(unseen)} not seen as a single, "
            "and one-hot perturbations say nothing about an unseen gene"
        )
    return Roles(tuple(trained), (), predicted, excluded, seen)


def _validating(roles: Roles, names: Sequence[str]) -> Roles:
    """The same roles, but some conditions validate."""
    return replace(
        roles,
        trained=tuple(name for name in roles.trained if name not in names),
        validating=(*roles.validating, *names),
        predicted={name: split for name, split in roles.predicted.items() if name not in names},
    )


def _drawn(roles: Roles, share: float, known: Set[str] | None, seed: int, where: str) -> list[str]:
    """A share of each OOD split's conditions; where there is none, of the trained ones that u could tell unseen."""
    pools: dict[str, list[str]] = {}
    for name, split in roles.predicted.items():
        pools.setdefault(split, []).append(name)
    pools = pools or {"trained": _foretold(roles.trained, known)}
    drawn: list[str] = []
    for split, pool in pools.items():
        drawn += _share(pool, share, derive(seed, "validation conditions", split), len(pool) - 1)
    if not drawn:
        count = sum(map(len, pools.values()))
        raise UserError(
            f"{where}: data.split.validation_conditions is {share}, but at that share none of the {count} conditions "
            "that can be predicted unseen can be spared; give a larger share, or names"
        )
    return sorted(drawn)


def _foretold(trained: Sequence[str], known: Set[str] | None) -> list[str]:
    """Trained conditions that could be predicted had they not trained."""
    if known is not None:
        return list(trained)
    return [name for name in trained if len(members_of(name)) == 2 and set(members_of(name)) <= set(trained)]


def _why_not(name: str, why: dict[str, str], usable: list[str]) -> str:
    return why.get(name) or f"the conditions are {first(usable, _MOST_NAMED)}"
