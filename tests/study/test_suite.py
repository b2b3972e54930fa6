"""Suites: read strictly, launched in turn under names of their own, reported on one page."""

import csv
import io

import pytest
from report_samples import MCC, write_result

from harness.errors import UserError
from harness.study.driver import launch
from harness.study.folder import StudyFolder
from harness.study.plan import plan
from harness.study.suite import is_suite, launched_suite, load_suite, record, recorded, suite_dry_run
from harness.study.suite_report import suite_report

ONE = """\
models: [{kind: perturbed_vae, latent_dim: 4, responsive_dim: 2, mechanisms: free}]
data: {kind: simulation, preset: tiny}
grid: {sparsity: [0, 0.5]}
seeds: 2
train: {epochs: 2}
compute: {cluster: inline}
expect: {axis: sparsity, identifies_where: "> 0"}
"""
SUITE = """\
name: both
description: two studies
set: {train.epochs: 1}
studies:
  - one.yaml
  - study: two.yaml
    set: {grid.sparsity: [0.25], train.epochs: 4}
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "one.yaml").write_text(ONE)
    (tmp_path / "two.yaml").write_text("base: one.yaml\n")
    (tmp_path / "all.yaml").write_text(SUITE)
    return tmp_path


def suite_of(place, text=SUITE, *overrides):
    (place / "all.yaml").write_text(text)
    return load_suite(place / "all.yaml", overrides)


# ---------------------------------------------------------------------------------------------- reading


def test_studies_get_the_suites_name_and_changes(place):
    one, two = suite_of(place).studies
    assert (one.name, one.train.epochs, one.grid["sparsity"]) == ("both-one", 1, (0, 0.5))
    assert (two.name, two.train.epochs, two.grid["sparsity"]) == ("both-two", 4, (0.25,))
    assert one.experiment == "both-one"


def test_the_command_line_comes_last(place):
    assert [study.train.epochs for study in suite_of(place, SUITE, "train.epochs=7").studies] == [7, 7]


def test_a_reduced_study_is_other_trials_in_another_folder(place):
    from harness.study.load import load_study

    full = {trial.trial_id for trial in plan(load_study(place / "one.yaml")).trials}
    assert full.isdisjoint({trial.trial_id for trial in plan(suite_of(place).studies[0]).trials})


def test_a_suite_is_told_from_a_study(place):
    assert is_suite(place / "all.yaml")
    assert not is_suite(place / "one.yaml")
    assert not is_suite(place / "nothing.yaml")
    (place / "text.yaml").write_text("just words")
    assert not is_suite(place / "text.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("studies: []\n", "studies is []"),
        ("studies: [one.yaml]\nsets: {}\n", "all.yaml, line 2: key sets is unknown; did you mean set?"),
        ("studies: [{studdy: one.yaml}]\n", "studies.0.studdy is unknown; did you mean study?"),
        ("studies: [none.yaml]\n", "studies.0 is none.yaml, but there is no such file"),
        ("studies: [one.yaml, one.yaml]\n", "the study 'one' is in the suite twice"),
        ("studies: one.yaml\n", 'studies is "one.yaml", but must be a list'),
        ("name: a/b\nstudies: [one.yaml]\n", "'a/b' is no safe folder name"),
        ("name: " + 61 * "x" + "\nstudies: [one.yaml]\n", "is no safe folder name"),
        ("studies: [one.yaml]\nset: {train.epoch: 3}\n", "all.yaml: set.train.epoch=3: key train.epoch is unknown"),
        ("studies: [{study: one.yaml, set: {seeds: 0}}]\n", "all.yaml, line 1: set.seeds=0"),
    ],
)
def test_what_is_wrong_is_one_sentence(place, text, said):
    with pytest.raises(UserError) as error:
        suite_of(place, text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------------- keeping


def test_a_launched_suite_is_found_by_file_and_by_name(place):
    root = place / "runs"
    suite = suite_of(place, SUITE, "train.epochs=7")
    with pytest.raises(UserError, match="no suite 'both' was launched"):
        launched_suite(str(place / "all.yaml"), root)
    record(suite, root)
    assert recorded(root, "both") == suite
    assert launched_suite("both", root) == suite
    assert launched_suite(str(place / "all.yaml"), root) == suite  # as it was launched, --set and all
    assert launched_suite("one", root) is None
    assert launched_suite(str(place / "one.yaml"), root) is None


def test_a_study_and_a_suite_do_not_share_a_name(place):
    root = place / "runs"
    suite = suite_of(place)
    record(suite, root)
    with pytest.raises(UserError, match="'both' is a suite"):
        launch(suite.studies[0].model_copy(update={"name": "both"}), root)
    taken = StudyFolder(root, "taken")
    taken.create()
    taken.study_file.write_text(ONE)
    with pytest.raises(UserError, match="'taken' is a study"):
        record(suite_of(place, SUITE.replace("both", "taken")), root)


# ---------------------------------------------------------------------------------------------- asking


def finish(root, study, score):
    """Results of every trial of a study, and its file, as a launch leaves them."""
    from harness.study.load import dump_study

    folder = StudyFolder(root, study.name)
    folder.create()
    folder.study_file.write_text(dump_study(study))
    for point in plan(study).points:
        for trial in point.trials:
            value = score(point.values["sparsity"]) + 0.001 * trial.seed
            write_result(folder, trial.trial_id, metrics={MCC: value, f"{MCC}_untrained": 0.6, "time/total_seconds": 2})


def test_the_dry_run_sums_up(place):
    root = place / "runs"
    suite = suite_of(place)
    for study in suite.studies:
        finish(root, study, lambda value: 0.9)
    more = suite_of(place, SUITE, "seeds=3")
    said = suite_dry_run(more, root).splitlines()
    assert said[0] == "  both-one: 2 cells, 6 trials; 2 to run, 4 s; helps: pairs, sizes"
    assert said[1] == "  both-two: 1 cell, 3 trials; 1 to run, 2 s; helps: pairs, sizes"
    assert said[2] == "2 studies, 9 trials; 3 to run"
    assert "6 s" in said[3]
    assert [line.split(":")[0] for line in said[4:-1]] == ["Help pairs", "Help sizes"]


def test_the_report_has_a_row_a_study_and_every_figure(place):
    root = place / "runs"
    suite = suite_of(place)
    record(suite, root)
    finish(root, suite.studies[0], lambda value: 0.95)
    made = suite_report(suite, root)
    out = root / "both" / "report"
    (row,) = csv.DictReader(io.StringIO((out / "summary.csv").read_text()))
    assert row == {
        "study": "one",
        "over": "sparsity",
        "agree": "1",
        "disagree": "1",
        "undecided": "0",
        "MCC where predicted": "0.95",
        "MCC where not": "0.95",
        "helps": "pairs, sizes",
    }
    said = " ".join(made.text.split())  # a terminal's width decides where lines break
    assert "agree at 1 of 2 cells, disagree at 1, and 0 are undecided" in said
    assert "one: Prediction and measurement agree at 1 of 2 values; they disagree at sparsity 0." in said
    assert "Not launched yet: two." in said
    shared = "Every model here has helps that a user with her own cells lacks: pairs, sizes."
    for text in (said, (out / "index.html").read_text(), (out / "summary.md").read_text()):
        assert shared in text
        assert text.count("Help pairs: each cell is trained beside its twin") == 1
    assert (out / "index.html").read_text().count("data:image/png;base64,") == 1
    finish(root, suite.studies[1], lambda value: 0.95)
    suite_report(suite, root)
    assert (out / "index.html").read_text().count("data:image/png;base64,") == 2
    assert all(path.is_file() for path in made.files)
