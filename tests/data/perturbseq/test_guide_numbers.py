"""Guides that are numbered GENE_1 and GENE_2: merged without a rule where nothing else can be meant, and said."""

import pytest
from label_tables import applied, read, sizes


def conditions(labels, **options):
    return read(dict.fromkeys(labels, 1), **options).conditions.tolist()


def test_numbers_that_run_from_one_are_guides_and_this_is_said():
    labels = ["control", "LCK_1", "LCK_2", "CD3E_1", "LCK_1+CD3E_1"]
    found = read(dict.fromkeys(labels, 2))
    assert sizes(found) == {"control": 2, "LCK": 4, "CD3E": 2, "CD3E+LCK": 2}
    assert found.guides == {"LCK": ("LCK_1", "LCK_2"), "CD3E": ("CD3E_1",)}
    (note,) = found.notes
    assert note.startswith("'CD3E_1', 'LCK_1', 'LCK_2' are read as guides of CD3E, LCK, and merged")
    apart = read(dict.fromkeys(labels, 2), **applied(note))
    assert sizes(apart) == {**dict.fromkeys(labels[:4], 2), "CD3E_1+LCK_1": 2}


def test_the_stem_may_be_a_gene_of_the_file_whatever_the_numbers():
    assert conditions(["control", "LCK_7", "CD3E_30"], genes=("LCK", "CD3E")) == ["control", "LCK", "CD3E"]


@pytest.mark.parametrize(
    "labels",
    [
        ["control", "Trametinib_10", "Trametinib_100"],
        ["control", "Trametinib_1", "Trametinib_10", "Trametinib_100"],
        ["control", "A_1", "A_2", "Trametinib_10"],
        ["control", "RP11_1", "X_1"],
        ["control", "A_5", "A_6"],
    ],
)
def test_doses_and_lone_numbers_stay_apart(labels):
    found = read(dict.fromkeys(labels, 1))
    assert found.conditions.tolist() == labels
    assert not found.notes


def test_a_gene_of_the_file_is_no_guide():
    labels = ["control", "RP11_1", "RP11_2"]
    assert conditions(labels, genes=("RP11_1", "RP11_2", "RP11")) == labels


def test_numbered_words_for_control_are_control_and_can_be_kept_apart():
    labels = ["non-targeting_7", "non-targeting_120", "KLF1", "KLF1+non-targeting_7"]
    found = read(dict.fromkeys(labels, 1))
    assert found.conditions.tolist() == ["control", "control", "KLF1", "KLF1"]
    (note,) = found.notes
    assert applied(note) == {"guides": {"pattern": "{gene}", "control": "non-targeting_{guide}"}}
    assert conditions(labels, **applied(note)) == ["control", "control", "KLF1", "KLF1"]


def test_a_number_is_no_member_of_a_pair():
    labels = ["control", "KLF1", "SET", "KLF1_SET", "KLF1_1", "KLF1_2", "SET_1_KLF1_2"]
    found = conditions(labels)
    assert found == ["control", "KLF1", "SET", "KLF1+SET", "KLF1", "KLF1", "KLF1+SET"]
