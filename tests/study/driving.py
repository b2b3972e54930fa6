"""What tests of the driver share: studies of trials that cost nothing, and a look into both databases."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
from mlflow import MlflowClient
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from harness.study.driver import Runner, launch, resume
from harness.study.folder import StudyFolder
from harness.study.job import attempts
from harness.study.load import load_study
from harness.study.mlflow_store import default_uri
from harness.study.retry import retryable

HERE = Path(__file__).parent
FAKE = Runner(run="fake_trial:run_trial")

STUDY = """\
name: fake
models:
  - {kind: perturbed_vae, latent_dim: 4, responsive_dim: 2}
data: {kind: simulation, preset: tiny}
grid: {sparsity: [0, 0.5]}
seeds: 2
train: {epochs: 3}
compute: {cluster: inline}
"""


class Driving:
    """A root with an empty MLflow database in it, and studies in a folder beside it."""

    def __init__(self, folder, database):
        self.root = folder / "runs"
        self.root.mkdir()
        shutil.copy(database, self.root / "mlflow.db")
        self.file = folder / "fake.yaml"
        self.file.write_text(STUDY)
        self.said = []

    def study(self, *changes):
        return load_study(self.file, changes)

    def launch(self, *changes):
        return launch(self.study(*changes), self.root, runner=FAKE, screen=self)

    def resume(self, name="fake"):
        return resume(name, self.root, runner=FAKE, screen=self)

    def retry(self, words=None):
        """What ``harness retry fake --failed`` does."""
        chosen = retryable([self.folder], words)[self.folder]
        return resume("fake", self.root, only=chosen, runner=FAKE, screen=self)

    def interrupt_at_the_third(self, monkeypatch):
        """Ctrl-C as the third trial from here begins; later ones run."""
        import fake_trial

        run, seen = fake_trial.run_trial, []

        def run_trial(spec, folder, **keys):
            seen.append(folder)
            if len(seen) == 3:
                raise KeyboardInterrupt
            return run(spec, folder, **keys)

        monkeypatch.setattr(fake_trial, "run_trial", run_trial)

    # a screen that remembers
    def show(self, lines):
        lines()

    def say(self, sentence):
        self.said.append(sentence)

    def close(self):
        pass

    @property
    def folder(self):
        return StudyFolder(self.root, "fake")

    def results(self):
        """Metrics of every trial, by id: what must not depend on how the study was run."""
        return {trial.trial_id: (trial.read_result() or {}).get("metrics") for trial in self.folder.trials()}

    def starts(self):
        """How often each trial was started."""
        return {t.trial_id: len((t.path / "attempts.jsonl").read_text().splitlines()) for t in self.folder.trials()}

    def starts_of_started(self):
        """How often each trial was started that was started at all."""
        return {t.trial_id: attempts(t.path) for t in self.folder.trials() if attempts(t.path)}

    def optuna(self):
        storage = JournalStorage(JournalFileBackend(str(self.folder.journal)))
        return optuna.load_study(study_name="fake", storage=storage)

    def optuna_states(self):
        states = [trial.state.name for trial in self.optuna().get_trials(deepcopy=False)]
        return {name: states.count(name) for name in sorted(set(states))}

    def client(self):
        return MlflowClient(tracking_uri=default_uri(self.root))

    def runs(self):
        """Parent runs and child runs of the experiment."""
        client = self.client()
        experiment = client.get_experiment_by_name("fake")
        runs = client.search_runs([experiment.experiment_id], max_results=1000, order_by=["attributes.start_time"])
        children = [run for run in runs if "trial_id" in run.data.tags]
        return [run for run in runs if "launch" in run.data.tags], children

    def driver(self, *changes, verb="launch", **environment):
        """A driver in a process of its own."""
        what = "load_study(Path(sys.argv[1]), sys.argv[3:])" if verb == "launch" else "'fake'"
        code = (
            "import sys; from pathlib import Path; from harness.study.load import load_study;"
            "from harness.study.driver import Runner, launch, resume;"
            "import harness.cli, signal;"
            f"drive = lambda options: harness.cli._driven(Path(sys.argv[2]), 'fake', lambda: {verb}({what}, "
            "Path(sys.argv[2]), runner=Runner(run='fake_trial:run_trial')));"
            "harness.cli._launch = drive;"
            "sys.exit(harness.cli.main(['launch', 'x.yaml']))"
        )
        command = [sys.executable, "-c", code, str(self.file), str(self.root), *changes]
        return subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(HERE), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def until(self, happened, process, seconds=120):
        """Wait until something has happened, while a process lives."""
        end = time.monotonic() + seconds
        while not happened():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.02)


def end_group(process):
    """Leave nothing running."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def ignoring_ctrl_c():
    """What starts in here ignores Ctrl-C, as a shell script's background jobs do."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


__all__ = ["FAKE", "HERE", "Driving", "end_group", "ignoring_ctrl_c"]
