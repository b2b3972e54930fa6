"""That every place with scores names their helps: tables, CSV, figures, `harness check`, dry runs and MLflow."""

import csv
import io

import pytest
from report_samples import MCC, fill, planned, record, study

from harness.helps import Help, words
from harness.study import axis_figure as axis_module
from harness.study import figures
from harness.study.conditions import conditions_of
from harness.study.dry_run import dry_run
from harness.study.figure_helps import figure_helps
from harness.study.notes import notes
from harness.study.ood_tables import ood_tables
from harness.study.plan import point_for
from harness.study.planned_helps import help_lines, planned_helps
from harness.study.records import Records
from harness.study.report import read_records, write_report
from harness.study.suite import Suite
from harness.study.suite_report import suite_report, write_suite_report
from harness.study.tables import tables
from harness.study.verdicts import verdict_table
from harness.study.written import markdown, terminal

RMSE = "ood/double/rmse_relative"
SOME, OTHER = (Help("targets"), Help("sizes", ("latent_dim",))), (Help("pairs", ("twins",)),)
SENTENCE = "Every model here has helps that a user with her own cells lacks: targets, sizes."


def mixed(**changes):
    """A study of two models of which one is told its targets."""
    models = [{"kind": "perturbed_vae", "targets": "known"}, {"kind": "beta_vae"}]
    given = {"models": models, "grid": {"latent_dim": [8, 9]}, "data": {"kind": "simulation"}, "seeds": 2}
    return study(**{**given, **changes})


def scored(cell, helps, **other):
    baselines = {f"baseline/additive/{name}": 0.4 for name in (RMSE, f"{RMSE}_low", f"{RMSE}_high")}
    metrics = {MCC: 0.9, RMSE: 0.5, f"{RMSE}_low": 0.4, f"{RMSE}_high": 0.6}
    return record(cell, metrics=metrics, baselines=baselines, helps=helps, **other)


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


# ---------------------------------------------------------------------------------------------- records


def test_records_have_the_helps_of_their_trials_and_of_their_study(folder):
    for settings_by, last in (("none", ""), ("validation", ""), ("truth", ", selection")):
        spec = mixed(settings_by=settings_by)
        found = {one.cell: words(one.helps) for one in read_records(folder, spec, planned(spec).points)}
        assert found["perturbed_vae · latent_dim=8"] == f"targets, pairs, sizes{last}"
        assert found["beta_vae · latent_dim=8"] == (last.removeprefix(", ") or "none")


# ----------------------------------------------------------------------------------------------- tables


def test_rows_with_different_helps_have_a_column_that_is_empty_for_baselines():
    records = Records([scored("a", SOME), scored("b", (), axes={"k": 1}), scored("c", OTHER)])
    (table,) = tables(records)
    assert table.heads == ("model", "k", "helps", "seeds")
    assert [row.labels[2] for row in table.rows] == ["targets, sizes", "none", "pairs", ""]
    assert [row.labels[0] for row in table.rows if row.baseline] == ["additive"]
    (ends,) = ood_tables(records)
    assert [row.labels[2] for row in ends.rows] == ["targets, sizes", "none", "pairs", ""]
    assert table.caption == ends.caption == ""


def test_rows_with_the_same_helps_share_a_sentence():
    records = Records([scored("a", SOME), scored("b", SOME)])
    (table,), (ends,) = tables(records), ood_tables(records)
    for made in (table, ends):
        assert made.heads == ("model", "seeds")
        assert made.caption == SENTENCE
        assert SENTENCE in terminal([], [[made]], [], width=120, colour=False)
        assert SENTENCE in markdown("study", [made], [])


def test_rows_without_any_help_say_so():
    (table,) = tables(Records([scored("a", ()), scored("b", ())]))
    assert table.caption == "No model here has a help that a user with her own cells lacks."


def test_a_narrow_terminal_breaks_helps_over_lines_and_loses_none():
    every = (Help("targets"), Help("pairs", ("twins",)), Help("sizes", ("latent_dim",)), Help("selection"))
    made = tables(Records([scored("a", every), scored("b", ())]))
    wide = terminal([], [made], [], width=200, colour=False)
    assert "targets, pairs, sizes, selection" in wide
    narrow = terminal([], [made], [], width=60, colour=False)
    assert max(map(len, narrow.splitlines())) <= 60
    assert all(word in narrow for word in ("targets,", "pairs,", "sizes,", "selection", "none"))


def test_each_help_has_one_footnote_under_the_tables():
    records = Records([scored("a", SOME), scored("b", OTHER), scored("c", (Help("sizes", ("input_pca",)),))])
    lines = [line for line in notes(records, tables(records)) if line.startswith("Help ")]
    assert [line.split(":")[0] for line in lines] == ["Help targets", "Help pairs", "Help sizes"]
    assert "(latent_dim, input_pca)" in lines[2]


def test_the_line_on_oracle_selection_stays_beside_the_footnote_on_settings():
    lines = notes(Records([scored("a", (Help("selection"),))]), [], oracle_selection=True)
    assert [line.split(":")[0] for line in lines if line.startswith(("ORACLE", "Help"))] == [
        "Help selection",
        "ORACLE SELECTION",
    ]


@pytest.mark.parametrize(
    ("settings_by", "said"),
    [("validation", "validation scores"), ("published", "published"), ("simulation", "simulated data")],
)
def test_settings_that_no_truth_chose_are_no_help_but_are_named(settings_by, said):
    lines = [line for line in notes(Records([]), [], settings_by=settings_by) if "settings" in line]
    assert len(lines) == 1
    assert said in lines[0]
    for without in ("none", "truth"):
        assert not any("settings" in line for line in notes(Records([]), [], settings_by=without))


def test_the_report_names_helps_wherever_it_writes_scores(folder):
    spec = mixed(settings_by="truth", expect={"axis": "model", "identifies_where": ["perturbed_vae"]})
    plan = planned(spec)
    fill(folder, plan.points)
    report = write_report(folder, spec, plan, width=240)
    for text in (report.text, *((folder.report / name).read_text() for name in ("table.md", "index.html"))):
        assert "targets, pairs, sizes, selection" in text
        for word in ("targets", "pairs", "sizes", "selection"):
            assert text.count(f"Help {word}:") == 1
    assert words(report.helps) == "targets, pairs, sizes, selection"
    rows = rows_of(folder.report / "table.csv")
    of_kind = {kind: {row["helps"] for row in rows if row["kind"] == kind} for kind in ("model", "baseline")}
    assert of_kind == {"model": {"targets, pairs, sizes, selection", "selection"}, "baseline": {""}}
    trials = rows_of(folder.report / "trials.csv")
    assert {row["helps"] for row in trials if row["metric"].startswith("baseline/")} == {""}
    assert {(row["model"], row["helps"]) for row in trials if row["metric"] == MCC} == {
        ("perturbed_vae", "targets, pairs, sizes, selection"),
        ("beta_vae", "selection"),
    }
    verdicts = rows_of(folder.report / "verdicts.csv")
    assert {(row["model"], row["helps"]) for row in verdicts} == {
        ("perturbed_vae", "targets, pairs, sizes, selection"),
        ("beta_vae", "selection"),
    }


def test_the_verdict_table_names_helps_before_prediction_and_measurement(folder):
    spec = mixed(expect={"axis": "model", "identifies_where": ["perturbed_vae"]})
    plan = planned(spec)
    fill(folder, plan.points)
    table = verdict_table(write_report(folder, spec, plan).verdicts)
    assert table.heads == ("model", "latent dim", "helps", "predicted", "measured", "verdict")
    assert [row.labels[2] for row in table.rows] == ["targets, pairs, sizes"] * 2 + ["none"] * 2


def test_the_suites_report_names_the_helps_of_each_study(folder):
    one = mixed(name="both-one", expect={"axis": "model", "identifies_where": ["perturbed_vae"]})
    two = one.model_copy(update={"name": "both-two", "settings_by": "truth"})
    reports = {}
    for spec in (one, two):
        plan = planned(spec)
        fill(folder, plan.points)
        reports[spec.name] = write_report(folder, spec, plan)
    made = write_suite_report(Suite("both", "", (one, two)), folder.root, reports)
    (summary,) = (path for path in made.files if path.name == "summary.csv")
    assert [row["helps"] for row in rows_of(summary)] == ["targets, pairs, sizes", "targets, pairs, sizes, selection"]
    assert made.text.count("Help sizes:") == made.text.count("Help selection:") == 1
    assert "targets, pairs, sizes, selection" in (folder.root / "both/report/summary.md").read_text()
    assert suite_report(Suite("none", "", ()), folder.root).text.count("Help ") == 0


# ---------------------------------------------------------------------------------------------- figures


def _texts(monkeypatch, module, draw):
    kept = []
    monkeypatch.setattr(module, "write", lambda figure, out: kept.append(figure) or out)
    draw()
    return [text.get_text() for text in kept[0].texts]


def test_the_figures_name_the_helps_of_each_model(monkeypatch, folder, tmp_path):
    spec = mixed(expect={"axis": "model", "identifies_where": ["perturbed_vae"]})
    plan = planned(spec)
    fill(folder, plan.points)
    records = read_records(folder, spec, plan.points)
    judged = write_report(folder, spec, plan).verdicts
    wanted = "helps: targets, pairs, sizes (PerturbedVAE); none (β-VAE)"
    assert wanted in _texts(monkeypatch, figures, lambda: figures.heatmap(records, tmp_path / "map.png"))
    draw = lambda: axis_module.axis_figure(records, judged, tmp_path / "axis.png")  # noqa: E731
    assert wanted in " ".join(_texts(monkeypatch, axis_module, draw))


def test_a_search_drawn_as_dots_names_helps_too(monkeypatch, tmp_path):
    axes = [{"sparsity": value, "latent_dim": 6 + index} for index, value in enumerate((0.1, 0.2, 0.3, 0.4, 0.5))]
    records = Records(scored(f"a{number}", SOME, axes=its) for number, its in enumerate(axes))
    assert figures.is_scattered(records)
    texts = _texts(monkeypatch, figures, lambda: figures.heatmap(records, tmp_path / "map.png"))
    assert "helps: targets, sizes" in texts


def test_a_figure_tells_helps_of_some_cells_from_those_of_all():
    records = Records([scored("a", (Help("targets"),)), scored("b", SOME), scored("c", (), model="beta_vae")])
    (line,) = figure_helps(records, 10.0)
    assert line == "helps: targets, in some cells sizes (PerturbedVAE); none (β-VAE)"
    assert " ".join(figure_helps(records, 2.0)) == line
    assert len(figure_helps(records, 2.0)) > 1


# ------------------------------------------------------------------------------------- before anything ran


TINY = {"kind": "simulation", "preset": "tiny"}


def test_check_and_dry_run_name_the_helps_of_each_cell(tmp_path):
    spec = mixed(
        data=TINY,
        models=[{"kind": "perturbed_vae", "responsive_dim": 2, "hidden": 8}, {"kind": "beta_vae", "hidden": 8}],
        grid={"latent_dim": [3, 4]},
        train={"epochs": 1, "second_stage": {"restarts": 0}},
        evaluate={"identifiability": False, "ood": False, "conditions": False},
        compute={"cluster": "inline"},
    )
    checked = conditions_of(spec, tmp_path)
    assert "helps: targets, pairs, sizes (perturbed_vae · latent_dim=3, perturbed_vae · latent_dim=4)" in checked
    assert "helps: none (beta_vae · latent_dim=3)" in checked
    dry = str(dry_run(spec, tmp_path))
    assert "  perturbed_vae · latent_dim=3: seeds 0, 1; helps: targets, pairs, sizes\n" in dry
    assert "  beta_vae · latent_dim=3: seeds 0, 1; helps: none\n" in dry
    for said in (checked, dry):
        assert said.count("Help pairs: each cell is trained beside its twin") == 1
        assert "Help selection" not in said


def test_cells_that_share_their_helps_are_counted(tmp_path):
    spec = mixed(models=[{"kind": "beta_vae"}], grid={"latent_dim": [5, 6, 7, 8, 9, 10]}, settings_by="truth")
    first, second = help_lines(spec, planned(spec).points)
    cells = ", ".join(f"beta_vae · latent_dim={size}" for size in (5, 6, 7))
    assert first == f"helps: selection ({cells} and 3 more cells)"
    assert second.startswith("  Help selection: settings were chosen by scores")


def test_of_a_search_the_helps_of_its_middle_are_named_and_said_to_be_so():
    space = {"latent_dim": {"low": 9, "high": 13}}
    spec = study(models=[{"kind": "beta_vae"}], grid={}, search={"trials": 2, "space": space})
    assert help_lines(spec, planned(spec).points)[0] == "helps of one from the middle of its space: sizes (beta_vae)"
    assert words(planned_helps(spec, point_for(spec, {"latent_dim": 9}, lambda data: "data"))) == "none"


def test_a_search_whose_middle_is_impossible_has_no_helps_to_name_yet():
    space = {"latent_dim": {"low": 2, "high": 30}, "responsive_dim": {"low": 1, "high": 60}}
    spec = study(models=[{"kind": "perturbed_vae"}], grid={}, search={"trials": 2, "space": space})
    assert help_lines(spec, planned(spec).points) == [
        "helps are known once the search has proposed a setting (perturbed_vae)"
    ]


# ----------------------------------------------------------------------------------------------- MLflow


def helps_in(run):
    return {key: value for key, value in run.data.tags.items() if key == "helps" or key.startswith("oracle_")}


def test_runs_and_their_launch_are_tagged_with_their_helps(driving):
    driving.launch(
        "models=[{kind: perturbed_vae, latent_dim: 4, responsive_dim: 2}, {kind: beta_vae, latent_dim: 5}]",
        "settings_by=truth",
    )
    (launch,), children = driving.runs()
    whole = {"helps": "targets, pairs, sizes, selection", "oracle_targets": "true", "oracle_pairs": "true"}
    whole |= {"oracle_sizes": "responsive_dim, latent_dim", "oracle_selection": "true"}
    of = {child.data.tags["model"]: helps_in(child) for child in children}
    assert of == {"perturbed_vae": whole, "beta_vae": {"helps": "selection", "oracle_selection": "true"}}
    assert helps_in(launch) == whole


def test_a_launch_that_searches_has_the_helps_of_what_was_proposed(driving):
    space = "{latent_dim: {choices: [5, 6]}}"
    driving.launch(f"search={{trials: 2, sampler: random, space: {space}}}", "grid=null", "seeds=1")
    (launch,), children = driving.runs()
    assert {child.data.tags["oracle_sizes"] for child in children} == {"responsive_dim"}
    assert helps_in(launch)["helps"] == "targets, pairs, sizes"
    assert helps_in(launch)["oracle_sizes"] == "responsive_dim"
