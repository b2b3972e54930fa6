"""True and predicted changes are taken from control cells of their own, and intervals know of both."""

import numpy as np
import pytest
from comparing import controls_of, evaluate, means, reference

from harness.evaluation.baselines import Baselines
from harness.evaluation.measured import Measured, Moments
from harness.evaluation.prediction import Comparison, evaluate_ood
from harness.evaluation.resampling import (
    SAMPLES,
    MeanNoise,
    correlation_samples,
    interval_of_correlations,
    resampled_means,
)

FEATURES = 120
PAIRS = ("A+B", "C+D", "E+F", "G+H", "I+J")


def null_screen(seed, controls, cells=80):
    """Every condition drawn from one law, whose genes differ in spread and share a common factor."""
    random = np.random.default_rng(seed)
    spread = random.gamma(1.0, 1.0, FEATURES) + 0.1

    def draw(count):
        common = random.normal(size=(count, 1)) * 0.3
        return (random.normal(size=(count, FEATURES)) + common) * spread + 2.0

    train = {"control": draw(controls[1]), **{gene: draw(cells) for gene in "ABCDEFGHIJ"}}
    return {pair: draw(cells) for pair in PAIRS}, train, draw(controls[0])


@pytest.mark.parametrize("controls", [(13, 24), (33, 60), (300, 600)])
def test_without_effects_every_change_agrees_with_nothing_and_its_interval_holds_that(controls):
    misses, values = [], []
    for seed in range(40):
        cells, train, held_out = null_screen(seed, controls)
        found = evaluate(cells, train, held_out, lambda _, control: control, seed=seed, metrics=("pearson_delta",))
        for row in ("mean_effect", "additive", "nearest"):
            low, high = found.intervals[row]["pearson_delta"]
            misses.append(not low <= 0.0 <= high)
            values.append(found.baselines[row]["pearson_delta"])
        assert not any("clearly above" in sentence for sentence in found.warnings)
    assert np.mean(values) == pytest.approx(0.0, abs=0.08)
    assert np.mean(misses) <= 0.08


def test_shared_controls_would_agree_with_themselves():
    """What the two sides' own cells are for: with the same ones on both, nothing agrees with nothing at 0.6."""
    apart, shared = [], []
    for seed in range(10):
        cells, train, held_out = null_screen(seed, (24, 24))
        for control, found in ((held_out, apart), (train["control"], shared)):
            scored = evaluate(cells, train, control, lambda _, cells: cells, seed=seed, metrics=("pearson_delta",))
            found.append(scored.baselines["mean_effect"]["pearson_delta"])
    assert abs(np.mean(apart)) < 0.1
    assert np.mean(shared) > 0.5


def test_the_numbers_of_control_cells_are_told():
    cells, train, held_out = null_screen(0, (13, 24))
    assert evaluate(cells, train, held_out, lambda _, control: control).controls == (13, 24)


def test_a_row_that_copies_the_noise_of_the_truth_is_named():
    cells, train, held_out = null_screen(3, (100, 100))

    def copies(condition, control):
        return control + cells[condition].mean(axis=0) - control.mean(axis=0)

    found = evaluate(cells, train, held_out, copies, seed=0)
    assert found.metrics["pearson_delta"] > 0.5
    (sentence,) = [one for one in found.warnings if "clearly above" in one]
    assert sentence.startswith("model: pearson_delta")


def test_an_oracle_that_knows_the_true_means_is_not_suspected():
    random = np.random.default_rng(0)
    effects = {pair: random.normal(size=FEATURES) for pair in PAIRS}
    cells, train, held_out = null_screen(1, (60, 60))
    cells = {pair: part + effects[pair] for pair, part in cells.items()}
    found = evaluate(cells, train, held_out, lambda pair, control: control + effects[pair], seed=0)
    assert found.metrics["pearson_delta"] > found.floors["pearson_delta_ceiling"]  # which halves the cells
    assert not any("clearly above" in sentence for sentence in found.warnings)


def test_a_prediction_that_starts_from_few_cells_and_is_right_in_its_mean_lies_below_no_distance():
    cells, train, held_out = null_screen(2, (100, 12))
    found = evaluate(cells, train, held_out, lambda _, control: control, seed=0)
    assert found.baselines["mean_effect"]["energy_distance"] < 0
    assert any(one.startswith("mean_effect: energy_distance") and "below 0" in one for one in found.warnings)


def test_means_are_over_all_cells_and_only_distances_over_those_drawn():
    cells, train, held_out = null_screen(5, (100, 100), cells=300)
    whole = evaluate(cells, train, held_out, lambda _, control: control, seed=0)
    some = evaluate(cells, train, held_out, lambda _, control: control, seed=0, max_cells=50)
    for name in ("pearson_delta", "rmse", "l2", "r2", "rmse_relative_mean"):
        assert some.baselines["additive"][name] == pytest.approx(whole.baselines["additive"][name], rel=1e-12)
    assert some.baselines["additive"]["energy_distance"] != whole.baselines["additive"]["energy_distance"]


def test_moments_of_blocks_are_those_of_all():
    cells = np.random.default_rng(0).normal(1e4, 1.0, (103, 7))
    found = Moments.over(np.array_split(cells, 5))
    np.testing.assert_allclose(found.mean, cells.mean(0), rtol=1e-14)
    np.testing.assert_allclose(found.variance, cells.var(0, ddof=1), rtol=1e-9)
    np.testing.assert_allclose(found.spread, cells.var(0), rtol=1e-9)
    assert found.count == 103
    with pytest.raises(ValueError, match="no cells"):
        Moments.over([])


def test_the_noise_of_a_mean_has_the_mean_and_variance_of_one():
    cells = np.random.default_rng(0).normal(size=(400, 5))
    direction = np.array([1.0, -2.0, 0.5, 0.0, 3.0])
    few = MeanNoise(Measured.of(cells, "cells"), 0).along(direction)
    assert few.mean() == pytest.approx(0.0, abs=0.01)
    assert few.std() == pytest.approx((cells @ direction).std() / 20, rel=0.1)
    # drawn from a tenth of the cells, the mean over all is as sure as it is
    many = Measured(cells[:40], Moments.of(cells))
    assert MeanNoise(many, 0).along(direction).std() == pytest.approx((cells @ direction).std() / 20, rel=0.3)


def test_a_sampled_correlation_moves_as_its_change_does():
    """To first order: against the correlation taken anew with a small known change of the true one."""
    random = np.random.default_rng(1)
    predicted, true, moved = random.normal(size=(3, 50))

    class Known:
        def along(self, direction, genes=None):
            return np.full(SAMPLES, 1e-4 * moved @ direction)

    samples = correlation_samples(predicted, true, [(1.0, Known())])
    anew = np.corrcoef(predicted, true + 1e-4 * moved)[0, 1]
    assert samples[0] == pytest.approx(anew, abs=1e-7)
    both = correlation_samples(predicted, true, [(1.0, Known())], of_predicted=[(1.0, Known())])
    assert both[0] == pytest.approx(np.corrcoef(predicted + 1e-4 * moved, true + 1e-4 * moved)[0, 1], abs=1e-7)
    assert not correlation_samples(np.zeros(50), true, [(1.0, Known())]).any()


def test_intervals_of_correlations_stay_within_their_range():
    samples = 0.97 + 0.02 * np.random.default_rng(0).normal(size=(4, SAMPLES))
    low, high = interval_of_correlations(np.full(4, 0.97), samples, 0)
    assert 0.8 < low < 0.97 < high < 1.0
    assert resampled_means(samples, 0).shape == (SAMPLES,)


def test_genes_chosen_by_their_change_have_no_interval():
    cells, train, held_out = null_screen(0, (30, 30))
    genes = tuple(f"g{k}" for k in range(FEATURES))
    found = evaluate(cells, train, held_out, lambda _, control: control, features=genes)
    assert "pearson_delta" in found.intervals["additive"]
    assert "pearson_delta_top1000" in found.intervals["additive"]
    assert "pearson_delta_top20de" in found.baselines["additive"]
    assert "pearson_delta_top20de" not in found.intervals["additive"]
    assert "energy_distance_top20de" in found.intervals["additive"]


def test_a_single_held_out_control_cell_has_no_interval():
    cells, train, held_out = null_screen(0, (1, 30))
    found = evaluate(cells, train, held_out, lambda _, control: control)
    assert "pearson_delta" not in found.intervals["additive"]
    assert "rmse" in found.intervals["additive"]


def test_the_halves_take_their_changes_from_either_sides_controls():
    cells, train, held_out = null_screen(0, (30, 30))
    truth = reference(cells["A+B"], held_out, train["control"], seed=0)
    by_hand = [
        np.corrcoef(cells["A+B"][a].mean(0) - train["control"].mean(0), cells["A+B"][b].mean(0) - held_out.mean(0))[
            0, 1
        ]
        for a, b in truth.halves()
    ]
    assert truth.floor().values["pearson_delta_ceiling"] == pytest.approx(np.mean(by_hand))
    with pytest.raises(ValueError, match="control cells have 5 features"):
        controls_of(held_out, train["control"][:, :5])


# ------------------------------------------------------------------------------------------------------- strata


def stratum(name, shift, effect, seed, pairs=PAIRS):
    """One stratum whose cells all lie elsewhere, with effects of its own size."""
    cells, train, held_out = null_screen(seed, (60, 60))
    effects = {gene: effect * np.random.default_rng(k).normal(size=FEATURES) for k, gene in enumerate("ABCDEFGHIJ")}
    moved = {
        pair: cells[pair] + shift + sum(effects[gene] for gene in pair.split("+")) for pair in PAIRS if pair in pairs
    }
    known = {gene: part + shift + effects.get(gene, 0.0) for gene, part in train.items()}
    return Comparison(
        {pair: Measured.of(part, pair) for pair, part in moved.items()},
        Measured.of(held_out + shift, "control"),
        known["control"],
        Baselines(means(known)),
        lambda _, control: control,
        name,
    )


def test_scores_are_taken_within_each_stratum_and_averaged_condition_by_condition():
    one, other = stratum("x", 0.0, 1.0, 0), stratum("y", 7.0, 0.1, 1)
    both = evaluate_ood([one, other], seed=0)
    alone = [evaluate_ood([each], seed=0) for each in (one, other)]
    for row in ("additive", "mean_effect"):
        for pair in PAIRS:
            for name in ("pearson_delta", "energy_distance", "perturbation_rank_normalised"):
                expected = np.mean([each.per_condition[row][pair][name] for each in alone])
                assert both.per_condition[row][pair][name] == pytest.approx(expected)
    assert both.controls == (120, 120)
    widths = [np.ptp(each.intervals["additive"]["pearson_delta"]) for each in (both, *alone)]
    assert widths[0] < max(widths[1:])


def test_a_condition_of_one_stratum_alone_is_scored_there():
    one, other = stratum("x", 0.0, 1.0, 0), stratum("y", 7.0, 1.0, 1, pairs=PAIRS[:2])
    found = evaluate_ood([one, other], seed=0)
    assert found.conditions == PAIRS
    assert found.excluded == {}


def test_strata_pooled_would_show_a_difference_between_them_as_effect():
    """No effect anywhere, but conditions lie mostly in one of two strata and control mostly in the other."""
    (cells, train, held_out), (other_cells, other_train, other_held_out) = (null_screen(k, (60, 60)) for k in (0, 1))

    def mixed(here, there, share):
        cut = int(share * len(here))
        return np.concatenate([here[:cut], there[cut:] + np.linspace(-3, 3, FEATURES)])

    pooled = evaluate(
        {pair: mixed(cells[pair], other_cells[pair], 0.2) for pair in PAIRS},
        {name: mixed(part, other_train[name], 0.8 if name == "control" else 0.2) for name, part in train.items()},
        mixed(held_out, other_held_out, 0.8),
        lambda _, control: control,
    )
    assert pooled.baselines["mean_effect"]["pearson_delta"] > 0.9
