"""A real MLflow server on loopback that tests start, stop and kill; and what must stand in it in the end."""

import socket

from mlflow import MlflowClient

from harness.study import ui


class TrackingServer:
    """A server on the database of a root; always under the same address."""

    def __init__(self, root):
        self._root = root
        self._process = None
        with socket.socket() as probe:
            probe.bind((ui.HOST, 0))
            self._port = probe.getsockname()[1]
        self.uri = f"http://{ui.HOST}:{self._port}"

    def start(self):
        self._process = ui._start(self._root, self._port)
        ui._wait_until_up(self._process, self._port)

    def stop(self):
        if self._process is not None:
            ui._end(self._process)
            self._process = None


def finished_children(uri):
    """Ids of the trials that stand finished in MLflow."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("fake")
    runs = [] if experiment is None else client.search_runs([experiment.experiment_id], max_results=1000)
    return [run.data.tags["trial_id"] for run in runs if run.info.status == "FINISHED" and "trial_id" in run.data.tags]


def assert_whole(driving, uri=None):
    """Every trial once in MLflow, every point of its curves and every final score once."""
    client = driving.client() if uri is None else MlflowClient(tracking_uri=uri)
    _, children = driving.runs()
    folders = {trial.trial_id: trial for trial in driving.folder.trials()}
    assert sorted(child.data.tags["trial_id"] for child in children) == sorted(folders)
    for child in children:
        trial = folders[child.data.tags["trial_id"]]
        assert child.info.status == "FINISHED"
        lines, result = trial.read_metrics(), trial.read_result()
        assert child.data.params["train.epochs"] == str(len(lines))
        expected = {}
        for line in lines:
            for name, value in line["metrics"].items():
                expected.setdefault(name, []).append((line["epoch"], value, round(line["time"] * 1000)))
        for name, value in result["metrics"].items():
            if expected.get(name, [(0, None, 0)])[-1][1] != value:
                expected.setdefault(name, []).append((0, value, round(result["ended"] * 1000)))
        for name, points in expected.items():
            history = client.get_metric_history(child.info.run_id, name)
            assert [(point.step, point.value, point.timestamp) for point in history] == points, name
        files = {file.path for file in client.list_artifacts(child.info.run_id)}
        assert {"spec.json", "result.json", "environment.json"} <= files
