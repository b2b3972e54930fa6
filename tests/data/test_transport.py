"""Partners of cells at least cost: one function, for cells beside controls and for one time beside the next."""

from itertools import permutations

import numpy as np
import pytest

from harness.data.transport import partners_of


def cost(cells, others, partners):
    return float(np.square(cells - others[partners]).sum())


@pytest.mark.parametrize("others", [5, 7])
def test_no_other_choice_of_partners_costs_less(others):
    random = np.random.default_rng(0)
    cells, among = random.normal(0, 1, (5, 3)), random.normal(0, 1, (others, 3))
    found = partners_of(cells, among)
    assert len(set(found)) == 5
    least = min(cost(cells, among, list(choice)) for choice in permutations(range(others), 5))
    assert cost(cells, among, found) == pytest.approx(least)


def test_squares_are_what_distances_cost():
    """One long way and none are shorter together than two of middle length, and the sum of their squares is not."""
    cells, others = np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [1.5, 1.0]])
    assert partners_of(cells, others).tolist() == [0, 1]


@pytest.mark.parametrize(("cells", "most"), [(6, 2), (7, 3), (1, 1)])
def test_few_others_are_partners_several_times(cells, most):
    """All others but one are far, so that only the limit keeps cells from the near one."""
    others = np.array([[0.0], [50.0], [60.0]])
    found = partners_of(np.linspace(0, 1, cells)[:, None], others)
    uses = np.bincount(found, minlength=3)
    assert uses.max() == uses[0] == most
    assert uses.sum() == cells


def test_partners_do_not_depend_on_where_the_origin_is():
    """Differences are taken before squares, so that cells far from the origin lose no digits."""
    random = np.random.default_rng(1)
    cells, others = random.normal(0, 1, (60, 4)), random.normal(0, 1, (60, 4))
    np.testing.assert_array_equal(partners_of(cells + 1e6, others + 1e6), partners_of(cells, others))
