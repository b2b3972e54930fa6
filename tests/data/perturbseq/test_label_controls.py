"""The user's word on control, other kinds beside it, and what is left out for it."""

import pytest
from label_tables import applied, read, sizes

from harness.data.perturbseq.control_words import control_word, is_control_word, names_no_guide


def test_the_users_labels_add_up():
    counts = {"safe": 3, "AAVS1": 2, "KLF1": 4, "KLF1+AAVS1": 1, "safe+AAVS1": 2, "KLF1+SET": 2}
    found = read(counts, control=["safe", "AAVS1"])
    assert sizes(found) == {"control": 7, "KLF1": 5, "KLF1+SET": 2}
    assert found.control == ("safe", "AAVS1", "safe+AAVS1")


def test_a_usual_word_that_the_user_does_not_name_is_left_out_with_the_line_that_takes_it():
    counts = {"INTERGENIC1": 3, "control": 5, "ELK1": 4}
    found = read(counts, control="INTERGENIC1")
    assert sizes(found) == {"control": 3, "": 5, "ELK1": 4}
    assert found.left_out["control"].reason == "it means control, but data.control names other labels"
    (note,) = found.notes
    assert applied(note) == {"control": ["INTERGENIC1", "control"]}
    assert sizes(read(counts, **applied(note))) == {"control": 8, "ELK1": 4}


def test_numbered_words_for_control_are_left_out_with_the_word_and_taken_with_it():
    counts = {"NT_1": 3, "NT_2": 3, "control_1": 5, "ELK1": 4}
    assert sizes(read(counts, control="NT")) == {"control": 6, "": 5, "ELK1": 4}
    assert sizes(read(counts, control=["NT", "control"])) == {"control": 11, "ELK1": 4}
    assert sizes(read(counts, control="control_1")) == {"control": 5, "NT": 6, "ELK1": 4}


def test_a_rule_need_not_fit_a_word_for_no_guide():
    rule = {"pattern": "{gene}_{guide}", "control": "NTg{guide}"}
    found = read({"NTg1": 3, "LCK_1": 2, "CD3E_1": 2, "LCK_1|none": 1, "LCK_1|CD3E_1": 1, "nan": 4}, guides=rule)
    assert sizes(found) == {"control": 3, "LCK": 2, "CD3E": 2, "": 5, "CD3E+LCK": 1}


def test_a_label_of_control_that_no_cell_has_is_said():
    (note,) = read({"NT": 3, "KLF1": 4}, control=["NT", "AVVS1"]).notes
    assert note.startswith("data.control names 'AVVS1', which no cell is labelled")


@pytest.mark.parametrize(
    "label", ["KLF1+none", "NegCtrl0_NegCtrl0__NegCtrl0_NegCtrl0", " mouse ", "[('Water', 0, 'uM')]"]
)
def test_any_label_can_be_named_as_the_file_writes_it(label):
    assert sizes(read({label: 3, "SET": 4}, control=label)) == {"control": 3, "SET": 4}


def test_many_guides_of_another_kind_are_told_by_a_rule_that_works():
    guides = {f"INTERGENIC{1000 + k}": 1 for k in range(20)}
    counts = {"NT": 3, **guides, "ELK1": 4, "EGR1": 2, "ELK1+EGR1": 2}
    notes = read(counts).notes
    note = next(note for note in notes if "may be control too" in note)
    assert applied(note) == {"control": "NT", "guides": {"pattern": "{gene}", "control": "INTERGENIC{guide}"}}
    assert sizes(read(counts, **applied(note))) == {"control": 23, "ELK1": 4, "EGR1": 2, "EGR1+ELK1": 2}


def test_a_gene_of_the_file_is_no_word_for_control():
    counts = {"control": 3, "WT": 2, "NEG1": 2}
    assert len(read(counts).notes) == 1
    assert not read(counts, genes=("WT", "NEG1")).notes


def test_an_empty_label_is_control_in_guide_ids_alone_and_there_beside_no_word_for_it():
    assert sizes(read({"": 3, "KLF1": 2}, column="guide_ids")) == {"control": 3, "KLF1": 2}
    assert sizes(read({"": 3, "control": 1, "KLF1": 2}, column="guide_ids")) == {"": 3, "control": 1, "KLF1": 2}
    assert sizes(read({"": 3, "control": 1, "KLF1": 2})) == {"": 3, "control": 1, "KLF1": 2}


@pytest.mark.parametrize("word", ["control", "Ctrl", "NON-TARGETING", "non_targeting", "nontargeting", "Non targeting"])
def test_usual_words_are_known_in_any_spelling(word):
    assert is_control_word(word)
    assert sizes(read({word: 3, "KLF1": 2, f"KLF1+{word}": 1})) == {"control": 3, "KLF1": 3}


@pytest.mark.parametrize("gene", ["NTRK1", "NTF3", "NT5E", "WT1", "SAFB", "SCRIB", "NEGR1", "N_T", "NCL", "KLF1"])
def test_genes_that_begin_as_words_for_control_are_none(gene):
    assert control_word(gene) is None


@pytest.mark.parametrize(
    "word", ["nan", "NaN", "NA", "<NA>", "n/a", "NULL", "unknown", "Doublet", "no guide", "*", "-"]
)
def test_words_for_no_guide_are_known(word):
    assert names_no_guide(word)


@pytest.mark.parametrize("name", ["NAT1", "NANOG", "NULL1", "NONO", "N_A", "control"])
def test_names_that_begin_as_words_for_no_guide_are_none(name):
    assert not names_no_guide(name)
