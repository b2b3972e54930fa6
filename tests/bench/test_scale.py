"""What a trial costs the driver in studies of 100, 1,000 and 10,000: pytest tests/bench/test_scale.py -s

The largest size takes some minutes and runs only where HARNESS_BENCH_LARGE is set. Each test measures all sizes in
one run and compares them with each other, since machines differ.
"""

import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_study import ManyTrials

from harness.study.executors import InlineExecutor
from harness.study.fleet import Fleet

SIZES = [100, 1_000, *([10_000] if os.environ.get("HARNESS_BENCH_LARGE") else [])]
#: How much more a trial may cost in the largest study than in the smallest.
MOST_GROWTH = 2.0
#: Trials that are timed in each study.
TIMED = 40


@pytest.fixture(scope="session")
def many(tmp_path_factory, empty_database):
    """Finished studies by size, each made once."""
    made = {}

    def make(size):
        if size not in made:
            made[size] = ManyTrials(tmp_path_factory.mktemp(f"many{size}") / "runs", empty_database, size)
            made[size].finish()
            made[size].tell_quickly()
            made[size].track_quickly()
        return made[size]

    return make


def cost(do, things):
    """CPU time of doing something to each of many things, a thing; the median, for the machine may be busy."""
    taken = []
    for thing in things:
        begun = time.process_time()
        do(thing)
        taken.append(time.process_time() - begun)
    return statistics.median(taken)


def compared(what, seconds, benchmark):
    """Print the cost per trial at each size; gives how much more it is in the largest than in the smallest."""
    for size, each in seconds.items():
        print(f"{what}: {size:>6} trials: {1000 * each:.2f} ms a trial")
        benchmark.extra_info[f"{what}, {size} trials, ms"] = 1000 * each
    benchmark.pedantic(lambda: None, rounds=1)
    return seconds[SIZES[-1]] / seconds[SIZES[0]]


def of_new_trials(many, size):
    """Trials that the finished study does not have: the same cells with other seeds."""
    trials = many(size).planned.trials[:TIMED]
    return [replace(trial, trial_id=f"new{number}") for number, trial in enumerate(trials)]


def test_asking_and_telling_optuna(many, benchmark):
    costs = {}
    for size in SIZES:
        study, store = many(size), many(size).store()
        costs[size] = cost(lambda trial, to=(study, store): to[0].tell(to[1], [trial]), of_new_trials(many, size))
    assert compared("ask, begin and tell", costs, benchmark) < MOST_GROWTH


def test_bringing_a_trial_to_mlflow(many, benchmark):
    costs = {}
    for size in SIZES:
        study = many(size)
        trials = of_new_trials(many, size)
        study.finish(trials)
        tracker = study.tracker()
        tracked = [study.tracked(trial) for trial in trials]
        costs[size] = cost(tracker.sync, tracked)
        assert tracker.error == ""
    assert compared("track", costs, benchmark) < MOST_GROWTH


def test_submitting_and_collecting(benchmark, tmp_path, empty_database):
    costs = {}
    for size in SIZES:
        study = ManyTrials(tmp_path / str(size), empty_database, size)
        executor = InlineExecutor(study.folder.job_logs)
        fleet = Fleet(study.folder, executor, tmp_path / "cache", run="synthetic_study:run_now")
        fleet.add(study.planned.trials)

        def turn(number, fleet=fleet, executor=executor):
            fleet.submit()
            executor.wait(60.0, lambda: None)
            assert len(fleet.collect()) == 1

        costs[size] = cost(turn, range(TIMED))
    assert compared("submit and collect", costs, benchmark) < MOST_GROWTH


RESUME = """
import resource, sys, time
from pathlib import Path
from harness.study.driver import Runner, resume
begun = time.perf_counter()
outcome = resume("many", Path(sys.argv[1]), runner=Runner(run="synthetic_study:none"))
assert (outcome.ran, outcome.failed, outcome.untracked) == (0, [], None), outcome
taken = time.perf_counter() - begun, time.process_time()
print(outcome.reused, *taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_resuming_a_finished_study(many, benchmark):
    costs = {}
    for size in SIZES:
        root = many(size).root
        command = [sys.executable, "-c", RESUME, str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
        assert done.returncode == 0, done.stderr
        reused, seconds, processor, megabytes = map(float, done.stdout.split()[-4:])
        assert reused == size
        print(f"resume: {size:>6} trials: {seconds:.1f} s ({processor:.1f} s of CPU), {megabytes:.0f} MB")
        assert megabytes < 1024
        costs[size] = processor / size
    compared("resume", costs, benchmark)
    assert costs[SIZES[-1]] <= costs[SIZES[0]]  # beginning and end are shared by more
