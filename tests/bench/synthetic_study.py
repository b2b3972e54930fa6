"""Studies of any size whose trials are there already: folders, journal and MLflow store, none of it trained."""

import json
import shutil
import sqlite3
from unittest import mock

from harness.files import write_atomic
from harness.study.folder import StudyFolder
from harness.study.load import dump_study, load_study
from harness.study.mlflow_store import default_uri
from harness.study.optuna_store import OptunaStore
from harness.study.plan import plan
from harness.study.tracked import flattened
from harness.study.tracked_trial import TrackedTrial, end_mark
from harness.study.tracking import Tracker

EPOCHS, CURVES, SCORES = 20, 8, 60
BEGUN = 1700000000.0

STUDY = """\
name: many
models:
  - {{kind: perturbed_vae, latent_dim: 4, responsive_dim: 2}}
data: {{kind: simulation, preset: tiny}}
grid: {{sparsity: {values}}}
seeds: 5
train: {{epochs: {epochs}}}
compute: {{cluster: inline}}
"""


def run_now(spec, folder, **keys):
    """A trial that has ended as soon as it begins."""
    result = {"trial_id": spec.trial_id, "state": "finished", "metrics": {}, "started": BEGUN, "ended": BEGUN + 1.0}
    write_atomic(folder / "result.json", json.dumps(result))


class ManyTrials:
    """A study of so many planned trials below a root.

    Attributes
    ----------
    study, planned, folder : the study, its grid, and its folder.
    """

    def __init__(self, root, database, trials):
        root.mkdir(parents=True, exist_ok=True)
        shutil.copy(database, root / "mlflow.db")
        values = [round(number / 10_000, 6) for number in range(trials // 5)]
        file = root / "many.yaml"
        file.write_text(STUDY.format(values=json.dumps(values), epochs=EPOCHS))
        self.study = load_study(file)
        self.planned = plan(self.study)
        self.folder = StudyFolder(root, "many")
        self.folder.create()
        self.folder.study_file.write_text(dump_study(self.study))
        assert len(self.planned.trials) == trials

    @property
    def root(self):
        return self.folder.root

    def metrics(self, trial):
        """Final scores, different in each trial."""
        shift = (trial.seed + 1) / 7 + getattr(trial.spec.model, "sparsity", 0.0)
        scores = {f"identifiability/score_{number}": shift / (number + 1) for number in range(SCORES - 2)}
        return {"validation/loss": shift, "identifiability/mcc": 1.0 / (1.0 + shift), **scores}

    def finish(self, trials=None):
        """Write what finished trials leave behind."""
        for trial in self.planned.trials if trials is None else trials:
            folder = self.folder.trial(trial.trial_id)
            folder.path.mkdir(exist_ok=True)
            folder.spec.write_text(trial.spec.model_dump_json(indent=1))
            lines = [
                {
                    "epoch": epoch,
                    "time": BEGUN + epoch,
                    "metrics": {f"train/curve_{number}": (number + 1) / epoch for number in range(CURVES)},
                }
                for epoch in range(1, EPOCHS + 1)
            ]
            folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
            folder.result.write_text(json.dumps(self.result(trial)))

    def result(self, trial):
        return {
            "trial_id": trial.trial_id,
            "state": "finished",
            "metrics": self.metrics(trial),
            "baselines": {},
            "warnings": [],
            "conditions": {},
            "epochs": EPOCHS,
            "started": BEGUN,
            "ended": BEGUN + EPOCHS + 1,
            "environment": {"host": "node7"},
            "failure": None,
            "data": {},
        }

    def store(self):
        return OptunaStore(self.folder.journal, "many", self.study.objective)

    def tell(self, store=None, trials=None):
        """What the driver tells Optuna of finished trials."""
        store = self.store() if store is None else store
        for trial in self.planned.trials if trials is None else trials:
            setting = {"model": "perturbed_vae", "sparsity": trial.spec.model.sparsity, "seed": trial.seed}
            attributes = {"trial_id": trial.trial_id, "cell": trial.cell, "seed": trial.seed}
            number = store.add(setting, key=trial.trial_id, attributes=attributes)
            store.begin(number)
            store.complete(number, [self.metrics(trial)["validation/loss"]])

    def tell_quickly(self):
        """`tell`, without waiting for the disk."""
        with mock.patch("harness.files.os.fsync"):
            self.tell()

    def tracked(self, trial):
        """What the driver tells MLflow of a finished trial."""
        folder = self.folder.trial(trial.trial_id)
        return TrackedTrial(
            trial_id=trial.trial_id,
            cell=trial.cell,
            seed=trial.seed,
            model="perturbed_vae",
            fingerprint=trial.spec.data_fingerprint,
            params=flattened(trial.spec.model_dump(mode="json")),
            epochs=folder.read_metrics(),
            result=folder.read_result(),
            first_of_cell=False,
            helps=(),
            artifacts={folder.result: ""},
        )

    def tracker(self, uri=None):
        tracker = Tracker(self.root, "many", uri=uri)
        assert tracker.start_launch(1, BEGUN, {}), tracker.error
        return tracker

    def track_quickly(self):
        """Bring the first trial to MLflow, and copy its run for every other, in the database itself."""
        first, *others = self.planned.trials
        assert self.tracker().sync(self.tracked(first))
        connection = sqlite3.connect(self.root / "mlflow.db")
        (run,) = connection.execute("select run_uuid from tags where key = 'trial_id'").fetchone()
        connection.execute("create temp table copies (run text primary key, trial text, cell text, seed text)")
        rows = [(f"{number:032x}", one.trial_id, one.cell, str(one.seed)) for number, one in enumerate(others)]
        connection.executemany("insert into copies values (?, ?, ?, ?)", rows)
        for table in ("runs", "metrics", "latest_metrics", "params", "tags"):
            columns = [row[1] for row in connection.execute(f"pragma table_info({table})")]
            chosen = ", ".join("copies.run" if column == "run_uuid" else f"t.{column}" for column in columns)
            connection.execute(
                f"insert into {table} select {chosen} from {table} t, copies where t.run_uuid = ?", [run]
            )
        for key, column in (("trial_id", "trial"), ("cell", "cell"), ("seed", "seed")):
            connection.execute(
                f"update tags set value = (select {column} from copies where run = run_uuid)"
                " where key = ? and run_uuid in (select run from copies)",
                [key],
            )
        connection.commit()
        connection.close()
        assert end_mark(self.result(first)) == f"finished {BEGUN + EPOCHS + 1}"
        assert default_uri(self.root).endswith("mlflow.db")
