"""A search on a real SLURM: a pruned trial stops within an epoch, and its slot goes to the next point."""

import json
from pathlib import Path

import pytest

STUDY_TESTS = Path(__file__).parents[1] / "study"
STUDY = """\
name: fake
models:
  - {{kind: perturbed_vae, latent_dim: 4, responsive_dim: 2}}
data: {{kind: simulation, preset: tiny}}
search: {{sampler: random, trials: 6, pruner: hyperband, space: {{sparsity: {{low: 0.0, high: 1.0}}}}}}
seeds: 1
train: {{epochs: 9}}
compute: {{cluster: slurm, profile: {profile}, workers: 2}}
"""


@pytest.fixture
def driving(cluster, tmp_path, empty_database, monkeypatch):
    monkeypatch.syspath_prepend(str(STUDY_TESTS))
    # jobs are processes of their own, which must find the trial that costs nothing but time
    monkeypatch.setenv("PYTHONPATH", str(STUDY_TESTS))
    monkeypatch.setenv("FAKE_SECONDS", "1.0")
    from driving import Driving

    driving = Driving(tmp_path, empty_database)
    profile = tmp_path / "profile.yaml"
    profile.write_text("memory_gb: 0.2\n")
    driving.file.write_text(STUDY.format(profile=profile))
    return driving


def span(trial):
    """When a trial's process began and when its result was there, in seconds."""
    begun = json.loads((trial.path / "attempts.jsonl").read_text().splitlines()[0])["time"]
    return begun, trial.result.stat().st_mtime


def test_a_pruned_trial_stops_within_an_epoch_and_another_takes_its_slot(driving):
    outcome = driving.launch()

    assert outcome.failed == []
    trials = list(driving.folder.trials())
    pruned = [trial for trial in trials if trial.read_result()["state"] == "pruned"]
    assert len(trials) == 6
    assert 1 <= len(pruned) == outcome.pruned < 6
    for trial in pruned:
        asked = trial.stop.stat().st_mtime
        times = [json.loads(line)["time"] for line in trial.metrics.read_text().splitlines()]
        assert len([time for time in times if time > asked]) <= 1
        assert len(times) < 9
    # every point once in the journal, told how it ended
    told = {trial.user_attrs["trial_ids"][0]: trial for trial in driving.optuna().trials}
    assert {name for name, trial in told.items() if trial.state.name == "PRUNED"} == {t.trial_id for t in pruned}
    assert len(told) == len(driving.optuna().trials) == 6
    # two at a time, and no slot waits for a pruned trial's full length: while its neighbour runs, another begins
    spans = {trial.trial_id: span(trial) for trial in trials}
    for begun, _ in spans.values():
        assert sum(other <= begun < end for other, end in spans.values()) <= 2
    taken = [
        (trial.trial_id, name)
        for trial in pruned
        for name, (begun, _) in spans.items()
        if begun > spans[trial.trial_id][1]
        and any(other < spans[trial.trial_id][1] and end > begun for other, end in spans.values())
    ]
    assert taken
