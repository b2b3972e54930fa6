"""Files as people have them, each with its conditions and the number of cells of each."""

import resource
import time

import numpy as np
import pytest
from label_tables import applied, cells, read, sizes

from harness.data.perturbseq.guides import propose
from harness.data.perturbseq.labels import read_labels
from harness.data_spec import PerturbseqData
from harness.errors import UserError
from harness.reading_spec import GuideRule

GENES = ("KLF1", "SET", "BAK1", "ETS2", "G0", "G1")


# ------------------------------------------------------------------------------------- drugs: case01, case02


@pytest.mark.parametrize(
    ("drugs", "named"),
    [
        (["JQ1", "(+)-JQ1", "Atenolol-(+|-)", "Trametinib"], ["JQ1", "(＋)-JQ1", "Atenolol-(＋|-)", "Trametinib"]),
        (["Trametinib", "2,3-DCPE", "N,N-Didesmethyl"], ["Trametinib", "2,3-DCPE", "N,N-Didesmethyl"]),
        (["Valproic acid (VPA), sodium", "S3I-201", "5-FU"], ["Valproic acid (VPA), sodium", "S3I-201", "5-FU"]),
    ],
)
def test_a_drug_whose_name_holds_a_mark_is_one_compound(drugs, named):
    found = read({"control": 12, **dict.fromkeys(drugs, 6)})
    assert sizes(found) == {"control": 12, **dict.fromkeys(named, 6)}
    assert (found.form, found.left_out) == ("none", {})
    assert any("hold a + without being a pair" in note for note in found.notes) == any("+" in name for name in drugs)


def test_a_comma_in_a_drug_among_pairs_joined_otherwise_is_part_of_its_name():
    counts = {"control": 12, "Trametinib": 6, "2,3-DCPE": 6, "Belinostat": 6, "Trametinib_Belinostat": 5}
    for stated in ({}, {"nperts": [0, 1, 1, 1, 2]}):
        found = read(counts, columns=stated)
        assert found.form == "A_B"
        assert sizes(found) == {
            **{"control": 12, "Trametinib": 6, "2,3-DCPE": 6, "Belinostat": 6},
            "Belinostat+Trametinib": 5,
        }


def test_a_written_list_of_drugs_and_doses_is_one_condition_a_dose():
    tahoe = {
        "[('DMSO_TF', 0.0, 'uM')]": 12,
        "[('Bortezomib', 0.05, 'uM')]": 5,
        "[('Bortezomib', 0.5, 'uM')]": 4,
        "[('Trametinib', 0.5, 'uM'), ('Bortezomib', 0.05, 'uM')]": 3,
        "[('Bortezomib', 0.05, 'uM'), ('DMSO_TF', 0.0, 'uM')]": 2,
    }
    found = read(tahoe, column="drugname_drugconc")
    assert sizes(found) == {
        "control": 12,
        "Bortezomib 0.05 uM": 7,
        "Bortezomib 0.5 uM": 4,
        "Bortezomib 0.05 uM+Trametinib 0.5 uM": 3,
    }
    assert found.form == "[A, B]"
    assert found.control == ("[('DMSO_TF', 0.0, 'uM')]",)


# ------------------------------------------------------------------------------------- no guide: case03


@pytest.mark.parametrize("word", ["nan", "None", "unassigned", "multiplet", "N/A", "no_guide", "*", "Negative", None])
def test_cells_without_a_guide_are_left_out_by_name_and_counted(word):
    counts = {"control": 12, "KLF1": 6, "SET": 6, word: 15, "KLF1_SET": 6}
    found = read(counts, columns={"nperts": [0, 1, 1, 1, 2]})
    assert sizes(found) == {"control": 12, "KLF1": 6, "SET": 6, "": 15, "KLF1+SET": 6}
    ((label, left_out),) = found.left_out.items()
    assert label == (word or "(missing)")
    assert left_out.cells == 15
    assert left_out.reason == ("it names no perturbation" if word else "it has no label")
    assert found.perturbed == ("KLF1", "SET")


def test_a_word_for_no_guide_is_control_where_the_user_says_so():
    found = read({"unassigned": 12, "KLF1": 6}, control="unassigned")
    assert sizes(found) == {"control": 12, "KLF1": 6}


def test_a_pair_with_an_unknown_guide_is_left_out():
    found = read({"ctrl": 12, "KLF1+ctrl": 6, "KLF1+unknown": 3})
    assert sizes(found) == {"control": 12, "KLF1": 6, "": 3}
    assert found.left_out["KLF1+unknown"].reason == "'unknown' in it names no perturbation"


# ------------------------------------------------------------------------------------- blanks: case05


def test_blanks_make_no_new_gene():
    gears = {" ctrl ": 6, "ctrl": 6, "KLF1+ctrl ": 4, "ctrl + KLF1": 3, "SET+Ctrl": 6, "SET+KLF1": 5}
    found = read(gears, column="condition")
    assert sizes(found) == {"control": 12, "KLF1": 7, "SET": 6, "KLF1+SET": 5}
    assert any("counted together" in note and "' ctrl '" in note for note in found.notes)
    found = read({"control": 12, "KLF1 ": 4, "KLF1": 4, "SET": 6})
    assert sizes(found) == {"control": 12, "KLF1": 8, "SET": 6}
    assert any("counted together" in note and "'KLF1 '" in note for note in found.notes)


# ------------------------------------------------------------------------------------- marks: case07


@pytest.mark.parametrize("mark", ["|", ";", " || ", "/", "&", ":", "+", ",", "_", " + "])
def test_pairs_are_read_whatever_joins_them(mark):
    pairs = {"KLF1": "SET", "BAK1": "ETS2", "ETS2": "KLF1"}
    counts = {"control": 12, **dict.fromkeys(GENES[:4], 6), **{a + mark + b: 5 for a, b in pairs.items()}}
    found = read(counts)
    assert sizes(found) == {
        "control": 12,
        **dict.fromkeys(GENES[:4], 6),
        **dict.fromkeys(["KLF1+SET", "BAK1+ETS2", "ETS2+KLF1"], 5),
    }
    assert found.form == ("A || B" if "||" in mark else f"A{mark.strip()}B")
    assert not found.notes


# ------------------------------------------------------------------------------------- guide rules: case08, case25


def test_a_rule_reads_the_guides_of_a_pair_one_by_one():
    calls = {
        **{"NC-1": 5, "NC-2": 5, "NC-1|NC-2": 4, "RAB1A-1": 3, "RAB1A-2": 3, "RAB1A-1|RAB1A-2": 4, "NC-1|RAB1A-2": 3},
        **{"STIP1-1": 4, "STIP1-2": 4, "NKX2-1-1": 4, "NKX2-1-2": 4, "RAB1A-1|STIP1-2": 5, "NKX2-1-1|STIP1-1": 6},
        "RAB1A-1|RAB1A-2|STIP1-1": 2,
    }
    rule = {"pattern": "{gene}-{guide}", "control": "NC-{guide}"}
    found = read(calls, column="feature_call", guides=rule)
    expected = {
        **{"control": 14, "RAB1A": 13, "STIP1": 8, "NKX2-1": 8, "RAB1A+STIP1": 7, "NKX2-1+STIP1": 6},
    }
    assert sizes(found) == expected
    assert not found.left_out
    assert found.form == "A|B"
    assert propose(calls) == GuideRule.model_validate(rule)


def test_labels_that_are_written_twice_are_read_once_with_the_rule_that_is_proposed():
    def twice(a, b):
        return f"{a}_{b}__{a}_{b}"

    counts = {
        twice("NegCtrl0", "NegCtrl0"): 6,
        twice("NegCtrl1", "NegCtrl0"): 6,
        twice("KLF1", "NegCtrl0"): 5,
        twice("NegCtrl0", "KLF1"): 5,
        twice("SET", "NegCtrl0"): 6,
        twice("KLF1", "SET"): 5,
        twice("SET", "KLF1"): 3,
    }
    rule = propose(counts)
    assert rule == GuideRule(pattern="{gene}", control="NegCtrl{guide}")
    found = read(counts, column="guide_identity", guides=rule)
    assert sizes(found) == {"control": 12, "KLF1": 10, "SET": 6, "KLF1+SET": 8}


# ------------------------------------------------------------------------------------- columns: case13


def test_the_column_whose_names_are_genes_is_taken():
    table = cells({"control": 6, "KLF1": 4, "SET": 4, "BAK1": 4})
    table["condition"] = ["Control", "IFNg", "Co-culture"] * 6
    found = read_labels(table, "file", PerturbseqData(), GENES)
    assert found.column == "perturbation"
    assert sizes(found) == {"control": 6, "KLF1": 4, "SET": 4, "BAK1": 4}
    (note,) = found.notes
    assert note.startswith("obs['perturbation'] is taken for the perturbation, of whose names 3 are genes of the file")
    assert read_labels(table, "file", PerturbseqData(**applied(note)), GENES).column == "condition"


# ------------------------------------------------------------------------------------- many members: case22


@pytest.mark.parametrize("size", [9, 12, 40, 400])
@pytest.mark.parametrize("stated", [True, False])
def test_labels_of_many_members_are_left_out_at_once(size, stated):
    elements = [f"chr{k % 22 + 1}.{1000 + k}_top_two" for k in range(size)]
    many = "_".join(elements)
    counts = {"control": 12, "KLF1": 6, "SET": 6, many: 5, "_".join(elements[::-1]): 3}
    alone = {} if stated else dict.fromkeys(elements, 1)
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    options = {"columns": {"nperts": [0, 1, 1, size, size]}} if stated else {}
    found = read({**counts, **alone}, **options)
    assert time.process_time() - began < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes
    assert sizes(found) == {"control": 12, "KLF1": 6, "SET": 6, "": 8, **alone}
    assert found.left_out[many].cells == 5
    assert found.left_out[many].reason == f"it names {size} perturbations together, and only pairs are predicted"


def test_thousands_of_labels_of_many_unknown_members_fill_no_memory():
    random = np.random.default_rng(0)
    many = ["_".join(f"e{k}_top" for k in random.choice(9000, 200, replace=False)) for _ in range(2000)]
    counts = {"control": 12, "KLF1": 6, "SET": 6, "KLF1_SET": 5, **dict.fromkeys(many, 1)}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = read(counts)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes
    assert sizes(found) == {"control": 12, "KLF1": 6, "SET": 6, "KLF1+SET": 5, "": 2000}
    assert (
        found.left_out[many[0]].reason == "it names more than two perturbations together, and only pairs are predicted"
    )


# ------------------------------------------------------------------------------------- kinds of control: case24


def test_guides_of_control_beside_cells_without_one_are_pointed_out():
    dixit = {"control": 8, "INTERGENIC216151": 4, "INTERGENIC1144056": 3, "ELK1": 6, "EGR1": 6, "ELK1_EGR1": 5}
    found = read(dixit)
    guides = {"INTERGENIC216151": 4, "INTERGENIC1144056": 3}
    assert sizes(found) == {"control": 8, **guides, "ELK1": 6, "EGR1": 6, "EGR1+ELK1": 5}
    (note,) = found.notes
    assert applied(note) == {"control": ["control", "INTERGENIC1144056", "INTERGENIC216151"]}
    assert sizes(read(dixit, **applied(note))) == {"control": 15, "ELK1": 6, "EGR1": 6, "EGR1+ELK1": 5}


def test_a_second_kind_of_control_is_kept_by_name_and_pointed_out():
    counts = {"non-targeting": 6, "safe-targeting": 4, "AAVS1": 4, "ELK1": 6, "EGR1": 6, "ELK1+AAVS1": 3}
    counts["ELK1+EGR1"] = 5
    found = read(counts, column="condition")
    assert sizes(found) == {
        **{"control": 6, "safe-targeting": 4, "AAVS1": 4, "ELK1": 6, "EGR1": 6, "AAVS1+ELK1": 3, "EGR1+ELK1": 5},
    }
    (note,) = found.notes
    assert applied(note) == {"control": ["non-targeting", "AAVS1", "safe-targeting"]}
    mended = read(counts, column="condition", **applied(note))
    assert sizes(mended) == {"control": 14, "ELK1": 9, "EGR1": 6, "EGR1+ELK1": 5}
    assert not mended.notes


@pytest.mark.parametrize("word", ["NT", "DMSO", "scramble", "AAVS1", "untreated", "NTC_1"])
def test_the_only_word_for_control_is_taken_and_said(word):
    counts = {word: 12, f"ELK1+{word}": 6, f"{word}+EGR1": 5, "ELK1+EGR1": 4}
    found = read(counts, column="condition")
    assert sizes(found) == {"control": 12, "ELK1": 6, "EGR1": 5, "EGR1+ELK1": 4}
    note = next(note for note in found.notes if f"{word!r} is taken for control" in note)
    assert applied(note) == {"control": word}
    assert sizes(read(counts, column="condition", **applied(note))) == sizes(found)


def test_several_words_for_control_and_no_usual_one_are_refused_with_the_line_to_add():
    counts = {"NT": 8, "AAVS1": 4, "KLF1": 6}
    with pytest.raises(UserError, match=r"several words for control \('AAVS1', 'NT'\)") as refusal:
        read(counts)
    assert "control: AAVS1   or, where all are control,   control: [AAVS1, NT]" in str(refusal.value)
    assert sizes(read(counts, control=["AAVS1", "NT"])) == {"control": 12, "KLF1": 6}


# ------------------------------------------------------------------------------------- control twice: case39


@pytest.mark.parametrize("word", ["ctrl", "non-targeting", "Control", "NT"])
@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("mark", ["+", "_", "|"])
def test_control_beside_control_is_control_and_a_gene_beside_itself_is_the_gene(word, bare, mark):
    labels = [f"{word}{mark}{word}", f"KLF1{mark}{word}", f"KLF1{mark}KLF1", f"{word}{mark}SET", f"KLF1{mark}SET"]
    counts = dict(zip(labels, [12, 5, 3, 6, 4], strict=True)) | ({word: 2} if bare else {})
    found = read(counts, column="condition")
    assert sizes(found) == {"control": 12 + 2 * bare, "KLF1": 8, "SET": 6, "KLF1+SET": 4}


def test_rows_stay_in_their_order():
    found = read_labels(
        cells({"control": 1, "KLF1": 1}).iloc[[1, 0, 1]].reset_index(drop=True), "file", PerturbseqData(), GENES
    )
    np.testing.assert_array_equal(found.conditions, ["KLF1", "control", "KLF1"])
