"""Every rule of splitting: what trains, what is predicted under which name, and what is left out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.perturbseq.splits import Shares, assign
from harness.data_spec import PerturbseqData
from harness.errors import UserError
from harness.reading_spec import MinCells
from harness.split_spec import ComboSeenK, LeavePerturbationOut, LeaveTimeOut, RandomCells, SinglesToDoubles

SHARES = Shares(validation=0.1, test=0.2, control=0.2, min_cells=MinCells(least=3))
GENES = "ABCDEFGH"
DOUBLES = ["A+B", "A+C", "B+C", "C+D", "E+F", "A+X", "X+Y"]
COUNTS = {"control": 40, **dict.fromkeys(GENES, 20), **dict.fromkeys(DOUBLES, 10), "A+B+C": 10}
KNOWN = frozenset(GENES + "XY")


def spread(counts=COUNTS, seed=0):
    conditions = np.repeat(list(counts), list(counts.values()))
    return np.random.default_rng(seed).permutation(conditions).tolist()


def split(rule, counts=COUNTS, seed=0, known=None):
    return assign(rule, spread(counts), seed, SHARES, "file", known=known)


def inside(assignment, name, counts=COUNTS):
    """Conditions with a cell in a split."""
    return set(np.array(spread(counts))[assignment.splits[name]].tolist())


RULES = st.sampled_from(
    [
        SinglesToDoubles(),
        ComboSeenK(held_out=0.3),
        ComboSeenK(held_out=("B",), train_doubles=0.0),
        RandomCells(),
        LeavePerturbationOut(held_out=0.3),
        LeavePerturbationOut(held_out=("A", "X")),
        SinglesToDoubles(validation_conditions=0.4),
        ComboSeenK(held_out=("H",), train_doubles=0.2, validation_conditions=0.4),
        RandomCells(validation_conditions=0.3),
        LeavePerturbationOut(held_out=0.5, validation_conditions=0.4),
    ]
)


@settings(max_examples=60, deadline=None)
@given(RULES, st.integers(0, 2**40), st.booleans())
def test_whatever_the_rule_no_cell_is_in_two_splits_and_no_condition_is_forgotten(rule, seed, vectors):
    known = KNOWN if vectors or isinstance(rule, LeavePerturbationOut) else None
    assignment = split(rule, seed=seed, known=known)
    rows = np.concatenate(list(assignment.splits.values()))
    assert len(np.unique(rows)) == len(rows)
    of = np.array(spread())
    assert set(of[rows].tolist()) == set(assignment.conditions)
    assert set(assignment.conditions) | set(assignment.excluded) == set(of.tolist())
    assert not set(assignment.conditions) & set(assignment.excluded)
    trained = inside(assignment, "train")
    assert assignment.perturbations == tuple(
        sorted({gene for name in trained - {"control"} for gene in name.split("+")})
    )
    for name in assignment.ood:
        assert inside(assignment, name)
        for other in ("train", "validation", "test"):
            assert not inside(assignment, name) & inside(assignment, other)
        for condition in inside(assignment, name):
            seen = sum(gene in assignment.perturbations for gene in condition.split("+"))
            assert name == (f"double_seen{seen}" if "+" in condition else "single_unseen")
    assert inside(assignment, "test") == trained
    only = inside(assignment, "validation") - trained
    assert bool(only) == (rule.validation_conditions is not None)
    again = split(rule, seed=seed, known=known)
    assert all(np.array_equal(again.splits[name], part) for name, part in assignment.splits.items())
    assert (again.conditions, again.ood) == (assignment.conditions, assignment.ood)


def test_with_vectors_doubles_of_unseen_members_are_predicted():
    without, within = split(SinglesToDoubles()), split(SinglesToDoubles(), known=KNOWN)
    assert without.ood == ("double_seen2",)
    assert without.seen == {"A+X": 1, "X+Y": 0}
    assert within.ood == ("double_seen2", "double_seen1", "double_seen0")
    assert inside(within, "double_seen1") == {"A+X"}
    assert inside(within, "double_seen0") == {"X+Y"}
    assert within.seen == {}
    assert set(within.excluded) == {"A+B+C"}
    for name in ("train", "validation", "test", "double_seen2"):
        assert np.array_equal(without.splits[name], within.splits[name])


def test_a_gene_without_a_vector_is_left_out_by_name():
    assignment = split(SinglesToDoubles(), known=KNOWN - {"B", "Y"})
    assert assignment.excluded["B"] == "data.perturbation_features have no vector of B"
    assert {"B", "A+B", "B+C", "X+Y", "A+B+C"} == set(assignment.excluded)
    assert inside(assignment, "double_seen1") == {"A+X"}
    with pytest.raises(UserError, match=r"no single perturbation to train on.*; A is left out: .* no vector of A"):
        split(SinglesToDoubles(), known=frozenset())


def test_combo_seen_k_holds_out_singles_and_names_doubles_by_the_members_seen():
    rule = ComboSeenK(held_out=("A", "F"), train_doubles=0.0)
    assignment = split(rule, known=KNOWN)
    assert inside(assignment, "train") == {"control", *"BCDEGH"}
    assert inside(assignment, "single_unseen") == {"A", "F"}
    assert inside(assignment, "double_seen2") == {"B+C", "C+D"}
    assert inside(assignment, "double_seen1") == {"A+B", "A+C", "E+F"}
    assert inside(assignment, "double_seen0") == {"A+X", "X+Y"}
    onehot = split(rule)
    assert onehot.ood == ("double_seen2",)
    assert onehot.seen == {"A+B": 1, "A+C": 1, "E+F": 1, "A+X": 0, "X+Y": 0}
    assert onehot.excluded["A"].startswith("single_unseen: A not seen")


@pytest.mark.parametrize(("share", "trained"), [(0.0, 0), (0.4, 2), (0.99, 5)])
def test_a_share_of_the_doubles_of_seen_members_trains(share, trained):
    assignment = split(ComboSeenK(held_out=("H",), train_doubles=share))
    doubles = {name for name in inside(assignment, "train") if "+" in name}
    assert len(doubles) == trained
    assert doubles <= {"A+B", "A+C", "B+C", "C+D", "E+F"}
    assert assignment.ood == (() if trained == 5 else ("double_seen2",))


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.25, 2), (0.5, 4), (0.99, 7)])
def test_a_share_of_the_singles_is_held_out_by_the_seed(share, count):
    held = [inside(split(ComboSeenK(held_out=share), seed=seed, known=KNOWN), "single_unseen") for seed in range(6)]
    assert all(len(names) == count for names in held)
    assert len(set(map(frozenset, held))) > 1


def test_leave_perturbation_out_predicts_everything_with_a_held_out_member():
    assignment = split(LeavePerturbationOut(held_out=("A",)), known=KNOWN)
    assert inside(assignment, "train") == {"control", *"BCDEFGH", "B+C", "C+D", "E+F", "X+Y"}
    assert inside(assignment, "single_unseen") == {"A"}
    assert inside(assignment, "double_seen1") == {"A+B", "A+C", "A+X"}
    both = split(LeavePerturbationOut(held_out=("A", "B")), known=KNOWN)
    assert inside(both, "double_seen0") == {"A+B"}


def test_leave_perturbation_out_needs_to_know_something_of_them():
    with pytest.raises(ValueError, match="set perturbation_features to loadings"):
        PerturbseqData(path="x.h5ad", split="leave_perturbation_out")
    spec = PerturbseqData(path="x.h5ad", split="leave_perturbation_out", perturbation_features="loadings")
    assert spec.split == LeavePerturbationOut()


def test_random_cells_train_every_condition():
    assignment = split(RandomCells())
    assert inside(assignment, "train") == inside(assignment, "test") == {"control", *GENES, *DOUBLES}
    assert assignment.perturbations == tuple(sorted(GENES + "XY"))
    assert assignment.ood == ()


def test_conditions_that_validate_are_in_no_other_split():
    assignment = split(SinglesToDoubles(validation_conditions=("A+B", "C+D")))
    assert inside(assignment, "validation") == {"control", *GENES, "A+B", "C+D"}
    assert inside(assignment, "double_seen2") == {"A+C", "B+C", "E+F"}
    assert np.sum(np.isin(np.array(spread())[assignment.splits["validation"]], ["A+B"])) == 10
    drawn = split(SinglesToDoubles(validation_conditions=0.4))
    assert len(inside(drawn, "validation") - {"control", *GENES}) == 2
    assert len(inside(drawn, "double_seen2")) == 3


def test_a_share_never_empties_a_split_of_predicted_conditions():
    assignment = split(SinglesToDoubles(validation_conditions=0.99), known=KNOWN)
    assert {name: len(inside(assignment, name)) for name in assignment.ood} == {
        "double_seen2": 1,
        "double_seen1": 1,
        "double_seen0": 1,
    }


def test_a_single_that_validates_is_not_seen_by_its_doubles():
    assignment = split(SinglesToDoubles(validation_conditions=("A",)), known=KNOWN)
    assert "A" not in assignment.perturbations
    assert inside(assignment, "double_seen1") == {"A+B", "A+C"}


@pytest.mark.parametrize(
    ("rule", "known", "sentence"),
    [
        (ComboSeenK(held_out=("Q",)), None, "held_out names 'Q', which is no perturbation that can be held out"),
        (LeavePerturbationOut(held_out=("A", "Q")), KNOWN, "held_out names 'Q'"),
        (ComboSeenK(held_out=tuple(GENES)), None, "no single perturbation to train on; combo_seen_k needs some"),
        (SinglesToDoubles(validation_conditions=("A",)), None, "validation_conditions names 'A', but single_unseen: A"),
        (SinglesToDoubles(validation_conditions=("B+A",)), None, r"names 'B\+A', but the conditions are A, A\+B"),
        (SinglesToDoubles(validation_conditions=("A+B+C",)), None, "but 3 genes perturbed together"),
        (SinglesToDoubles(validation_conditions=0.01), None, "0.01, but at that share none of the 5 conditions"),
        (LeaveTimeOut(), None, "the cells have no times; set data.time"),
    ],
)
def test_what_cannot_be_held_out_is_refused(rule, known, sentence):
    with pytest.raises(UserError, match=sentence):
        split(rule, known=known)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"kind": "combo_seen_k", "held_out": 1.5}, "held_out"),
        ({"kind": "combo_seen_k", "held_out": []}, "held_out"),
        ({"kind": "singles_to_doubles", "held_out": 0.5}, "held_out"),
        ("doubles_to_singles", "singles_to_doubles"),
        ({"kind": "replay"}, "path"),
    ],
)
def test_a_split_that_is_no_split_is_refused(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        PerturbseqData(path="x.h5ad", split=given)


def test_a_bare_word_is_a_split_with_its_defaults():
    spec = PerturbseqData(path="x.h5ad", split="combo_seen_k")
    assert spec.split == ComboSeenK(held_out=0.25, train_doubles=0.75)
    assert PerturbseqData(path="x.h5ad").split == SinglesToDoubles()
    assert PerturbseqData.model_validate_json(spec.model_dump_json()) == spec
