"""The real cells of the shared subset; see its notice for what it is."""

import os
from pathlib import Path

import numpy as np
import pytest

from harness.data import load
from harness.data.perturbseq.blocks import dense
from harness.data.perturbseq.reader import CellFile
from harness.data.perturbseq.values import what_holds
from harness.data_spec import PerturbseqData

FOLDER = os.environ.get("HARNESS_REAL_DATA")
pytestmark = pytest.mark.skipif(not FOLDER, reason="HARNESS_REAL_DATA (folder of norman19_subset.h5ad) is not set")
DOUBLES = ("KLF1+MAP2K6", "KLF1+TGFBR2", "MAP2K3+MAP2K6", "MAP2K3+SLC38A2", "MAPK1+TGFBR2")


@pytest.fixture(scope="module")
def path():
    return Path(FOLDER) / "norman19_subset.h5ad"


@pytest.fixture(scope="module")
def data(path, tmp_path_factory):
    return load(PerturbseqData(path=str(path)), tmp_path_factory.mktemp("cache"))


def test_what_the_notice_says_is_found(data):
    assert "norman19_subset.h5ad: 3,375 cells × 500 genes; X holds log-normalised values" in data.read
    assert "18 singles and 15 pairs, written A+B, and 100 control cells labelled 'control'" in data.read
    assert data.read.endswith("no strata; left out: 980 cells of 10 conditions that no split can use")
    assert data.notes == ()


def test_five_doubles_are_predicted_and_ten_excluded_by_name(data):
    assert len(data.perturbations) == 18
    assert data.conditions == ("control", *data.perturbations, *DOUBLES)
    assert data.ood == ("double_seen2",)
    assert len(data.splits["double_seen2"]) == 500
    assert len(data.excluded) == 10
    assert data.quality["double_seen1_excluded"] == 3
    assert data.quality["double_seen0_excluded"] == 7
    assert data.quality["control_cells"] == 100
    assert data.excluded["KLF1+SET"].startswith("double_seen1: SET not seen")


def test_cells_of_each_split(data):
    assert len(data.index) == 100 + 18 * 100 - 5 + 500  # one single has 95 cells
    assert len(data.splits["test"]) == 33 + 18 * 20 - 1
    assert len(data.control_rows("test")) == 33
    assert len(data.control_rows("validation")) == 7
    trained = set(data.index[data.splits["train"]].flatten().tolist())
    for name in ("validation", "test", "double_seen2"):
        assert not trained & set(data.index[data.splits[name]].flatten().tolist())


def test_expression_is_the_files_own(data, path):
    assert len(np.unique(data.frames.numpy(), axis=0)) == len(data.frames) == 2395
    assert data.frames.min() >= 0
    assert data.frames.max() < 10
    with CellFile(path) as file:
        ((_, x),) = ((start, dense(block)) for start, block in file.blocks("X", [(0, 3375)]))
        ((_, counts),) = ((start, dense(block)) for start, block in file.blocks("layers/counts", [(0, 3375)]))
    assert what_holds(counts) == ("counts", "")
    assert what_holds(x) == ("lognorm", "")
    assert data.frames.sum().item() < x.sum()
    klf1 = data.conditions.index("KLF1")
    assert np.isin(data.frames[data.index[data.condition == klf1, 1]].numpy().sum(1), x.sum(1)).all()
