import csv
import io
import re

import pytest
from report_samples import MCC, fill, latents, planned, record, study, write_result

from harness.study import report as report_module
from harness.study.plan import point_for
from harness.study.records import Records
from harness.study.report import best_trials, ranked, read_records, write_report
from harness.study.spec import ObjectiveSpec
from harness.study.tables import tables
from harness.study.verdicts import summary
from harness.study.written import markdown, terminal


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_report_of_a_grid(folder):
    spec = study()
    plan = planned(spec)
    fill(folder, plan.points, skip=(4,))
    write_result(folder, plan.trials[4].trial_id, state="failed", failure={"reason": "train/loss is nan in epoch 3"})
    latents(folder.trial(plan.trials[0].trial_id).latents)
    report = write_report(folder, spec, plan, width=160)
    assert all(path.is_file() for path in report.files)
    assert report.heatmap == folder.report / "heatmap.png"
    assert max(map(len, report.text.splitlines())) <= 160
    assert "\x1b" not in report.text
    assert "24 trials: 23 finished, 1 failed" in report.text
    assert "train/loss is nan in epoch 3" in report.text
    assert report.text.count("CITE-VAE") == 1  # a repeated label is not repeated
    for words in ("control mean", "mean effect", "additive", "floor", "seeds 0, 1, 2", "MCC", "untrained", "energy"):
        assert words in report.text


def test_colour_changes_nothing_but_codes(folder):
    spec = study()
    plan = planned(spec)
    fill(folder, plan.points)
    plain = write_report(folder, spec, plan).text
    coloured = write_report(folder, spec, plan, colour=True).text
    assert "\x1b[" in coloured
    bare = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert [line.rstrip() for line in bare.splitlines()] == plain.splitlines()


@pytest.mark.parametrize("width", [120, 160, 240])
def test_text_fits_the_terminal(folder, width):
    spec = study()
    plan = planned(spec)
    fill(folder, plan.points)
    text = write_report(folder, spec, plan, width=width).text
    assert max(map(len, text.splitlines())) <= width
    assert text.count("Prediction of unseen") + text.count("prediction of unseen") == 1
    assert "…" not in text


def test_a_terminal_too_narrow_loses_no_score():
    records = Records([record(metrics={MCC: 0.5, f"{MCC}_untrained": 0.25, "identifiability/r2_invariant": 0.75})])
    text = terminal([], [tables(records)], [], width=20, colour=False)
    assert all(score in text for score in ("0.50", "0.25", "0.75"))


def test_table_csv_is_complete_and_exact(folder):
    spec = study()
    plan = planned(spec)
    fill(folder, plan.points)
    write_report(folder, spec, plan)
    records = read_records(folder, spec, plan.points)
    rows = rows_of(folder.report / "table.csv")
    models = {(row["cell"], row["metric"]): row for row in rows if row["kind"] == "model"}
    assert len(models) == 8 * len(records.metrics)
    cell = plan.points[3].cell
    value = records.where(cell=cell).estimate(MCC)
    row = models[cell, MCC]
    assert (float(row["mean"]), float(row["low"]), float(row["high"])) == (value.mean, value.low, value.high)
    assert (row["sparsity"], row["latent_dim"], row["n"], row["finished"]) == ("0.01", "8", "3", "3")
    (additive,) = [r for r in rows if r["name"] == "additive" and r["metric"] == "ood/double/rmse_relative"]
    assert (additive["mean"], additive["low"], additive["n"]) == ("0.47000000000000003", "", "1")


def test_trials_csv_gives_back_every_number(folder):
    spec = study()
    plan = planned(spec)
    fill(folder, plan.points, skip=(0,))
    write_report(folder, spec, plan)
    rows = rows_of(folder.report / "trials.csv")
    found = {(row["trial_id"], row["metric"]): row["value"] for row in rows}
    records = read_records(folder, spec, plan.points)
    for one in records.finished:
        assert all(float(found[one.trial_id, name]) == value for name, value in one.metrics.items())
    (waiting,) = [row for row in rows if row["trial_id"] == plan.trials[0].trial_id]
    assert (waiting["state"], waiting["metric"]) == ("waiting", "")


def test_page_needs_nothing_else_and_escapes_names(folder):
    spec = study(description='<script>alert("x")</script> & more')
    plan = planned(spec)
    fill(folder, plan.points)
    result = {"reason": "<img src=x onerror=alert(1)>"}
    write_result(folder, plan.trials[0].trial_id, state="failed", failure=result)
    latents(folder.trial(plan.trials[-1].trial_id).latents)
    write_report(folder, spec, plan)
    html = (folder.report / "index.html").read_text()
    assert "<script" not in html
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    sources = re.findall(r'(?:src|href)="([^"]*)', html)
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http" not in re.sub(r"base64,[^\"]*", "", html)


def test_markdown_shows_names_as_they_are():
    records = Records([record(model="perturbed_vae a|b", metrics={MCC: 0.5})])
    text = markdown("a_b", tables(records), ["* note"])
    assert "PerturbedVAE a\\|b | 1 | 0.50 |" in text
    assert "- \\* note" in text


def test_nothing_has_run(folder):
    spec = study()
    report = write_report(folder, spec, planned(spec))
    assert report.heatmap is None
    assert "24 trials: 24 waiting" in report.text
    assert (folder.report / "index.html").is_file()


def test_without_truth_only_predictions_are_shown(folder):
    spec = study()
    plan = planned(spec)
    fill(folder, plan.points, truth=False, splits=("double_seen2", "double_seen1"))
    text = write_report(folder, spec, plan).text
    assert "MCC" not in text
    assert text.count("Prediction of unseen perturbations") == 2


def test_one_model_and_no_grid_is_one_row(folder):
    spec = study(models=[{"kind": "cite_vae"}], grid={}, seeds=1)
    plan = planned(spec)
    fill(folder, plan.points)
    report = write_report(folder, spec, plan)
    assert "no interval can be given" in report.text
    assert report.heatmap is not None


def test_expectation_and_oracle_reach_the_text(folder):
    spec = study(
        expect={"axis": "sparsity", "identifies_where": "> 0"},
        objective={"metric": MCC, "direction": "maximize", "oracle": True},
    )
    plan = planned(spec)
    fill(folder, plan.points)
    report = write_report(folder, spec, plan, width=200)
    assert "ORACLE SELECTION" in report.text
    assert summary(report.verdicts) in " ".join(report.text.split())
    assert report.axis == folder.report / "axis.png"
    assert report.axis in report.files
    told = rows_of(folder.report / "verdicts.csv")
    assert [row["verdict"] for row in told] == [one.agreement for one in report.verdicts]
    assert [(row["value"], row["latent_dim"]) for row in told[:3]] == [("0", "6"), ("0", "8"), ("0.01", "6")]
    for name in ("table.md", "index.html"):
        assert "Prediction and measurement" in (folder.report / name).read_text()


def test_expectation_over_models_names_kinds(folder):
    spec = study(expect={"axis": "model", "identifies_where": ["cite_vae"]})
    plan = planned(spec)
    fill(folder, plan.points)
    report = write_report(folder, spec, plan, width=200)
    assert {(one.model, one.predicted) for one in report.verdicts} == {("perturbed_vae", False), ("cite_vae", True)}
    assert "the truth is identified where model in cite_vae" in report.text


def test_a_search_is_ranked_and_cut(folder):
    space = {"sparsity": {"low": 0.0, "high": 1.0}, "latent_dim": {"low": 6, "high": 9}}
    spec = study(models=[{"kind": "cite_vae"}], grid={}, search={"trials": 40, "space": space}, seeds=1)
    settings = [{"sparsity": 0.01 + index / 50, "latent_dim": 6 + index % 4} for index in range(40)]
    points = [point_for(spec, setting, lambda data: "data") for setting in settings]
    fill(folder, points)
    report = write_report(folder, spec, planned(spec), points=points)
    assert "The best 30 cells by validation/loss; table.csv holds all." in report.text
    assert len({row["cell"] for row in rows_of(folder.report / "table.csv") if row["kind"] == "model"}) == 40
    records = ranked(read_records(folder, spec, points), spec.objective[0])
    losses = [one.metrics["validation/loss"] for one in records]
    assert losses == sorted(losses)


def test_a_grid_of_very_many_cells_is_cut_where_people_read(folder, monkeypatch):
    monkeypatch.setattr(report_module, "MANY_CELLS", 5)
    monkeypatch.setattr(report_module, "MOST_CELLS", 3)
    spec = study()
    plan = planned(spec)
    fill(folder, plan.points)
    cut = write_report(folder, spec, plan)
    assert f"The best 3 cells by {spec.objective[0].metric}; table.csv holds all." in " ".join(cut.text.split())
    cells = {row["cell"] for row in rows_of(folder.report / "table.csv") if row["cell"]}
    assert cells == {point.cell for point in plan.points}
    assert len(cells) > 5
    assert cut.text.count("\n") < write_report_whole(folder, spec, plan, monkeypatch).text.count("\n")


def write_report_whole(folder, spec, plan, monkeypatch):
    monkeypatch.setattr(report_module, "MANY_CELLS", 300)
    return write_report(folder, spec, plan)


def test_ranking_puts_cells_without_a_score_last():
    records = Records([record("a", state="failed"), record("b", metrics={MCC: 0.1}), record("c", metrics={MCC: 0.9})])
    order = ranked(records, ObjectiveSpec(metric=MCC, direction="maximize", oracle=True))
    assert [one.cell for one in order] == ["c", "b", "a"]


def test_best_trial_of_each_model_by_the_objective():
    records = Records(
        [
            record("a", 0, metrics={"validation/loss": 2.0}),
            record("a", 1, metrics={"validation/loss": 1.0}),
            record("b", 0, model="cite_vae", metrics={"validation/loss": 3.0}),
            record("b", 1, model="cite_vae", state="failed", metrics={"validation/loss": 0.0}),
        ]
    )
    best = best_trials(records, ObjectiveSpec(metric="validation/loss", direction="minimize"))
    assert {model: one.trial_id for model, one in best.items()} == {"perturbed_vae": "a-1", "cite_vae": "b-0"}


def test_a_pruned_trial_says_why(folder):
    spec = study()
    plan = planned(spec)
    trial = plan.trials[0]
    write_result(folder, trial.trial_id, state="pruned", failure=None)
    folder.trial(trial.trial_id).request_stop("worse than the median")
    first = next(iter(read_records(folder, spec, plan.points)))
    assert (first.state, first.failure) == ("pruned", "worse than the median")


def test_a_grid_over_lists_is_told_apart(folder):
    spec = study(models=[{"kind": "cite_vae"}], grid={"data.process.edge_range": [[0.5, 1.5], [1.0, 2.0]]}, seeds=2)
    plan = planned(spec)
    fill(folder, plan.points)
    text = write_report(folder, spec, plan).text
    assert "[0.5,1.5]" in text
    assert "[1.0,2.0]" in text


def test_the_page_names_what_the_terminal_only_counts(folder):
    spec = study(seeds=12, grid={}, models=[{"kind": "cite_vae"}])
    plan = planned(spec)
    for trial in plan.trials:
        write_result(folder, trial.trial_id, state="failed", failure={"reason": f"died of {trial.seed}"})
    report = write_report(folder, spec, plan)
    assert "died of 11" not in report.text
    assert "and 4 more (all in table.md)" in report.text
    assert "died of 11" in (folder.report / "table.md").read_text()
    assert "died of 11" in (folder.report / "index.html").read_text()
