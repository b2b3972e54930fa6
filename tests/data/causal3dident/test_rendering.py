"""Many images: the number of processes changes no pixel, and an interrupted job goes on where it stopped."""

import io
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from harness.data.causal3dident import rendering
from harness.data.causal3dident.rendering import CHUNK, Job, render_to
from harness.data.causal3dident.shapes import shape
from harness.data.causal3dident.workers import Worker, drawn
from harness.data.progress import ProgressLine
from harness.errors import UserError

COUNT = CHUNK + 10


@pytest.fixture(scope="module")
def job():
    pytest.importorskip("mitsuba")
    random = np.random.default_rng(0)
    return Job(
        meshes={0: shape(0), 2: shape(2)},
        classes=np.arange(COUNT) % 2 * 2,
        latents=random.uniform(-1, 1, (COUNT, 10)),
        seeds=np.arange(COUNT) + 2**32 - COUNT,
        image_size=16,
        samples=1,
    )


@pytest.fixture(scope="module")
def images(job, tmp_path_factory):
    path = tmp_path_factory.mktemp("one") / "images.npy"
    render_to(job, path, processes=1)
    return np.load(path)


def test_one_process_and_two_give_the_same_pixels(job, images, tmp_path):
    path = tmp_path / "images.npy"
    render_to(job, path, processes=2)
    np.testing.assert_array_equal(np.load(path), images)
    assert images.shape == (COUNT, 3, 16, 16)
    assert [entry.name for entry in tmp_path.iterdir()] == ["images.npy"]


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from harness.data.causal3dident.rendering import Job, render_to
from harness.data.causal3dident.shapes import shape

print("begun", flush=True)
count = int(sys.argv[2])
job = Job({0: shape(0)}, np.zeros(count, int), np.zeros((count, 10)), np.arange(count), 16, 1)
render_to(job, Path(sys.argv[1]), processes=2, progress=lambda done, total: print(done, flush=True))
"""


@pytest.fixture
def script(tmp_path):
    """Starts a user's script that has no guard on ``__main__``, in a folder with a module that hides numpy."""
    pytest.importorskip("mitsuba")
    started = []
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "numpy.py").write_text("raise SystemExit('not this one')")
    (tmp_path / "script.py").write_text(SCRIPT)

    def start(count):
        command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "images.npy"), str(count)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path / "elsewhere")
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_script_without_a_guard_on_main_draws_and_ends(script, tmp_path):
    process = script(COUNT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert said.split()[:2] == ["begun", "0"]
    assert said.count("begun") == 1
    assert said.split()[-1] == str(COUNT)
    assert np.load(tmp_path / "images.npy").shape == (COUNT, 3, 16, 16)


def children(pid):
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in listed.stdout.split()]


def running(pid):
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return state.stdout.strip()[:1] not in ("", "Z")


def test_drawing_processes_end_with_a_parent_that_is_killed(script):
    process = script(10**6)
    while process.stdout.readline().strip() not in {str(CHUNK * k) for k in range(1, 10)}:
        assert process.poll() is None
    workers = children(process.pid)
    assert len(workers) == 2
    process.kill()
    process.wait()
    end = time.monotonic() + 60
    while any(map(running, workers)):
        assert time.monotonic() < end, "they live on"
        time.sleep(0.05)


def test_a_drawing_process_leaves_interrupts_to_its_parent_from_the_start(job):
    with Worker() as worker:
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(worker.pid, number)
        worker.give(job.setting)
        worker.give((0, *part(job, 0)))
        start, pixels = worker.take()
    assert (start, pixels.shape) == (0, (CHUNK, 3, 16, 16))


def test_a_drawing_process_that_dies_is_named(job):
    with Worker() as worker:
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="was killed by signal 9"):
            worker.take()


def test_what_keeps_a_process_from_drawing_is_said_by_its_parent(job, tmp_path, monkeypatch):
    (tmp_path / "mitsuba.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="pip install mitsuba"):
        list(drawn([0], lambda start: rendering._part(job, start), job.setting, 2))


@pytest.mark.parametrize("processes", [1, 2])
def test_size_and_device_reach_who_draws(job, images, tmp_path, processes):
    path = tmp_path / "images.npy"
    render_to(replace(job, object_size=6.0), path, processes=processes)
    assert (np.load(path) != images).any()
    with pytest.raises(UserError, match="no CUDA device"):
        render_to(replace(job, device="cuda"), tmp_path / "none.npy", processes=processes)


def test_a_gpu_is_given_to_one_process(job):
    assert rendering._processes(None, "cuda", 10**6) == 1
    assert rendering._processes(3, "cpu", 10**6) == 3


class Stop(Exception):
    pass


def test_an_interrupted_job_goes_on_where_it_stopped(job, images, tmp_path, monkeypatch):
    path = tmp_path / "images.npy"

    def stop_after_first_chunk(done, total):
        if done:
            raise Stop

    with pytest.raises(Stop):
        render_to(job, path, processes=1, progress=stop_after_first_chunk)
    with open(f"{path}.done", "a") as record:
        record.write("6")  # cut off while being written
    seen = []
    monkeypatch.setattr(rendering, "_part", lambda job, start: seen.append(start) or part(job, start))
    render_to(job, path, processes=1)
    assert seen == [CHUNK]
    np.testing.assert_array_equal(np.load(path), images)


part = rendering._part


def test_what_is_left_of_another_job_is_not_gone_on_with(job, images, tmp_path):
    path = tmp_path / "images.npy"
    np.save(path, np.zeros((3, 2), np.uint8))
    (tmp_path / "images.npy.done").write_text("0\n")
    render_to(job, path, processes=1)
    np.testing.assert_array_equal(np.load(path), images)


def test_progress_counts_up_to_all_images(job, tmp_path):
    calls = []
    render_to(job, tmp_path / "images.npy", processes=1, progress=lambda *call: calls.append(call))
    assert calls == [(0, COUNT), (CHUNK, COUNT), (COUNT, COUNT)]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "step"), [(Terminal(), 3.0), (io.StringIO(), 40.0)])
def test_the_progress_line_tells_what_is_left(stream, step, monkeypatch):
    clock = iter(step * k for k in range(100))
    monkeypatch.setattr("harness.data.progress.time.monotonic", lambda: next(clock))
    line = ProgressLine("rendering images", stream)
    for done in (0, 1000, 2000, 4000):
        line(done, 4000)
    text = stream.getvalue()
    left = "0:09" if step == 3 else "2:00"
    assert f"rendering images: 1,000 of 4,000, {left} left" in text
    assert ("\x1b" in text) == stream.isatty()


def test_quick_work_shows_nothing(monkeypatch):
    stream = Terminal()
    clock = iter(0.1 * k for k in range(100))
    monkeypatch.setattr("harness.data.progress.time.monotonic", lambda: next(clock))
    line = ProgressLine("rendering images", stream)
    for done in range(11):
        line(done, 10)
    assert stream.getvalue() == ""
