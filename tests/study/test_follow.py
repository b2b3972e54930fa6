"""Following one trial: which one is meant, and what its epochs and its job write."""

import json
import threading
import time

import pytest
from test_status import Made

from harness.errors import UserError
from harness.study.follow import Tail, find_trial, follow
from harness.study.survey import Survey


@pytest.fixture
def made(tmp_path):
    study = Made(tmp_path / "runs")
    for seed in range(2):
        study.trial("vae · größe=3", seed)
    return study.launch()


def test_a_trial_is_meant_by_id_or_by_cell_and_seed(made):
    view = Survey(made.folder).look()
    first, second = view.rows
    for wanted in (second.entry.trial_id, "vae · größe=3 · seed 1", " vae größe=3  seed 1"):
        assert find_trial(view, wanted) == second
    made.ids.append("a0b1" + "0" * 12)
    view = Survey(made.launch().folder).look()
    assert find_trial(view, "A0B").entry.trial_id == made.ids[-1]
    assert first.state == "waiting"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("000", "may mean 0000000000000000 (vae · größe=3 · seed 0), 0000000000000001"),
        ("vae · größe=3", "did you mean: vae · größe=3 · seed 0; vae · größe=3 · seed 1"),
        ("nothing", "its trials are: vae · größe=3 · seed 0"),
        ("", "its trials are: vae"),
    ],
)
def test_a_trial_that_is_not_meant_clearly_is_refused(made, wanted, said):
    with pytest.raises(UserError) as refused:
        find_trial(Survey(made.folder).look(), wanted)
    assert said in str(refused.value)


def test_whole_lines_are_read_as_they_come(tmp_path):
    tail = Tail(tmp_path / "log")
    assert tail.new() == []
    tail.path.write_bytes(b"one\ntw")
    assert tail.new() == ["one"]
    tail.path.write_bytes(b"one\ntwo\n\xff\n")
    assert tail.new() == ["two", "\ufffd"]
    tail.path.write_bytes(b"anew\n")
    assert tail.new() == ["anew"]


def test_epochs_and_output_are_shown_until_the_trial_has_ended(made):
    mine = made.folder.trial(made.ids[0])
    made.run(mine, 1)
    (mine.path / "attempts.jsonl").write_text(json.dumps({"host": "node7", "pid": 9, "job": "12_3", "log": "12_3"}))
    logs = {name: made.folder.job_logs / f"12_3_0_log.{name}" for name in ("out", "err")}
    logs["out"].write_text("".join(f"line {number}\n" for number in range(100)))
    said = []
    follower = threading.Thread(target=lambda: follow(made.folder, made.ids[0], said.append, every=0.01))
    follower.start()

    def wait_for(line):
        while line not in said:
            time.sleep(0.01)

    wait_for("epoch 1/10  validation/loss 0.5")
    assert said[:2] == ["vae · größe=3 · seed 0 (0000000000000000): running", "on node7, process 9, job 12_3"]
    assert [line for line in said if line.startswith("out")] == [f"out | line {number}" for number in range(90, 100)]
    logs["err"].write_text("a warning\n")
    wait_for("err | a warning")
    metrics = {**{f"train/{number}": number for number in range(9)}, "validation/loss": 0.25}
    mine.metrics.write_text(mine.metrics.read_text() + "\n" + json.dumps({"epoch": 2, "metrics": metrics}) + "\n")
    wait_for("epoch 2/10  validation/loss 0.25  train/0 0  train/1 1  train/2 2  train/3 3  and 5 more")
    failure = {"reason": "train/loss is nan"}
    mine.result.write_text(json.dumps({"state": "failed", "failure": failure, "ended": time.time()}))
    follower.join(60)
    assert said[-1] == "failed: train/loss is nan"


def test_a_trial_that_nobody_will_start_is_not_waited_for(made):
    said = []
    follow(made.folder, made.ids[1], said.append)
    assert "nobody drives made; go on with: harness resume made" in said[-1]


@pytest.mark.parametrize("cluster", ["local", "inline"])
def test_what_a_real_job_writes_is_found(driving, cluster, monkeypatch):
    """A trial that died once left its last words in its job's log; the driver's own process has no such log."""
    if cluster == "local":
        monkeypatch.setenv("FAKE_DIE", "[0]")
        monkeypatch.setenv("FAKE_ALWAYS", "true")
    driving.launch(
        f"compute.cluster={cluster}", "compute.workers=1", "compute.retries=0", "grid.sparsity=[0]", "seeds=1"
    )
    said = []
    follow(driving.folder, "perturbed_vae · sparsity=0 · seed 0", said.append)
    if cluster == "local":
        assert "err | out of luck" in said
        assert said[-1].startswith("failed: its process died once")
    else:
        assert "its output goes to its driver's own, since it runs in that process" in said
        assert "epoch 3/3" in "\n".join(said)
        assert said[-1] == "finished"
