import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group, pearsonr, spearmanr
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from harness.evaluation.identifiability import identifiability_scores, mcc
from harness.evaluation.scores import NonFiniteError


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def rotation(degrees):
    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])


def scores(learned_v, learned_i, true_v, true_i, **more):
    return identifiability_scores(learned_v, learned_i, true_v, true_i, seed=0, **more)


def test_permuted_scaled_shifted_latents_score_one():
    v, i = normal(400, 3), normal(400, 4, seed=1)
    learned = v[:, [2, 0, 1]] * [3.0, -0.01, 200.0] + [1.0, -5.0, 40.0]
    found = scores(learned, i @ normal(4, 4, seed=2), v, i)
    for name in ("mcc", "mcc_spearman", "r2_linear", "r2_invariant_linear"):
        assert found.values[name] == pytest.approx(1.0)
    assert found.assignment == (1, 2, 0)
    assert found.values["r2_responsive"] > 0.97
    assert found.values["r2_invariant"] > 0.95
    assert abs(found.values["leakage"]) < 0.15
    assert abs(found.values["leakage_invariant"]) < 0.15
    assert found.values["mcc_shuffled"] < 0.2


def test_independent_latents_score_the_shuffled_null():
    v, i = normal(2000, 4), normal(2000, 2, seed=1)
    found = scores(normal(2000, 4, seed=2), normal(2000, 2, seed=3), v, i)
    # |corr| of independent normals over 1000 cells is half-normal: mean sqrt(2 / (pi 1000)) = 0.025
    assert found.values["mcc"] == pytest.approx(0.025, abs=0.025)
    assert found.values["mcc_shuffled"] == pytest.approx(0.025, abs=0.01)
    assert found.values["r2_linear"] < 0.01
    assert found.values["r2_responsive"] < 0.05


def test_gaussian_rotated_by_45_degrees():
    v = normal(20000, 2)
    assert mcc(v @ rotation(45), v, seed=0) == pytest.approx(1 / np.sqrt(2), abs=0.01)
    found = scores(v[:1000] @ rotation(45), v[:1000], v[:1000], normal(1000, 1, seed=3))
    assert found.values["r2_linear"] == pytest.approx(1.0)


@pytest.mark.parametrize(("features", "chance"), [(4, 0.68), (8, 0.80), (20, 0.89), (105, 0.97)])
def test_chance_of_random_linear_features_of_four_latents(features, chance):
    values = [mcc((v := normal(1000, 4, seed=s)) @ normal(4, features, seed=100 + s), v, seed=s) for s in range(20)]
    assert np.mean(values) == pytest.approx(chance, abs=0.04)


def test_chance_of_a_random_rotation():
    values = []
    for s in range(20):
        v = normal(1000, 4, seed=s)
        values.append(mcc(v @ np.linalg.qr(normal(4, 4, seed=100 + s))[0], v, seed=s))
    assert 0.72 < np.mean(values) < 0.80


def test_chance_of_a_rotation_in_two_dimensions_has_a_closed_form():
    # matched |cos| or |sin| of a uniform angle: the mean of max(|cos|, |sin|) is 2 sqrt(2) / pi
    v = normal(4000, 2)
    values = [mcc(v @ rotation(degrees), v, seed=0) for degrees in np.arange(0.5, 360, 4.0)]
    assert np.mean(values) == pytest.approx(2 * np.sqrt(2) / np.pi, abs=0.005)


@pytest.mark.parametrize("d", [3, 5])
def test_chance_of_a_rotation_agrees_with_a_simulation_of_the_population(d):
    # between standard normals z and Qz the population's |correlations| are |Q|: no cells, no matching of ours
    turns = ortho_group.rvs(d, size=1500, random_state=0)
    orders = [list(order) for order in itertools.permutations(range(d))]
    best = [max(abs(turn)[range(d), order].mean() for order in orders) for turn in turns]
    v = normal(2000, d)
    values = [mcc(v @ turn.T, v, seed=0) for turn in ortho_group.rvs(d, size=150, random_state=1)]
    error = 3 * np.std(best) * np.sqrt(1 / 150 + 1 / 1500)
    assert np.mean(values) == pytest.approx(np.mean(best), abs=error + 0.005)  # cells: 1 / sqrt(2000) on either side


@pytest.mark.parametrize("seed", range(5))
def test_matching_against_brute_force(seed):
    v = normal(300, 4, seed=seed)
    learned = v @ normal(4, 5, seed=seed + 50) + normal(300, 5, seed=seed + 90)
    order = np.random.default_rng([seed, 0]).permutation(300)
    fit, score = order[:150], order[150:]
    corr = {
        half: [[abs(pearsonr(v[rows, k], learned[rows, j])[0]) for j in range(5)] for k in range(4)]
        for half, rows in (("fit", fit), ("score", score))
    }
    best = max(itertools.permutations(range(5), 4), key=lambda p: sum(corr["fit"][k][p[k]] for k in range(4)))
    expected = sum(corr["score"][k][best[k]] for k in range(4)) / 4
    found = identifiability_scores(learned, v, v, v, seed=seed)
    assert found.assignment == best
    assert found.values["mcc"] == pytest.approx(expected)
    assert mcc(learned, v, seed=seed) == pytest.approx(expected)


def test_spearman_of_a_monotone_warp_is_one_and_pearson_is_not():
    v = normal(400, 2)
    found = scores(np.exp(2 * v), v, v, v)
    assert found.values["mcc_spearman"] == pytest.approx(1.0)
    assert found.values["mcc"] < 0.8
    assert found.values["r2_responsive"] > found.values["r2_linear"]
    noisy = v + normal(400, 2, seed=1)
    score = np.random.default_rng([0, 0]).permutation(400)[200:]
    by_hand = np.mean([spearmanr(v[score, k], noisy[score, k])[0] for k in range(2)])
    assert scores(noisy, v, v, v).values["mcc_spearman"] == pytest.approx(by_hand)


def test_more_learned_than_true():
    v = normal(500, 2)
    learned = np.concatenate([normal(500, 6, seed=1), v], axis=1)
    found = scores(learned, v, v, v)
    assert found.values["mcc"] == pytest.approx(1.0)
    assert found.values["mcc_active"] == pytest.approx(2 / 8)
    assert found.assignment == (6, 7)


def test_fewer_learned_than_true():
    v = normal(500, 4)
    found = scores(v[:, [3]], v, v, v)
    assert found.values["mcc"] == pytest.approx(1 / 4)
    assert found.values["mcc_active"] == pytest.approx(1 / 4)
    assert found.assignment == (-1, -1, -1, 0)


def test_constant_and_collapsed_latents_give_numbers_and_warnings():
    v = normal(500, 3)
    learned = np.concatenate([v[:, :1], np.full((500, 1), 3.0), 1e-4 * v[:, 2:]], axis=1)
    found = scores(learned, np.zeros((500, 2)), v, v)
    assert all(np.isfinite(x) for x in found.values.values())
    assert found.values["mcc"] == pytest.approx(2 / 3)
    assert found.values["r2_invariant"] == 0.0
    assert found.values["leakage"] == 0.0
    text = "\n".join(found.warnings)
    assert "learned responsive latent 1 is constant" in text
    assert "learned responsive latent 2 has collapsed" in text
    assert "learned invariant latent 0 is constant" in text


def test_collapsed_latents_do_not_count_as_active():
    v = normal(500, 2)
    learned = np.concatenate([v, np.zeros((500, 3)), 1e-4 * normal(500, 3, seed=1)], axis=1)
    assert scores(learned, v, v, v).values["mcc_active"] == pytest.approx(1.0)


def test_everything_constant():
    v = normal(60, 2)
    found = scores(np.ones((60, 2)), np.ones((60, 1)), v, v)
    assert set(found.values.values()) == {0.0}


def test_empty_blocks_score_zero_with_a_warning():
    v = normal(60, 2)
    found = scores(v, np.zeros((60, 0)), v, v)
    assert found.values["r2_invariant"] == 0.0
    assert found.values["mcc"] == pytest.approx(1.0)
    assert any("no learned invariant latent" in w for w in found.warnings)
    assert scores(np.zeros((60, 0)), v, v, v).values["mcc"] == 0.0


def test_constant_true_latent_is_named():
    v = normal(60, 2) * [1.0, 0.0]
    found = scores(v, v, v, normal(60, 1), responsive_names=("x", "y"), invariant_names=("s",))
    assert found.values["mcc"] == pytest.approx(0.5)
    assert any("latent y is constant" in w for w in found.warnings)


def test_periodic_factor_from_its_sine_and_cosine():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 600)
    v = np.stack([rng.normal(size=600), angle], axis=1)
    learned = np.stack([np.sin(angle + 0.4), v[:, 0], np.cos(angle + 0.4)], axis=1)
    names = {"responsive_names": ("x", "hue"), "invariant_names": ("a", "b")}
    found = scores(learned, v, v, v, periodic=("hue",), **names)
    assert found.values["mcc"] == pytest.approx(1.0)
    assert found.values["r2_linear"] == pytest.approx(1.0)
    assert found.values["r2_responsive"] > 0.97
    as_a_number = scores(learned, v, v, v)
    assert as_a_number.values["mcc"] < 0.95
    assert found.values["mcc_spearman"] > 0.9


def test_periodic_score_does_not_depend_on_where_the_angle_starts():
    rng = np.random.default_rng(1)
    angle = rng.uniform(0, 2 * np.pi, (400, 1))
    learned = np.cos(angle - 1.0) + 0.3 * rng.normal(size=(400, 1))
    first = mcc(learned, angle, periodic=[True], seed=0)
    assert mcc(learned, (angle + 2.5) % (2 * np.pi), periodic=[True], seed=0) == pytest.approx(first)
    # linear-circular correlation of cos + noise: sqrt(1/2 / (1/2 + 0.09))
    assert first == pytest.approx(np.sqrt(0.5 / 0.59), abs=0.03)


def test_leakage_sees_a_nonlinear_copy():
    v, i = normal(800, 2), normal(800, 2, seed=1)
    copy = np.concatenate([np.sinh(v), i], axis=1)
    assert scores(v, copy, v, i).values["leakage"] > 0.9


def test_leakage_the_other_way_sees_a_nonlinear_copy():
    v, i = normal(800, 2), normal(800, 2, seed=1)
    copy = np.concatenate([np.sinh(i), v], axis=1)
    assert scores(copy, i, v, i).values["leakage_invariant"] > 0.9
    assert scores(v, i, v, i).values["leakage_invariant"] < 0.1


def test_linear_scores_against_sklearn():
    v, i = normal(300, 2), normal(300, 3, seed=1)
    learned_v, learned_i = v @ normal(2, 3, seed=2) + normal(300, 3, seed=3), np.tanh(i) + normal(300, 3, seed=4)
    order = np.random.default_rng([0, 0]).permutation(300)
    fit, score = order[:150], order[150:]
    found = scores(learned_v, learned_i, v, i)
    for name, learned, true in (("r2_linear", learned_v, v), ("r2_invariant_linear", learned_i, i)):
        predicted = LinearRegression().fit(learned[fit], true[fit]).predict(learned[score])
        assert found.values[name] == pytest.approx(r2_score(true[score], predicted))


@settings(max_examples=25, deadline=None)
@given(
    order=st.permutations(range(4)),
    signs=st.lists(st.sampled_from([-1.0, 1.0]), min_size=4, max_size=4),
    scale=st.lists(st.floats(1e-3, 1e3), min_size=4, max_size=4),
    shift=st.lists(st.floats(-10, 10), min_size=4, max_size=4),
)
def test_mcc_ignores_order_sign_scale_and_shift(order, signs, scale, shift):
    v = normal(120, 3)
    learned = v @ normal(3, 4, seed=5) + 0.5 * normal(120, 4, seed=6)
    moved = learned[:, order] * np.array(signs) * np.array(scale) + np.array(shift)
    assert mcc(moved, v, seed=0) == pytest.approx(mcc(learned, v, seed=0), abs=1e-9)


@pytest.mark.parametrize("where", range(4))
def test_nan_is_refused_by_name(where):
    arrays = [normal(60, 2, seed=s) for s in range(4)]
    arrays[where][3, 1] = np.nan
    name = ("learned responsive", "learned invariant", "true responsive", "true invariant")[where]
    with pytest.raises(NonFiniteError, match=name):
        scores(*arrays)


def test_arrays_that_do_not_fit_are_refused():
    v = normal(60, 2)
    with pytest.raises(ValueError, match="rows"):
        scores(v[:50], v, v, v)
    with pytest.raises(ValueError, match="too few"):
        scores(v[:5], v[:5], v[:5], v[:5])
    with pytest.raises(ValueError, match="no true latent"):
        scores(v, v, v[:, :0], v)
    with pytest.raises(ValueError, match="periodic names no true latent: tilt"):
        scores(v, v, v, v, periodic=("tilt",))
    with pytest.raises(ValueError, match="names for"):
        scores(v, v, v, v, responsive_names=("x",))


def test_same_seed_same_numbers():
    v = normal(200, 3)
    learned = v @ normal(3, 3, seed=1)
    assert scores(learned, v, v, v).values == scores(learned, v, v, v).values


def test_a_truth_without_invariant_latents_has_no_scores_of_them():
    random = np.random.default_rng(0)
    true = random.normal(size=(200, 2))
    none = np.zeros((200, 0))
    scores = identifiability_scores(true[:, ::-1], random.normal(size=(200, 3)), true, none, seed=0)
    assert scores.values["mcc"] == pytest.approx(1.0)
    assert abs(scores.values["leakage"]) < 0.2
    assert not {"r2_invariant", "r2_invariant_linear", "leakage_invariant"} & set(scores.values)
    with pytest.raises(ValueError, match="no true latent to recover"):
        identifiability_scores(true, true, none, true, seed=0)
