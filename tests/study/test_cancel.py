"""Ending a driver wherever it runs, dropping single cells, and running again what was dropped or failed."""

import os
import signal
import time
from contextlib import nullcontext

import pytest
from driving import FAKE, end_group, ignoring_ctrl_c

from harness import cli
from harness.errors import UserError
from harness.study.cancel import cancel, cancel_cells
from harness.study.cells import matching
from harness.study.dry_run import dry_run
from harness.study.folder import TrialState
from harness.study.requests import Requests, ask_to_end, mark_cancelled, who_asks
from harness.study.status import status
from harness.study.survey import Survey

CELLS = ["perturbed_vae · sparsity=0.1", "perturbed_vae · sparsity=0.15", "cite_vae · sparsity=0.1 · größe=大"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("sparsity=0.1", [0, 2]),
        ("perturbed_vae · sparsity=0.1", [0]),
        ("0.15", [1]),
        ("sparsity", [0, 1, 2]),
        ("größe cite_vae", [2]),
        ("gro\u0308ße=大", [2]),  # the same letter, put together from two
    ],
)
def test_cells_are_meant_by_words_of_theirs(words, found):
    assert matching([*CELLS, CELLS[0]], words, "s") == [CELLS[number] for number in found]


@pytest.mark.parametrize("words", ["0.10", "sparsity=0", "vae", "  ", "·"])
def test_words_of_no_cell_are_refused(words):
    with pytest.raises(UserError) as refused:
        matching(CELLS, words, "s")
    assert "\n" not in str(refused.value)
    assert "cell" in str(refused.value)


def test_whoever_cancels_is_named(monkeypatch):
    monkeypatch.setattr("harness.study.requests.getpass.getuser", lambda: "ada")
    assert who_asks().startswith("ada@")

    def unknown():
        raise KeyError("no such user")

    monkeypatch.setattr("harness.study.requests.getpass.getuser", unknown)
    assert who_asks().startswith(f"user {os.getuid()}@")


def test_a_request_is_for_one_taking_of_the_lease(folder):
    from harness.study.ownership import this_process

    ask_to_end(folder, this_process())  # epoch 1
    assert Requests(folder, 1).end_asked()
    assert not Requests(folder, 2).end_asked()
    requests = Requests(folder, 1)
    assert not requests.marks_changed()
    for _ in range(2):
        mark_cancelled(folder, [])
        assert requests.marks_changed()
        assert not requests.marks_changed()


# ------------------------------------------------------------------------------------------- the driver


def is_running(driving):
    return any(t.state() is TrialState.RUNNING and t.metrics.exists() for t in driving.folder.trials())


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_a_driver_on_another_host_is_asked_and_obeys(driving, cluster, monkeypatch):
    process = driving.driver(f"compute.cluster={cluster}", "train.epochs=40", FAKE_SECONDS="0.5")
    try:
        driving.until(lambda: is_running(driving), process)
        monkeypatch.setattr("harness.study.ownership.socket.gethostname", lambda: "elsewhere")
        assert "asked the driver of fake" in cancel(driving.folder)
        monkeypatch.undo()
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 130, errors
        assert "go on with: harness resume fake" in errors
        assert not any(trial.result.exists() for trial in driving.folder.trials())  # none was waited for
        assert not any(trial.claim.exists() for trial in driving.folder.trials())
    finally:
        end_group(process)


@pytest.mark.parametrize("ignored", [False, True])
def test_a_driver_here_is_told_even_where_it_ignores_ctrl_c(driving, ignored):
    with ignoring_ctrl_c() if ignored else nullcontext():
        process = driving.driver("compute.cluster=local", "train.epochs=40", FAKE_SECONDS="0.5")
    try:
        driving.until(lambda: is_running(driving), process)
        assert f"told the driver of fake (process {process.pid}) to end" in cancel(driving.folder)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 130, errors
    finally:
        end_group(process)


def test_there_may_be_nothing_to_cancel(driving):
    driving.launch()
    assert cancel(driving.folder) == "nothing of fake is running"
    said = cancel_cells([driving.folder], "sparsity=0.5")
    assert said == ["nothing to cancel: all trials of 1 cell of fake (perturbed_vae · sparsity=0.5) have ended"]


# -------------------------------------------------------------------------------------------- the cells


def states(driving):
    """Cell and state of every trial."""
    rows = Survey(driving.folder).look().rows
    return sorted((row.entry.cell.rpartition("=")[2], row.state) for row in rows)


def everywhere_once(driving, children):
    """Each trial has one run in MLflow."""
    runs = driving.runs()[1]
    assert len({run.data.tags["trial_id"] for run in runs}) == len(runs) == children
    return {run.data.tags["trial_id"]: run for run in runs}


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_cells_are_dropped_while_they_run_or_wait_and_the_rest_goes_on(driving, cluster, monkeypatch):
    """Of the dropped cells one runs and one waits; neither runs again before it is retried."""
    changes = ("grid.sparsity=[0.5, 0.6, 0.7]", "seeds=1", "train.epochs=12", f"compute.cluster={cluster}")
    process = driving.driver(*changes, "compute.workers=1", FAKE_SECONDS="0.5")
    try:
        driving.until(lambda: is_running(driving), process)
        root = ["--root", str(driving.root)]
        assert cli.main(["cancel", "fake", "--cell", "sparsity=0.5", *root]) == 0
        assert cli.main(["cancel", "fake", "--cell", "sparsity=0.6", *root]) == 0
        _, errors = process.communicate(timeout=120)
    finally:
        end_group(process)
    assert process.returncode == 1, errors
    assert states(driving) == [("0.5", "cancelled"), ("0.6", "cancelled"), ("0.7", "finished")]
    assert "cancelled by " in errors
    assert "2 trials failed or cancelled; run again with: harness retry fake" in errors
    assert sorted(driving.starts_of_started().values()) == [1, 1]
    running = next(trial for trial in driving.folder.trials() if trial.checkpoint.exists() and not finished(trial))
    assert 1 <= len(running.read_metrics()) < 12
    assert driving.optuna_states() == {"COMPLETE": 1, "FAIL": 2}
    everywhere_once(driving, 3)
    for again in (driving.resume, lambda: driving.launch(*changes)):
        outcome = again()
        assert (outcome.ran, len(outcome.left)) == (0, 2)
    assert f"cancelled by {who_asks()}" in {reason for _, reason in outcome.left}
    before = driving.results()
    retried = driving.retry("0.6")
    assert (retried.ran, retried.failed, len(retried.left)) == (1, [], 1)
    assert states(driving) == [("0.5", "cancelled"), ("0.6", "finished"), ("0.7", "finished")]
    assert driving.retry().ran == 1
    assert states(driving) == [("0.5", "finished"), ("0.6", "finished"), ("0.7", "finished")]
    assert {k: v for k, v in driving.results().items() if before[k]} == {k: v for k, v in before.items() if v}
    assert {run.info.status for run in everywhere_once(driving, 3).values()} == {"FINISHED"}
    assert driving.optuna_states() == {"COMPLETE": 3, "FAIL": 2}


def finished(trial):
    return (trial.read_result() or {}).get("state") == "finished"


def test_cells_are_dropped_between_two_drivers(driving, monkeypatch):
    driving.interrupt_at_the_third(monkeypatch)
    assert driving.launch().interrupted
    (said,) = cancel_cells([driving.folder], "sparsity=0.5")
    assert said.startswith("cancelled 2 trials of 1 cell of fake (perturbed_vae · sparsity=0.5); run them later with:")
    assert states(driving) == [("0", "finished")] * 2 + [("0.5", "cancelled")] * 2
    assert "2 finished, 2 cancelled" in status(driving.folder)
    outcome = driving.resume()
    assert (outcome.reused, outcome.failed, len(outcome.left)) == (2, [], 2)
    assert states(driving) == [("0", "finished")] * 2 + [("0.5", "cancelled")] * 2
    assert {run.info.status for run in everywhere_once(driving, 4).values()} == {"FINISHED", "FAILED"}
    assert driving.retry().ran == 2
    assert states(driving) == [("0", "finished")] * 2 + [("0.5", "finished")] * 2


def test_cancelling_does_not_count_towards_max_failures(driving, monkeypatch):
    driving.interrupt_at_the_third(monkeypatch)
    driving.launch("compute.max_failures=0")
    cancel_cells([driving.folder], "sparsity=0.5")
    assert not driving.resume().gave_up


def test_no_such_cell_is_one_sentence_naming_those_there_are(driving, capsys):
    driving.launch()
    assert cli.main(["cancel", "fake", "--cell", "sparsity=9", "--root", str(driving.root)]) == 2
    said = capsys.readouterr().err
    assert "perturbed_vae · sparsity=0; perturbed_vae · sparsity=0.5" in said
    assert said.count("\n") == 1


# -------------------------------------------------------------------------------------------- the retry


def test_a_dry_run_counts_failures_apart_from_what_runs(driving, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "[0.5]")
    driving.launch()
    run = dry_run(driving.study(), driving.root)
    assert (run.to_run, run.left) == (0, 2)
    assert "(2 there already, 2 failed or cancelled before, which only a retry runs again); 0 to run" in str(run)


def test_a_retry_leaves_what_has_not_ended_to_resume(driving, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "[0]")
    driving.interrupt_at_the_third(monkeypatch)
    assert len(driving.launch().failed) == 2
    monkeypatch.delenv("FAKE_FAIL")
    outcome = driving.retry()
    assert (outcome.ran, outcome.unfinished, outcome.failed) == (2, 2, [])
    assert states(driving) == [("0", "finished")] * 2 + [("0.5", "waiting")] * 2
    assert "go on with: harness resume fake" in status(driving.folder)
    outcome = driving.resume()
    assert (outcome.ran, outcome.reused) == (2, 2)
    everywhere_once(driving, 4)
    parents, _ = driving.runs()
    assert len(parents) == 1


def test_what_the_driver_gave_up_is_gone_on_with_by_resume(driving, monkeypatch):
    monkeypatch.setenv("FAKE_RAISE", '"the GPU fell off"')
    assert len(driving.launch("seeds=1", "compute.retries=0").failed) == 2
    monkeypatch.delenv("FAKE_RAISE")
    assert (driving.resume().ran, states(driving)) == (2, [("0", "finished"), ("0.5", "finished")])


def test_a_torn_result_does_not_keep_a_trial_from_running(driving):
    driving.launch()
    trial = next(driving.folder.trials())
    before = driving.results()
    trial.result.write_text('{"trial_id": ')
    assert driving.launch().ran == 1
    assert driving.results() == before


def test_retrying_needs_to_be_told_what_and_says_where_there_is_nothing(driving, capsys):
    driving.launch()
    root = ["--root", str(driving.root)]
    with pytest.raises(SystemExit):
        cli.main(["retry", "fake", *root])
    assert "--failed" in capsys.readouterr().err
    assert cli.main(["retry", "fake", "--failed", *root]) == 0
    assert "nothing to run again" in capsys.readouterr().out
    assert cli.main(["retry", "fake", "--failed", "--cell", "sparsity=9", *root]) == 2
    assert cli.main(["retry", "other", "--failed", *root]) == 2


def test_a_retry_from_the_command_line(driving, monkeypatch, capsys):
    monkeypatch.setattr("harness.study.driver.Runner", lambda: FAKE)
    monkeypatch.setenv("FAKE_FAIL", "[0.5]")
    driving.launch("seeds=1")
    root = ["--root", str(driving.root)]
    assert cli.main(["retry", "fake", "--failed", *root]) == 1
    assert "1 trial failed or cancelled; run again with: harness retry fake" in capsys.readouterr().err
    monkeypatch.delenv("FAKE_FAIL")
    assert cli.main(["retry", "fake", "--failed", "--cell", "sparsity=0.5", *root]) == 0
    assert states(driving) == [("0", "finished"), ("0.5", "finished")]
    assert sorted(driving.starts().values()) == [1, 3]
    everywhere_once(driving, 2)


# ----------------------------------------------------------------------------- a grid that grew or shrank


def test_a_grid_that_grew_says_what_is_there_and_what_runs(driving):
    driving.launch()
    driving.launch("grid.sparsity=[0, 0.5, 0.7]")
    assert "4 trials are there already, 2 to run" in driving.said


def test_cells_that_were_removed_are_kept_and_no_part_of_the_report(driving):
    driving.launch()
    before = driving.results()
    outcome = driving.launch("grid.sparsity=[0.5]")
    said = "2 trials of earlier launches are no longer part of the study; the results are kept"
    assert [line for line in driving.said if "no longer part" in line] == [said]
    assert driving.results() == before
    assert (outcome.ran, outcome.reused) == (0, 2)
    assert "2 trials: 2 finished" in outcome.report.text
    rows = (driving.folder.report / "trials.csv").read_text().splitlines()[1:]
    assert {row.split(",")[1] for row in rows} == {"perturbed_vae · sparsity=0.5"}
    assert said in status(driving.folder)
    driving.said.clear()
    driving.launch()
    assert not any("no longer part" in line for line in driving.said)


def test_what_a_search_has_proposed_stays_part_of_it(driving):
    searched = "search={sampler: random, trials: 3, space: {sparsity: {low: 0.0, high: 1.0}}}"
    driving.launch(searched, "grid=null", "seeds=1")
    driving.launch(searched, "grid=null", "seeds=1")
    assert not any("no longer part" in line for line in driving.said)
    said = status(driving.folder)
    assert "fake: 3 finished; not being driven" in said
    assert "best so far: perturbed_vae · sparsity=" in said
    driving.launch("seeds=1")
    assert any(line.startswith("3 trials of earlier launches are no longer part") for line in driving.said)


def test_waiting_trials_of_a_dropped_cell_stay_dropped_after_a_killed_driver(driving):
    process = driving.driver("compute.cluster=local", "compute.workers=1", "train.epochs=8", FAKE_SECONDS="0.3")
    try:
        driving.until(lambda: is_running(driving), process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        cancel_cells([driving.folder], "sparsity=0")  # one of its trials runs on, in the dead driver's job
        time.sleep(0.1)
        outcome = driving.resume()
    finally:
        end_group(process)
    assert states(driving) == [("0", "cancelled")] * 2 + [("0.5", "finished")] * 2
    assert outcome.failed == []
