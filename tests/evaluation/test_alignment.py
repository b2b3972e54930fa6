import numpy as np
import pytest

from harness.evaluation.alignment import alignment, pair_ratio, two_sample
from harness.evaluation.scores import NonFiniteError

ENVIRONMENT = np.arange(1000) % 13


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def shifted(size, seed=0):
    """Latents whose mean follows the environment."""
    return normal(1000, 3, seed=seed) + size * normal(13, 3, seed=99)[ENVIRONMENT]


def test_perfect_alignment_has_margin_one():
    z = normal(1000, 7)
    found = alignment(z, z, ENVIRONMENT, seed=0, offered=True)
    assert found.holds
    assert found.margin == 1.0
    assert "do not tell the 13 environments apart" in found.reason


def test_random_pairs_have_margin_about_zero():
    z = normal(1000, 7)
    found = alignment(z, np.random.default_rng(1).permutation(z), ENVIRONMENT, seed=0)
    assert not found.holds
    assert found.margin == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("correlation", [0.2, 0.7, 0.98])
def test_margin_is_the_correlation_within_pairs(correlation):
    z = normal(20_000, 3)
    partner = correlation * z + np.sqrt(1 - correlation**2) * normal(20_000, 3, seed=1)
    assert 1 - pair_ratio(z, partner) == pytest.approx(correlation, abs=0.01)
    scale, shift = np.array([0.1, 1.0, 5.0]), np.array([5.0, -3.0, 0.0])
    assert pair_ratio(z * scale + shift, partner * scale + shift) == pytest.approx(
        np.mean([pair_ratio(z[:, [k]], partner[:, [k]]) for k in range(3)])
    )


def test_partners_on_opposite_sides_are_clipped_to_zero():
    z = normal(500, 2)
    assert pair_ratio(z, -z) == pytest.approx(2.0, rel=0.05)
    assert alignment(z, -z, ENVIRONMENT[:500], seed=0).margin == 0.0


def test_the_classifier_is_at_chance_when_independent():
    accuracies = []
    for seed in range(10):
        test = two_sample(normal(1000, 7, seed=seed), ENVIRONMENT, seed=seed)
        assert test.at_chance
        accuracies.append(test.accuracy)
    # 1000 cells of 13 environments: chance 77 / 1000, standard error 0.0084 a run
    assert test.chance == pytest.approx(0.077)
    assert np.mean(accuracies) == pytest.approx(1 / 13, abs=3 * 0.0084 / np.sqrt(10))


def test_the_classifier_finds_two_normals_with_bayes_accuracy():
    labels = np.arange(2000) % 2
    z = normal(2000, 1) + 2.0 * labels[:, None]
    test = two_sample(z, labels, seed=0)
    assert test.accuracy == pytest.approx(0.8413, abs=0.03)  # Φ(1): the threshold is one sd from either mean
    assert not test.at_chance
    assert test.excess == pytest.approx((test.accuracy - 0.5) / 0.5)


def test_an_environment_that_shows_breaks_the_condition_though_pairs_agree():
    z = shifted(1.0)
    found = alignment(z, z, ENVIRONMENT, seed=0)
    assert not found.holds
    assert "invariant latents tell the 13 environments apart" in found.reason


def test_without_pairs_only_the_classifier_speaks():
    blind = alignment(normal(1000, 3), None, ENVIRONMENT, seed=0)
    assert blind.holds
    assert blind.margin > 0.97
    assert "no true pairs, so that only the classifier speaks" in blind.reason
    margins = [alignment(shifted(size), None, ENVIRONMENT, seed=0).margin for size in (0.0, 1.0, 4.0)]
    assert margins == sorted(margins, reverse=True)
    assert margins[-1] < 0.3
    assert not alignment(shifted(1.0), None, ENVIRONMENT, seed=0).holds


def test_a_truth_without_pairs_does_not_meet_the_condition():
    z = normal(1000, 3)
    found = alignment(z, z, ENVIRONMENT, seed=0, offered=False)
    assert not found.holds
    assert found.margin == 0.0
    assert "offer no true pairs" in found.reason


def test_collapsed_latents_neither_help_nor_hurt():
    z, partner = normal(1000, 2), normal(1000, 2, seed=1)
    dead = np.concatenate([z, np.zeros((1000, 2)), 1e-4 * normal(1000, 1, seed=2)], axis=1)
    other = np.concatenate([partner, np.zeros((1000, 2)), 1e-4 * normal(1000, 1, seed=3)], axis=1)
    assert pair_ratio(dead, other) == pytest.approx(pair_ratio(z, partner))


@pytest.mark.parametrize("latents", [np.zeros((60, 3)), np.zeros((60, 0))])
def test_a_block_that_says_nothing_is_not_aligned(latents):
    found = alignment(latents, latents, np.arange(60) % 3, seed=0)
    assert not found.holds
    assert found.margin == 0.0
    assert "empty or constant" in found.reason


def test_rare_environments_are_left_out():
    labels = np.where(np.arange(300) < 297, np.arange(300) % 2, 2)
    test = two_sample(normal(300, 2), labels, seed=0)
    assert (test.cells, test.environments) == (297, 2)
    few = alignment(normal(20, 2), None, np.arange(20), seed=0)
    assert not few.holds
    assert "too few cells" in few.reason


def test_arrays_that_make_no_sense_are_refused():
    z = normal(60, 2)
    with pytest.raises(ValueError, match="a partner for each"):
        alignment(z, z[:50], np.zeros(60), seed=0)
    with pytest.raises(ValueError, match="need an environment"):
        alignment(z, None, np.zeros(50), seed=0)
    with pytest.raises(NonFiniteError, match="paired controls"):
        alignment(z, np.full((60, 2), np.nan), np.zeros(60), seed=0)
