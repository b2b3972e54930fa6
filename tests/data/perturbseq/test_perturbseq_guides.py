"""Labels that name guides: merged by the study file's rule, refused where it does not fit, proposed where none is."""

import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.data.perturbseq.control_words import control_word, names_no_guide
from harness.data.perturbseq.guides import Guides, as_written, propose
from harness.data.perturbseq.labels import read_labels as read_by
from harness.data_spec import PerturbseqData
from harness.errors import UserError
from harness.reading_spec import GuideRule

#: The machine may be busy, which says nothing about the labels.
unhurried = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])

RULE = GuideRule(pattern="{gene}_{guide}", control="NTg{guide}")


def read_labels(obs, where, rule=None, **options):
    return read_by(obs, where, PerturbseqData(guides=rule, **options))


def read(labels, rule=RULE, column="condition", **columns):
    return read_labels(pd.DataFrame({column: labels, **columns}), "file", column=column, rule=rule)


def conditions(labels, rule=RULE, **options):
    return read(labels, rule, **options).conditions.tolist()


def test_guides_of_a_gene_are_merged_and_non_targeting_ones_are_control():
    found = read(["LCK_1", "LCK_2", "NTg4", "CD3E_g7", "NTg12"])
    assert found.conditions.tolist() == ["LCK", "LCK", "control", "CD3E", "control"]
    assert found.control == ("NTg4", "NTg12")
    assert found.guides == {"LCK": ("LCK_1", "LCK_2"), "CD3E": ("CD3E_g7",), "control": ("NTg12", "NTg4")}


@pytest.mark.parametrize(
    ("pattern", "label"),
    [
        ("{gene}_{guide}", "HLA-A_12"),
        ("{gene}_{guide}", "HLA-A_sg2"),
        ("{gene}-{guide}", "HLA-A-2"),
        ("{gene}.{guide}", "HLA-A.3"),
        ("{gene}_P1P2_{guide}", "HLA-A_P1P2_1"),
        ("sg{gene}_{guide}", "sgHLA-A_1"),
        ("{gene}_*", "HLA-A_ACGTTG"),
    ],
)
def test_templates(pattern, label):
    labels = [label, label.replace("HLA-A", "MYC"), "ctrl", "KLF1"]
    assert conditions(labels, GuideRule(pattern=(pattern, "{gene}"))) == ["HLA-A", "MYC", "control", "KLF1"]


@pytest.mark.parametrize("mark", ["+", ",", "_", "|", ";", "/", "&", ":"])
def test_pairs_of_guides(mark):
    alone = ["LCK_1", "LCK_2", "CD3E_1", "NTg4"]
    pairs = [
        mark.join(pair)
        for pair in (
            ("LCK_1", "CD3E_1"),
            ("CD3E_1", "LCK_2"),
            ("LCK_1", "LCK_2"),
            ("NTg4", "LCK_2"),
            ("CD3E_1", "NTg4"),
            ("NTg4", "NTg4"),
        )
    ]
    found = read(alone + pairs)
    assert found.form == f"A{mark}B"
    assert found.conditions.tolist() == [
        *("LCK", "LCK", "CD3E", "control"),
        *("CD3E+LCK", "CD3E+LCK", "LCK", "LCK", "CD3E", "control"),
    ]


def test_control_may_be_pairs_of_non_targeting_guides_only():
    assert conditions(["NTg1+NTg2", "LCK_1+NTg2", "LCK_1+CD3E_2"]) == ["control", "LCK", "CD3E+LCK"]


def test_gene_names_with_underscores_keep_them():
    assert conditions(["RP11_34_1", "RP11_34_2", "MYC_1", "NTg1"]) == ["RP11_34", "RP11_34", "MYC", "control"]


def test_a_stated_number_of_genes_tells_pairs_from_guides():
    labels = ["LCK_1_CD3E_2", "LCK_1", "NTg1"]
    assert conditions(labels, nperts=[2, 1, 0]) == ["CD3E+LCK", "LCK", "control"]


def test_the_users_label_of_control_counts_beside_the_rule():
    obs = pd.DataFrame({"guide": ["safe", "NTg1", "LCK_1", "ctrl+LCK_2", "MYC_1"]})
    found = read_labels(obs, "file", column="guide", control="safe", rule=RULE)
    assert found.conditions.tolist() == ["control", "control", "LCK", "LCK", "MYC"]


def test_control_by_the_rule_finds_the_column():
    obs = pd.DataFrame({"condition": ["stim", "rest"], "perturbation": ["NTg1", "LCK_1"]})
    assert read_labels(obs, "file", rule=RULE).column == "perturbation"


# ---------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("labels", "rule", "sentence"),
    [
        (["control", "KLF1", "SET"], RULE, r"2 of 2 names fit no template .*'KLF1', 'SET'; add to data.guides.pattern"),
        (["NTg1", "LCK_1", "KLF1"], RULE, r"1 of 3 names fit no template .*\{gene\} for a gene alone"),
        (["NTg1", "LCK_1", "LCK_2"], {"pattern": "{gene}_{guide}", "control": "*g*"}, None),
        (["ctrl", "LCK_1", "LCK_2"], RULE, "reads all 2 names as the one gene 'LCK'; make data.guides.pattern"),
        (["NTg1", "NTg2"], RULE, "reads all 2 names as control; make data.guides.control"),
        (
            ["NTRK1", "NTRK2_1", "NTRK1_1"],
            {"pattern": ("{gene}_{guide}", "{gene}"), "control": "NT{guide}"},
            "reads 'NTRK1' as a non-targeting guide, but it may be one of 'NTRK1'",
        ),
        (["control_1", "LCK_1", "ctrl"], RULE, r"'control_1' as a guide of 'control', .* such as 'control_\{guide\}'"),
        (["LCK_1_CD3E_2", "NTg1", "MYC_1"], RULE, "can be read as .*LCK_1 and CD3E_2.*; write pairs as A\\+B"),
        (["LCK_1", "MYC_1"], RULE, "no control cells .* set data.control"),
    ],
)
def test_a_rule_that_does_not_fit_is_refused_in_a_sentence(labels, rule, sentence):
    rule = rule if isinstance(rule, GuideRule) else GuideRule(**rule)
    if sentence is None:
        assert conditions(labels, rule) == ["control", "LCK", "LCK"]
        return
    with pytest.raises(UserError, match=sentence) as refusal:
        conditions(labels, rule)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"pattern": "LCK_{guide}"}, "must have {gene} once"),
        ({"pattern": "{gene}_{gene}"}, "must have {gene} once"),
        ({"pattern": "{gene}{guide}"}, "nothing separates the parts"),
        ({"pattern": "{gene}*"}, "nothing separates the parts"),
        ({"pattern": "{gene}_{number}"}, "has {number}, but only {gene}, {guide}, \\* can be filled in"),
        ({"pattern": ()}, "there is no template"),
        ({"control": "{gene}_NT"}, "without a gene"),
        ({"control": "{guide}"}, "no word of its own"),
        ({"control": "*"}, "no word of its own"),
    ],
)
def test_templates_that_cannot_work_are_refused(fields, sentence):
    with pytest.raises(ValidationError, match=sentence):
        GuideRule(**fields)


# --------------------------------------------------------------------------------------------- proposals


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (["LCK_1", "LCK_2", "CD3E_1", "NTg4", "NTg5"], 'guides: {pattern: "{gene}_{guide}", control: "NTg{guide}"}'),
        (["LCK-sg1", "LCK-sg2", "MYC-sg1", "control"], 'guides: {pattern: "{gene}-{guide}"}'),
        (
            ["LCK.1", "LCK.2", "MYC.1", "MYC.2", "KLF1", "non-targeting_1"],
            'guides: {pattern: ["{gene}.{guide}", "{gene}"], control: "non-targeting_{guide}"}',
        ),
        (
            ["LCK_1+MYC_2", "LCK_2", "MYC_1", "NTC1", "scramble_3"],
            'guides: {pattern: "{gene}_{guide}", control: ["NTC{guide}", "scramble_{guide}"]}',
        ),
        (["KLF1", "SET", "NT1", "NT2"], 'guides: {pattern: "{gene}", control: "NT{guide}"}'),
    ],
)
def test_a_rule_is_proposed_that_fits_the_labels(labels, line):
    rule = propose(labels)
    assert as_written(rule) == line
    found = read([*labels, "ctrl"], rule)
    assert {"LCK", "SET"} & set(found.conditions)
    assert not {"LCK_1", "LCK-sg1", "LCK.1", "LCK_2"} & set(found.conditions)


@pytest.mark.parametrize(
    "labels",
    [
        ["control", "KLF1", "SET", "SET+KLF1"],
        ["ctrl", "KLF1+ctrl", "NKX2-1+ctrl", "NKX2-5+ctrl", "HLA-A+ctrl", "FOXA1+ctrl", "MYC+ctrl"],
        ["", "C19orf26", "KLF1,SET"],
        ["control", "NTRK1", "NTRK2", "RP11_34"],
    ],
)
def test_names_of_genes_are_not_taken_for_guides(labels):
    assert propose(labels) is None


# -------------------------------------------------------------------------------------------- properties

genes = st.from_regex(r"[A-Z][A-Za-z0-9.\-_]{0,8}", fullmatch=True).filter(
    lambda name: name.lower() not in {"control", "ctrl", "non-targeting"} and not name.startswith("NTg")
)


@st.composite
def guide_screens(draw):
    named = draw(st.lists(genes, min_size=2, max_size=6, unique=True))
    guides = {gene: draw(st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True)) for gene in named}
    members = [(gene, f"{gene}_{number}") for gene, numbers in guides.items() for number in numbers]
    members += [("control", f"NTg{number}") for number in draw(st.lists(st.integers(1, 99), min_size=1, unique=True))]
    pairs = draw(st.lists(st.tuples(st.sampled_from(members), st.sampled_from(members)), max_size=6))
    return members, pairs


@pytest.mark.parametrize("mark", ["+", ","])
@given(screen=guide_screens(), order=st.randoms(use_true_random=False))
@unhurried
def test_any_guides_joined_in_any_order_give_their_genes(mark, screen, order):
    members, pairs = screen
    labelled = [(guide, {gene}) for gene, guide in members]
    labelled += [(a[1] + mark + b[1], {a[0], b[0]}) for a, b in pairs]
    order.shuffle(labelled)
    expected = ["+".join(sorted(named - {"control"})) or "control" for _, named in labelled]
    assert conditions([label for label, _ in labelled]) == expected


@given(
    genes=st.lists(st.from_regex(r"[A-Z]{2,5}", fullmatch=True), min_size=2, max_size=5, unique=True),
    mark=st.sampled_from("_-."),
    control=st.sampled_from(["NTg", "NTC_", "non-targeting-"]),
    numbers=st.lists(st.integers(1, 99), min_size=2, max_size=4, unique=True),
)
@unhurried
def test_a_proposed_rule_reads_what_it_was_proposed_for(genes, mark, control, numbers):
    assume(not any(control_word(gene) or gene.startswith(("NT", "NEG", "SCR", "SAFE", "CTRL")) for gene in genes))
    labels = {f"{gene}{mark}{number}": gene for gene in genes for number in numbers}
    labels |= {f"{control}{number}": "control" for number in numbers}
    rule = propose(labels)
    assert rule == GuideRule(pattern=f"{{gene}}{mark}{{guide}}", control=f"{control}{{guide}}")
    assert conditions(list(labels), rule) == list(labels.values())


made_up = st.from_regex(r"[A-Z]{2,4}[0-9]{0,2}", fullmatch=True).filter(
    lambda name: control_word(name) is None and not names_no_guide(name)
)
CONTROLS = ["NTg", "NTC_", "NegCtrl", "non-targeting-", "NC-", "INTERGENIC", "AAVS1-", "sgNT-"]


@st.composite
def labelled_screens(draw):
    """Labels of a screen of guides, or of genes beside guides of control, and what each of them carries."""
    genes = draw(st.lists(made_up, min_size=2, max_size=5, unique=True))
    style = draw(st.sampled_from(["{}_{}", "{}-{}", "{}.{}", "{}-sg{}", "{}", "{}_+_{}23.5-P1P2", "{}_-_{}99.25-P2"]))
    numbers = draw(st.lists(st.integers(1, 999), min_size=2, max_size=4, unique=True))
    guides = {style.format(gene, number): gene for gene in genes for number in numbers}
    stem = draw(st.sampled_from(CONTROLS))
    guides |= {f"{stem}{number}": "control" for number in draw(st.lists(st.integers(0, 9999), min_size=1, unique=True))}
    mark = draw(st.sampled_from(["|", "+", ",", ";", " || ", *("_" if style == "{}" and "_" not in stem else "")]))
    assume(mark != "+" or "+" not in style)
    names = st.sampled_from(sorted(guides))
    labels = {name: {gene} for name, gene in guides.items()}
    for first, second in draw(st.lists(st.tuples(names, names), max_size=6)):
        labels[first + mark + second] = {guides[first], guides[second]}
    if draw(st.booleans()):
        labels = {f"{label}__{label}": members for label, members in labels.items()}
    return {label: "+".join(sorted(members - {"control"})) or "control" for label, members in labels.items()}, genes


@given(screen=labelled_screens(), named=st.booleans())
@unhurried
def test_what_is_proposed_reads_the_file_as_it_is_meant(screen, named):
    expected, genes = screen
    rule = propose(expected, frozenset(genes) if named else frozenset())
    assert rule is not None
    found = read_by(
        pd.DataFrame({"guide": list(expected)}),
        "file",
        PerturbseqData(column="guide", guides=rule),
        genes if named else (),
    )
    assert found.conditions.tolist() == list(expected.values())
    perturbed = [label for label, condition in expected.items() if condition != "control"]
    assert not any(Guides(rule).is_control(label) for label in perturbed)


@given(labels=st.lists(st.one_of(genes, st.tuples(genes, genes).map("_".join)), min_size=2, max_size=8, unique=True))
@unhurried
def test_a_proposed_control_template_fits_no_label_that_holds_a_gene(labels):
    rule = propose([*labels, "NT1", "NT2", "NegCtrl0", f"{labels[0]}_NegCtrl0"])
    assume(rule is not None)
    held = [label for label in labels if control_word(label) is None]
    assert not any(Guides(rule).is_control(label) for label in [*held, f"{labels[0]}_NegCtrl0"])


def test_a_gene_of_the_file_is_proposed_as_no_guide():
    labels = ["control", "NKX2-1", "NKX2-5", "HLA-1", "HLA-2"]
    assert as_written(propose(labels)) == 'guides: {pattern: "{gene}-{guide}"}'
    assert propose(labels, frozenset({"NKX2-1", "NKX2-5"})) is None
