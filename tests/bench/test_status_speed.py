"""What ``status`` and planning cost a trial, at 100, 1,000 and 10,000 trials: pytest tests/bench/test_status_speed.py.

Each row is a whole look; its ``extra_info`` has the microseconds a trial. The last test compares them within this run.
"""

import io
import json
import time
from contextlib import redirect_stdout

import pytest

from harness import cli
from harness.study.folder import StudyFolder
from harness.study.launches import Launch
from harness.study.load import dump_study, load_study
from harness.study.plan import plan
from harness.study.status import status
from harness.study.survey import Survey
from harness.study.trial_index import TrialIndex

SIZES = (100, 1_000, 10_000)
#: A trial of 10,000 may cost this much more than one of 1,000: caches of the machine, never a growing algorithm.
GROWTH = 3.0
SEEDS = 5


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """For each size a study file, and its folder full of finished trials with results of about 5 kB."""
    root = tmp_path_factory.mktemp("many")
    made = {}
    for size in SIZES:
        values = [number / size for number in range(size // SEEDS)]
        file = root / f"of_{size}.yaml"
        file.write_text(
            "models:\n  - {kind: perturbed_vae, latent_dim: 4, responsive_dim: 2}\n"
            f"data: {{kind: simulation, preset: tiny}}\ngrid: {{sparsity: {json.dumps(values)}}}\nseeds: {SEEDS}\n"
        )
        made[size] = file, _finished(root / "runs", file)
    return made


def _finished(root, file):
    study = load_study(file)
    folder, planned = StudyFolder(root, study.name), plan(study)
    folder.create()
    folder.study_file.write_text(dump_study(study))
    TrialIndex(folder).note(planned.trials)
    ids = [trial.trial_id for trial in planned.trials]
    judge = ["validation/loss", "minimize"]
    Launch(1, state="finished", started=1.0, begun=[1.0], trials=ids, judged_by=judge).write(folder)
    scores = {f"identifiability/score_{number}": 1 / (number + 3) for number in range(90)}
    for number, trial_id in enumerate(ids):
        metrics = {**scores, "validation/loss": 1 / (number + 1), "time/total_seconds": 2.0}
        body = {"trial_id": trial_id, "state": "finished", "metrics": metrics, "ended": 2.0 + number, "warnings": []}
        mine = folder.trial(trial_id)
        mine.path.mkdir()
        mine.result.write_text(json.dumps({**body, "environment": {"platform": "x" * 400}}, indent=1))
    return folder


@pytest.mark.parametrize("size", SIZES)
def test_status(benchmark, studies, size):
    said = benchmark.pedantic(status, args=(studies[size][1],), rounds=3, warmup_rounds=1)
    benchmark.extra_info["microseconds a trial"] = 1e6 * benchmark.stats.stats.min / size
    assert f"{size} finished" in said


@pytest.mark.parametrize("size", SIZES)
def test_looking_again(benchmark, studies, size):
    """What `watch` does every two seconds."""
    survey = Survey(studies[size][1])
    survey.look()
    benchmark.pedantic(survey.look, rounds=3, warmup_rounds=1)
    benchmark.extra_info["microseconds a trial"] = 1e6 * benchmark.stats.stats.min / size


@pytest.mark.parametrize("size", SIZES)
def test_planning(benchmark, studies, size):
    study = load_study(studies[size][0])
    planned = benchmark.pedantic(plan, args=(study,), rounds=3, warmup_rounds=1)
    benchmark.extra_info["microseconds a trial"] = 1e6 * benchmark.stats.stats.min / size
    assert len(planned.trials) == size


@pytest.mark.parametrize("size", SIZES)
def test_dry_run(benchmark, studies, size):
    file, folder = studies[size]
    out = io.StringIO()
    with redirect_stdout(out):
        arguments = ["launch", str(file), "--dry-run", "--root", str(folder.root)]
        benchmark.pedantic(cli.main, args=(arguments,), rounds=3, warmup_rounds=1)
    benchmark.extra_info["microseconds a trial"] = 1e6 * benchmark.stats.stats.min / size
    assert "0 to run" in out.getvalue()


@pytest.mark.parametrize("what", ["status", "plan"])
def test_a_trial_costs_the_same_in_a_study_of_any_size(studies, what):
    """Ratio of processor time a trial between 10,000 and 1,000, the best of three each."""
    cost = {}
    for size in SIZES[1:]:
        file, folder = studies[size]
        study = load_study(file)
        look = {"status": lambda folder=folder: status(folder), "plan": lambda study=study: plan(study)}[what]
        times = []
        for _ in range(3):
            begun = time.process_time()
            look()
            times.append(time.process_time() - begun)
        cost[size] = min(times) / size
    assert cost[10_000] / cost[1_000] < GROWTH
