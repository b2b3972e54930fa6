"""What mini-batches hold."""

import pytest
import torch

from harness.data.seeding import generator
from harness.errors import UserError
from harness.training.batches import epoch_batches

#: 40 controls, and 25, 8 and 3 cells of three perturbations.
CONDITION = torch.tensor([0] * 40 + [1] * 25 + [2] * 8 + [3] * 3)[torch.randperm(76, generator=generator(5))]


def _epoch(kind, epoch=1, size=16, condition=CONDITION):
    return epoch_batches(condition, kind, size, generator(0, "batches", epoch))


@pytest.mark.parametrize("kind", ["shuffled", "balanced", "by_condition"])
def test_an_epoch_is_the_same_when_it_comes_again_and_the_next_is_another(kind):
    first, again, other = _epoch(kind), _epoch(kind), _epoch(kind, 2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(torch.cat(first), torch.cat(other))


def test_shuffled_batches_hold_every_row_once():
    batches = _epoch("shuffled")
    assert [len(batch) for batch in batches] == [16, 16, 16, 16, 12]
    assert torch.cat(batches).sort().values.tolist() == list(range(76))


def test_balanced_batches_hold_each_condition_alike():
    batches = _epoch("balanced")
    assert [len(batch) for batch in batches] == [16, 16, 16, 16, 12]
    for batch in batches:
        assert torch.bincount(CONDITION[batch], minlength=4).tolist() == [len(batch) // 4] * 4
    for batch in _epoch("balanced", size=10):  # which four conditions do not divide
        counts = torch.bincount(CONDITION[batch], minlength=4)
        assert counts.max() - counts.min() <= 2


def test_balanced_batches_take_all_cells_of_a_condition_before_any_again():
    rows = torch.cat(_epoch("balanced"))
    times = torch.bincount(rows, minlength=76)
    for which in range(4):
        of_it = times[which == CONDITION]
        assert of_it.max() - of_it.min() <= 1
    assert times[CONDITION == 3].min() >= 6


def test_large_conditions_show_all_their_cells_over_epochs():
    seen = {row for epoch in range(12) for batch in _epoch("balanced", epoch) for row in batch.tolist()}
    assert len(seen) == 76


def test_batches_by_condition_hold_perturbed_cells_of_one():
    batches = _epoch("by_condition", size=8)
    assert all(len(CONDITION[batch].unique()) == 1 for batch in batches)
    assert sorted((int(CONDITION[batch[0]]), len(batch)) for batch in batches) == [
        (1, 8),
        (1, 8),
        (1, 8),
        (2, 8),
        (3, 3),
    ]
    rows = torch.cat(batches)
    assert len(rows.unique()) == len(rows)


def test_no_batch_holds_a_single_cell():
    assert [len(batch) for batch in _epoch("shuffled", size=15)] == [15] * 5
    assert all(len(batch) > 1 for batch in _epoch("balanced", size=25))
    with pytest.raises(UserError, match="too few training cells"):
        _epoch("by_condition", condition=torch.tensor([0, 0, 1]))
