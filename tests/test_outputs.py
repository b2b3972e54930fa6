"""Outputs of commands: refused in one sentence before the work, and there whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.outputs import new_folder, refuse_taken, writing


def test_what_is_there_is_kept(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for name in ("mine", "gone"):
        with pytest.raises(UserError, match=f"{name}: is there already; give another --out, or remove it first"):
            refuse_taken(tmp_path / name)


def test_a_file_of_another_kind_is_refused(tmp_path):
    refuse_taken(tmp_path / "cells.H5AD", ending=".h5ad")
    for name in ("cells.csv", "cells", ".h5ad"):
        with pytest.raises(UserError, match=r"what is written is \.h5ad; give an --out that ends so"):
            refuse_taken(tmp_path / name, ending=".h5ad")


def test_what_cannot_be_made_is_refused_before_the_work(tmp_path, monkeypatch):
    refuse_taken(tmp_path / "new")
    monkeypatch.chdir(tmp_path)
    refuse_taken(tmp_path / "new")
    (tmp_path / "file").write_text("")
    for out, said in (
        (tmp_path / "none" / "new", "its folder is not there; make it first, or give another --out"),
        (tmp_path / "file" / "new", r"new cannot be written \(Not a directory\); give another --out"),
        (tmp_path / ("n" * 300), r"cannot be written \(File name too long\)"),
    ):
        with pytest.raises(UserError, match=said):
            refuse_taken(out)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc")
def test_a_folder_in_which_nothing_can_be_made_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"^/proc/x cannot be written \(No such file or directory\); give another"):
        refuse_taken(Path("/proc/x"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (OSError(errno.ENOENT, "Unable to synchronously create file (name = 'x')"), "No such file or directory"),
        (
            OSError("Can't write data (file write failed: errno = 28, error message = 'No …')"),
            "No space left on device",
        ),
        (OSError("the cable is out\nand more"), "the cable is out"),
    ],
)
def test_what_the_system_refuses_is_a_sentence(tmp_path, error, reason):
    with pytest.raises(UserError) as said, writing(tmp_path / "out"):
        raise error
    assert str(said.value) == f"{tmp_path}/out cannot be written ({reason}); give another --out"


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    def interrupted():
        with new_folder(tmp_path / "out") as unfinished:
            (unfinished / "half").write_text("")
            assert not (tmp_path / "out").exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "out") as unfinished:
        (unfinished / "whole").write_text("")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "whole").exists()
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


def test_a_folder_that_came_meanwhile_is_kept(tmp_path):
    with pytest.raises(UserError, match="is there already"), new_folder(tmp_path / "out"):
        (tmp_path / "out").mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
