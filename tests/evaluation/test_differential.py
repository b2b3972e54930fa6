import numpy as np
import pytest
from scipy import stats

from harness.evaluation.differential import Moments, benjamini_hochberg, welch


@pytest.fixture
def cells():
    random = np.random.default_rng(0)
    shift = np.where(np.arange(60) % 5 == 0, 1.2, 0.0)
    return random.normal(size=(25, 60)) * 1.5 + shift, random.normal(size=(70, 60))


def test_welch_and_correction_against_scipy(cells):
    condition, control = cells
    found = welch(Moments.of(condition), Moments.of(control))
    expected = stats.ttest_ind(condition, control, equal_var=False)
    np.testing.assert_allclose(found.score, expected.statistic)
    np.testing.assert_allclose(found.adjusted, stats.false_discovery_control(expected.pvalue))
    assert 0 < found.changed.sum() < 60
    assert set(found.top(7)) == set(np.argsort(-np.abs(expected.statistic))[:7])


def test_against_scanpy(cells):
    scanpy = pytest.importorskip("scanpy")
    anndata = pytest.importorskip("anndata")
    pandas = pytest.importorskip("pandas")
    obs = pandas.DataFrame({"condition": ["A"] * 25 + ["control"] * 70}, index=[str(k) for k in range(95)])
    data = anndata.AnnData(np.concatenate(cells), obs)
    scanpy.tl.rank_genes_groups(data, "condition", groups=["A"], reference="control", method="t-test", rankby_abs=True)
    table = scanpy.get.rank_genes_groups_df(data, "A")
    found = welch(Moments.of(cells[0]), Moments.of(cells[1]))
    order = table["names"].astype(int).to_numpy()
    np.testing.assert_allclose(found.score[order], table["scores"], rtol=1e-4)
    np.testing.assert_allclose(found.adjusted[order], table["pvals_adj"], rtol=1e-3)
    assert set(found.top(20)) == set(order[:20])


def test_constant_genes_and_single_cells_have_no_test():
    condition, control = np.array([[1.0, 2.0], [1.0, 2.0]]), np.ones((3, 2))
    found = welch(Moments.of(condition), Moments.of(control))
    assert found.score.tolist() == [0.0, np.inf]
    assert found.changed.tolist() == [False, True]
    one = welch(Moments.of(condition[:1]), Moments.of(control))
    assert not one.changed.any()
    assert one.top(1).tolist() == [1]  # the larger change


def test_correction_by_hand():
    np.testing.assert_allclose(benjamini_hochberg(np.array([0.04, 0.01, 0.02])), [0.04, 0.03, 0.03])
