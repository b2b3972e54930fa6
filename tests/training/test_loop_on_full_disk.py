"""Training on a disk that is full for a while: it goes on, and nothing of it is missing in the end."""

import json
import threading

import pytest
from small_disk import small_disk
from test_loop import _curve, _trainer

from harness import files
from harness.training import checkpoint


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", 1) as disk:
        yield disk


def numbers(folder):
    return [(epoch, metrics["validation/loss"]) for epoch, metrics in _curve(folder)]


def test_lines_and_checkpoints_wait_while_training_goes_on(data, tmp_path, disk):
    _trainer(data, tmp_path / "whole", epochs=24).run()
    trainer = _trainer(data, disk.path / "trial", epochs=24, checkpoint_seconds=0)
    seen = {}

    def on_epoch(epoch):
        folder = disk.path / "trial"
        if epoch == 3:
            disk.fill()
        if epoch == 20:
            seen["lines"] = len(_curve(folder))
            seen["checkpoint"] = checkpoint.load(folder / "checkpoint.pt", trainer.device)["epoch"]
            seen["files"] = sorted(path.name for path in folder.iterdir())
            disk.free()

    trained = trainer.run(on_epoch)
    assert trained.epochs == 24
    assert 3 <= seen["lines"] < 20  # what was left of the last block
    assert (seen["checkpoint"], seen["files"]) == (3, ["checkpoint.pt", "metrics.jsonl"])
    assert numbers(disk.path / "trial") == numbers(tmp_path / "whole")
    assert checkpoint.load(disk.path / "trial" / "checkpoint.pt", trainer.device)["epoch"] == 24


class Killed(BaseException):
    pass


def test_a_trial_killed_while_lines_wait_writes_them_again(data, tmp_path, disk):
    _trainer(data, tmp_path / "whole", epochs=24).run()

    def on_epoch(epoch):
        if epoch == 3:
            disk.fill()
        if epoch == 20:
            disk.free()  # room again, but only for a process that lives on
            raise Killed

    with pytest.raises(Killed):
        _trainer(data, disk.path / "trial", epochs=24, checkpoint_seconds=0).run(on_epoch)
    again = _trainer(data, disk.path / "trial", epochs=24, checkpoint_seconds=0)
    again.run()
    assert numbers(disk.path / "trial") == numbers(tmp_path / "whole")


def test_the_end_waits_for_room_and_says_so_once(data, disk, capsys):
    trainer = _trainer(data, disk.path / "trial", epochs=16)

    def on_epoch(epoch):
        if epoch == 2:
            disk.fill()
        if epoch == 16:
            threading.Timer(1.0, disk.free).start()

    trainer.run(on_epoch)
    assert [epoch for epoch, _ in _curve(disk.path / "trial")] == list(range(1, 17))
    assert capsys.readouterr().err.count("there is no room on the disk") == 1


def test_a_disk_that_stays_full_ends_in_a_sentence(data, disk, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE_SECONDS", 0.3)
    trainer = _trainer(data, disk.path / "trial", epochs=16)
    with pytest.raises(OSError, match=r"no room on the disk for .* s; make room and run it again"):
        trainer.run(lambda epoch: disk.fill() if epoch == 2 else None)
    lines = (disk.path / "trial" / "metrics.jsonl").read_text().splitlines()
    epochs = [json.loads(line)["epoch"] for line in lines]  # no torn line
    assert epochs == list(range(1, len(epochs) + 1))
    assert 2 <= len(epochs) < 16
