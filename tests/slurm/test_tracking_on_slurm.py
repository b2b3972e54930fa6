"""MLflow away, its database locked, the disk full, while jobs run on a real SLURM: nothing is lost, nothing doubled."""

import contextlib
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from disturbed import Disturbed, numbers, until

sys.path.append(str(Path(__file__).parents[1] / "study"))
from tracking_server import TrackingServer

SPARSITIES = (0, 0.1)
EPOCHS = 16


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """Numbers of every trial in one process, by sparsity."""
    from harness.study.driver import launch
    from harness.study.load import load_study

    study = Disturbed(tmp_path_factory.mktemp("calm"), {}).write(SPARSITIES, epochs=EPOCHS)
    launch(load_study(study.file, ["compute.cluster=inline", "compute.profile=null"]), study.root)
    return {sparsity: numbers(study.result(sparsity)) for sparsity in study.trials()}


@pytest.fixture
def shaken(cluster, tmp_path, undisturbed, empty_database):
    study = Disturbed(tmp_path, undisturbed)
    study.root.mkdir()
    (study.root / "mlflow.db").write_bytes(empty_database.read_bytes())
    yield study
    study.stop()


def both_train(study):
    until(lambda: all(study.epoch(sparsity) >= 2 for sparsity in SPARSITIES), "both trials train")


def assert_kept(study):
    """Nothing was lost, doubled or begun twice."""
    study.is_whole()
    study.curves_stand_once()
    assert [len(study.starts(sparsity)) for sparsity in SPARSITIES] == [1, 1]


def test_a_server_that_goes_and_comes_back(shaken):
    server = TrackingServer(shaken.root)
    server.start()
    try:
        driver = shaken.write(SPARSITIES, epochs=EPOCHS, uri=server.uri).driver(SLOW_SECONDS="1")
        both_train(shaken)
        server.stop()
        before = shaken.epoch(0)
        until(lambda: shaken.epoch(0) >= before + 2, "training goes on without it")
        server.start()
        if "brings it up to date" in shaken.ends(driver):  # on a slow machine the study can end before a server is up
            shaken.ends(shaken.driver("resume"))
    finally:
        server.stop()
    assert_kept(shaken)


def test_a_database_locked_for_a_while(shaken):
    driver = shaken.write(SPARSITIES, epochs=EPOCHS).driver(SLOW_SECONDS="1")
    both_train(shaken)
    with contextlib.closing(sqlite3.connect(shaken.root / "mlflow.db", isolation_level=None, timeout=60)) as other:
        other.execute("BEGIN EXCLUSIVE")
        until(
            lambda: all((f / "result.json").exists() for f in shaken.trials().values()), "training goes on to its end"
        )
        time.sleep(2.0)
        other.execute("ROLLBACK")
    shaken.ends(driver)
    assert_kept(shaken)


def test_a_disk_full_for_a_while(shaken, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        database = (shaken.root / "mlflow.db").read_bytes()
        shaken.root = disk / "runs"
        shaken.root.mkdir()
        (shaken.root / "mlflow.db").write_bytes(database)
        driver = shaken.write(SPARSITIES, epochs=EPOCHS).driver(SLOW_SECONDS="0.7")
        both_train(shaken)
        filler = disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        time.sleep(15.0)  # longer than both trials need to their end
        assert not any((folder / "result.json").exists() for folder in shaken.trials().values())
        filler.unlink()
        shaken.ends(driver)
        assert_kept(shaken)
    finally:
        shaken.stop()
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
