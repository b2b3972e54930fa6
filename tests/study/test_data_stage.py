"""Datasets before trials, where a cluster builds them."""

from types import SimpleNamespace

import pytest

from harness.data_spec import Causal3DIdentData
from harness.errors import UserError
from harness.study import data_stage
from harness.study.data_stage import DataStage
from harness.study.executors import ClusterFull
from harness.study.folder import StudyFolder


class Cluster:
    """An executor that refuses a while, as told."""

    name = "slurm"

    def __init__(self, *refusals):
        self.refusals, self.submitted = list(refusals), []

    def submit(self, tasks, name, after=()):
        if self.refusals:
            raise self.refusals.pop(0)
        self.submitted.append(name)
        return [SimpleNamespace(id="7", alive=lambda: True)]


def prepare(tmp_path, monkeypatch, *refusals):
    monkeypatch.setattr(data_stage, "FULL_SECONDS", 0.01)
    said, cluster = [], Cluster(*refusals)
    folder = StudyFolder(tmp_path, "pictures")
    folder.create()
    stage = DataStage(folder, cluster, tmp_path / "cache", say=said.append)
    stage.prepare([SimpleNamespace(spec=SimpleNamespace(data=Causal3DIdentData(), data_fingerprint="abc"))])
    return stage, cluster, said


def test_trials_wait_for_the_job_that_builds_their_data(tmp_path, monkeypatch):
    stage, cluster, said = prepare(tmp_path, monkeypatch)
    assert cluster.submitted == ["pictures-data"]
    assert list(stage.after("abc")) == ["7"]
    assert said == []


def test_a_full_cluster_is_asked_again(tmp_path, monkeypatch):
    stage, cluster, said = prepare(tmp_path, monkeypatch, ClusterFull("QOSMaxSubmitJobPerUserLimit"))
    assert cluster.submitted == ["pictures-data"]
    assert "QOSMaxSubmitJobPerUserLimit" in said[0]
    assert list(stage.after("abc")) == ["7"]


def test_a_job_that_is_refused_for_good_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="the job that builds the data was refused: no such partition"):
        prepare(tmp_path, monkeypatch, UserError("no such partition"))
