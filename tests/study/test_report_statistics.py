import math

import numpy as np
import pytest
from scipy import stats

from harness.study.statistics import Estimate, above_untrained, better, estimate


def test_interval_by_hand():
    # mean 2, sd 1, n = 3: 2 ± 4.302653 / √3 (tabulated t quantile for 2 degrees of freedom)
    value = estimate([1.0, 2.0, 3.0])
    assert (value.mean, value.n) == (2.0, 3)
    assert value.high - value.mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert value.mean - value.low == pytest.approx(value.half_width)


def test_interval_agrees_with_scipys():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=7)
    low, high = stats.t.interval(0.95, 6, loc=values.mean(), scale=stats.sem(values))
    value = estimate(values)
    assert (value.low, value.high) == (pytest.approx(low), pytest.approx(high))


def test_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(1)
    found = [estimate(rng.normal(0.5, 1.0, size=3)) for _ in range(2000)]
    assert np.mean([value.low <= 0.5 <= value.high for value in found]) == pytest.approx(0.95, abs=0.015)


def test_one_value_has_no_interval():
    assert estimate([0.4]) == Estimate(0.4, None, None, 1)
    assert estimate([0.4]).half_width is None


def test_equal_values_keep_their_last_digit_and_have_a_point_for_interval():
    assert estimate([0.1] * 3) == Estimate(0.1, 0.1, 0.1, 3)


def test_nothing_finite_is_no_estimate():
    assert estimate([]) is None
    assert estimate([math.nan, math.inf]) is None


def test_what_is_not_finite_is_left_out_and_counted():
    value = estimate([1.0, math.nan, 3.0])
    assert (value.mean, value.n, value.not_finite) == (2.0, 2, 1)


@pytest.mark.parametrize(
    ("mean", "direction", "expected"),
    [
        (0.81, "higher", True),
        (0.80, "higher", False),
        (0.7, "higher", False),
        (0.59, "lower", True),
        (0.6, "lower", False),
    ],
)
def test_above_untrained_looks_at_the_far_end_of_the_untrained_interval(mean, direction, expected):
    untrained = Estimate(0.7, 0.6, 0.8, 3)
    assert above_untrained(Estimate(mean, mean - 0.5, mean + 0.5, 3), untrained, direction) is expected


def test_above_untrained_with_one_seed_compares_with_its_value():
    untrained = Estimate(0.7, None, None, 1)
    assert above_untrained(Estimate(0.71, None, None, 1), untrained)
    assert not above_untrained(Estimate(0.7, None, None, 1), untrained)


def test_better_is_strict():
    assert better(1.0, 0.5, "higher")
    assert better(0.5, 1.0, "lower")
    assert not better(1.0, 1.0, "higher")
