"""A driver killed, or an answer lost, after any call into MLflow: replayed, every run and point is there once."""

from dataclasses import replace

import pytest
from mlflow.exceptions import MlflowException

from harness.study import tracking
from harness.study.mlflow_store import connect
from harness.study.tracked_book import TrackedBook
from harness.study.tracked_trial import TrackedTrial, end_mark
from harness.study.tracking import Tracker

#: More calls than bringing one trial takes.
MOST_CALLS = 30


def epochs(last, *, resumed_at=0, again=0.0):
    """Lines of a trial that was resumed after an epoch: the later ones were written again, ``again`` seconds later."""
    return [
        {
            "epoch": epoch,
            "time": 1700000000.0 + epoch + (again if epoch > resumed_at else 0.0),
            "metrics": {"train/loss": 1.0 / epoch, "validation/loss": 2.0 / epoch},
        }
        for epoch in range(1, last + 1)
    ]


RESULT = {
    "state": "finished",
    "metrics": {"identifiability/mcc": 0.9, "validation/loss": 0.45},
    "baselines": {"baseline/additive/ood/double/rmse": 1.0},
    "started": 1700000000.0,
    "ended": 1700000100.0,
    "warnings": [],
    "failure": None,
    "environment": {"host": "node7"},
}


def trial(name, lines, result):
    return TrackedTrial(
        trial_id=name,
        cell=f"perturbed_vae · {name}",
        seed=0,
        model="perturbed_vae",
        fingerprint="fedcba",
        params={f"model.field_{number}": number for number in range(120)},  # two requests
        epochs=lines,
        result=result,
        first_of_cell=True,
        helps=(),
    )


class Killed(BaseException):
    """As `kill -9` is to everybody else: nothing handles it."""


class Cut:
    """A client of which one call is carried out, all or half of it, and never answered."""

    def __init__(self, client, after, error, *, half):
        self._client, self.after, self._error, self._half = client, after, error, half
        self.calls = 0

    def __getattr__(self, name):
        method = getattr(self._client, name)

        def call(*arguments, **keys):
            self.calls += 1
            if self.calls != self.after:
                return method(*arguments, **keys)
            if self._half and name == "log_batch" and "metrics" in keys:
                keys.pop("tags", None)  # the server writes points and tags one after the other
            method(*arguments, **keys)
            raise self._error

        return call


@pytest.fixture(params=["database", "server"])
def cutting(driving, monkeypatch, request):
    """Makes a tracker whose n-th call from now is cut off; as behind a server, where runs are looked up one by one."""
    made = []
    assert Tracker(driving.root, "fake").start_launch(1, 1700000000.0, {})
    driving.folder.create()
    if request.param == "server":
        monkeypatch.setattr(tracking, "has_server", lambda uri: True)

    def make(after, error, *, half=False):
        def connected(uri):
            made.append(Cut(connect(uri), 0, error, half=half))
            return made[-1]

        monkeypatch.setattr(tracking, "connect", connected)
        tracker = Tracker(driving.root, "fake")
        tracker.start_launch(1, 1700000000.0, {})
        made[-1].after, made[-1].calls = after, 0
        return tracker, made[-1]

    return make


def assert_once(driving, name, last):
    client = driving.client()
    children = [run for run in driving.runs()[1] if run.data.tags["trial_id"] == name]
    assert len(children) == 1, name
    run = children[0]
    assert (run.info.status, len(run.data.params)) == ("FINISHED", 120)
    assert run.data.tags["state"] == "finished"
    curves = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    steps = {key: [point.step for point in curve] for key, curve in curves.items()}
    assert steps == {
        "train/loss": list(range(1, last + 1)),
        "validation/loss": [*range(1, last + 1), last + 1],
        "identifiability/mcc": [0],
        "baseline/additive/ood/double/rmse": [0],
    }


@pytest.mark.parametrize("half", [False, True])
def test_a_driver_killed_after_any_call_doubles_nothing(driving, cutting, half):
    for after in range(1, MOST_CALLS):
        name = f"killed {after}"
        tracker, cut = cutting(after, Killed(), half=half)
        running = trial(name, epochs(3), None)
        ended = trial(name, epochs(5, resumed_at=2, again=50.0), RESULT)
        try:
            tracker.sync(running)
            tracker.sync(ended)
        except Killed:
            pass
        else:
            assert cut.calls < after
            break
        # the trial too had to go back to its checkpoint, and wrote its third epoch again
        fresh, _ = cutting(0, None)
        assert fresh.sync(ended)
        assert_once(driving, name, 5)
    else:
        pytest.fail("more calls than were cut off")
    assert after > 8


def test_an_answer_that_is_lost_after_any_call_doubles_nothing(driving, cutting):
    for after in range(1, MOST_CALLS):
        name = f"lost {after}"
        tracker, cut = cutting(after, MlflowException("connection reset"))
        running = trial(name, epochs(3), None)
        ended = trial(name, epochs(5, resumed_at=2, again=50.0), RESULT)
        answered = [tracker.sync(running), tracker.sync(running), tracker.sync(ended), tracker.sync(ended)]
        assert answered[-1]
        assert_once(driving, name, 5)
        if all(answered):
            assert cut.calls < after
            break
        assert "connection reset" in tracker.error
    assert after > 8


def test_a_launch_killed_after_any_call_has_one_parent(driving, monkeypatch):
    for after in range(1, MOST_CALLS):
        made = []

        def connected(uri, after=after, made=made):
            made.append(Cut(connect(uri), after, Killed(), half=False))
            return made[-1]

        monkeypatch.setattr(tracking, "connect", connected)
        tracker = Tracker(driving.root, "fake")
        try:
            tracker.start_launch(after, 1700000000.0, {})
            tracker.end_launch("FINISHED", {}, {"a.json": "{}"}, ["identifiability/mcc"])
        except Killed:
            pass
        else:
            break
        monkeypatch.setattr(tracking, "connect", connect)
        fresh = Tracker(driving.root, "fake")
        assert fresh.start_launch(after, 1700000000.0, {})
        assert fresh.end_launch("FINISHED", {}, {"a.json": "{}"}, ["identifiability/mcc"])
        parents = [run for run in driving.runs()[0] if run.data.tags["launch"] == str(after)]
        assert [run.info.status for run in parents] == ["FINISHED"]
    assert after > 4


def test_a_second_run_that_a_server_made_late_is_dropped(driving, cutting):
    tracker, _ = cutting(0, None)
    ended = trial("twice", epochs(5), RESULT)
    assert tracker.sync(trial("twice", epochs(3), None))
    (run,) = driving.runs()[1]
    late = driving.client().create_run(run.info.experiment_id, tags={"study": "fake", "trial_id": "twice"})
    assert len(driving.runs()[1]) == 2
    fresh, _ = cutting(0, None)
    assert fresh.sync(ended)
    assert_once(driving, "twice", 5)
    assert driving.runs()[1][0].info.run_id == run.info.run_id != late.info.run_id


def test_one_trial_that_cannot_be_written_holds_up_no_other(driving, cutting):
    tracker, _ = cutting(0, None)
    bad = trial("bad", epochs(5), {**RESULT, "state": "of no kind"})
    assert not tracker.sync(bad)
    assert tracker.sync(trial("good", epochs(5), RESULT))
    assert not tracker.sync(bad)
    assert_once(driving, "good", 5)
    assert not tracker.sync(replace(bad, trial_id="other"))


def test_a_server_is_not_asked_for_what_is_noted_here(driving, monkeypatch):
    assert Tracker(driving.root, "fake").start_launch(1, 1700000000.0, {})
    driving.folder.create()
    monkeypatch.setattr(tracking, "has_server", lambda uri: True)
    ended = trial("noted", epochs(3), RESULT)
    made = []

    def connected(uri):
        made.append(Cut(connect(uri), 0, None, half=False))
        return made[-1]

    monkeypatch.setattr(tracking, "connect", connected)
    calls = []
    for again in (None, None, {**RESULT, "ended": 1700000200.0}):
        tracker = Tracker(driving.root, "fake")
        assert tracker.start_launch(1, 1700000000.0, {})
        made[-1].calls = 0
        changed = ended if again is None else replace(ended, result=again)
        assert tracker.bring("noted", end_mark(changed.result), lambda changed=changed: changed)
        calls.append(made[-1].calls)
    assert calls[0] > 0
    assert calls[1] == 0
    assert calls[2] > 0
    assert len(driving.runs()[1]) == 1
    book = driving.folder.path / "tracked.jsonl"
    assert len(book.read_text().splitlines()) == 2


def test_notes_on_another_server_count_for_nothing(tmp_path):
    path = tmp_path / "tracked.jsonl"
    TrackedBook(path, "one").note("run", trial_id="trial", synced_result="finished 1")
    with path.open("a") as file:
        file.write('{"store": "one", "run"\n')
    TrackedBook(path, "one").note("run", trial_id="trial", synced_cell="2 3.0")
    marks = {"trial_id": "trial", "synced_result": "finished 1", "synced_cell": "2 3.0"}
    assert dict(TrackedBook(path, "one").runs()) == {"run": marks}
    assert dict(TrackedBook(path, "two").runs()) == {}
    assert dict(TrackedBook(tmp_path / "none", "one").runs()) == {}


def test_a_run_that_somebody_removed_is_made_again(driving, cutting):
    tracker, _ = cutting(0, None)
    assert tracker.sync(trial("removed", epochs(3), None))
    (run,) = driving.runs()[1]
    driving.client().delete_run(run.info.run_id)
    ended = trial("removed", epochs(5), RESULT)
    assert not tracker.sync(ended)
    assert tracker.sync(ended)
    assert_once(driving, "removed", 5)
