"""What is kept of the data for predictions: control cells of the training split, and all that names need."""

import numpy as np
import pytest
import torch

from harness.data.batch import PerturbationData
from harness.errors import UserError
from harness.kept_data import MOST_CONTROLS, kept, read_kept, write_kept


def data(controls=30, **changes):
    """Trajectories of three frames, the last held out; rows in turn control, A and B."""
    rows = 3 * controls
    frames = torch.arange(9 * controls * 2, dtype=torch.float32).reshape(-1, 2)
    condition = torch.arange(rows) % 3
    fields = {
        "frames": frames,
        "index": torch.arange(3 * rows).reshape(rows, 3),
        "u": torch.nn.functional.one_hot(condition, 3)[:, 1:].float(),
        "condition": condition,
        "conditions": ("control", "A", "B"),
        "perturbations": ("A", "B"),
        "splits": {
            "train": torch.arange(rows - 9),
            "validation": torch.arange(rows - 9, rows - 6),
            "test": torch.arange(rows - 6, rows),
        },
        "ood": (),
        "pairs": "true",
        "fingerprint": "f",
        "feature_names": ("g1", "g2"),
        "seen": 2,
    }
    return PerturbationData(**{**fields, **changes})


def test_only_training_controls_are_kept_at_the_last_frame_seen():
    whole = data()
    small = kept(whole)
    rows = torch.arange(0, 81, 3)
    assert torch.equal(small.frames, whole.frames[whole.index[rows, 1]])
    assert small.index.shape == (27, 3)
    assert torch.equal(small.last_frames(small.control_rows("train")), torch.arange(27))
    assert (small.seen, small.truth, small.ood) == (None, None, ())


def test_what_is_kept_of_what_was_kept_is_the_same():
    small = kept(data(MOST_CONTROLS + 40))
    assert len(small.frames) == MOST_CONTROLS
    again = kept(small)
    assert torch.equal(again.frames, small.frames)
    assert len(torch.unique(small.frames[:, 0])) == MOST_CONTROLS


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"targets": torch.tensor([[True, False], [False, True]])},
        {"library": torch.arange(270, dtype=torch.float32)},
        {
            "perturbation_vectors": torch.arange(12, dtype=torch.float32).reshape(3, 4),
            "vector_names": ("A", "B", "C"),
            "u": torch.zeros(90, 4),
        },
    ],
    ids=["names", "targets", "library", "vectors"],
)
def test_it_is_read_as_it_was_written(tmp_path, changes):
    whole = data(**changes)
    write_kept(tmp_path / "kept.npz", whole)
    read, small = read_kept(tmp_path / "kept.npz"), kept(whole)
    for name in ("perturbations", "feature_names", "vector_names", "fingerprint", "pairs", "conditions"):
        assert getattr(read, name) == getattr(small, name)
    for name in ("frames", "index", "u", "targets", "library", "perturbation_vectors"):
        found, expected = getattr(read, name), getattr(small, name)
        assert (found is None) == (expected is None)
        if expected is not None:
            np.testing.assert_array_equal(found, expected)


def test_a_torn_file_is_refused_and_a_missing_one_is_none(tmp_path):
    assert read_kept(tmp_path / "none.npz") is None
    write_kept(tmp_path / "kept.npz", data())
    whole = (tmp_path / "kept.npz").read_bytes()
    (tmp_path / "torn.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a readable file of control cells"):
        read_kept(tmp_path / "torn.npz")
