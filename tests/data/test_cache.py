"""Datasets are built once, whole or not at all."""

import multiprocessing
import time

import pytest

from harness.data.cache import built_once
from harness.errors import UserError


def test_it_is_built_once(tmp_path):
    calls = []

    def build(folder):
        calls.append(folder)
        (folder / "data").write_text("here")

    for _ in range(3):
        assert (built_once(tmp_path, "set", build) / "data").read_text() == "here"
    assert len(calls) == 1


def test_a_failed_build_leaves_nothing_under_the_name(tmp_path):
    def fail(folder):
        (folder / "half").write_text("")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        built_once(tmp_path, "set", fail)
    assert not (tmp_path / "set").exists()
    folder = built_once(tmp_path, "set", lambda folder: (folder / "whole").touch())
    assert [path.name for path in folder.iterdir()] == ["whole"]


def _append_slowly(folder):
    with (folder.parent / "builds").open("a") as file:
        file.write("x")
    time.sleep(0.5)
    (folder / "data").touch()


def test_of_processes_that_ask_together_one_builds(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=built_once, args=(tmp_path, "set", _append_slowly)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert (tmp_path / "builds").read_text() == "x"


def test_a_cache_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"set data\.cache_dir"):
        built_once(tmp_path / "file" / "cache", "set", lambda folder: None)
