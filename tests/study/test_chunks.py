"""Which trials share a job."""

import pytest

from harness.study.chunks import Chunks, fitting
from harness.study.load import load_study
from harness.study.plan import plan

STUDY = """\
name: many
models:
  - {kind: perturbed_vae, latent_dim: 4, responsive_dim: 2}
  - {kind: beta_vae, latent_dim: 4}
data: {kind: simulation, preset: tiny}
grid: {train.learning_rate: [0.1, 0.2, 0.3, 0.4, 0.5]}
seeds: 2
"""


@pytest.fixture
def trials(tmp_path):
    file = tmp_path / "many.yaml"
    file.write_text(STUDY)
    return plan(load_study(file)).trials


def took(seconds, state="finished"):
    return {"state": state, "started": 100.0, "ended": 100.0 + seconds}


def test_a_fixed_number_shares_a_job(trials):
    assert [len(job) for job in Chunks(8).of(trials, 0, 2)] == [8, 8, 4]


def test_auto_measures_before_it_fills_jobs(trials):
    chunks = Chunks("auto", minutes=1.0)
    assert [len(job) for job in chunks.of(trials, 0, 3)] == [1] * 6  # three of each of two models
    assert chunks.of(trials[3:], 3, 3) == ()  # and no more while nothing has ended


def test_auto_fills_the_asked_minutes_by_model(trials):
    chunks = Chunks("auto", minutes=1.0)
    by_kind = {trial.spec.model.kind: trial for trial in trials}
    for seconds in (9.0, 10.0, 1000.0):  # the median is not moved by one that was slow
        chunks.learn(by_kind["perturbed_vae"], took(seconds))
    chunks.learn(by_kind["beta_vae"], took(30.0))
    chunks.learn(by_kind["beta_vae"], took(0.1, state="failed"))  # says nothing of how long one takes
    jobs = chunks.of(trials, 0, 1)
    sizes = {kind: [len(job) for job in jobs if job[0].spec.model.kind == kind] for kind in by_kind}
    assert sizes == {"perturbed_vae": [6, 4], "beta_vae": [2] * 5}
    assert [trial for job in jobs for trial in job] == list(trials)


def test_auto_leaves_no_worker_without_work(trials):
    chunks = Chunks("auto", minutes=60.0)
    for trial in trials:
        chunks.learn(trial, took(1.0))
    assert [len(job) for job in chunks.of(trials[:8], 0, 4)] == [2] * 4


@pytest.mark.parametrize(("minutes", "seconds", "expected"), [(10, 60, 10), (1, 3600, 1), (1, 0, 6000)])
def test_how_many_trials_fill_some_minutes(minutes, seconds, expected):
    assert fitting(minutes, seconds) == expected
