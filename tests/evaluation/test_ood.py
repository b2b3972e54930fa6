import numpy as np
import pytest
from comparing import reference, score_condition
from scipy import stats
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.metrics import r2_score, roc_auc_score

from harness.evaluation.clouds import BANDWIDTHS, Cloud
from harness.evaluation.ood import measures_of
from harness.evaluation.registry import METRICS, split_half_name
from harness.evaluation.scores import NonFiniteError


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    predicted = rng.normal(1.0, 1.0, (30, 6)) + np.arange(6)
    true = rng.normal(1.2, 1.5, (40, 6)) + np.arange(6)
    control = rng.normal(0.0, 1.0, (50, 6)) + np.arange(6)
    return predicted, true, control


def off_diagonal_mean(matrix):
    return matrix[~np.eye(len(matrix), dtype=bool)].mean()


def test_means_against_independent_implementations(cells):
    predicted, true, control = cells
    found = score_condition(predicted, true, control, seed=0).values
    p, t, c = (x.mean(axis=0) for x in cells)
    assert found["rmse"] == pytest.approx(np.sqrt(((p - t) ** 2).mean()))
    assert found["l2"] == pytest.approx(np.linalg.norm(p - t))
    assert found["r2"] == pytest.approx(r2_score(t, p))
    assert found["r2_published"] == pytest.approx(r2_score(p, t))
    assert found["pearson_delta"] == pytest.approx(stats.pearsonr(p - c, t - c)[0])
    assert found["rmse_relative_mean"] == pytest.approx(np.sqrt(((true - p) ** 2).mean() / (true**2).mean()))


def test_r2_is_not_clipped_and_the_published_one_is(cells):
    predicted, true, control = cells
    found = score_condition(predicted[:, ::-1] * 5, true, control, seed=0).values
    assert found["r2"] < 0
    assert found["r2_published"] == 0.0


def test_relative_rmse_against_its_expectation_over_pairings(cells):
    predicted, true, control = cells
    values = [score_condition(predicted, true, control, seed=s).values["rmse_relative"] ** 2 for s in range(200)]
    expected = (cdist(predicted, true, "sqeuclidean").mean() / 6) / (true**2).mean()
    assert np.mean(values) == pytest.approx(expected, rel=0.02)
    assert score_condition(predicted, true, control, seed=3).values["rmse_relative"] ** 2 == values[3]


def test_relative_rmse_prefers_a_prediction_without_variance():
    # Independent cells of one distribution are sqrt(2) sd apart, a cell and the mean only one sd.
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 1000, 20))
    found = score_condition(a, b, a + 1, seed=0).values
    assert found["rmse_relative"] == pytest.approx(np.sqrt(2), abs=0.03)
    assert found["rmse_relative_mean"] == pytest.approx(1.0, abs=0.02)


def test_energy_distance_against_cdist_and_scipy(cells):
    predicted, true, control = cells
    found = score_condition(predicted, true, control, seed=0).values["energy_distance"]
    expected = 2 * cdist(predicted, true).mean()
    expected -= off_diagonal_mean(cdist(predicted, predicted)) + off_diagonal_mean(cdist(true, true))
    assert found == pytest.approx(expected)
    x, y = predicted[:, :1], true[:, :1]
    unbiased = score_condition(x, y, control[:, :1], seed=0).values["energy_distance"]
    biased = stats.energy_distance(x[:, 0], y[:, 0]) ** 2
    for z in (x, y):  # scipy's means include each cell with itself
        biased -= cdist(z, z).mean() * (len(z) / (len(z) - 1) - 1)
    assert unbiased == pytest.approx(biased)


def test_mmd_against_loops(cells):
    predicted, true, control = cells
    median = np.median(cdist(true, true, "sqeuclidean")[~np.eye(40, dtype=bool)])
    expected = 0.0
    for factor in BANDWIDTHS:
        kernel = {}
        for name, a, b in (("pp", predicted, predicted), ("pt", predicted, true), ("tt", true, true)):
            kernel[name] = np.array([[np.exp(-((p - q) ** 2).sum() / (2 * factor * median)) for q in b] for p in a])
        expected += off_diagonal_mean(kernel["pp"]) + off_diagonal_mean(kernel["tt"]) - 2 * kernel["pt"].mean()
    found = score_condition(predicted, true, control, seed=0).values["mmd"]
    assert found == pytest.approx(expected / len(BANDWIDTHS))


def test_mmd_of_gaussians_in_closed_form():
    # In one dimension E exp(-(x - y)^2 / 2s) = sqrt(s / (s + v)) exp(-m^2 / 2(s + v)), m, v mean and variance of x - y.
    y = stats.norm.ppf((np.arange(1000) + 0.5) / 1000)[:, None]  # quantiles: a sample without sampling noise
    x = y + 1.0
    s = np.array(BANDWIDTHS) * 2 * stats.chi2(1).median()
    expected = np.mean(2 * np.sqrt(s / (s + 2)) * (1 - np.exp(-1 / (2 * (s + 2)))))
    assert score_condition(x, y, y, seed=0).values["mmd"] == pytest.approx(expected, rel=0.01)


def test_equal_distributions_score_zero_on_average():
    draws = [np.random.default_rng(s).normal(size=(2, 40, 5)) for s in range(60)]
    found = [score_condition(a, b, a, seed=0).values for a, b in draws]
    for name, spread in (("mmd", 0.003), ("energy_distance", 0.02)):
        assert np.mean([f[name] for f in found]) == pytest.approx(0.0, abs=spread)


def test_cells_that_share_a_part_score_zero_on_average_where_they_are_no_pair():
    """Four cells share half of their variance, as predictions from one control cell do; as a set they are as true."""
    found = {1: [], 4: []}
    for s in range(60):
        random = np.random.default_rng(s)
        shared = np.repeat(random.normal(size=(20, 5)), 4, axis=0)
        predicted = (shared + random.normal(size=shared.shape)) / 2**0.5
        truth = reference(random.normal(size=(40, 5)), shared, seed=0)
        for kin, scores in found.items():
            scores.append(truth.score(Cloud(predicted, kin=kin)).values)
    for name, spread in (("mmd", 0.003), ("energy_distance", 0.02)):
        assert np.mean([scores[name] for scores in found[4]]) == pytest.approx(0.0, abs=spread)
        assert np.mean([scores[name] for scores in found[1]]) > spread


def test_perfect_bulk_prediction_reaches_best():
    rng = np.random.default_rng(3)
    true = rng.normal(size=(50, 4))
    found = score_condition(true, true, true + rng.normal(size=4), seed=0).values
    for name in ("rmse", "l2", "r2", "r2_published", "pearson_delta"):
        assert found[name] == pytest.approx(METRICS[name].best, abs=1e-9)
    mean = true.mean(axis=0, keepdims=True)
    point = score_condition(mean, mean, true + np.arange(4), seed=0).values  # a point mass predicted by itself
    for name in measures_of(genes=False):
        assert point[name] == pytest.approx(METRICS[name].best, abs=1e-6)


def test_no_predicted_change_is_zero_with_a_warning(cells):
    _, true, control = cells
    found = score_condition(control, true, control, seed=0)
    assert found.values["pearson_delta"] == 0.0
    assert any("pearson_delta" in w and "predicted change" in w for w in found.warnings)


def test_degenerate_cells_give_numbers():
    flat = np.full((5, 3), 2.0)
    for predicted, true, control in ((flat, flat, flat), (0 * flat, 0 * flat, 0 * flat), (flat[:1], flat, 0 * flat)):
        found = score_condition(predicted, true, control, seed=0)
        assert all(np.isfinite(v) for v in found.values.values())
        assert any("r2 is 0" in w for w in found.warnings)
    assert any("all true values are 0" in w for w in score_condition(flat, 0 * flat, flat, seed=0).warnings)
    one = score_condition(np.random.default_rng(0).normal(size=(4, 1)), flat[:, :1], flat[:, :1], seed=0)
    assert one.values["pearson_delta"] == 0.0  # a single feature has no correlation


def test_floor_is_a_score_between_halves(cells):
    _, true, control = cells
    floor = reference(true, control, seed=0).floor().values
    assert set(floor) == {split_half_name(name) for name in measures_of(genes=False)}
    assert floor["rmse_relative_floor"] > floor["rmse_relative_mean_floor"] > 0
    rng = np.random.default_rng(4)
    big = rng.normal(3.0, 1.0, (1000, 5)) + np.arange(5)
    large = reference(big, big - np.arange(5) - 1, seed=0).floor().values
    assert large["energy_distance_floor"] == pytest.approx(0.0, abs=0.01)
    assert large["pearson_delta_ceiling"] > 0.99
    assert large["rmse_relative_floor"] == pytest.approx(np.sqrt(2 / (big**2).mean()), rel=0.05)
    nothing = reference(true[:3], control, seed=0).floor()
    assert nothing.values == {}
    assert "cannot be halved" in nothing.warnings[0]


def test_nan_and_misfits_are_refused_by_name(cells):
    predicted, true, control = cells
    with pytest.raises(NonFiniteError, match="predicted cells"):
        score_condition(np.full_like(predicted, np.nan), true, control, seed=0)
    with pytest.raises(ValueError, match="predicted cells have 5 features, true cells 6"):
        score_condition(predicted[:, :5], true, control, seed=0)
    with pytest.raises(ValueError, match="true cells are empty"):
        score_condition(predicted, true[:0], control, seed=0)


def expressed(seed, cells, shift):
    """Cells of 80 genes around means from 0 to 4, never below 0."""
    random = np.random.default_rng(seed)
    return np.maximum(random.normal(size=(cells, 80)) + np.linspace(0, 4, 80) + shift, 0.0)


@pytest.fixture
def genes():
    shift = np.zeros(80)
    shift[::4] = np.linspace(-2.0, 2.0, 20)
    return expressed(1, 30, 0.8 * shift), expressed(2, 40, shift), expressed(3, 50, 0.0)


def test_scores_on_a_gene_set_are_those_of_these_genes_alone(genes):
    predicted, true, control = genes
    found = score_condition(predicted, true, control, seed=5, genes=True).values
    t = stats.ttest_ind(true, control, equal_var=False).statistic
    for count in (20, 50):
        top = np.sort(np.argsort(-np.abs(t))[:count])
        alone = score_condition(predicted[:, top], true[:, top], control[:, top], seed=5).values
        for name in set(alone) - {"wasserstein"}:
            assert found[f"{name}_top{count}de"] == pytest.approx(alone[name]), name
    assert "wasserstein_top20de" not in found


def test_fewer_than_a_thousand_genes_are_all_of_them(genes):
    found = score_condition(*genes, seed=5, genes=True).values
    for name in measures_of(genes=True):
        if "top1000" in METRICS[name].sets:
            assert found[f"{name}_top1000"] == found[name]


def test_the_thousand_most_expressed_are_chosen_among_control_cells():
    random = np.random.default_rng(0)
    predicted, true, control = (np.abs(random.normal(size=(n, 1200)) + 0.3) for n in (8, 9, 10))
    top = np.sort(np.argsort(-control.mean(axis=0))[:1000])
    found = score_condition(predicted, true, control, seed=0, genes=True).values
    alone = score_condition(predicted[:, top], true[:, top], control[:, top], seed=0).values
    for name in ("rmse_relative", "rmse_relative_mean", "pearson_delta", "energy_distance", "mmd", "r2"):
        assert found[f"{name}_top1000"] == pytest.approx(alone[name])


def test_de_auroc_and_direction_against_sklearn_and_by_hand(genes):
    predicted, true, control = genes
    found = score_condition(predicted, true, control, seed=0, genes=True).values
    test = stats.ttest_ind(true, control, equal_var=False)
    changed = stats.false_discovery_control(test.pvalue) < 0.05
    assert 5 < changed.sum() < 40
    change = predicted.mean(axis=0) - control.mean(axis=0)
    assert found["de_auroc"] == pytest.approx(roc_auc_score(changed, np.abs(change)))
    right = np.sign(change) == np.sign(true.mean(axis=0) - control.mean(axis=0))
    assert found["direction_accuracy"] == pytest.approx(right[changed].mean())
    both = [gene for gene in np.argsort(-np.abs(test.statistic))[:20] if changed[gene]]
    assert found["direction_accuracy_top20de"] == pytest.approx(right[both].mean())
    assert "de_auroc_top20de" not in found  # nearly all of them are positives


def test_no_change_finds_no_gene_better_than_chance(genes):
    _, true, control = genes
    found = score_condition(control, true, control, seed=0, genes=True).values
    assert found["de_auroc"] == 0.5
    assert found["direction_accuracy"] == 0.0


def test_a_condition_that_changes_no_gene_says_nothing_of_genes():
    control = expressed(4, 50, 0.0)
    found = score_condition(control, control[:25], control, seed=0, genes=True)
    assert not {"de_auroc", "direction_accuracy"} & set(found.values)
    assert any("no gene is differentially expressed" in sentence for sentence in found.warnings)
    moved = score_condition(control, control + 3.0, control, seed=0, genes=True)
    assert "de_auroc" not in moved.values  # every gene changes
    assert moved.values["direction_accuracy"] == 0.0


def test_wasserstein_against_assignment_and_in_one_dimension(cells):
    pytest.importorskip("ot")
    predicted, true, control = cells
    found = score_condition(predicted, true, control, seed=3).values["wasserstein"]
    random = np.random.default_rng([3, 3])  # half of the true cells, on either side
    rows, columns = random.permutation(30)[:20], random.permutation(40)[:20]
    cost = cdist(predicted[rows], true[columns])
    assert found == pytest.approx(cost[linear_sum_assignment(cost)].mean())
    x, y = predicted[:, :1], true[:, :1]
    one = score_condition(x, y, control[:, :1], seed=3).values["wasserstein"]
    assert one == pytest.approx(stats.wasserstein_distance(x[rows, 0], y[columns, 0]))


def test_without_pot_there_is_no_wasserstein_and_all_else_stands(cells, monkeypatch):
    monkeypatch.setattr("harness.evaluation.ood.has_transport", lambda: False)
    found = score_condition(*cells, seed=0).values
    assert set(found) == set(measures_of(genes=False))
    assert "wasserstein" not in found
    assert "energy_distance" in found


def test_floors_stand_beside_every_score_on_genes_too(genes):
    _, true, control = genes
    truth = reference(true, control, seed=0, genes=True)
    floor = truth.floor().values
    assert set(floor) == {split_half_name(name) for name in truth.score(true).values}
    assert floor["rmse_relative_top20de_floor"] > floor["rmse_relative_mean_top20de_floor"] > 0
    assert 0.5 < floor["de_auroc_ceiling"] <= 1.0
