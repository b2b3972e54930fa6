"""What a study predicts, and the rule by which prediction and measurement agree."""

import pytest
from report_samples import MCC, record, study

from harness.study.expectation import check_expectation, expectation_of
from harness.study.explain import SpecError
from harness.study.plan import check
from harness.study.records import Records
from harness.study.verdicts import counts, summary, verdict_table, verdicts

FAMILIES = [
    {"kind": "perturbed_vae", "mechanisms": "targeted"},
    {"kind": "perturbed_vae", "mechanisms": "free"},
    {"kind": "beta_vae"},
]


def measured(scores, *, untrained=0.6, axis="k", model="perturbed_vae"):
    """Records of one model: scores of the seeds by value of the axis."""
    return [
        record(
            f"{model} {value}",
            seed,
            model=model,
            axes={axis: value},
            metrics={MCC: score, f"{MCC}_untrained": untrained + 0.01 * seed},
        )
        for value, its in scores.items()
        for seed, score in enumerate(its)
    ]


def expecting(where, *, axis="sparsity", models=FAMILIES, **grid):
    return study(
        models=models, grid={"sparsity": [0.0, 0.01], **grid}, expect={"axis": axis, "identifies_where": where}
    )


def judged(scores, where=">= 4", **fields):
    spec = study(
        models=[{"kind": "perturbed_vae"}],
        grid={"data.environments": [1, 4]},
        expect={"axis": "data.environments", "identifies_where": where},
    )
    return verdicts(Records(measured(scores, axis="data.environments", **fields)), expectation_of(spec))


# ------------------------------------------------------------------------------------------ predictions


def test_a_prediction_for_all_models_leaves_out_the_control():
    expectation = expectation_of(expecting("> 0"))
    labels = list(expectation.entries)
    assert [expectation.predicts(0.01, label, {}) for label in labels] == [True, True, False]
    assert [expectation.predicts(0.0, label, {}) for label in labels] == [False, False, False]


def test_a_prediction_for_each_model():
    expectation = expectation_of(expecting({"targeted": "> 0", "mechanisms=free": []}))
    targeted, free, control = expectation.entries
    assert expectation.predicts(0.01, targeted, {}) is True
    assert expectation.predicts(0.0, targeted, {}) is False
    assert expectation.predicts(0.01, free, {}) is False
    assert expectation.predicts(0.01, control, {}) is False
    assert expectation.statement == "the truth is identified, over sparsity, by targeted > 0; mechanisms=free nowhere"


def test_a_model_that_no_rule_names_is_not_predicted():
    expectation = expectation_of(expecting({"targeted": "> 0"}))
    assert expectation.predicts(0.01, list(expectation.entries)[1], {}) is None


def test_the_rule_of_most_words_counts():
    expectation = expectation_of(expecting({"targeted data.environments=4": [], "targeted": "> 0"}))
    label = next(iter(expectation.entries))
    assert expectation.predicts(0.01, label, {"data.environments": 4}) is False
    assert expectation.predicts(0.01, label, {"data.environments": 8}) is True


def test_a_control_may_be_named():
    expectation = expectation_of(expecting({"beta_vae": "> 0"}))
    assert expectation.predicts(0.01, list(expectation.entries)[2], {}) is True


def test_of_an_oracle_nothing_is_predicted_unless_it_is_named():
    models = [{"kind": "perturbed_vae"}, {"kind": "supervised"}]
    for expect, predicted in (("> 0", None), ({"supervised": "> 0"}, True)):
        spec = study(models=models, expect={"axis": "sparsity", "identifies_where": expect})
        assert expectation_of(spec).predicts(0.01, "supervised", {}) is predicted
    for named, predicted in ((["perturbed_vae"], None), (["supervised"], True)):
        spec = study(models=models, expect={"axis": "model", "identifies_where": named})
        assert expectation_of(spec).predicts("supervised", "supervised", {}) is predicted


@pytest.mark.parametrize("name", ["targted", "targeted cite_vae", "intervention=soft", "data.environment=3", " "])
def test_a_prediction_for_no_model_of_the_study_is_refused(name):
    spec = expecting({name: "> 0"}, **{"data.environments": [4, 8]})
    with pytest.raises(SpecError, match=r"expect\.identifies_where names .* no entry of models is that"):
        check(spec)


def test_a_prediction_over_models_names_those_of_the_study():
    check_expectation(study(expect={"axis": "model", "identifies_where": ["cite_vae"]}))
    with pytest.raises(SpecError, match="did you mean cite_vae"):
        check_expectation(study(expect={"axis": "model", "identifies_where": ["cite_vea"]}))


# --------------------------------------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    ("scores", "untrained", "word"),
    [
        ((0.95, 0.96, 0.97), 0.6, "identified"),
        ((0.90, 0.90, 0.90), 0.6, "identified"),  # at least
        ((0.80, 0.81, 0.82), 0.6, "not identified"),
        ((0.85, 0.93, 0.95), 0.6, "undecided"),
        ((0.80, 0.88, 0.95), 0.6, "undecided"),
        ((0.95, 0.96, 0.97), 0.95, "not identified"),  # its untrained encoder does as well
        ((0.95,), 0.6, "identified"),  # one seed has no interval
        ((0.89,), 0.6, "not identified"),
    ],
)
def test_the_rule(scores, untrained, word):
    (one,) = judged({4: scores}, untrained=untrained)
    assert one.measured == word
    assert one.agreement == {"identified": "agree", "not identified": "disagree", "undecided": "undecided"}[word]


def test_what_has_not_run_is_nothing_yet():
    spec = expecting("> 0")
    expectation = expectation_of(spec)
    label = next(iter(expectation.entries))
    waiting = record(state="waiting", model=label, axes={"sparsity": 0.01})
    (one,) = verdicts(Records([waiting]), expectation)
    assert (one.measured, one.agreement) == ("nothing yet", "-")
    assert "cannot be compared yet" in summary([one])


def test_the_summary_names_where_they_do_not_agree():
    made = judged({1: (0.7, 0.71), 2: (0.95, 0.951), 3: (0.7, 0.99), 4: (0.6, 0.61), 8: (0.98, 0.981)})
    assert counts(made) == {"agree": 2, "disagree": 2, "undecided": 1}
    assert summary(made) == (
        "Prediction and measurement agree at 2 of 5 values; they disagree at environments 2, 4; "
        "undecided at environments 3."
    )


def test_a_model_without_the_axis_has_no_verdict():
    spec = expecting("> 0", models=[{"kind": "perturbed_vae"}, {"kind": "beta_vae"}])
    records = Records(
        [*measured({0.01: (0.95, 0.96)}, axis="sparsity"), record("b", model="beta_vae", metrics={MCC: 0.5})]
    )
    assert [one.model for one in verdicts(records, expectation_of(spec))] == ["perturbed_vae"]


def test_the_table_tells_prediction_measurement_and_verdict():
    table = verdict_table(judged({1: (0.95, 0.951), 4: (0.95, 0.951)}))
    assert [row.labels for row in table.rows] == [
        ("PerturbedVAE", "1", "not identified", "identified", "disagree"),
        ("PerturbedVAE", "4", "identified", "identified", "agree"),
    ]
    assert table.texts(table.rows[0])[0].startswith("0.95 ± 0.0")
