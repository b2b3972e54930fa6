"""Progress: curves read as they grow, time left, the best cell, and the two screens."""

import io
import json

from harness.study.load import load_study
from harness.study.plan import plan
from harness.study.progress import Best, Clock, Curve, LiveScreen, PlainScreen, Progress, make_screen
from harness.study.spec import ObjectiveSpec
from harness.words import clock_words

LOSS = ObjectiveSpec(metric="validation/loss", direction="minimize")


def result(value, state="finished"):
    return {"state": state, "metrics": {"validation/loss": value}}


def line(epoch, value):
    return json.dumps({"epoch": epoch, "time": 1.0, "metrics": {"validation/loss": value}}) + "\n"


def test_a_curve_is_read_on_from_where_it_was_left(tmp_path):
    path = tmp_path / "metrics.jsonl"
    curve = Curve(path)
    assert curve.read().last == 0
    path.write_text(line(1, 3.0) + line(2, 2.0)[:10])
    assert curve.read().last == 1
    path.write_text(line(1, 3.0) + line(2, 2.0))
    assert (curve.read().last, curve.value(2, "validation/loss"), curve.value(2, "no")) == (2, 2.0, None)
    path.write_text(line(1, 7.0))  # begun anew
    assert (curve.read().last, curve.value(1, "validation/loss")) == (1, 7.0)


def trials(tiny_study, *changes):
    return plan(load_study(tiny_study, changes)).trials


def test_the_best_cell_has_the_best_mean_over_its_seeds(tiny_study):
    best = Best(LOSS)
    assert str(best) == ""
    a0, a1, b0, b1 = trials(tiny_study, "grid.sparsity=[0, 0.1]")
    for trial, value in ((a0, 1.0), (a1, 4.0), (b0, 2.0), (b1, 2.2)):
        best.take(trial, result(value))
    best.take(a0, result(-9.0, "failed"))
    assert str(best) == "perturbed_vae · sparsity=0.1 (validation/loss 2.1, 2 seeds)"


def test_an_oracle_objective_does_not_choose_the_running_best(tiny_study):
    oracle = ObjectiveSpec(metric="identifiability/mcc", direction="maximize", oracle=True)
    best = Best(oracle)
    best.take(trials(tiny_study)[0], {"state": "finished", "metrics": {"identifiability/mcc": 1, "validation/loss": 5}})
    assert "validation/loss 5" in str(best)


def test_time_left_is_in_proportion_to_what_was_done(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("harness.study.progress.time.monotonic", lambda: now[0])
    clock = Clock()
    assert clock.left(5, 25) is None  # five were done before: they tell nothing about speed
    now[0] = 110.0
    assert clock.left(10, 25) == 30.0


def test_durations_for_people():
    assert [clock_words(s) for s in (None, 4.2, 185, 7800)] == ["?", "4 s", "3:05 min", "2:10 h"]


def test_progress_counts_trials_epochs_and_failures(tiny_study, tmp_path):
    from harness.study.folder import TrialFolder

    screen = PlainScreen(io.StringIO(), every=0.0)
    progress = Progress(screen, LOSS)
    first, second = trials(tiny_study)
    for trial in (first, second):
        progress.expect(trial)
    folder = TrialFolder(tmp_path / second.trial_id)
    folder.path.mkdir()
    folder.metrics.write_text(line(1, 2.0))
    progress.ended(first, {**result(1.0, "failed"), "failure": {"reason": "loss is nan"}})
    progress.show({second.trial_id: folder})
    said = screen._stream.getvalue()
    assert "failed: perturbed_vae · seed 0: loss is nan" in said
    assert "1/2 trials" in said
    assert "1 failed" in said
    assert "left" in said


def test_time_before_the_first_trial_runs_says_nothing_about_the_rest(tiny_study, tmp_path, monkeypatch):
    from harness.study.folder import TrialFolder

    now = [0.0]
    monkeypatch.setattr("harness.study.progress.time.monotonic", lambda: now[0])
    screen = PlainScreen(io.StringIO(), every=0.0)
    progress = Progress(screen, LOSS)
    first, second = trials(tiny_study)
    for trial in (first, second):
        progress.expect(trial)
    folder = TrialFolder(tmp_path / first.trial_id)
    folder.path.mkdir()
    progress.show({first.trial_id: folder})
    now[0] = 1000.0  # rendering, or a queue
    progress.show({first.trial_id: folder})
    folder.claim.touch()
    progress.show({first.trial_id: folder})
    now[0] = 1010.0
    progress.ended(first, result(1.0))
    progress.show({})
    assert "1/2 trials, 10 s left" in screen._stream.getvalue().splitlines()[-1]


def test_the_live_screen_rewrites_a_block(tiny_study):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    screen = make_screen(stream)
    assert isinstance(screen, LiveScreen)
    screen.show(lambda: ["1/2 trials [not markup]", "  a: epoch 1/3"])
    screen.say("failed: [b]")
    screen.close()
    assert "failed: [b]" in stream.getvalue()
    assert isinstance(make_screen(io.StringIO()), PlainScreen)
