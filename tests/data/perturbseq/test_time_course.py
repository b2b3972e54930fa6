"""Time courses of destructive assays: days read from labels, rows put together from cells, late days held out.

The file has the layout of E-MTAB-14065: knock-downs by days D0, D2, D6, D12 of a differentiation.
"""

import re

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from harness import cli
from harness.data import load
from harness.data.fingerprint import fingerprint
from harness.data.perturbseq.time_course import transported
from harness.data.perturbseq.time_points import read_times
from harness.data_spec import PerturbseqData
from harness.errors import UserError
from harness.model_spec import CiteVAESpec
from harness.predictor import Predictor
from harness.trial import run_trial
from harness.trial_model import load_fitted
from harness.trial_spec import EvaluateSpec, SecondStageSpec, TrainSpec, TrialSpec

DAYS = ("D0", "D2", "D6", "D12")
GENES = ("GATA4", "NKX2", "TBX5", "HAND2", *(f"g{k}" for k in range(16)))
#: Cells of each condition on each day; two knock-downs begin after day 0, one was not measured on day 6.
CELLS = {
    "control": (40, 40, 30, 20),
    "GATA4": (20, 16, 12, 12),
    "NKX2": (0, 16, 24, 12),
    "TBX5": (0, 12, 12, 12),
    "GATA4+NKX2": (0, 12, 12, 12),
    "HAND2": (0, 12, 0, 12),
}
SPEC = {"min_cells": 5, "validation": 0.2}


def course(path, column="day", days=DAYS, cells=CELLS):
    """Counts in which the first gene tells the day, the second the condition; obs is shuffled."""
    random = np.random.default_rng(0)
    conditions = np.concatenate([np.repeat(name, sum(counts)) for name, counts in cells.items()])
    when = np.concatenate([np.repeat(np.arange(len(counts)), counts) for counts in cells.values()])
    order = random.permutation(len(when))
    conditions, when = conditions[order], when[order]
    counts = random.poisson(20.0, (len(when), len(GENES)))
    counts[:, 0] = 50 + 100 * when
    counts[:, 1] = 50 + 40 * np.array([list(cells).index(name) for name in conditions])
    obs = pd.DataFrame({"condition": conditions, column: np.array(days, dtype=object)[when]})
    obs.index = [f"cell{k}" for k in range(len(obs))]
    anndata.AnnData(counts.astype(np.float32), obs, pd.DataFrame(index=list(GENES))).write_h5ad(path)
    return str(path)


def read(tmp_path, **fields):
    path = tmp_path / "cells.h5ad"
    if not path.exists():
        course(path)
    return load(PerturbseqData(path=str(path), **{**SPEC, **fields}), tmp_path)


def frames_of(tmp_path, data):
    """Condition and day of each frame, by its values."""
    cells = anndata.read_h5ad(tmp_path / "cells.h5ad")
    logs = np.log1p(1e4 * cells.X / cells.X.sum(1, keepdims=True))
    nearest = torch.cdist(data.frames.double(), torch.from_numpy(logs).double()).argmin(1).numpy()
    return cells.obs["condition"].to_numpy()[nearest], cells.obs["day"].to_numpy()[nearest], nearest


@pytest.mark.parametrize("pairs", ["random", "ot"])
def test_a_row_has_a_cell_of_its_condition_on_each_day(pairs, tmp_path):
    data = read(tmp_path, time_pairs=pairs)
    condition, day, cell = frames_of(tmp_path, data)
    assert data.index.shape[1] == len(DAYS)
    assert data.pairs == "drawn"
    assert data.ood == ("double_seen2",)
    assert data.excluded == {"HAND2": "no cells at time D6"}
    of = np.array(data.conditions)[data.condition.numpy()]
    for time, name in enumerate(DAYS):
        frames = data.index[:, time].numpy()
        assert set(day[frames]) == {name}
        own = condition[frames] == of
        assert (
            own.all() if time else (own | ((condition[frames] == "control") & ~np.isin(of, ["control", "GATA4"]))).all()
        )
    split_of = {}
    for split, rows in data.splits.items():
        for frame in np.unique(data.index[rows].numpy()):
            split_of.setdefault(cell[frame], set()).add(split)
    # predicted conditions start from test's control cells; no other cell is in two splits
    assert {frozenset(found) for found in split_of.values() if len(found) > 1} == {frozenset(("test", "double_seen2"))}
    # every cell after the first day is in a row
    assert sum(len(found) > 0 for found in split_of.values()) == len(data.frames)
    for name in ("GATA4", "NKX2", "TBX5"):
        used = {cell[f] for f in np.unique(data.index[of == name, 1:].numpy())}
        assert len(used) == sum(CELLS[name][1:])


def test_one_seed_one_course(tmp_path):
    one, same, other = (read(tmp_path, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.index, same.index)
    assert not torch.equal(one.index, other.index)


def test_transport_finds_the_trajectory_a_cell_would_take():
    random = np.random.default_rng(0)
    place = random.normal(0, 1, 40).astype(np.float32)
    low = np.concatenate([place, place[::-1] + 5, place + 10])[:, None]  # all drift by five from time to time
    shuffled = [random.permutation(40), 40 + random.permutation(40), 80 + random.permutation(40)]
    index = np.stack(shuffled, axis=1)
    found = transported(index, {"test": np.arange(40)}, ["A"] * 40, low, 3)
    np.testing.assert_allclose(np.diff(low[found, 0], axis=1), 5, atol=1e-5)
    assert np.array_equal(found[:, 2], index[:, 2])
    for time in range(3):
        assert set(found[:, time]) == set(index[:, time])
    splits = {"train": np.arange(40), "validation": np.arange(0)}
    blind = transported(index, splits, ["A"] * 40, low, 2)
    assert np.array_equal(blind[:, 1:], index[:, 1:])


def test_transport_costs_less_than_chance(tmp_path):
    costs = []
    for pairs in ("random", "ot"):
        data = read(tmp_path, time_pairs=pairs)
        rows = data.splits["train"]
        steps = data.frames[data.index[rows, 1:]] - data.frames[data.index[rows, :-1]]
        costs.append(float(steps.square().sum(-1).mean()))
    assert costs[1] < 0.9 * costs[0]


@pytest.mark.parametrize("held_out", [1, ["D12"], [12], ["12"]])
def test_the_last_day_is_held_out(held_out, tmp_path):
    data = read(tmp_path, split={"kind": "leave_time_out", "held_out": held_out})
    _, day, cell = frames_of(tmp_path, data)
    assert data.seen == 3
    assert data.ood == ("later",)
    late = set(cell[day[np.arange(len(day))] == "D12"])
    for split in ("train", "validation"):
        assert not late & set(cell[np.unique(data.index[data.splits[split]].numpy())])
    used = set(cell[np.unique(data.index[data.splits["later"], -1].numpy())])
    assert len(used) == sum(CELLS[name][3] for name in ("GATA4", "NKX2", "TBX5", "GATA4+NKX2"))
    record = data.split_record
    assert record["held_out"] == 1
    assert len(record["cells"]["test"]["NKX2"]) == 12 + 3 + 5  # all of day 12, a fifth of days 2 and 6


def test_two_days_are_held_out(tmp_path):
    data = read(tmp_path, split={"kind": "leave_time_out", "held_out": ["D6", "D12"]})
    assert data.seen == 2
    _, day, _ = frames_of(tmp_path, data)
    assert set(day[np.unique(data.index[data.splits["train"]].numpy())]) == {"D0", "D2"}


#: Why a time between others is refused.
GAP = "models go from each time to the next, and none can be trained across a time without cells; "
LAST = "hold out the last of the times D0, D2, D6, D12"


@pytest.mark.parametrize(
    ("held_out", "sentence"),
    [
        (
            ["D6"],
            f"names D6 but not D12 after it: {GAP}to predict D6, leave the cells of later times out of the file, or to "
            "predict D12, give held_out: [D6, D12]",
        ),
        ([6], "names D6 but not D12 after it"),
        (["D2"], f"names D2 but not D6, D12 after it: {GAP}{LAST}"),
        (["D2", "D12"], f"names D2 but not D6 after it: {GAP}{LAST}"),
        (["D0"], f"names D0 but not D2, D6, D12 after it: {GAP}{LAST}"),
        (["D3"], "names time 'D3', which no cell has; times are D0, D2, D6, D12"),
        (["D12", "D6", "D2"], "leaves fewer than two of the times"),
        (3, "leaves fewer than two of the times"),
        (9, "leaves fewer than two of the times"),
    ],
)
def test_times_that_cannot_be_held_out_are_refused(held_out, sentence, tmp_path):
    with pytest.raises(UserError, match=re.escape(sentence)):
        read(tmp_path, split={"kind": "leave_time_out", "held_out": held_out})


def test_what_is_said_to_a_time_between_others_can_be_done(tmp_path):
    """Day 6 is predicted from a file without day 12."""
    course(tmp_path / "cells.h5ad", days=DAYS[:3], cells={name: counts[:3] for name, counts in CELLS.items()})
    data = read(tmp_path, split={"kind": "leave_time_out", "held_out": ["D6"]})
    _, day, _ = frames_of(tmp_path, data)
    assert set(day[data.index[data.splits["later"], -1]]) == {"D6"}
    assert "D6" not in set(day[np.unique(data.index[data.splits["train"]].numpy())])


def test_a_launch_with_a_time_between_others_held_out_is_one_sentence(tiny_study, tmp_path, capsys):
    root = tmp_path / "runs"
    split = "split: {kind: leave_time_out, held_out: [D6]}"
    data = f"data={{kind: perturbseq, path: {course(tmp_path / 'cells.h5ad')}, min_cells: 5, {split}}}"
    assert cli.main(["launch", str(tiny_study), "--root", str(root), "--set", data]) == 2
    errors = capsys.readouterr().err
    assert GAP in errors
    assert "Traceback" not in errors


def test_a_perturbation_is_left_out_over_time(tmp_path):
    split = {"kind": "leave_perturbation_out", "held_out": ["NKX2"]}
    data = read(tmp_path, split=split, perturbation_features="loadings", loading_components=3)
    assert data.ood == ("single_unseen", "double_seen1")
    assert data.perturbations == ("GATA4", "TBX5")
    condition, day, _ = frames_of(tmp_path, data)
    rows = data.splits["single_unseen"]
    assert set(condition[data.index[rows, 1:].numpy().ravel()]) == {"NKX2"}
    assert "NKX2" not in set(condition[np.unique(data.index[data.splits["train"]].numpy())])
    assert set(day[data.index[rows, -1]]) == {"D12"}


# ------------------------------------------------------------------------------------------- trials


def trial(tmp_path, folder, **fields):
    course(tmp_path / "cells.h5ad")
    data = PerturbseqData(path=str(tmp_path / "cells.h5ad"), **{**SPEC, **fields})
    spec = TrialSpec(
        model=CiteVAESpec(latent_dim=4, responsive_dim=2, hidden=8, layers=1, mechanisms="free"),
        data=data,
        train=TrainSpec(epochs=3, second_stage=SecondStageSpec(restarts=0)),
        evaluate=EvaluateSpec(rotation_steps=0, cells=20),
        data_fingerprint=fingerprint(data),
    )
    return run_trial(spec, tmp_path / folder, device="cpu")


@pytest.mark.parametrize(
    ("fields", "split"),
    [
        ({"time_pairs": "ot"}, "double_seen2"),
        ({"split": "leave_time_out"}, "later"),
        (
            {
                "split": {"kind": "leave_perturbation_out", "held_out": ["NKX2"]},
                "perturbation_features": "loadings",
            },
            "single_unseen",
        ),
    ],
)
def test_cite_vae_trains_on_a_course_and_is_scored_where_it_is_blind(fields, split, tmp_path):
    result = trial(tmp_path, "trial", **fields)
    assert result.state == "finished", result.failure
    assert np.isfinite(result.metrics[f"ood/{split}/rmse"])
    assert np.isfinite(result.baselines[f"baseline/mean_effect/ood/{split}/rmse"])


def test_a_prediction_starts_on_the_first_day(tmp_path):
    trial(tmp_path, "trial")
    fitted = load_fitted(tmp_path / "trial", tmp_path / "cache")
    data = read(tmp_path)
    _, day, _ = frames_of(tmp_path, data)
    rows = data.control_rows("train")
    assert set(day[data.start_frames(rows)]) == {"D0"}
    assert set(day[data.last_frames(rows)]) == {"D12"}
    predictor = Predictor(fitted.model, data, 0)
    late = data.frames[data.last_frames(rows)[:8]].double().numpy()
    # cells of the last day say how many are wanted, and nothing more
    assert np.array_equal(predictor("GATA4", late), predictor("GATA4", late + 1.0))


@pytest.mark.parametrize("pairing", ["random", "ot", "true"])
def test_a_model_cannot_pair_a_course_anew(pairing, tmp_path):
    from harness.training.pairing import Pairing

    data = read(tmp_path)
    with pytest.raises(UserError, match=f"pairing: {pairing} is not possible with a time course of a file"):
        Pairing(data, pairing, 0)
    pairs = Pairing(data, "auto", 0)
    assert torch.equal(pairs.index("train", 1), data.index[data.splits["train"]])


# ------------------------------------------------------------------------------------------- labels


def times(values, column="day", asked=None, conditions=None):
    obs = pd.DataFrame({"condition": conditions or ["A"] * len(values), column: values})
    return read_times(obs, obs["condition"].tolist(), "file", asked, "condition")


@pytest.mark.parametrize(
    ("values", "points", "labels"),
    [
        (["D0", "D12", "D2", "D6"], (0, 2, 6, 12), ("D0", "D2", "D6", "D12")),
        (["day 2", "day 10", "Day 2"], (2, 10), ("day 2", "day 10")),
        (["6h", "24h"], (6, 24), ("6h", "24h")),
        (["0.5", "3"], (0.5, 3), ("0.5", "3")),
        ([7, 0, 0, 3], (0, 3, 7), ("0", "3", "7")),
        ([1.5, 0.0], (0, 1.5), ("0.0", "1.5")),
        (pd.Categorical(["D2", "D0"]), (0, 2), ("D0", "D2")),
    ],
)
def test_times_are_read_by_their_number(values, points, labels):
    found = times(values, asked="day")
    assert found.points == points
    assert found.labels == labels
    assert [found.points[k] for k in found.of_cell] == [
        dict(zip(labels, points, strict=True)).get(str(v), 2) for v in values
    ]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (["D2", "6h"], "times in different words .'D2', '6h'.; write times as numbers"),
        (["early", "late"], "'early', which is not clear as a time"),
        (["D1-2", "D3"], "'D1-2', which is not clear"),
        ([True, False], "'True', which is not clear"),
        (["D0", None, "D2"], "1 of 3 cells have no time"),
    ],
)
def test_unclear_times_are_refused(values, sentence):
    with pytest.raises(UserError, match=sentence):
        times(values, asked="day")
    # nobody said that the column holds times
    assert times(values) is None
    assert times(values, asked="none") is None


BEGUN = ["control", "control", "A", "B"]


@pytest.mark.parametrize(
    ("days", "conditions", "is_course"),
    [
        (["D0", "D2", "D2", "D2"], BEGUN, True),
        (["D0", "D2", "D2", "D0"], BEGUN, False),  # half of the perturbations are there on the first day
        (["D0", "D2", "D0", "D2"] * 2, ["control"] * 2 + ["A"] * 2 + ["control"] * 2 + ["B"] * 2, False),  # a batch
        # most begin later, and what was there on the first day is gone on the last: two libraries, one after the other
        (["D0", "D2", "D0", "D2", "D2"], ["control", "control", "A", "B", "C"], False),
        (["D0", "D2", "D0", "D2", "D2", "D2"], ["control", "control", "A", "A", "B", "C"], True),
    ],
)
def test_days_are_a_time_course_unasked_only_where_perturbations_begin_after_the_first(days, conditions, is_course):
    assert (times(days, conditions=conditions) is not None) is is_course
    assert times(days, conditions=conditions, asked="day").points == (0, 2)


def test_a_column_of_times_is_found_or_named():
    assert times(["D0", "D2", "D2", "D2"], column="Time", conditions=BEGUN).column == "Time"
    assert times(["D0", "D2", "D2", "D2"], column="stage", conditions=BEGUN) is None
    assert times(["D0", "D2"], column="stage", asked="stage").points == (0, 2)
    assert times(["D2", "D2"]) is None
    assert times([None, None]) is None
    with pytest.raises(UserError, match="holds one time only"):
        times(["D2", "D2"], asked="day")
    with pytest.raises(UserError, match=r"no column obs.'hour'.; data\.time can be none, or one of: condition, day"):
        times(["D0", "D2"], asked="hour")


@pytest.mark.parametrize(
    ("cells", "fields", "sentence"),
    [
        ({**CELLS, "control": (40, 40, 0, 20)}, {}, "no control cells at time D6"),
        ({**CELLS, "control": (0, 40, 30, 20)}, {}, "no control cells at time D0"),
        ({**CELLS, "TBX5": (0, 12, 2, 12)}, {}, "fewer than 5 cells .least: TBX5 at time D6 with 2"),
        (CELLS, {"pairs": "none"}, "a time course, whose rows need their earlier times"),
    ],
)
def test_a_course_with_holes_is_refused(cells, fields, sentence, tmp_path):
    course(tmp_path / "cells.h5ad", cells=cells)
    with pytest.raises(UserError, match=sentence):
        read(tmp_path, **fields)


def test_a_course_can_be_read_as_a_snapshot(tmp_path):
    data = read(tmp_path, time="none")
    assert data.index.shape[1] == 2
    assert data.pairs == "random"
    with pytest.raises(UserError, match="time_pairs is ot, but the cells have no times"):
        read(tmp_path, time="none", time_pairs="ot")


def test_times_are_for_files():
    with pytest.raises(ValueError, match=r"come from process\.steps"):
        PerturbseqData(split="leave_time_out")
