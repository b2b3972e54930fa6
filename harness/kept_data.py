"""What predictions need of a trial's data, kept beside its weights: the trial then predicts without the data file."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.batch import PerturbationData
from harness.data.seeding import generator
from harness.errors import UserError
from harness.files import write_when_room

#: Most control cells that predictions begin from; bounds the file.
MOST_CONTROLS = 1000


def kept(data: PerturbationData) -> PerturbationData:
    """Data that hold nothing but control cells of the training split, and names.

    Parameters
    ----------
    data
        All of a trial's.

    Returns
    -------
    The same type, with each control cell's last frame that training may see as a row of the training split; at most
    1,000 of them, drawn at random where there are more. No truth, no other cell.
    """
    rows = data.control_rows("train")
    if len(rows) > MOST_CONTROLS:
        random = generator(0, "kept control cells")
        rows = rows[torch.randperm(len(rows), generator=random)[:MOST_CONTROLS].sort().values]
    frames = data.start_frames(rows)
    return _of_controls(
        data.frames[frames],
        data.index.shape[1],
        width=data.u.shape[1],
        perturbations=data.perturbations,
        pairs=data.pairs,
        fingerprint=data.fingerprint,
        targets=data.targets,
        feature_names=data.feature_names,
        library=None if data.library is None else data.library[frames],
        perturbation_vectors=data.perturbation_vectors,
        vector_names=data.vector_names,
    )


def write_kept(path: Path, data: PerturbationData) -> None:
    """Write what `kept` keeps of ``data``."""
    small = kept(data)
    arrays: dict[str, NDArray[Any]] = {
        "frames": small.frames.numpy(),
        "times": np.array(small.index.shape[1]),
        "width": np.array(small.u.shape[1]),
        "perturbations": np.array(small.perturbations, dtype=np.str_),
        "pairs": np.array(small.pairs),
        "fingerprint": np.array(small.fingerprint),
        "feature_names": np.array(small.feature_names, dtype=np.str_),
        "vector_names": np.array(small.vector_names, dtype=np.str_),
    }
    for name in ("targets", "library", "perturbation_vectors"):
        value = getattr(small, name)
        if value is not None:
            arrays[name] = value.numpy()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_when_room(path, buffer.getvalue())


def read_kept(path: Path) -> PerturbationData | None:
    """What `write_kept` wrote; None where there is no such file.

    Raises
    ------
    UserError
        If the file is no such file, e.g. torn.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return _of_controls(
            torch.from_numpy(arrays["frames"]),
            int(arrays["times"]),
            width=int(arrays["width"]),
            pairs=str(arrays["pairs"]),
            fingerprint=str(arrays["fingerprint"]),
            **{name: tuple(arrays[name].tolist()) for name in ("perturbations", "feature_names", "vector_names")},
            **{
                name: torch.from_numpy(arrays[name]) if name in arrays else None
                for name in ("targets", "library", "perturbation_vectors")
            },
        )
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path} is not a readable file of control cells ({error}); remove it, so that the data are read instead"
        ) from error


def _of_controls(frames: torch.Tensor, times: int, *, width: int, **others: Any) -> PerturbationData:
    """Data of control cells (n, ...) alone, each as a trajectory of ``times`` equal frames."""
    everywhere = torch.arange(len(frames))
    none = everywhere[:0]
    return PerturbationData(
        frames=frames,
        index=everywhere[:, None].expand(-1, times),
        u=torch.zeros(len(frames), width),
        condition=torch.zeros(len(frames), dtype=torch.int64),
        conditions=("control",),
        splits={"train": everywhere, "validation": none, "test": none},
        ood=(),
        **others,
    )
