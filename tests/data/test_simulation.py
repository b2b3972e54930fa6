"""Rows of simulated data: sizes, partners, held-out times."""

from pathlib import Path

import pytest
import torch

from harness.data import load
from harness.data.simulation import build
from harness.data_spec import Causal3DIdentData, PerturbseqData, SimulationData
from harness.errors import UserError
from harness.process_spec import LinearGaussianSpec


def _tiny(**more):
    return build(SimulationData(preset="tiny", **more), "f", Path())


def _steps(**more):
    return LinearGaussianSpec(responsive=2, invariant=2, lagged="diagonal", **more)


def test_the_preset_has_the_published_sizes():
    data = build(SimulationData(preset="published_sizes"), "f", Path())
    assert data.frame_shape == (500,)
    assert (data.truth.responsive.shape[1], data.truth.invariant.shape[1]) == (4, 7)
    assert data.u.shape[1] == 12
    assert len(data.splits["train"]) + len(data.splits["validation"]) == 3000
    assert len(data.splits["test"]) == 1000


def test_truth_and_split_depend_on_the_data_seed_only():
    first, again, other = _tiny(), _tiny(), _tiny(seed=1)
    assert torch.equal(first.frames, again.frames)
    assert not torch.equal(first.frames, other.frames)


def test_true_pairs_share_their_invariant_latents():
    data = _tiny()
    assert data.pairs == "true"
    invariant = data.truth.invariant[data.index]
    assert torch.equal(invariant[:, 0], invariant[:, 1])


@pytest.mark.parametrize("pairs", ["random", "none"])
def test_cells_are_the_same_whatever_their_partners(pairs):
    true, other = _tiny(), _tiny(pairs=pairs)
    assert other.pairs == pairs
    assert torch.equal(other.frames[other.index[:, 1]], true.frames[true.index[:, 1]])
    assert torch.equal(other.truth.responsive[other.index[:, 1]], true.truth.responsive[true.index[:, 1]])
    assert len(other.frames) == len(other.index)  # no twin is left lying about


def test_random_partners_are_other_controls_of_the_split_and_share_nothing():
    data = _tiny(pairs="random")
    for name, rows in data.splits.items():
        home = "test" if name in data.ood else name
        controls = data.index[data.control_rows(home), 1]
        partners = data.index[rows, 0]
        assert torch.isin(partners, controls).all()
        assert (partners != data.index[rows, 1]).all()
        assert len(partners.unique()) > len(controls) / 3
    pairs = data.truth.invariant[data.index]
    together = torch.corrcoef(torch.cat([pairs[:, 0], pairs[:, 1]], dim=1).T)[:2, 2:]
    assert together.abs().max() < 0.15


def test_where_there_is_no_partner_the_cell_stands_alone():
    data = _tiny(pairs="none")
    assert torch.equal(data.index[:, 0], data.index[:, 1])


def test_a_split_without_controls_is_refused_in_a_sentence():
    spec = SimulationData(features=20, environments=40, cells=50, test_cells=50, pairs="random")
    with pytest.raises(UserError, match=r"the validation split has no control cells to pair with; .*pairs: none"):
        build(spec, "f", Path())
    assert build(spec.model_copy(update={"pairs": "none"}), "f", Path()).pairs == "none"


def test_later_times_are_held_out():
    plain, data = _tiny(process=_steps(steps=3)), _tiny(process=_steps(steps=3, held_out_steps=2))
    assert plain.seen is None
    assert "later" not in plain.splits
    assert (data.seen, data.index.shape[1], data.ood) == (2, 4, ("double", "later"))
    assert torch.equal(plain.frames, data.frames)
    later = data.splits["later"]
    test = data.splits["test"]
    assert torch.equal(later, test[data.condition[test] > 0])
    assert 0 < len(later) < len(test)


def test_counts_from_known_latents_offer_the_same(tmp_path):
    sizes = {"genes": 30, "environments": 3, "doubles": 1, "cells": 120, "test_cells": 60, "double_cells": 20}
    data = load(PerturbseqData(**sizes, min_cells=5, process=_steps(steps=2, held_out_steps=1)), tmp_path)
    assert (data.seen, data.index.shape[1]) == (2, 3)
    assert data.ood[-1] == "later"
    assert (data.u[data.splits["later"]].sum(1) == 1).all()
    flat = LinearGaussianSpec(responsive=2, invariant=2)
    true, random, none = (
        load(PerturbseqData(**sizes, min_cells=5, process=flat, pairs=pairs), tmp_path)
        for pairs in ("true", "random", "none")
    )
    for other in (random, none):
        assert torch.equal(other.frames[other.index[:, 1]], true.frames[true.index[:, 1]])
    assert torch.equal(none.index[:, 0], none.index[:, 1])
    for name, rows in random.splits.items():
        home = "test" if name in random.ood else name
        assert torch.isin(random.index[rows, 0], random.index[random.control_rows(home), 1]).all()


def test_images_offer_the_same(tmp_path):
    sizes = {"environments": 2, "doubles": 0, "cells": 60, "test_cells": 50, "image_size": 8, "samples": 1}
    data = load(Causal3DIdentData(**sizes, pairs="random"), tmp_path)
    assert data.pairs == "random"
    train = data.splits["train"]
    assert torch.isin(data.index[train, 0], data.index[data.control_rows("train"), 1]).all()
