import hashlib
import os

import pytest

from harness.data.digest import file_digest
from harness.errors import UserError


def settle(path, seconds_ago=100.0):
    """Give a file a modification time long enough ago to be remembered."""
    stat = path.stat()
    os.utime(path, (stat.st_atime, stat.st_mtime - seconds_ago))


def test_is_the_files_sha256(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"cells")
    assert file_digest(path, tmp_path / "cache") == hashlib.sha256(b"cells").hexdigest()


def test_a_settled_file_is_not_read_again(tmp_path):
    path, cache = tmp_path / "a", tmp_path / "cache"
    path.write_bytes(b"cells")
    settle(path)
    first = file_digest(path, cache)
    (note,) = cache.iterdir()
    note.write_text(note.read_text().replace(first, "0" * 64))
    assert file_digest(path, cache) == "0" * 64


def test_a_changed_file_is_read_again(tmp_path):
    path, cache = tmp_path / "a", tmp_path / "cache"
    path.write_bytes(b"cells")
    settle(path)
    file_digest(path, cache)
    path.write_bytes(b"CELLS")  # the same size
    settle(path, 50.0)
    assert file_digest(path, cache) == hashlib.sha256(b"CELLS").hexdigest()


def test_a_file_changed_just_now_is_not_remembered(tmp_path):
    path, cache = tmp_path / "a", tmp_path / "cache"
    path.write_bytes(b"cells")
    file_digest(path, cache)
    assert not cache.exists()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"sha256": 3}', "null"])
def test_a_spoilt_note_is_ignored(tmp_path, content):
    path, cache = tmp_path / "a", tmp_path / "cache"
    path.write_bytes(b"cells")
    settle(path)
    right = file_digest(path, cache)
    next(cache.iterdir()).write_text(content)
    assert file_digest(path, cache) == right


def test_an_unwritable_cache_costs_nothing_but_time(tmp_path):
    path, blocked = tmp_path / "a", tmp_path / "file"
    path.write_bytes(b"cells")
    blocked.write_text("a file where a folder should be")
    settle(path)
    assert file_digest(path, blocked / "cache") == hashlib.sha256(b"cells").hexdigest()


def test_the_default_cache_is_the_users(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"cells")
    settle(path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    file_digest(path)
    assert len(list((tmp_path / "xdg" / "harness" / "digests").iterdir())) == 1


def test_missing_files_and_folders_are_the_users_error(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        file_digest(tmp_path / "missing")
    with pytest.raises(UserError, match="is not a file"):
        file_digest(tmp_path)
