"""What ``status`` and ``watch`` say of studies, from their folders alone."""

import io
import json
import subprocess
import sys
import threading
import time

import pytest
from rich.cells import cell_len

from harness import cli
from harness.errors import UserError
from harness.study.folder import StudyFolder
from harness.study.lease import Lease
from harness.study.ownership import this_process
from harness.study.retry import retryable
from harness.study.status import lines, status
from harness.study.survey import Survey, last_line
from harness.study.trial_index import Entry, TrialIndex, read_index
from harness.study.watch import frame, watch


class Made:
    """A study in a folder, trial by trial, without a driver."""

    def __init__(self, root, name="made"):
        self.folder = StudyFolder(root, name)
        self.folder.create()
        self.folder.study_file.write_text("name: made\n")
        self.ids, self.begun = [], time.time() - 3600

    def trial(self, cell, seed=0, state=None, *, reason=None, value=None, epochs=10, searched=False, **failure):
        """A trial that is in the index, and has a result where a state is given."""
        trial_id = f"{len(read_index(self.folder)):016x}"
        entry = Entry(trial_id, cell, seed, epochs, searched)
        with (self.folder.path / "trials.jsonl").open("a") as file:
            file.write(json.dumps(entry.__dict__) + "\n")
        if not searched:
            self.ids.append(trial_id)
        mine = self.folder.trial(trial_id)
        mine.path.mkdir()
        if state is not None:
            failed = None if reason is None else {"reason": reason, **failure}
            metrics = {} if value is None else {"validation/loss": value}
            body = {"trial_id": trial_id, "state": state, "metrics": metrics, "failure": failed}
            mine.result.write_text(json.dumps({**body, "ended": self.begun + 60 * len(self.ids)}))
        return mine

    def run(self, mine, epoch, loss=0.5):
        """Let this very process work on a trial."""
        mine.claim.write_text(json.dumps(this_process().__dict__))
        line = {"epoch": epoch, "time": time.time(), "metrics": {"validation/loss": loss}}
        mine.metrics.write_text(json.dumps(line) + "\n" + '{"epoch": 9, "ti')

    def launch(self, **fields):
        body = {"number": 1, "state": "running", "started": self.begun, "begun": [self.begun], "trials": self.ids}
        body |= {"judged_by": ["validation/loss", "minimize"], **fields}
        (self.folder.launches / "1.json").write_text(json.dumps(body))
        return self


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path / "runs")


def test_counts_pace_best_and_what_to_do_next(made):
    for seed, value in enumerate((2.0, 4.0)):
        made.trial("a · x=1", seed, "finished", value=value)
        made.trial("b · x=2", seed, "finished", value=value / 2)
    made.trial("b · x=2", 2)
    said = "\n".join(lines(Survey(made.launch().folder).look()))
    assert "made: 1 waiting, 4 finished; not being driven" in said
    assert "best so far: b · x=2 (validation/loss 1.5, 2 seeds)" in said
    assert "60 trials an hour since" in said
    assert "left" not in said  # nobody drives
    assert f"go on with: harness resume made --root {made.folder.root}" in said


def test_the_best_is_the_greatest_where_the_objective_is_maximized(made):
    made.trial("a", 0, "finished", value=1.0)
    made.trial("b", 0, "finished", value=3.0)
    made.launch(judged_by=["validation/loss", "maximize"])
    assert "best so far: b (validation/loss 3, 1 seed)" in status(made.folder)


def test_time_left_counts_what_a_search_will_still_propose(made):
    made.trial("a", 0, "finished", value=1.0, searched=True)
    made.trial("b", 0, searched=True)
    made.launch(to_search=6, trials=[])
    with Lease(made.folder.lock, "made"):
        view = Survey(made.folder).look()
        assert (view.open, view.to_propose, len(view.rows)) == (5, 4, 2)
        assert view.seconds_left == pytest.approx(5 * 3600, rel=0.01)
        said = status(made.folder)
    assert "1 waiting, 1 finished, up to 4 to be proposed; driven by process" in said
    assert "last seen 0 s ago" in said
    assert "go on with" not in said


def test_what_is_cancelled_is_no_pace(made):
    made.trial("a", 0)
    made.trial("b", 0, "failed", reason="cancelled by ada@host", cancelled=True)
    made.launch()
    with Lease(made.folder.lock, "made"):
        view = Survey(made.folder).look()
        assert (view.per_hour, view.seconds_left) == (None, None)
        assert "an hour" not in status(made.folder)


def test_failures_are_grouped_by_reason_and_cut(made):
    for seed in range(12):
        made.trial("a", seed, "failed", reason=f"train/loss is nan in epoch {seed}")
        made.trial(f"b{'x' * seed}", 0, "failed", reason=f"no file {'y' * seed}z")
    made.trial("c", 1, "failed", reason="cancelled by ada@host", cancelled=True)
    said = status(made.launch().folder).splitlines()
    assert "24 failed, 1 cancelled" in said[0]
    assert "  failed    12 times: train/loss is nan in epoch 0 (e.g. a · seed 0)" in said
    assert sum(line.startswith("  failed") for line in said) == 8
    assert "            and 5 more" in said
    assert "  cancelled c · seed 1: cancelled by ada@host" in said
    assert said[-1].startswith("run again what failed or was cancelled: harness retry made")


def test_running_trials_have_their_epoch_and_are_cut(made):
    for seed in range(11):
        made.run(made.trial("zellen ähnlich · größe=3", seed), seed + 1)
    said = status(made.launch().folder)
    assert "  running   zellen ähnlich · größe=3 · seed 4: epoch 5/10" in said
    assert "and 3 more" in said
    assert said.count("epoch") == 8


def test_a_result_that_cannot_be_read_counts_as_missing(made):
    torn, listed, empty, odd = (made.trial("a", seed, "finished", value=1.0) for seed in range(4))
    torn.result.write_text('{"trial_id": "0", "sta')
    listed.result.write_text("[]")
    empty.result.write_bytes(b"\xff\x00")
    odd.result.write_text('{"state": "elsewhere"}')
    said = status(made.launch().folder)
    assert "made: 4 waiting" in said
    assert f"4 results cannot be read and count as missing, e.g. {torn.result}" in said


def test_an_empty_study_and_one_that_is_not_there(made, tmp_path):
    assert "no trials yet; not being driven" in status(made.folder)
    with pytest.raises(UserError, match="no study 'none'"):
        status(StudyFolder(tmp_path, "none"))


def test_a_driver_elsewhere_is_shown_by_its_heartbeat(made):
    made.trial("a")
    far = {**this_process().__dict__, "host": "node7", "pid": 5, "job": "31", "time": time.time() - 30}
    made.launch().folder.lock.write_text(json.dumps(far))
    assert "driven by process 5 on node7 (job 31), last seen 30 s ago" in status(made.folder)
    made.folder.lock.write_text(json.dumps({**far, "time": time.time() - 3 * 86_400}))
    assert "not being driven; process 5 on node7 (job 31) was last seen 3 days ago" in status(made.folder)


def test_trials_whose_cells_were_removed_are_counted_apart(made):
    made.trial("old", 0, "failed", reason="gone")
    kept = made.trial("a", 0, "finished", value=1.0)
    made.launch(trials=[kept.trial_id])
    said = status(made.folder)
    assert "made: 1 finished" in said
    assert "1 trial of earlier launches is no longer part of the study; the result is kept" in said
    assert retryable([made.folder]) == {}


def test_a_trial_without_a_folder_waits(made):
    made.ids.append("f" * 16)
    assert "made: 1 waiting" in status(made.launch().folder)


def test_looking_again_reads_what_changed(made):
    mine = made.trial("a", 0, "failed", reason="no")
    survey = Survey(made.launch().folder)
    assert survey.look().counts == {"failed": 1}
    mine.result.rename(mine.path / "result.1.json")
    assert survey.look().counts == {"waiting": 1}
    made.run(mine, 3)
    assert survey.look().counts == {"running": 1}


def test_the_index_keeps_the_latest_line_of_a_trial_and_survives_a_torn_one(made, tiny_study):
    from harness.study.load import load_study
    from harness.study.plan import plan

    trials = plan(load_study(tiny_study)).trials
    TrialIndex(made.folder).note(trials)
    path = made.folder.path / "trials.jsonl"
    whole = path.read_text()
    TrialIndex(made.folder).note(trials)
    assert path.read_text() == whole
    path.write_text(whole + '{"trial_id": "torn')
    TrialIndex(made.folder).note(trials, searched=True)
    index = read_index(made.folder)
    assert [entry.searched for entry in index.values()] == [True, True]
    assert {entry.name for entry in index.values()} == {trial.name for trial in trials}


def test_the_last_line_of_a_file_is_the_last_whole_one(tmp_path):
    path = tmp_path / "lines.jsonl"
    assert last_line(path) is None
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": ')
    assert last_line(path) == {"a": 2}
    path.write_text(json.dumps({"long": "x" * 100_000}) + '\n{"a": 3}\n')
    assert last_line(path) == {"a": 3}


@pytest.mark.parametrize("verb", ["status", "watch"])
def test_folders_alone_are_read(made, verb):
    """Neither pydantic nor anything heavier is imported, so that both answer at once."""
    made.trial("a", 0, "finished", value=1.0)
    made.launch()
    code = (
        "import sys, harness.cli\n"
        f"status = harness.cli.main([{verb!r}, 'made', '--root', sys.argv[1]])\n"
        "heavy = {'torch', 'mlflow', 'optuna', 'numpy', 'pydantic', 'submitit'} & set(sys.modules)\n"
        "assert status == 0 and not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(made.folder.root)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "1 finished" in done.stdout


# ------------------------------------------------------------------------------------------------ watch


def crowded(made):
    for seed in range(3):
        made.trial("perturbed_vae · 大きさ=8", seed, "finished", value=1.0)
        made.run(made.trial("perturbed_vae · 大きさ=9 · sparsity=0.01", seed), seed + 1, loss=0.25)
    made.trial("c", 0, "failed", reason="train/loss is nan\nin epoch 1")
    return made.launch().folder


def test_a_frame_has_bar_running_trials_and_last_failures(made):
    said = frame(Survey(crowded(made)).look(), 160)
    assert said[0].startswith("made  █████████████")
    assert "4/7 trials, 57%" in said[0]
    (running,) = (line for line in said if "seed 1" in line)
    assert running.split()[-4:] == ["2/10", "0.25", "0", "s"]
    assert "  c · seed 0: train/loss is nan" in said


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(made, width):
    assert max(cell_len(line) for line in frame(Survey(crowded(made)).look(), width)) <= width


def test_a_low_terminal_names_fewer_trials(made):
    folder = crowded(made)
    for seed in range(3, 30):
        made.run(made.trial("b", seed), 1)
    view = Survey(made.launch().folder).look()
    assert "and 27 more" in frame(view, 80, height=10)
    assert "and 4 more" in frame(view, 80, height=40)
    assert folder == made.folder


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_watching_a_study_that_is_over_ends_by_itself(made, stream):
    made.trial("a", 0, "finished", value=1.0)
    made.trial("b", 0, "failed", reason="nan")
    out = stream()
    watch(lambda: [made.launch().folder], out)
    assert "b · seed 0: nan" in out.getvalue()
    assert "harness retry made" in out.getvalue().splitlines()[-1]


def test_watching_goes_on_until_the_driver_is_gone(made):
    mine = made.trial("a")
    made.launch()
    out, driven, over = io.StringIO(), threading.Event(), threading.Event()

    def drive():
        with Lease(made.folder.lock, "made"):
            driven.set()
            over.wait(60)

    driver = threading.Thread(target=drive)
    watcher = threading.Thread(target=lambda: watch(lambda: [made.folder], out, every=0.01, plain_every=0.0))
    driver.start()
    driven.wait(60)
    watcher.start()
    while "1 waiting" not in out.getvalue():
        time.sleep(0.01)
    mine.result.write_text(json.dumps({"state": "finished", "metrics": {"validation/loss": 1}, "ended": time.time()}))
    while "1 finished" not in out.getvalue():
        time.sleep(0.01)
    assert watcher.is_alive()
    over.set()
    driver.join()
    watcher.join(60)
    assert not watcher.is_alive()
    assert out.getvalue().count("1 finished") == 1  # what has not changed is not said again


def test_ctrl_c_ends_watching_in_peace(made, monkeypatch):
    made.run(made.trial("a"), 1)
    made.launch()

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.study.watch.time.sleep", interrupted)
    watch(lambda: [made.folder], io.StringIO())
    assert cli.main(["watch", "made", "--root", str(made.folder.root)]) == 0


def test_one_look(made, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    made.run(made.trial("a rather long name of a cell"), 1)
    made.launch()
    assert cli.main(["watch", "made", "--once", "--root", str(made.folder.root)]) == 0
    said = capsys.readouterr().out
    assert max(map(cell_len, said.splitlines())) <= 30


# ----------------------------------------------------------------------------------------------- suites


def test_a_suite_is_asked_for_by_name(tmp_path, capsys):
    root = tmp_path / "runs"
    first = Made(root, "both-a")
    first.trial("a", 0, "finished", value=1.0)
    first.launch()
    suite = StudyFolder(root, "both")
    suite.path.mkdir()
    suite.suite_file.write_text("name: both\nstudies: [studies/both-a.yaml, studies/both-b.yaml]\n")
    for verb in (["status"], ["watch", "--once"]):
        assert cli.main([*verb, "both", "--root", str(root)]) == 0
        assert "1 finished" in capsys.readouterr().out
    assert cli.main(["status", "both", "--root", str(root)]) == 0
    assert "both-b: not launched yet" in capsys.readouterr().out
    assert cli.main(["watch", "both", "--follow", "abc", "--root", str(root)]) == 2
    assert "follow a trial of one of its studies: both-a" in capsys.readouterr().err
