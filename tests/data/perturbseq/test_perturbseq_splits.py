import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.data.partners import draw_controls
from harness.data.perturbseq.splits import Shares, assign
from harness.errors import UserError
from harness.reading_spec import MinCells
from harness.split_spec import SinglesToDoubles

RULE = {"validation": 0.1, "test": 0.2, "min_cells": 3, "where": "file"}


def singles_to_doubles(conditions, seed, *, validation, test, min_cells, where):
    return assign(
        SinglesToDoubles(), conditions, seed, Shares(validation, test, test, MinCells(least=min_cells)), where
    )


def spread(counts, seed=0):
    """Conditions of cells, shuffled."""
    conditions = np.repeat(list(counts), list(counts.values()))
    return np.random.default_rng(seed).permutation(conditions).tolist()


@st.composite
def screens(draw):
    genes = draw(st.lists(st.sampled_from("ABCDEF"), min_size=1, max_size=5, unique=True))
    size = st.integers(3, 30)
    counts = {"control": draw(size), **{gene: draw(size) for gene in genes}}
    for pair in draw(st.lists(st.sampled_from(["A+B", "A+C", "B+Z", "C+D", "Y+Z", "A+B+C"]), unique=True)):
        counts[pair] = draw(st.integers(3, 10))
    return spread(counts, draw(st.integers(0, 99))), draw(st.integers(0, 2**40))


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(screens())
def test_no_cell_of_test_or_ood_is_trained_on_in_any_role(screen):
    conditions, seed = screen
    assignment = singles_to_doubles(conditions, seed, **RULE)
    drawn = draw_controls(np.array(conditions) == "control", assignment.splits, assignment.ood, seed)
    splits = assignment.splits
    used = {name: set(rows.tolist()) | set(drawn[rows].tolist()) for name, rows in splits.items()}
    for name in ("validation", "test", *assignment.ood):
        assert not used["train"] & used[name]
    for name in ("test", *assignment.ood):
        assert not used["validation"] & used[name]
    rows = np.concatenate(list(splits.values()))
    assert len(np.unique(rows)) == len(rows)
    for name, members in splits.items():
        assert len(members)
        assert all(conditions[cell] == "control" for cell in drawn[members])
        assert set(drawn[members].tolist()) <= set(splits["test" if name in assignment.ood else name].tolist()), name


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(screens())
def test_every_cell_is_in_a_split_or_its_condition_is_excluded_by_name(screen):
    conditions, seed = screen
    assignment = singles_to_doubles(conditions, seed, **RULE)
    placed = set(np.concatenate(list(assignment.splits.values())).tolist())
    for cell, condition in enumerate(conditions):
        assert (cell in placed) == (condition not in assignment.excluded)
    assert set(assignment.conditions) | set(assignment.excluded) == set(conditions)
    trained = {conditions[cell] for cell in assignment.splits["train"]}
    assert trained == {"control", *assignment.perturbations}


def test_shares_of_each_condition():
    conditions = spread({"control": 200, "A": 100, "B": 50, "A+B": 40})
    assignment = singles_to_doubles(conditions, 0, **RULE)
    of = np.array(conditions)
    sizes = {
        name: {str(c): int(np.sum(of[rows] == c)) for c in np.unique(of[rows])}
        for name, rows in assignment.splits.items()
    }
    assert sizes == {
        "train": {"control": 144, "A": 72, "B": 36},
        "validation": {"control": 16, "A": 8, "B": 4},
        "test": {"control": 40, "A": 20, "B": 10},
        "double_seen2": {"A+B": 40},
    }


def test_doubles_are_sorted_by_members_seen():
    conditions = spread({"control": 9, "A": 9, "B": 9, "A+B": 5, "A+X": 5, "X+Y": 1, "A+B+X": 5})
    assignment = singles_to_doubles(conditions, 0, **RULE)
    assert assignment.ood == ("double_seen2",)
    assert assignment.conditions == ("control", "A", "B", "A+B")
    assert assignment.seen == {"A+X": 1, "X+Y": 0}
    assert assignment.excluded["A+X"].startswith("double_seen1: X not seen")
    assert assignment.excluded["X+Y"].startswith("double_seen0: X and Y not seen")
    assert assignment.excluded["A+B+X"].startswith("3 genes perturbed together")


def test_one_seed_one_split():
    conditions = spread({"control": 30, "A": 30, "B": 30})
    one, same, other = (singles_to_doubles(conditions, seed, **RULE).splits["test"] for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_control_is_never_its_own_partner():
    conditions = spread({"control": 40, "A": 30})
    assignment = singles_to_doubles(conditions, 0, **RULE)
    drawn = draw_controls(np.array(conditions) == "control", assignment.splits, assignment.ood, 0)
    for rows in assignment.splits.values():
        assert np.all(drawn[rows] != rows)


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ({"control": 9, "A+B": 9}, "no single perturbation"),
        ({"control": 9, "A": 2, "B": 1}, r"2 conditions have fewer than 3 cells \(least: B with 1\)"),
        ({"control": 9, "A": 9, "B": 9, "A+B": 1}, r"1 conditions .* \(least: A\+B with 1\)"),
        ({"control": 1, "A": 9}, "least: control with 1"),
    ],
)
def test_refusals(counts, sentence):
    with pytest.raises(UserError, match=sentence):
        singles_to_doubles(spread(counts), 0, **RULE)


def test_three_control_cells_are_the_least():
    with pytest.raises(UserError, match="2 control cells, but training, validation and test each need one"):
        singles_to_doubles(spread({"control": 2, "A": 9}), 0, **{**RULE, "min_cells": 2})
    splits = singles_to_doubles(spread({"control": 3, "A": 2}), 0, **{**RULE, "min_cells": 2}).splits
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 2, "validation": 1, "test": 2}
