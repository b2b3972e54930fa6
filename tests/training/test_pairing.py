"""Which control stands beside each cell."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from harness.data.simulation import build
from harness.data_spec import SimulationData
from harness.errors import UserError
from harness.process_spec import LinearGaussianSpec
from harness.training.pairing import Pairing


def test_true_pairs_are_the_datas_own(data):
    rows = data.splits["train"]
    assert torch.equal(Pairing(data, "auto", 0).index("train", 3), data.index[rows])


@pytest.mark.parametrize("pairs", ["true", "nearest", "random", "none"])
def test_auto_is_what_the_data_offer(data, pairs):
    assert Pairing(replace(data, pairs=pairs), "auto", 0).kind == pairs


def test_partners_can_be_drawn_where_the_data_offer_none():
    data = build(SimulationData(preset="tiny", pairs="none"), "f", Path())
    rows = data.splits["train"]
    assert torch.equal(Pairing(data, "auto", 0).index("train", 1), data.index[rows])
    index = Pairing(data, "random", 0).index("train", 1)
    assert torch.isin(index[:, 0], data.index[data.control_rows("train"), -1]).all()
    assert torch.equal(index[:, 1], data.index[rows, 1])


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("kind", ["random", "ot"])
def test_partners_are_controls_of_the_same_split(data, kind, split):
    controls = set(data.index[data.control_rows(split), -1].tolist())
    index = Pairing(data, kind, 0).index(split, 1)
    assert set(index[:, 0].tolist()) <= controls
    assert torch.equal(index[:, 1], data.index[data.splits[split], 1])


def test_random_partners_change_with_the_epoch_and_not_otherwise(data):
    pairing = Pairing(data, "random", 0)
    assert torch.equal(pairing.index("train", 1), Pairing(data, "random", 0).index("train", 1))
    assert not torch.equal(pairing.index("train", 1), pairing.index("train", 2))


def test_transport_has_the_least_cost(data):
    index = Pairing(data, "ot", 0).index("train", 1)
    rows = data.splits["train"]
    here = data.condition[rows] == 1
    controls = data.index[data.control_rows("train"), -1]
    frames = data.frames
    repeats = -(-int(here.sum()) // len(controls))
    cost = torch.cdist(frames[index[here, 1]], frames[controls.repeat(repeats)]).square().numpy()
    row, column = linear_sum_assignment(cost)
    ours = (frames[index[here, 1]] - frames[index[here, 0]]).square().sum().item()
    # costs are taken in 20 components, which are all of this data's 20 features
    assert ours == pytest.approx(cost[row, column].sum(), rel=1e-3)


@pytest.mark.parametrize("pairs", ["random", "none"])
def test_pairs_that_are_not_there_are_refused(data, pairs):
    with pytest.raises(UserError, match="pairing: true needs data with true pairs"):
        Pairing(replace(data, pairs=pairs), "true", 0)


def test_held_out_times_are_not_trained_on():
    process = LinearGaussianSpec(responsive=2, invariant=2, steps=3, lagged="diagonal", held_out_steps=2)
    data = build(SimulationData(preset="tiny", process=process), "f", Path())
    for kind in ("auto", "none"):
        index = Pairing(data, kind, 0).index("train", 1)
        assert torch.equal(index, data.index[data.splits["train"], :2])


def test_trajectories_are_not_torn_apart():
    spec = SimulationData(preset="tiny", process=LinearGaussianSpec(responsive=2, invariant=2, steps=2, lagged="dense"))
    data = build(spec, "f", Path())
    with pytest.raises(UserError, match="break the trajectories"):
        Pairing(data, "random", 0)
