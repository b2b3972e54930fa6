"""What joins the names of a pair: evidence, the user's word, and labels that may mean either."""

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from label_tables import applied, read, sizes

from harness.data.perturbseq.name_shapes import looks_like_name
from harness.data.perturbseq.pair_marks import MARKS
from harness.errors import UserError

#: The machine may be busy, which says nothing about the labels.
unhurried = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
SHY = tuple(mark for mark in MARKS if mark != "+")


def conditions(labels, **options):
    return read(dict.fromkeys(labels, 1), **options).conditions.tolist()


@pytest.mark.parametrize("mark", MARKS)
def test_one_proven_pair_shows_that_the_others_with_its_mark_are_pairs(mark):
    labels = ["control", "A", "B", *(mark.join(pair) for pair in ("AB", "CD", "AE"))]
    assert conditions(labels) == ["control", "A", "B", "A+B", "C+D", "A+E"]


@pytest.mark.parametrize("mark", MARKS)
def test_what_stands_beside_control_is_a_name_of_its_own(mark):
    labels = ["ctrl", f"KLF1{mark}ctrl", f"ctrl{mark}SET", f"KLF1{mark}SET"]
    assert conditions(labels) == ["control", "KLF1", "SET", "KLF1+SET"]


@pytest.mark.parametrize("mark", SHY)
def test_a_mark_without_evidence_is_part_of_a_name_and_the_line_that_changes_it_is_said(mark):
    labels = ["control", f"KLF1{mark}SET", f"BAK1{mark}ETS2"]
    found = read(dict.fromkeys(labels, 2))
    assert sizes(found) == dict.fromkeys(labels, 2)
    (note,) = found.notes
    assert applied(note) == {"pair_mark": mark}
    assert conditions(labels, **applied(note)) == ["control", "KLF1+SET", "BAK1+ETS2"]


def test_plus_joins_names_without_evidence_and_the_line_that_changes_it_is_said():
    found = read({"control": 2, "KLF1+SET": 2})
    assert sizes(found) == {"control": 2, "KLF1+SET": 2}
    assert found.form == "A+B"
    (note,) = found.notes
    assert applied(note) == {"pair_mark": "none"}
    assert conditions(["control", "KLF1+SET"], **applied(note)) == ["control", "KLF1＋SET"]


@pytest.mark.parametrize("mark", MARKS)
def test_genes_of_the_file_are_names_of_their_own(mark):
    labels = ["control", f"KLF1{mark}SET", f"BAK1{mark}new"]
    assert conditions(labels, genes=("KLF1", "SET")) == ["control", "KLF1+SET", "BAK1+new"]


@pytest.mark.parametrize("mark", MARKS)
def test_a_gene_whose_name_holds_a_mark_is_no_pair(mark):
    whole = f"A{mark}B"
    assert conditions(["control", "A", "B", whole], genes=(whole,))[-1] == whole.replace("+", "＋")


@pytest.mark.parametrize("mark", MARKS)
def test_a_stated_number_of_genes_is_evidence(mark):
    labels = ["control", f"KLF1{mark}SET", f"BAK1{mark}ETS2"]
    assert conditions(labels, columns={"nperts": [0, 2, 2]}) == ["control", "KLF1+SET", "BAK1+ETS2"]
    whole = [label.replace("+", "＋") for label in labels]
    assert conditions(labels, columns={"nperts": [0, 1, 1]}) == whole


def test_the_mark_that_explains_most_labels_is_taken():
    labels = ["control", "A", "B", "C", "A_B", "B_C", "A_C", "A/B"]
    found = read(dict.fromkeys(labels, 1))
    assert found.conditions.tolist() == ["control", "A", "B", "C", "A+B", "B+C", "A+C", "A/B"]
    assert any("'A/B' may be pairs, but most pairs are joined by _" in note for note in found.notes)


def test_more_than_two_members_are_left_out_whichever_mark_joins_them():
    for mark in MARKS:
        found = read(dict.fromkeys(["control", "A", "B", "C", mark.join("AB"), mark.join("ABC")], 1))
        assert found.conditions.tolist() == ["control", "A", "B", "C", "A+B", ""]
        assert found.left_out[mark.join("ABC")].reason.startswith("it names 3 perturbations together")


@pytest.mark.parametrize("mark", MARKS)
def test_torn_halves_are_no_names(mark):
    labels = ["control", "A", "B", f"A{mark}B", f"({mark})-JQ1", f"2{mark}3-DCPE"]
    found = conditions(labels)
    assert found[3] == "A+B"
    assert found[4:] == [label.replace("+", "＋") for label in labels[4:]]


@pytest.mark.parametrize("mark", ["|", "+", ","])
def test_guides_named_by_their_strand_are_read_whole_and_two_of_them_are_a_pair(mark):
    first, second, lone = "KLF1_+_12345678.23-P1P2", "SET_-_12345.23-P1", "BAK1_-_77.23-P2"
    labels = ["non-targeting", first, second, lone, first + mark + second]
    named = [label.replace("+", "＋") for label in labels[1:4]]
    found = conditions(labels)
    assert found == ["control", *named, "+".join(sorted(named[:2]))]
    rule = {"pattern": ["{gene}_+_*", "{gene}_-_*"]}
    if mark != "+":
        assert conditions(labels, guides=rule) == ["control", "KLF1", "SET", "BAK1", "KLF1+SET"]
        labels = ["non-targeting", first + mark + second, lone]
        assert conditions(labels, guides=rule) == ["control", "KLF1+SET", "BAK1"]


@pytest.mark.parametrize("label", ["KLF1_10uM", "KLF1_24h", "KLF1_5 ng/ml", "KLF1_2"])
def test_a_dose_a_time_or_a_number_is_no_gene(label):
    assert conditions(["control", "KLF1", "SET", "KLF1_SET", label])[-1] == label


def test_a_name_of_many_marks_is_left_out_only_where_they_join_names():
    iupac = "-".join(["(1R,2S,3R,4R,5S,6R,7S,8R,9S,10R,11S,12R,13S,14R)", "drug"])
    many = ",".join(f"KLF{k}" for k in range(20))
    found = read(dict.fromkeys(["control", "A", "B", "A,B", iupac, many], 1))
    assert found.conditions.tolist() == ["control", "A", "B", "A+B", iupac, ""]
    assert list(found.left_out) == [many]


# ----------------------------------------------------------------------------- labels that may mean either


@pytest.mark.parametrize(
    ("labels", "way_out", "read_so"),
    [
        (["control", "A", "A_X"], {"pair_mark": "_"}, ["control", "A", "A+X"]),
        (["control", "A", "A_X"], {"pair_mark": "none"}, ["control", "A", "A_X"]),
        (["control", "A", "A_X"], {"columns": {"nperts": [0, 1, 2]}}, ["control", "A", "A+X"]),
        (["control", "A", "A_X"], {"columns": {"nperts": [0, 1, 1]}}, ["control", "A", "A_X"]),
        (["control", "A", "A|X"], {"pair_mark": "|"}, ["control", "A", "A+X"]),
        (["control", "A", "A|X"], {"pair_mark": "none"}, ["control", "A", "A|X"]),
        (["control", "A", "B", "A_B", "P_Q_R"], {"pair_mark": "_"}, ["control", "A", "B", "A+B", ""]),
        (["control", "A", "B", "A_B", "P_Q_R"], {"pair_mark": "none"}, ["control", "A", "B", "A_B", "P_Q_R"]),
        (
            ["control", "A", "B", "A_B", "P_Q_R"],
            {"columns": {"nperts": [0, 1, 1, 2, 1]}},
            ["control", "A", "B", "A+B", "P_Q_R"],
        ),
    ],
)
def test_a_label_that_may_mean_either_is_refused_with_ways_out_that_work(labels, way_out, read_so):
    with pytest.raises(UserError, match=r"may be one gene or a pair; .*nperts.*data\.pair_mark") as refusal:
        conditions(labels)
    assert "\n" not in str(refusal.value)
    assert conditions(labels, **way_out) == read_so


@pytest.mark.parametrize(
    ("way_out", "read_so"),
    [
        ({"pair_mark": "_"}, ["CD3E+LCK", "control", "MYC"]),
        ({"columns": {"nperts": [2, 0, 1]}}, ["CD3E+LCK", "control", "MYC"]),
        ({"pair_mark": "none"}, ["LCK_1_CD3E", "control", "MYC"]),
    ],
)
def test_a_label_of_one_guide_or_two_is_refused_with_ways_out_that_work(way_out, read_so):
    labels = ["LCK_1_CD3E_2", "NTg1", "MYC_1"]
    rule = {"pattern": "{gene}_{guide}", "control": "NTg{guide}"}
    with pytest.raises(UserError, match=r"can be read as one guide or LCK_1 and CD3E_2; .*nperts.*data\.pair_mark"):
        conditions(labels, guides=rule)
    assert conditions(labels, guides=rule, **way_out) == read_so


def test_two_genes_that_no_mark_joins_are_refused_with_a_way_out_that_works():
    stated = {"columns": {"nperts": [0, 2, 1]}}
    labels = ["control", "KLF1-SET", "BAK1"]
    with pytest.raises(UserError, match=r"'KLF1-SET' 2 genes, but no mark in it joins two names; set data\.pair_mark"):
        conditions(labels, **stated)
    assert conditions(labels, pair_mark="-", **stated) == ["control", "KLF1+SET", "BAK1"]


# ----------------------------------------------------------------------------- the user's mark


def test_the_users_mark_cuts_every_label_that_holds_it():
    labels = ["control", "KLF1 x SET", "BAK1", "ctrl x BAK1"]
    assert conditions(labels, pair_mark=" x ") == ["control", "KLF1+SET", "BAK1", "BAK1"]


def test_the_users_mark_leaves_numbers_where_they_are():
    labels = ["control", "KLF1_1_SET_2", "2,3-DCPE"]
    assert conditions(labels, pair_mark="_", genes=("KLF1", "SET")) == ["control", "KLF1+SET", "2,3-DCPE"]
    assert conditions(["control", "2,3-DCPE", "A,B"], pair_mark=",") == ["control", "2,3-DCPE", "A+B"]


def test_no_mark_at_all_reads_each_label_as_one_name():
    found = read(dict.fromkeys(["control", "A", "B", "A+B", "A_B"], 1), pair_mark="none")
    assert found.conditions.tolist() == ["control", "A", "B", "A＋B", "A_B"]
    assert found.form == "none"


# ----------------------------------------------------------------------------- properties

names = st.from_regex(r"[A-Z]{2,5}[0-9]{0,2}", fullmatch=True).filter(looks_like_name)


@given(
    alone=st.lists(names, min_size=2, max_size=5, unique=True),
    strangers=st.lists(names, max_size=3, unique=True),
    mark=st.sampled_from(MARKS),
    blank=st.sampled_from(["", " "]),
    order=st.randoms(use_true_random=False),
)
@unhurried
def test_pairs_are_read_with_strangers_in_any_order(alone, strangers, mark, blank, order):
    assume(not {"NA", "NAN", "NAT", "NC", "NT", "WT"} & {*alone, *strangers})
    joined = f"{blank}{mark}{blank}"
    members = [tuple(alone[:2]), *((alone[0], name) for name in strangers if name not in alone)]
    expected = {"control": "control", **{name: name for name in alone}}
    expected |= {joined.join(pair): "+".join(sorted(pair)) for pair in members}
    labels = list(expected)
    order.shuffle(labels)
    assert conditions(labels) == [expected[label] for label in labels]


@given(label=st.text(st.characters(codec="utf-8", exclude_categories=("C",)), min_size=1, max_size=12))
@unhurried
def test_no_label_is_lost(label):
    """Whatever a label holds, its cells are a condition or are left out by name; other labels stay as they are."""
    assume(label.strip().lower() not in ("control", "ctrl", "non-targeting"))
    found = read({"control": 1, "KLF1 name": 1, label: 1}, pair_mark="none")
    assert found.conditions[:2].tolist() == ["control", "KLF1 name"]
    assert (found.conditions[2] == "") == (label in found.left_out)


texts = st.text(st.sampled_from("AB12_+|/,:;&- ()[]'.*ctrlNT"), max_size=14)


@given(labels=st.lists(texts, max_size=8, unique=True), genes=st.lists(texts, max_size=3))
@unhurried
def test_any_labels_are_read_or_refused_in_one_sentence(labels, genes):
    """A cell has a condition without an empty member, or is left out by name."""
    said, found = "", None
    try:
        found = read(dict.fromkeys(["control", *labels], 2), genes=genes)
    except UserError as refusal:
        said = str(refusal)
    assert "\n" not in said
    if found is not None:
        out = sum(left.cells for left in found.left_out.values())
        assert out == sum(condition == "" for condition in found.conditions)
        kept = set(found.conditions) - {""}
        assert all(member.strip() for condition in kept for member in condition.split("+"))
