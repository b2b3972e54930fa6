"""Which transitions of ours and of a released sequence become rows, and of which split."""

import itertools

import numpy as np
import pytest

from harness.data.causal3dident.citris import CLASS_OF_SHAPE, COLUMNS, Dynamics, simulate
from harness.data.causal3dident.citris import COLUMNS as RELEASED
from harness.data.causal3dident.temporal_release import Sequences
from harness.data.causal3dident.transitions import Conditions, draw_transitions, released_transitions
from harness.data_spec import TemporalCausal3DIdentData
from harness.errors import UserError
from harness.process_spec import CitrisSpec

SIZES = {"cells": 200, "test_cells": 100, "double_cells": 10, "doubles": 3, "validation": 0.2}


def spec_of(**fields):
    return TemporalCausal3DIdentData(**{**SIZES, **fields})


def sequence(frames=2000, dynamics=None, seed=0):
    """One long sequence as the reader gives it."""
    drawn = simulate(dynamics or Dynamics(), 1, frames, np.random.default_rng(seed))
    latents = drawn.latents[0]
    varies = np.flatnonzero((latents != latents[0]).any(axis=0))
    acts = np.concatenate([drawn.interventions[0], np.zeros((1, 12), dtype=bool)])
    return Sequences(
        images=np.zeros((frames, 3, 4, 4), dtype=np.uint8),
        latents=latents,
        interventions=acts[:, varies],
        shapes=latents[:, 10:].astype(np.int64),
        variables=tuple(RELEASED[column] for column in varies),
        dropped=tuple(RELEASED[column] for column in np.setdiff1d(np.arange(12), varies)),
    )


def check_rows(rows, spec):
    """What rows of either origin have to be."""
    validating = round(spec.validation * spec.cells)
    sizes = {"train": spec.cells - validating, "validation": validating, "test": spec.test_cells}
    if spec.doubles:
        sizes["double"] = spec.doubles * spec.double_cells
    assert {name: len(members) for name, members in rows.splits.items()} == sizes
    assert sorted(np.concatenate(list(rows.splits.values()))) == list(range(len(rows.index)))
    condition = rows.conditions.of(rows.hits)
    for name, members in rows.splits.items():
        allowed = set(rows.conditions.singles) if name != "double" else set(range(len(rows.conditions.names)))
        assert set(condition[members]) <= allowed
    if spec.doubles:
        counts = np.bincount(condition[rows.splits["double"]], minlength=len(rows.conditions.names))
        assert counts.tolist() == [0] * len(rows.conditions.singles) + [spec.double_cells] * spec.doubles
    frames = {name: set(rows.index[members].ravel()) for name, members in rows.splits.items()}
    assert set().union(*frames.values()) == set(range(len(rows.latents)))
    for name, other in itertools.combinations(frames, 2):
        if {name, other} != {"test", "double"}:
            assert not frames[name] & frames[other]


# ------------------------------------------------------------------------------------------ conditions


def test_conditions_are_numbered_by_what_is_intervened_on():
    conditions = Conditions(("x", "b", "a"), ((0, 2), (1, 2)))
    assert conditions.names == ("control", "x", "b", "a", "a+x", "a+b")
    hits = np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1], [0, 1, 1], [1, 1, 0], [1, 1, 1]], dtype=bool)
    assert conditions.of(hits).tolist() == [0, 3, 1, 4, 5, -1, -1]
    assert conditions.of(hits[None])[0].tolist() == [0, 3, 1, 4, 5, -1, -1]


# ------------------------------------------------------------------------------------------------ ours


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"doubles": 0},
        {"classes": (0, 1, 4)},
        {"invariant": ("hue_background", "psi"), "process": CitrisSpec(grouped=True)},
    ],
)
def test_rows_of_ours_fill_their_splits_and_share_no_frame(fields):
    spec = spec_of(**fields)
    rows = draw_transitions(spec)
    check_rows(rows, spec)
    assert rows.hits.shape[1] == spec.environments
    assert rows.conditions.perturbations == tuple(spec.variables)
    assert set(rows.classes) == set(spec.classes)
    for name in spec.invariant:
        held = rows.latents[rows.index][:, :, COLUMNS.index(name)]
        assert (held[:, 0] == held[:, 1]).all()
        assert len(np.unique(held)) > len(rows.index) / 10


def test_frames_of_successive_rows_are_shared():
    rows = draw_transitions(spec_of(doubles=0, cells=2000))
    train = rows.index[rows.splits["train"]]
    shared = np.intersect1d(train[:, 0], train[:, 1])
    assert len(shared) > 0.4 * len(train)
    assert (train[:, 1] == train[:, 0] + 1).all()


def test_intervened_latents_are_drawn_anew_and_others_move_on():
    rows = draw_transitions(spec_of(cells=3000, doubles=0))
    before, after = (rows.latents[rows.index[:, time], 0] for time in (0, 1))
    hit = rows.hits[:, rows.conditions.perturbations.index("x")]
    moved = np.abs(after - before)
    assert moved[hit].mean() > 1.0
    assert moved[~hit].mean() < 0.6


def test_frequencies_are_those_of_the_dynamics():
    """Of transitions with at most one intervention, half have none: (1 − p)^k against k p (1 − p)^(k − 1)."""
    rows = draw_transitions(spec_of(cells=20_000, doubles=0))
    train = rows.conditions.of(rows.hits)[rows.splits["train"]]
    assert (train == 0).mean() == pytest.approx(0.5, abs=0.02)
    assert np.bincount(train)[1:].min() > 0.8 * np.bincount(train)[1:].max()
    two, more = (rows.quality[f"transitions_{name}"] for name in ("two_at_once", "three_or_more"))
    seen = 20_000 + SIZES["test_cells"]
    p, k = 1 / 10, 9
    none = (1 - p) ** k
    pairs = k * (k - 1) / 2 * p**2 * (1 - p) ** (k - 2)
    assert two / seen == pytest.approx(pairs / (2 * none), rel=0.05)
    assert more / seen == pytest.approx((1 - 2 * none - pairs) / (2 * none), rel=0.1)
    assert f"{int(two):,} transitions" in rows.excluded["two at once"]


def test_rows_follow_from_the_seed():
    first, again, other = (draw_transitions(spec_of(seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.latents, again.latents)
    np.testing.assert_array_equal(first.index, again.index)
    assert first.latents.shape != other.latents.shape or (first.latents != other.latents).any()


# ------------------------------------------------------------------------------------------- released


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rows_of_a_release_lie_in_stretches_of_time(seed):
    released = sequence()
    spec = spec_of(path="somewhere", seed=seed)
    rows = released_transitions(spec, released)
    check_rows(rows, spec)
    np.testing.assert_array_equal(rows.latents, released.latents[rows.place])
    place = rows.place[rows.index]
    assert (place[:, 1] == place[:, 0] + 1).all()
    known = [RELEASED.index(name) for name in released.variables]
    assert [COLUMNS[column] for column in known] == list(spec.responsive)
    np.testing.assert_array_equal(rows.hits, released.interventions[place[:, 0]])
    for name in ("train", "validation", "test"):
        here = np.sort(place[rows.splits[name], 0])
        assert np.sort(np.diff(np.append(here, here[0] + len(released.latents))))[-2] < 20  # in one piece, on a ring


def test_every_usable_transition_of_the_release_can_be_asked_for_and_no_more():
    released = sequence(600)
    usable = int((released.interventions[:-1].sum(axis=1) <= 1).sum())
    spec = spec_of(path="r", doubles=0, cells=usable - 110, test_cells=100)
    check_rows(released_transitions(spec, released), spec)
    with pytest.raises(UserError, match=r"^r: has 4\d\d transitions with at most one .*; give less$"):
        released_transitions(spec.model_copy(update={"cells": usable}), released)


def test_too_few_doubles_are_refused():
    with pytest.raises(UserError, match=r"0 pairs of variables have 100 transitions each, fewer than data\.doubles"):
        released_transitions(spec_of(path="r", double_cells=100), sequence())


def test_shapes_and_groups_of_the_release_have_to_be_those_of_the_study():
    dynamics = Dynamics(shapes=(0, 1, 4), grouped=True)
    released = sequence(2000, dynamics)
    classes = tuple(sorted(CLASS_OF_SHAPE[[0, 1, 4]].tolist()))
    with pytest.raises(UserError, match=r"classes \[0, 2, 4\]; set data\.classes: \[0, 2, 4\]"):
        released_transitions(spec_of(path="r"), released)
    with pytest.raises(UserError, match=r"set data\.process\.grouped: true"):
        released_transitions(spec_of(path="r", classes=classes), released)
    spec = spec_of(path="r", classes=classes, process=CitrisSpec(grouped=True))
    rows = released_transitions(spec, released)
    check_rows(rows, spec)
    assert rows.conditions.perturbations[-1] == "shape"
    assert set(rows.classes) == set(classes)
    with pytest.raises(UserError, match=r"set data\.process\.grouped: false"):
        released_transitions(spec_of(path="r", process=CitrisSpec(grouped=True)), sequence())


def test_names_that_the_release_belies_are_refused():
    released = sequence(1000)
    with pytest.raises(
        UserError, match=r"spotlight varies along the sequence, so that it cannot be in data\.invariant"
    ):
        released_transitions(spec_of(path="r", invariant=("spotlight",)), released)
    with pytest.raises(UserError, match="theta varies along the sequence, but is not named"):
        released_transitions(spec_of(path="r", responsive=("x", "y", "z", "phi"), doubles=1), released)
    still = sequence(1000, Dynamics(moving=("x", "y", "theta", "hue_object")))
    with pytest.raises(UserError, match="z is the same in every frame"):
        released_transitions(spec_of(path="r"), still)
