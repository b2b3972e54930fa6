import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from harness.data.perturbseq.control_words import control_word, names_no_guide
from harness.data.perturbseq.labels import canonical, members_of
from harness.data.perturbseq.labels import read_labels as read_by
from harness.data.perturbseq.name_shapes import looks_like_name
from harness.data_spec import PerturbseqData
from harness.errors import UserError

#: The machine may be busy, which says nothing about the labels.
unhurried = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

CONVENTIONS = {
    # column, control label, one gene, two genes
    "perturbench": ("condition", "control", "{}", "{}+{}"),
    "gears": ("condition", "ctrl", "{}+ctrl", "{}+{}"),
    "gears_reversed": ("condition", "ctrl", "ctrl+{}", "{}+{}"),
    "scperturb": ("perturbation", "control", "{}", "{}_{}"),
    "cpa": ("guide_ids", "", "{}", "{},{}"),
}


def table(convention, genes, pairs, **columns):
    column, control, one, two = CONVENTIONS[convention]
    labels = [control, *(one.format(gene) for gene in genes), *(two.format(a, b) for a, b in pairs)]
    return pd.DataFrame({column: labels, **columns})


def read_labels(obs, where, **options):
    return read_by(obs, where, PerturbseqData(**options))


def conditions(obs, **options):
    return read_labels(obs, "file", **options).conditions.tolist()


def forbidden(name):
    return control_word(name) is not None or names_no_guide(name) or not looks_like_name(name)


def torn(name):
    """Whether a name has parts of which others may be made: A_B, A_1."""
    return any(not part or part.isdigit() for part in name.split("_"))


plain = st.from_regex(r"[A-Z][A-Za-z0-9.\-]{0,8}", fullmatch=True).filter(lambda name: not forbidden(name))
with_underscores = st.from_regex(r"[A-Z][A-Za-z0-9.\-_]{0,8}", fullmatch=True).filter(
    lambda name: not forbidden(name) and not torn(name)
)


@st.composite
def screens(draw, names):
    genes = draw(st.lists(names, min_size=2, max_size=6, unique=True))
    pair = st.tuples(st.sampled_from(genes), st.sampled_from(genes)).filter(lambda ab: ab[0] != ab[1])
    return genes, draw(st.lists(pair, min_size=1, max_size=4, unique_by=frozenset))


@pytest.mark.parametrize("convention", ["perturbench", "gears", "gears_reversed", "cpa"])
@unhurried
@given(screen=screens(with_underscores), order=st.randoms(use_true_random=False))
def test_what_a_convention_writes_is_read_back_in_any_order(convention, screen, order):
    genes, pairs = screen
    assume(not any(set(gene.split("_")) <= set(genes) for gene in genes if "_" in gene))  # nor by _ a pair of others
    expected = np.array(["control", *genes, *("+".join(sorted(pair)) for pair in pairs)])
    rows = order.sample(range(len(expected)), len(expected))
    assert conditions(table(convention, genes, pairs).iloc[rows]) == expected[rows].tolist()


@unhurried
@given(screen=screens(plain))
def test_underscores_join_pairs_of_known_singles(screen):
    genes, pairs = screen
    expected = ["control", *genes, *("+".join(sorted(pair)) for pair in pairs)]
    assert conditions(table("scperturb", genes, pairs)) == expected


@unhurried
@given(screen=screens(plain))
def test_stated_numbers_of_genes_need_no_singles(screen):
    _, pairs = screen
    obs = table("scperturb", [], pairs, nperts=[0] + [2] * len(pairs))
    assert conditions(obs) == ["control", *("+".join(sorted(pair)) for pair in pairs)]


@unhurried
@given(genes=st.lists(plain, min_size=1, max_size=5, unique=True))
def test_canonical_form_is_a_set(genes):
    assert canonical(genes) == canonical(reversed(genes)) == canonical(genes + genes)
    assert members_of(canonical(genes)) == tuple(sorted(genes))


def test_control_has_no_members():
    assert canonical([]) == "control"
    assert members_of("control") == ()


def test_nperts_keeps_a_gene_with_an_underscore_whole():
    obs = pd.DataFrame({"perturbation": ["control", "A_1", "B", "A_1_B", "B_A_1"], "nperts": [0, 1, 1, 2, 2]})
    assert conditions(obs) == ["control", "A_1", "B", "A_1+B", "A_1+B"]


def test_one_proven_pair_shows_how_the_file_writes_pairs():
    obs = pd.DataFrame({"perturbation": ["control", "A", "B", "A_B", "C_D", "A_E"]})
    assert conditions(obs) == ["control", "A", "B", "A+B", "C+D", "A+E"]


def test_names_with_underscores_and_no_pair_in_sight_stay_whole():
    obs = pd.DataFrame({"perturbation": ["control", "RP11_34", "X_Y"]})
    assert conditions(obs) == ["control", "RP11_34", "X_Y"]


@pytest.mark.parametrize("labels", [["control", "A", "A_X"], ["control", "A", "B", "A_B", "P_Q_R"]])
def test_an_underscore_that_may_mean_either_is_refused(labels):
    with pytest.raises(UserError, match="may be one gene or a pair"):
        conditions(pd.DataFrame({"perturbation": labels}))


def test_two_readings_of_one_pair_are_refused():
    obs = pd.DataFrame({"perturbation": ["control", "A", "B_C", "A_B", "C", "A_B_C"], "nperts": [0, 1, 1, 1, 1, 2]})
    with pytest.raises(UserError, match="can be read as A and B_C or A_B and C"):
        conditions(obs)


def test_contradicting_numbers_of_genes_are_refused():
    obs = pd.DataFrame({"perturbation": ["control", "A_B", "A_B"], "nperts": [0, 1, 2]})
    with pytest.raises(UserError, match="both 1 and 2 genes"):
        conditions(obs)


def test_an_unknown_control_label_is_found_by_its_number_of_genes():
    obs = pd.DataFrame({"perturbation": ["control", "NT_5"], "nperts": [0, 0]})
    with pytest.raises(UserError, match=r"set data\.control"):
        conditions(obs)


def test_missing_numbers_of_genes_say_nothing():
    obs = pd.DataFrame({"perturbation": ["control", "A", "B", "A_B"], "nperts": [None, None, None, 2.0]})
    assert conditions(obs) == ["control", "A", "B", "A+B"]


def test_the_column_with_control_cells_is_taken():
    obs = pd.DataFrame({"condition": ["stimulated", "resting"], "perturbation": ["control", "A"]})
    assert read_labels(obs, "file").column == "perturbation"


def test_the_users_column_and_control_label_win():
    obs = pd.DataFrame({"condition": ["control", "A"], "guide": ["NTg4", "KLF1"]})
    found = read_labels(obs, "file", column="guide", control="NTg4")
    assert found.conditions.tolist() == ["control", "KLF1"]
    assert (found.column, found.control) == ("guide", ("NTg4",))


def test_the_users_control_label_as_a_member_is_dropped():
    obs = pd.DataFrame({"guide": ["NT", "KLF1+NT", "KLF1+SET"]})
    assert conditions(obs, column="guide", control="NT") == ["control", "KLF1", "KLF1+SET"]


def test_categorical_labels_are_read():
    obs = pd.DataFrame({"condition": pd.Categorical(["A+B", "control", "A"])})
    assert conditions(obs) == ["A+B", "control", "A"]


@pytest.mark.parametrize(
    ("columns", "options", "sentence"),
    [
        ({"batch": ["a"], "sex": ["f"]}, {}, "one of: batch, sex"),
        ({"condition": ["control"]}, {"column": "pert"}, "no column obs\\['pert'\\]; .* condition"),
        ({"condition": ["A", "B"]}, {}, "no control cells .*'A', 'B'"),
        ({"condition": ["control", "A"]}, {"control": "NT"}, "looked for 'NT'"),
        (
            {"condition": pd.Categorical([None, None, "A"])},
            {},
            r"left out, as naming no .*, are '\(missing\)'",
        ),
        ({"dose": [1, 2]}, {"column": "dose"}, "holds int values such as 1"),
        ({"condition": ["control", "A", "B", "A+B", "A+"]}, {}, "'A\\+' names an empty gene"),
        ({"condition": ["control", "A|", "B|A"]}, {"pair_mark": "|"}, "'A|' names an empty gene"),
        ({"condition": ["control", "A+B"]}, {"pair_mark": "|"}, r"data\.pair_mark is '\|', but no label holds it"),
    ],
)
def test_refusals_name_what_is_wrong_and_what_would_do(columns, options, sentence):
    with pytest.raises(UserError, match=sentence):
        conditions(pd.DataFrame(columns), **options)
