import math

import pytest
from report_samples import MCC, record

from harness.study.columns import Column
from harness.study.notes import notes
from harness.study.ood_tables import ood_tables
from harness.study.records import Records
from harness.study.statistics import Estimate
from harness.study.tables import Score, axis_text, decimals_for, model_text, score_text, tables

RMSE = "ood/double/rmse_relative"


def cell(name, mccs, untrained=(0.6, 0.7, 0.8), *, rmse=0.5, axes=None, **other):
    """Records of one cell; the untrained interval of (0.6, 0.7, 0.8) ends at 0.948."""
    return [
        record(
            name,
            seed,
            axes=axes or {},
            metrics={MCC: mcc, f"{MCC}_untrained": below, RMSE: rmse},
            baselines={f"baseline/additive/{RMSE}": 0.45},
            **other,
        )
        for seed, (mcc, below) in enumerate(zip(mccs, untrained, strict=True))
    ]


def texts(table):
    return [[*row.labels, *table.texts(row)] for row in table.rows]


def test_one_split_gives_one_table_with_baselines_below():
    (table,) = tables(Records(cell("a", (0.94, 0.96, 0.98), axes={"sparsity": 0.1})))
    assert table.heads == ("model", "sparsity", "seeds")
    assert texts(table) == [
        ["PerturbedVAE", "0.1", "3", "0.96 ± 0.05", "0.70 ± 0.25", "0.500 ± 0.000‡"],
        ["additive", "", "", "", "", "0.450"],
    ]


def test_a_score_within_the_untrained_interval_is_marked():
    (table,) = tables(Records(cell("a", (0.92, 0.94, 0.96))))
    assert table.rows[0].scores[0].mark == "†"
    assert "†" in table.marks
    assert any(line.startswith("† Not above the untrained encoder") for line in notes(Records([]), [table]))


def test_a_score_above_the_untrained_interval_is_not_marked_and_said_to_be_above():
    records = Records(cell("a", (0.94, 0.96, 0.98)))
    made = tables(records)
    assert made[0].rows[0].scores[0].mark == ""
    assert "Every MCC lies above the 95 % interval of its untrained encoder." in notes(records, made)


def test_a_score_that_beats_every_baseline_is_not_marked():
    (table,) = tables(Records(cell("a", (0.94, 0.96, 0.98), rmse=0.44)))
    assert table.rows[0].scores[2].mark == ""


def test_baselines_are_compared_on_the_same_data_only():
    easy = cell("easy", (0.9,), (0.1,), rmse=0.44, axes={"data.noise": 0.1})
    hard = [
        record(
            "hard",
            axes={"data.noise": 1.0},
            metrics={RMSE: 0.8},
            baselines={f"baseline/additive/{RMSE}": 0.9},
            fingerprint="noisy",
        )
    ]
    (table,) = tables(Records([*easy, *hard]))
    assert [row.scores[-1].mark for row in table.rows] == ["", "", "", ""]
    assert [(row.labels[0], row.labels[1]) for row in table.rows if row.baseline] == [
        ("additive", "0.1"),
        ("additive", "1"),
    ]


def test_several_splits_give_a_table_each():
    metrics = {MCC: 0.9, "ood/seen2/r2": 0.8, "ood/seen1/r2": 0.7}
    made = tables(Records([record(metrics=metrics)]))
    assert [table.title for table in made] == [
        "Identifiability",
        "Prediction of unseen perturbations (seen2)",
        "Prediction of unseen perturbations (seen1)",
    ]


def test_without_any_score_cells_are_listed_with_the_validation_loss():
    (table,) = tables(Records([record("a", metrics={"validation/loss": 123.456}), record("b", state="failed")]))
    assert texts(table) == [["PerturbedVAE", "1", "123"], ["PerturbedVAE", "0/1", "-"]]


def test_failed_trials_are_named_and_not_averaged():
    failed = [record("a", seed, state="failed", failure="train/loss is nan") for seed in (3, 4)]
    records = Records(
        [*cell("a", (0.94, 0.96, 0.98)), *failed, record("b", state="pruned"), record("c", state="running")]
    )
    made = tables(records)
    assert texts(made[0])[0][1:3] == ["3/5", "0.96 ± 0.05"]
    lines = notes(records, made)
    assert "2 trials failed; not averaged in:" in lines
    assert "  a · seed 3: train/loss is nan" in lines
    assert "1 trial is pruned; not averaged in:" in lines
    assert "  b · seed 0: no reason recorded" in lines
    assert "1 trial is running; not averaged in." in lines


def test_long_lists_are_cut_and_counted():
    records = Records(record("a", seed, state="failed", failure="died") for seed in range(12))
    lines = notes(records, tables(records), most=5)
    assert "  and 7 more (all in table.md)" in lines


def test_many_kinds_of_warning_are_counted():
    records = Records(record("a", seed, warnings=(f"latent {seed} is constant",)) for seed in range(6))
    lines = notes(records, [], most=4)
    assert len([line for line in lines if line.startswith("Warning in 1 trial")]) == 4
    assert "2 more warnings (all in table.md)." in lines


def test_warnings_and_exclusions_are_named_with_their_cells():
    records = Records(
        [
            record("a", warnings=("the responsive block collapsed.",), excluded={"A+B": "no control cells"}),
            record("b", warnings=("the responsive block collapsed.",), excluded={"C": "no control cells"}),
        ]
    )
    made = tables(records)
    lines = notes(records, made)
    assert "Warning in 2 trials: the responsive block collapsed - in a, b." in lines
    assert "Excluded, 2 conditions (no control cells): A+B, C." in lines
    assert [row.labels[-1] for row in made[0].rows] == ["1*", "1*"]


def test_oracle_selection_is_marked():
    assert any(line.startswith("ORACLE SELECTION") for line in notes(Records([]), [], oracle_selection=True))


def test_one_seed_says_that_there_is_no_interval():
    records = Records([record(seed=7, metrics={MCC: 0.9})])
    assert notes(records, tables(records))[0] == "One finished seed a cell (seeds 7): no interval can be given."


def test_values_that_are_not_finite_are_named():
    records = Records([record(metrics={MCC: math.nan, "ood/a/r2": 1.0}), record(seed=1, metrics={MCC: 0.5})])
    (line,) = [line for line in notes(records, []) if line.startswith("Not finite")]
    assert line.endswith("identifiability/mcc.")


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (Estimate(0.876, 0.8, 0.952, 3), 2, "0.88 ± 0.08"),
        (Estimate(0.876, None, None, 1), 2, "0.88"),
        (Estimate(-0.001, None, None, 1), 2, "0.00"),
        (None, 2, "-"),
    ],
)
def test_score_text(value, decimals, text):
    assert score_text(Score(value), decimals) == text


@pytest.mark.parametrize(("values", "decimals"), [([123.4], 0), ([1.5], 2), ([0.0124], 3), ([], 2), ([0.0], 2)])
def test_decimals_show_the_largest_value(values, decimals):
    assert decimals_for(values) == decimals


def test_words():
    assert [axis_text(value) for value in (0.0, 1e-4, 8, True, "auto", None)] == [
        "0",
        "0.0001",
        "8",
        "true",
        "auto",
        "-",
    ]
    assert model_text("beta_vae") == "β-VAE"
    assert model_text("cite_vae lagged=dense") == "CITE-VAE lagged=dense"
    assert Column(MCC, "MCC").untrained == "identifiability/mcc_untrained"


def test_scores_of_graph_targets_and_restarts_stand_where_details_are_asked_for():
    metrics = {MCC: 0.9, "identifiability/graph_f1": 0.8, "identifiability/restart_agreement": 0.99}
    records = Records([record(metrics=metrics)])
    (plain,), (detailed,) = tables(records), tables(records, detailed=True)
    assert [column.title for column in plain.columns] == ["MCC"]
    assert [column.title for column in detailed.columns] == ["MCC", "graph F1", "restart agreement"]


def test_prediction_has_a_table_of_genes_and_one_of_intervals_over_conditions():
    def values(shift):
        more = {"pearson_delta_top20de": 0.7, "de_auroc": 0.8}
        return {RMSE: 0.45 + shift, f"{RMSE}_low": 0.40 + shift, f"{RMSE}_high": 0.52 + shift} | {
            f"ood/double/{name}": value for name, value in more.items()
        }

    baselines = {f"baseline/additive/{name}": value for name, value in values(0.1).items()}
    records = Records(record("a", seed, metrics=values(0.02 * seed), baselines=baselines) for seed in range(2))
    genes, ends = ood_tables(records)
    assert [column.title for column in genes.columns] == ["Pearson Δ, top 20 DE", "AUROC of DE genes"]
    assert [column.direction for column in genes.columns] == ["higher", "higher"]
    assert texts(ends) == [
        ["PerturbedVAE", "2", "0.460 [0.410, 0.530]"],  # the ends' means over seeds
        ["additive", "", "0.550 [0.500, 0.620]"],
    ]
    assert ood_tables(Records(cell("a", (0.9,), (0.1,)))) == []


def test_a_missing_package_is_named_once_for_all_trials():
    ranked = {"ood/double/perturbation_rank": 0.5}
    without = Records([record("a", 0, metrics=ranked)])
    assert any(line.startswith("No wasserstein: it needs POT") for line in notes(without, []))
    both = Records([record("a", 0, metrics=ranked | {"ood/double/wasserstein": 3.0})])
    for records in (both, Records(cell("a", (0.9,), (0.1,)))):
        assert not any("POT" in line for line in notes(records, []))
