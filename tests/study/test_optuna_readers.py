"""Optuna's own tools on the journal of a study that is running: another process reads, the driver goes on writing."""

import json
import subprocess
import sys

import fake_trial

READER = """
import json, sys, warnings
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.visualization import matplotlib as plots
warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.load_study(study_name="fake", storage=JournalStorage(JournalFileBackend(sys.argv[1])))
done = [trial for trial in study.trials if trial.state.is_finished()]
importances = optuna.importance.get_param_importances(study)
drawn = [plots.plot_optimization_history(study), plots.plot_param_importances(study), plots.plot_slice(study)]
table = study.trials_dataframe()
print(json.dumps({
    "done": len(done), "running": len(study.trials) - len(done), "importances": importances, "drawn": len(drawn),
    "rows": len(table), "best": study.best_value,
}))
"""


def read(journal):
    """What plain Optuna, in a process of its own, makes of a journal."""
    done = subprocess.run([sys.executable, "-c", READER, str(journal)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_another_process_reads_and_draws_a_search_while_it_runs(driving, monkeypatch):
    run, begun, seen = fake_trial.run_trial, [], []

    def run_trial(spec, folder, **keys):
        begun.append(folder)
        if len(begun) == 8:
            before = driving.folder.journal.read_bytes()
            seen.append(read(driving.folder.journal))
            assert driving.folder.journal.read_bytes() == before
        return run(spec, folder, **keys)

    monkeypatch.setattr(fake_trial, "run_trial", run_trial)
    space = "{sparsity: {low: 0.0, high: 1.0}, kl_responsive: {low: 0.1, high: 2.0}}"
    search = f"search={{sampler: tpe, trials: 12, space: {space}}}"
    outcome = driving.launch(search, "grid=null", "seeds=1")
    assert (outcome.ran, outcome.failed) == (12, [])
    (half,) = seen
    assert (half["done"], half["running"], half["drawn"]) == (7, 1, 3)
    assert set(half["importances"]) >= {"sparsity", "kl_responsive"}
    assert half["importances"]["sparsity"] > half["importances"]["kl_responsive"]  # the loss depends on sparsity alone
    assert driving.optuna_states() == {"COMPLETE": 12}
    whole = read(driving.folder.journal)
    assert (whole["done"], whole["rows"]) == (12, 12)
    assert whole["best"] <= half["best"]


def test_another_process_reads_a_grid(driving):
    driving.launch("grid.sparsity=[0, 0.2, 0.4]", "seeds=2")
    seen = read(driving.folder.journal)
    assert (seen["done"], seen["rows"]) == (6, 6)
    assert set(seen["importances"]) >= {"sparsity", "seed"}
    assert driving.launch("grid.sparsity=[0, 0.2, 0.4, 0.6]", "seeds=2").ran == 2
