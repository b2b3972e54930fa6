"""The published kind of table on real cells: numbers measured elsewhere with other code."""

import os
from pathlib import Path

import numpy as np
import pytest
from comparing import evaluate

FOLDER = os.environ.get("HARNESS_REAL_DATA")


@pytest.mark.skipif(not FOLDER, reason="HARNESS_REAL_DATA is unset: no folder with the Norman subset")
def test_five_real_doubles_with_both_singles_seen():
    anndata = pytest.importorskip("anndata")
    data = anndata.read_h5ad(Path(FOLDER) / "norman19_subset.h5ad")
    values = data.X.toarray() if hasattr(data.X, "toarray") else np.asarray(data.X)
    condition = data.obs["condition"].astype(str).to_numpy()
    cells = {c: values[condition == c] for c in np.unique(condition)}
    singles = {c: x for c, x in cells.items() if "+" not in c}
    doubles = {c: x for c, x in cells.items() if "+" in c and all(m in singles for m in c.split("+"))}
    found = evaluate(doubles, singles, singles["control"], lambda _, control: control, seed=0)
    assert len(found.conditions) == 5
    table = {row: (m["rmse_relative_mean"], m["pearson_delta"]) for row, m in found.baselines.items()}
    assert table["additive"] == pytest.approx((0.429, 0.870), abs=2e-3)
    assert table["mean_effect"] == pytest.approx((0.480, 0.28), abs=5e-3)
    assert table["control_mean"][0] == pytest.approx(0.484, abs=2e-3)
    assert found.baselines["additive"]["rmse_relative"] == pytest.approx(0.59, abs=0.015)
    assert found.baselines["control_mean"]["rmse_relative"] == pytest.approx(0.65, abs=0.015)
    assert found.floors["rmse_relative_mean_floor"] == pytest.approx(0.427, abs=5e-3)
    assert found.floors["rmse_relative_floor"] == pytest.approx(0.596, abs=0.015)
