"""Rows of temporal data: which transitions of which sequences, in which split, before any frame is drawn or read.

A transition is two successive frames and the variables intervened on between them. No frame of validation, test or the
held-out doubles is a frame of training: ours come from sequences of their own, those of a released sequence from a
stretch of time of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from harness.data.causal3dident.citris import (
    CLASS_OF_SHAPE,
    COLUMNS,
    SHAPE,
    Dynamics,
    classes_of,
    dynamics_of,
    simulate,
)
from harness.data.causal3dident.temporal_release import Sequences
from harness.data.seeding import derive
from harness.data_spec import TemporalCausal3DIdentData
from harness.errors import UserError
from harness.process_spec import GROUPS, MOVING

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

#: Frames of a sequence of ours that are kept. Short, so that latents constant along it take many values.
FRAMES = 10
#: Sequences simulated at a time.
BATCH = 1024


@dataclass(frozen=True)
class Conditions:
    """Control, one condition for each variable, and the pairs that are held out.

    Attributes
    ----------
    perturbations : k names of variables.
    pairs : of their numbers, the smaller first.
    """

    perturbations: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """In the order of their numbers: ``control``, singles, doubles ``A+B``."""
        doubles = ["+".join(sorted(self.perturbations[k] for k in pair)) for pair in self.pairs]
        return ("control", *self.perturbations, *doubles)

    @property
    def singles(self) -> range:
        """Numbers of the conditions seen in training: control and the singles."""
        return range(len(self.perturbations) + 1)

    def of(self, hits: Bools) -> Ints:
        """Condition (...,) of interventions (..., k) on variables; -1 for pairs not held out and for more than two."""
        k = len(self.perturbations)
        table = np.full((k, k), -1)
        for number, pair in enumerate(self.pairs):
            table[pair] = k + 1 + number
        count, first = hits.sum(axis=-1), hits.argmax(axis=-1)
        last = k - 1 - hits[..., ::-1].argmax(axis=-1)
        return np.select([count == 0, count == 1, count == 2], [0, first + 1, table[first, last]], -1)


@dataclass(frozen=True)
class Transitions:
    """Rows, and the frames they are made of.

    Attributes
    ----------
    latents : (m, 12) raw latents of each frame.
    index : (n, 2) frames before and after.
    hits : (n, k) variables intervened on.
    conditions : of the rows.
    splits : name -> rows.
    place : (m,) number of each frame in the released sequence; None for frames of ours.
    excluded : what is in no split -> why.
    quality : numbers worth logging.
    """

    latents: Floats
    index: Ints
    hits: Bools
    conditions: Conditions
    splits: dict[str, Ints]
    place: Ints | None = None
    excluded: dict[str, str] = field(default_factory=dict)
    quality: dict[str, float] = field(default_factory=dict)

    @property
    def classes(self) -> Ints:
        """(m,) class of each frame's object."""
        return classes_of(self.latents)


# -------------------------------------------------------------------------------------------- ours


def draw_transitions(spec: TemporalCausal3DIdentData) -> Transitions:
    """Simulate sequences until every split has its rows; those of the held-out doubles are looked for the longest."""
    assert isinstance(spec.seed, int)
    dynamics = dynamics_of(spec)
    variables = tuple(dynamics.variables)
    pairs = list(combinations(range(len(variables)), 2))
    random = np.random.default_rng(derive(spec.seed, "temporal design"))
    chosen = sorted(random.permutation(len(pairs))[: spec.doubles].tolist())
    conditions = Conditions(variables, tuple(pairs[k] for k in chosen))
    seen = tuple(conditions.singles)
    validating = round(spec.validation * spec.cells)
    quotas = {
        "train": {seen: spec.cells - validating},
        "validation": {seen: validating},
        "test": {seen: spec.test_cells},
    }
    if chosen:
        quotas["double"] = {(number,): spec.double_cells for number in range(len(seen), len(conditions.names))}
    found = {
        name: _gather(dynamics, conditions, quota, np.random.default_rng(derive(spec.seed, "temporal", name)))
        for name, quota in quotas.items()
    }
    parts = list(found.values())
    begins = np.cumsum([0, *(len(part.latents) for part in parts)])
    passed = np.sum([part.passed for name, part in found.items() if name != "double"], axis=0)
    excluded, quality = _left_out(passed)
    return Transitions(
        latents=np.concatenate([part.latents for part in parts]),
        index=np.concatenate([part.index + begin for part, begin in zip(parts, begins, strict=False)]),
        hits=np.concatenate([part.hits for part in parts]),
        conditions=conditions,
        splits=_one_after_another({name: len(part.index) for name, part in found.items()}),
        excluded=excluded,
        quality=quality,
    )


@dataclass(frozen=True)
class _Gathered:
    """Rows of one split, with ``passed`` = transitions gone by on the way: two, and more than two interventions."""

    latents: Floats
    index: Ints
    hits: Bools
    passed: Ints


def _gather(
    dynamics: Dynamics, conditions: Conditions, quotas: dict[tuple[int, ...], int], random: np.random.Generator
) -> _Gathered:
    """Transitions of independent sequences, the first of each group of conditions up to its quota."""
    left = dict(quotas)
    latents, index, hits = [], [], []
    passed, frames = np.zeros(2, dtype=np.int64), 0
    columns = [columns[0] for columns in dynamics.variables.values()]
    while any(left.values()):
        drawn = simulate(dynamics, BATCH, FRAMES, random)
        acts = drawn.interventions[:, :, columns].reshape(-1, len(columns))
        condition = conditions.of(acts)
        rows = []
        for group, count in left.items():
            rows.append(np.flatnonzero(np.isin(condition, group))[:count])
            left[group] = count - len(rows[-1])
        chosen = np.sort(np.concatenate(rows))
        until = len(acts) if any(left.values()) else int(chosen[-1]) + 1
        passed += _many(acts[:until])
        sequence, time = np.divmod(chosen, FRAMES - 1)
        before = sequence * FRAMES + time
        shown, place = np.unique(np.stack([before, before + 1], axis=1), return_inverse=True)
        latents.append(drawn.latents.reshape(-1, len(COLUMNS))[shown])
        index.append(place.reshape(-1, 2) + frames)
        hits.append(acts[chosen])
        frames += len(shown)
    return _Gathered(np.concatenate(latents), np.concatenate(index), np.concatenate(hits), passed)


def _one_after_another(sizes: dict[str, int]) -> dict[str, Ints]:
    """Rows of splits that follow each other."""
    ends = np.cumsum(list(sizes.values()))
    return {name: np.arange(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}


def _many(acts: Bools) -> Ints:
    """How many transitions have two interventions, and how many more, (2,)."""
    count = acts.sum(axis=1)
    return np.array([(count == 2).sum(), (count > 2).sum()])


def _left_out(passed: Ints) -> tuple[dict[str, str], dict[str, float]]:
    """What is said of transitions that are in no split, given their numbers as `_many` has them."""
    two, more = (int(count) for count in passed)
    excluded = {
        "two at once": f"{two:,} transitions with two interventions lie among those of training, validation and test; "
        "doubles are held out, so they are not used",
        "three or more at once": f"{more:,} transitions with more than two interventions are no condition",
    }
    return excluded, {"transitions_two_at_once": float(two), "transitions_three_or_more": float(more)}


# ---------------------------------------------------------------------------------------- released


def released_transitions(spec: TemporalCausal3DIdentData, released: Sequences) -> Transitions:
    """Rows of a released sequence, in stretches of time: training, validation, then test and the held-out doubles.

    The first stretch begins at a time drawn from the data seed, and the sequence goes on from its end to its start.

    Raises
    ------
    UserError
        If the release does not show what ``spec`` says of it, or is too short for the rows asked for.
    """
    assert isinstance(spec.seed, int)
    dynamics = dynamics_of(spec)
    _check_release(spec, released)
    hits = _variables_hit(dynamics, released, spec.path)
    many = hits.sum(axis=1)
    start = derive(spec.seed, "temporal start") % len(released.latents)
    order = np.roll(np.arange(len(released.latents)), -start)
    # no transition leads from the end back to the start, and the last one ends in the first frame of training
    order = order[(order < len(hits)) & (order != start - 1)]
    validating = round(spec.validation * spec.cells)
    stretches = _stretches(order, many, (spec.cells - validating, validating, spec.test_cells), spec)
    train, validation, rest = (order[stretch] for stretch in stretches)
    test = rest[many[rest] <= 1][: spec.test_cells]
    conditions = Conditions(tuple(dynamics.variables), _pairs_there(spec, hits[rest]))
    number = conditions.of(hits[rest])
    doubles = [rest[number == k][: spec.double_cells] for k in range(len(conditions.singles), len(conditions.names))]
    parts = {"train": train[many[train] <= 1], "validation": validation[many[validation] <= 1], "test": test}
    if doubles:
        parts["double"] = np.concatenate(doubles)
    rows = np.concatenate(list(parts.values()))
    until = int(np.flatnonzero(rest == test[-1])[0]) + 1
    excluded, quality = _left_out(_many(hits[np.concatenate([train, validation, rest[:until]])]))
    place, index = np.unique(np.stack([rows, rows + 1], axis=1), return_inverse=True)
    return Transitions(
        latents=released.latents[place],
        index=index.reshape(-1, 2),
        hits=hits[rows],
        conditions=conditions,
        splits=_one_after_another({name: len(part) for name, part in parts.items()}),
        place=place,
        excluded=excluded,
        quality=quality,
    )


def _stretches(order: Ints, many: Ints, sizes: Sequence[int], spec: TemporalCausal3DIdentData) -> list[slice]:
    """Stretches of ``order`` with so many controls and singles each, a transition apart; the last goes to the end."""
    usable = np.cumsum(many[order] <= 1)
    found, begin, before = [], 0, 0
    for size in sizes:
        end = int(np.searchsorted(usable, before + size)) + 1
        if end > len(order):
            there = int(usable[-1]) if len(usable) else 0
            raise UserError(
                f"{spec.path}: has {there:,} transitions with at most one intervention, "
                f"fewer than data.cells and data.test_cells ask for ({spec.cells:,} + {spec.test_cells:,}); give less"
            )
        found.append(slice(begin, end))
        # the next transition's first frame is this stretch's last: it belongs to neither
        begin = end + 1
        before = int(usable[min(begin, len(usable)) - 1])
    return [*found[:-1], slice(found[-1].start, None)]


def _pairs_there(spec: TemporalCausal3DIdentData, hits: Bools) -> tuple[tuple[int, int], ...]:
    """As many pairs as asked for, drawn among those with enough transitions."""
    pairs = list(combinations(range(hits.shape[1]), 2))
    two = hits[hits.sum(axis=1) == 2]
    counts = [int((two[:, a] & two[:, b]).sum()) for a, b in pairs]
    enough = [pair for pair, count in zip(pairs, counts, strict=True) if count >= spec.double_cells]
    if len(enough) < spec.doubles:
        raise UserError(
            f"{spec.path}: after the transitions of training and validation, {len(enough)} pairs of variables have "
            f"{spec.double_cells} transitions each, fewer than data.doubles ({spec.doubles}); give less of "
            "data.doubles, data.double_cells or data.cells"
        )
    random = np.random.default_rng(derive(int(spec.seed), "temporal design"))
    return tuple(enough[k] for k in sorted(random.permutation(len(enough))[: spec.doubles].tolist()))


def _check_release(spec: TemporalCausal3DIdentData, released: Sequences) -> None:
    varying = {COLUMNS[column] for column in np.flatnonzero((released.latents != released.latents[0]).any(axis=0))}
    shown = sorted({int(CLASS_OF_SHAPE[int(shape)]) for shape in np.unique(released.latents[:, SHAPE])})
    if shown != sorted(set(spec.classes)):
        raise UserError(f"{spec.path}: shows objects of the classes {shown}; set data.classes: {shown}")
    for name in spec.invariant:
        if name in varying:
            raise UserError(
                f"{spec.path}: {name} varies along the sequence, so that it cannot be in data.invariant; leave it out"
            )
    for name in sorted(varying - {"shape"}, key=COLUMNS.index):
        if name not in spec.responsive:
            what = "is no factor of these data" if name not in MOVING else "is not named in data.responsive; add it"
            raise UserError(f"{spec.path}: {name} varies along the sequence, but {what}")
    for name in spec.responsive:
        if name not in varying:
            raise UserError(
                f"{spec.path}: {name} is the same in every frame, so that it is not responsive; leave it out of "
                "data.responsive, or name it in data.invariant"
            )


def _variables_hit(dynamics: Dynamics, released: Sequences, path: str | None) -> Bools:
    """(N - 1, k) variables intervened on between frames.

    Raises
    ------
    UserError
        If columns are intervened on together, or apart, otherwise than ``grouped`` says.
    """
    acts = np.zeros((len(released.latents) - 1, len(COLUMNS)), dtype=bool)
    acts[:, [COLUMNS.index(name) for name in released.variables]] = released.interventions[:-1]
    whole = {name: [COLUMNS.index(part) for part in parts] for name, parts in GROUPS.items()}
    together = {name: bool((acts[:, columns] == acts[:, columns[:1]]).all()) for name, columns in whole.items()}
    if dynamics.grouped and not all(together.values()):
        raise UserError(
            f"{path}: its interventions act on each position and rotation alone; set data.process.grouped: false"
        )
    if not dynamics.grouped and any(together.values()):
        raise UserError(
            f"{path}: its interventions act on position and rotation as wholes; set data.process.grouped: true"
        )
    return np.stack([acts[:, columns[0]] for columns in dynamics.variables.values()], axis=1)
