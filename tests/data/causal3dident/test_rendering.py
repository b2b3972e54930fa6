"""Many images: the number of processes changes no pixel, and an interrupted job goes on where it stopped."""

import io

import numpy as np
import pytest

from harness.data.causal3dident import rendering
from harness.data.causal3dident.progress import ProgressLine
from harness.data.causal3dident.rendering import CHUNK, Job, render_to
from harness.data.causal3dident.shapes import shape

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
    monkeypatch.setattr("harness.data.causal3dident.progress.time.monotonic", lambda: next(clock))
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
    monkeypatch.setattr("harness.data.causal3dident.progress.time.monotonic", lambda: next(clock))
    line = ProgressLine("rendering images", stream)
    for done in range(11):
        line(done, 10)
    assert stream.getvalue() == ""
