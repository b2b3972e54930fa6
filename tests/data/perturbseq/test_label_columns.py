"""Which column of obs names the perturbation, and which is proposed where none is called so."""

import numpy as np
import pandas as pd
import pytest
from label_tables import cells

from harness.data.perturbseq.labels import read_labels
from harness.data_spec import PerturbseqData
from harness.errors import UserError

GENES = ("KLF1", "SET", "BAK1")


def column_of(obs, genes=GENES, **options):
    return read_labels(obs, "file", PerturbseqData(**options), genes).column


def test_the_first_of_several_columns_that_say_the_same_is_taken():
    obs = cells({"control": 2, "KLF1": 2, "KLF1_SET": 2, "SET": 2}, "condition")
    obs["perturbation"] = obs["condition"].str.replace("KLF1_SET", "SET+KLF1")
    obs["guide_ids"] = obs["condition"].replace("control", "")
    found = read_labels(obs, "file", PerturbseqData(), GENES)
    assert (found.column, found.notes) == ("condition", ())


def test_columns_that_differ_and_name_as_many_genes_are_refused_with_the_line_to_add():
    obs = cells({"control": 2, "KLF1": 2, "SET": 2}, "condition")
    obs["perturbation"] = np.roll(obs["condition"], 1)
    with pytest.raises(UserError, match=r"condition'\] and obs\['perturbation'\] may each name .* differ") as refusal:
        column_of(obs)
    assert str(refusal.value).endswith("column: condition   or   column: perturbation")
    assert column_of(obs, column="perturbation") == "perturbation"


def test_columns_of_no_gene_at_all_are_refused_where_they_differ():
    obs = cells({"control": 2, "drug": 2}, "condition")
    obs["perturbation"] = ["control", "KLF1"] * 2
    with pytest.raises(UserError, match="may each name the perturbation"):
        column_of(obs, genes=("ENSG1",))


@pytest.mark.parametrize("other", [["stim", "rest"] * 3, ["A", "A_X", "control"] * 2, [1, 2] * 3])
def test_a_column_without_control_or_with_two_readings_is_no_candidate(other):
    obs = cells({"control": 2, "KLF1": 2, "SET": 2})
    obs.insert(0, "condition", other)
    assert column_of(obs) == "perturbation"
    with pytest.raises(UserError, match=r"no control cells|may be one gene or a pair|holds int"):
        column_of(obs.drop(columns="perturbation"))


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        (
            "guide_identity",
            ["KLF1_NegCtrl0__KLF1_NegCtrl0", "NegCtrl0_NegCtrl0__NegCtrl0_NegCtrl0", "SET_KLF1__SET_KLF1"],
        ),
        ("feature_call", ["NC-1|NC-2", "KLF1-1", "SET-1|KLF1-2"]),
        ("drugname_drugconc", ["[('DMSO_TF', 0.0, 'uM')]", "[('JQ1', 0.05, 'uM')]", "[('JQ1', 5.0, 'uM')]"]),
        ("gene", ["KLF1", "SET", "nontargeting"]),
        ("target_gene", ["KLF1", "SET", "BAK1"]),
    ],
)
def test_the_most_likely_column_is_named_where_none_is_called_so(name, labels):
    obs = pd.DataFrame({"batch": ["1", "2", "3"], "cell_line": ["K562"] * 3, name: labels, "n_genes": [1, 2, 3]})
    with pytest.raises(UserError, match=f"set data.column to {name}, whose labels look like perturbations"):
        column_of(obs)
