"""Faults on a real SLURM: what is killed, requeued, cancelled or lost costs no trial and doubles none.

Each test ends with `Disturbed.is_whole`: every trial once in its folder, in Optuna and in MLflow, and the numbers of a
run that nothing disturbed.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from disturbed import Disturbed, numbers, said, until

SPARSITIES = (0, 0.1, 0.2, 0.3, 0.4, 0.5)
EPOCHS = 12
SCRIPT = Path(__file__).parents[2] / "slurm" / "local-cluster"


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """Numbers of every trial in one process, by sparsity."""
    from harness.study.driver import launch
    from harness.study.load import load_study

    study = Disturbed(tmp_path_factory.mktemp("undisturbed"), {}).write(SPARSITIES, epochs=EPOCHS)
    launch(load_study(study.file, ["compute.cluster=inline", "compute.profile=null"]), study.root)
    return {sparsity: numbers(study.result(sparsity)) for sparsity in study.trials()}


@pytest.fixture
def shaken(cluster, tmp_path, undisturbed):
    study = Disturbed(tmp_path, undisturbed)
    yield study
    study.stop()


def at_work(study, sparsity, epoch=2):
    """Wait until a trial has trained a few epochs, and not all."""
    until(lambda: study.epoch(sparsity) >= epoch, f"trial {sparsity} trains")
    assert study.epoch(sparsity) < EPOCHS


def hurry(job):
    """Let a requeued job start at once where SLURM would hold it for a while."""
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=False, capture_output=True)


def keepers(cluster):
    """Processes that keep the steps of this cluster's jobs."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            ours = f"SLURM_CONF={cluster}/".encode() in (entry / "environ").read_bytes()
            if ours and (entry / "comm").read_text().startswith("slurmstepd"):
                found.append(int(entry.name))
    return found


def went_on(study, sparsity):
    """A trial's later processes began after its first epoch, from a checkpoint."""
    began = [epoch for epoch in study.began_at(sparsity) if epoch is not None]
    assert began[0] == 1
    assert len(began) > 1
    assert all(epoch > 1 for epoch in began[1:]), began


def test_requeued_and_preempted_in_mid_epoch_a_trial_goes_on_from_its_checkpoint(shaken):
    driver = shaken.write((0, 0.1), epochs=EPOCHS).driver(SLOW_SECONDS="1")
    for sparsity in (0, 0.1):
        at_work(shaken, sparsity)
    first = shaken.job_of(0)
    said("scontrol", "requeue", first)
    hurry(first)
    # all CPUs for somebody urgent: the other job has to make room
    said("sbatch", "--partition=urgent", "--cpus-per-task=8", "--mem=50", "--output=/dev/null", "--wrap", "sleep 1")
    shaken.ends(driver)
    shaken.is_whole()
    for sparsity in (0, 0.1):
        went_on(shaken, sparsity)
        assert len({start["job"] for start in shaken.starts(sparsity)}) == 1  # requeued, not submitted again


def test_killed_processes_and_steps_and_cancelled_jobs_are_retried_and_others_unaffected(shaken):
    driver = shaken.write((0, 0.1, 0.2, 0.3), epochs=EPOCHS, retries=1).driver(SLOW_SECONDS="0.8")
    for sparsity in (0, 0.1, 0.2, 0.3):
        at_work(shaken, sparsity)
    os.kill(shaken.starts(0)[-1]["pid"], signal.SIGKILL)
    said("scancel", "--signal=KILL", f"{shaken.job_of(0.1)}.0")
    said("scancel", shaken.job_of(0.2))
    shaken.ends(driver)
    shaken.is_whole()
    for sparsity in (0, 0.1, 0.2):
        went_on(shaken, sparsity)
        assert len(shaken.starts(sparsity)) == 2
    assert len(shaken.starts(0.3)) == 1


def test_what_dies_too_often_is_named_with_its_reason_and_last_words(shaken):
    driver = shaken.write((0, 0.1, 0.2), epochs=EPOCHS, retries=0).driver(SLOW_SECONDS="0.5", SLOW_DIES="0.1")
    at_work(shaken, 0.2)
    said("scancel", shaken.job_of(0.2))
    text = shaken.ends(driver, status=1)
    shaken.is_whole(failed=(0.1, 0.2))
    raised, cancelled = (shaken.result(sparsity)["failure"] for sparsity in (0.1, 0.2))
    assert "RuntimeError: out of luck" in raised["reason"]
    assert "SLURM: FAILED" in raised["reason"]
    assert "Traceback" in raised["traceback"]
    assert "SLURM: CANCELLED" in cancelled["reason"]
    assert all(f"failed: perturbed_vae · sparsity={sparsity} · seed 0" in text for sparsity in (0.1, 0.2))
    assert "2 trials failed" in text


def test_arrays_are_split_and_parallelism_is_bounded(shaken):
    # the cluster's arrays are at most 16 long; trials that cost nothing keep many jobs short
    values = [round(0.01 * k, 2) for k in range(40)]
    shaken.write(values, epochs=2, parallel=3, per_job=2)
    driver = shaken.driver(run="fake_trial:run_trial", FAKE_SECONDS="0.5")
    most = 0
    while driver.poll() is None:
        jobs = said("squeue", "--me", "--noheader", "--array", "--format=%T").split()
        most = max(most, sum(state in ("RUNNING", "COMPLETING") for state in jobs))
        time.sleep(0.2)
    shaken.ends(driver)
    assert len(shaken.trials()) == 40
    assert all(json.loads((f / "result.json").read_text())["state"] == "finished" for f in shaken.trials().values())
    assert len(shaken.in_optuna()) == len(shaken.in_mlflow()) == 40
    arrays = {start["job"].partition("_")[0] for sparsity in values for start in shaken.starts(sparsity)}
    assert len(arrays) >= 2
    assert 2 <= most <= 3


def test_a_partition_that_takes_few_jobs_gets_few_at_a_time(shaken):
    driver = shaken.write(SPARSITIES, epochs=EPOCHS, partition="narrow").driver(SLOW_SECONDS="0")
    text = shaken.ends(driver)
    shaken.is_whole()
    assert "SLURM takes no more jobs now (QOSMaxSubmitJobPerUserLimit)" in text


def test_a_node_that_goes_down_and_comes_back(shaken, cluster):
    driver = shaken.write((0, 0.1), epochs=EPOCHS).driver(SLOW_SECONDS="0.8")
    at_work(shaken, 0)
    slurmd = json.loads((cluster / "daemons.json").read_text())["slurmd"][0]
    trials = [shaken.starts(sparsity)[-1]["pid"] for sparsity in shaken.trials() if shaken.starts(sparsity)]
    for process in (slurmd, *keepers(cluster), *trials):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    # what the controller finds out by itself after SlurmdTimeout
    node = said("sinfo", "--noheader", "--format=%n").split()[0]
    said("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")
    until(lambda: "RUNNING" not in said("squeue", "--me", "--noheader", "--format=%T"), "its jobs are lost")
    said(SCRIPT, "up", cluster)
    for job in said("squeue", "--me", "--noheader", "--format=%A").split():
        hurry(job)
    shaken.ends(driver)
    shaken.is_whole()
    went_on(shaken, 0)


def test_time_limits_strike_and_the_trial_goes_on(shaken):
    # a minute is SLURM's shortest limit, and its warning comes as much as a minute early
    driver = shaken.write((0, 0.1), epochs=EPOCHS, minutes=1, signal_seconds=40, timeouts=9).driver(SLOW_SECONDS="6")
    shaken.ends(driver)
    shaken.is_whole()
    for sparsity in (0, 0.1):
        went_on(shaken, sparsity)
        assert len((shaken.trials()[sparsity] / "timeouts.jsonl").read_text().splitlines()) >= 1


def test_a_trial_that_runs_out_of_time_too_often_is_named(shaken):
    driver = shaken.write((0,), epochs=EPOCHS, minutes=1, signal_seconds=50, timeouts=0).driver(SLOW_SECONDS="15")
    text = shaken.ends(driver, status=1)
    shaken.is_whole(failed=(0,))
    assert "ran into the time limit of 1 min 1 times, more than max_timeouts in the profile allows" in text


def test_accounting_may_be_missing(shaken, monkeypatch, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "sacct").write_text("#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2\nexit 1\n")
    (tools / "sacct").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    driver = shaken.write((0, 0.1), epochs=EPOCHS).driver(SLOW_SECONDS="0.5")
    at_work(shaken, 0)
    os.kill(shaken.starts(0)[-1]["pid"], signal.SIGKILL)
    shaken.ends(driver)
    shaken.is_whole()
    assert [len(shaken.starts(sparsity)) for sparsity in (0, 0.1)] == [2, 1]


def test_nan_is_named_with_its_epoch_and_a_hopeless_study_ends_early(shaken):
    rates = (1e30, 1e31, 1e32, 0.001)
    more = ", max_failures: 0"
    driver = shaken.write(rates, axis="train.learning_rate", epochs=3, parallel=1, more=more).driver(SLOW_SECONDS="0")
    text = shaken.ends(driver, status=1)
    results = [json.loads(path.read_text()) for path in shaken.root.glob("shaken/trials/*/result.json")]
    assert {result["state"] for result in results} == {"failed"}
    assert len(results) < len(rates)
    assert all(result["failure"]["quantity"] for result in results)
    assert all(result["failure"]["epoch"] >= 1 for result in results)
    assert "stopped early" in text
    until(lambda: not said("squeue", "--me", "--noheader", "--format=%j"), "its jobs are cancelled")


# ------------------------------------------------------------------------------------------------ the driver


def go_on(study):
    """Another driver, as a user would start it."""
    return study.driver("resume" if (study.root / study.name / "study.yaml").exists() else "launch")


def killed_at(study, moments):
    """Kill driver after driver at these ages, in seconds, then let one end; every trial must have run once."""
    study.write((0, 0.1, 0.2, 0.3), epochs=EPOCHS, parallel=3)
    for moment in moments:
        driver = go_on(study)
        time.sleep(moment)
        driver.kill()
        driver.wait()
    study.ends(go_on(study))
    trials = study.is_whole()
    assert {sparsity: len(study.starts(sparsity)) for sparsity in trials} == dict.fromkeys(trials, 1)


def test_a_driver_killed_at_five_moments(shaken):
    random = np.random.default_rng(2026)
    killed_at(shaken, random.uniform(1.0, 9.0, size=5))


@pytest.mark.often
@pytest.mark.parametrize("seed", range(5))
def test_a_driver_killed_at_twenty_moments(shaken, seed):
    random = np.random.default_rng(seed)
    killed_at(shaken, random.uniform(0.5, 12.0, size=4))


def test_a_driver_killed_between_sbatch_and_the_recording_of_its_id(shaken, monkeypatch, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "sbatch").write_text(f'#!/bin/sh\n{shutil.which("sbatch")} "$@" >/dev/null\nkill -9 $PPID\n')
    (tools / "sbatch").chmod(0o755)
    shaken.write((0, 0.1), epochs=EPOCHS)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
        driver = shaken.driver()
        driver.wait(120)
    assert driver.returncode == -signal.SIGKILL
    shaken.ends(shaken.driver("resume"))
    trials = shaken.is_whole()
    assert {sparsity: len(shaken.starts(sparsity)) for sparsity in trials} == {0: 1, 0.1: 1}
    assert len({shaken.job_of(sparsity).partition("_")[0] for sparsity in trials}) == 1


def test_ctrl_c_ends_every_job_and_resume_goes_on(shaken):
    driver = shaken.write((0, 0.1), epochs=EPOCHS).driver(SLOW_SECONDS="0.8")
    at_work(shaken, 0)
    os.kill(driver.pid, signal.SIGINT)
    text = shaken.ends(driver, status=130)
    assert "harness resume shaken" in text
    until(lambda: not said("squeue", "--me", "--noheader", "--format=%j"), "its jobs end")
    shaken.ends(shaken.driver("resume"))
    shaken.is_whole()
    went_on(shaken, 0)
