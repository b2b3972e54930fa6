"""Files whole or not at all, also where the disk is full for a while."""

import contextlib
import errno
import os
from pathlib import Path

import pytest

from harness import files
from harness.files import LineFile, append_whole, patiently, say_if_room, write_when_room


class FullDisk:
    """Lets so many bytes be written, then says that there is no room, until there is."""

    def __init__(self, monkeypatch, number=errno.ENOSPC):
        self.room = 0
        self._write, self._number = os.write, number
        monkeypatch.setattr("harness.files.os.write", self.write)
        monkeypatch.setattr("harness.files.os.fdopen", self.fdopen)

    def write(self, descriptor, content):
        if self.room == 0:
            raise OSError(self._number, "No space left on device")
        content = content[: self.room]
        self.room -= len(content)
        return self._write(descriptor, content)

    def fdopen(self, descriptor, mode):
        os.close(descriptor)
        raise OSError(self._number, "No space left on device")


@pytest.fixture(params=[errno.ENOSPC, errno.EDQUOT])
def full(monkeypatch, request):
    monkeypatch.setattr(files, "FIRST_PAUSE", 0.0)
    return FullDisk(monkeypatch, request.param)


def test_a_line_that_finds_half_its_room_leaves_no_half(tmp_path, full):
    path = tmp_path / "lines"
    full.room = 4
    append_whole(path, "one\n")
    full.room = 2
    with pytest.raises(OSError, match="No space left"):
        append_whole(path, "two\n")
    assert path.read_text() == "one\n"


def test_lines_without_room_come_later_in_order_and_once(tmp_path, full):
    path = tmp_path / "lines"
    lines = LineFile(path)
    full.room = 3
    for number in range(4):
        lines.add(f"line {number}")
        assert path.read_text() == ""
    assert not lines.flush()
    full.room = 10_000
    lines.add("line 4")
    assert path.read_text().splitlines() == [f"line {number}" for number in range(5)]
    assert lines.flush()
    lines.settle()
    assert len(path.read_text().splitlines()) == 5


def test_an_error_of_another_kind_is_no_reason_to_wait(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Not a directory"):
        LineFile(tmp_path / "file" / "lines").add("line")
    with pytest.raises(OSError, match=r"Not a directory|exists"):
        write_when_room(tmp_path / "file" / "x", "text")


def test_what_waits_for_room_says_so_once_and_gives_up_in_a_sentence(tmp_path, full):
    said = []
    (tmp_path / "x").write_text("old")
    with pytest.raises(OSError, match=r"no room on the disk for .* s; make room") as raised:
        patiently(lambda: files.write_atomic(tmp_path / "x", "new"), tmp_path / "x", seconds=0.05, say=said.append)
    assert files.has_no_room(raised.value)
    assert len(said) == 1
    assert str(tmp_path / "x") in said[0]
    assert (tmp_path / "x").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_what_waits_for_room_gets_it(tmp_path, full, monkeypatch):
    tries = []

    def write():
        tries.append(None)
        if len(tries) < 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return "done"

    assert patiently(write, tmp_path, say=lambda sentence: None) == "done"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_what_has_no_room_to_be_said_is_not_said():
    with contextlib.suppress(OSError), Path("/dev/full").open("w") as log:  # closing it finds no room either
        said = False
        say_if_room("a line", log)
        said = True
    assert said
