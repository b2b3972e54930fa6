"""Temporal Causal3DIdent as `PerturbationData`: transitions under CITRIS dynamics, drawn by us or released.

A row is a transition: ``index[r, 0]`` is the frame before the interventions of ``u`` act and ``index[r, 1]`` the frame
after, and successive rows of a sequence share a frame. ``u`` is multi-hot over the variables intervened on.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.batch import PerturbationData, Truth
from harness.data.cache import built_once
from harness.data.causal3dident.citris import ANGLES, COLUMNS, to_scene
from harness.data.causal3dident.dataset import build_dataset, draw_frames, open_kept
from harness.data.causal3dident.release import resized
from harness.data.causal3dident.temporal_release import read_sequences
from harness.data.causal3dident.transitions import Transitions, draw_transitions, released_transitions
from harness.data.progress import ProgressLine
from harness.data_spec import TemporalCausal3DIdentData
from harness.process_spec import CitrisSpec

#: Released frames copied at a time.
_CHUNK = 256


def build_temporal(spec: TemporalCausal3DIdentData, fingerprint: str, cache_dir: Path) -> PerturbationData:
    """Build the data, or open what was built before; see ``harness.data.causal3dident.build``."""
    if not isinstance(spec.process, CitrisSpec):
        return build_dataset(spec, fingerprint, cache_dir)
    name = f"{spec.kind}-{fingerprint}"

    def fill(folder: Path) -> None:
        if spec.path is None:
            rows = draw_transitions(spec)
            scenes = to_scene(rows.latents)
            draw_frames(spec, scenes, rows.classes, cache_dir / f".{name}.images.npy", folder)
        else:
            released = read_sequences(Path(spec.path), "train", cache_dir)
            rows = released_transitions(spec, released)
            assert rows.place is not None
            _copy_frames(released.images, rows.place, spec.image_size, folder / "frames.npy")
        _write(folder, rows)

    return _read(built_once(cache_dir, name, fill), spec, fingerprint)


def _copy_frames(images: NDArray[np.uint8], places: NDArray[np.int64], size: int, target: Path) -> None:
    """The images (N, 3, height, width) at some places, resized where they have another size than ``size``."""
    frames = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=(len(places), 3, size, size))
    progress = ProgressLine("reading images")
    for begin in range(0, len(places), _CHUNK):
        progress(begin, len(places))
        here = slice(begin, begin + _CHUNK)
        frames[here] = _resized(images[places[here]], size)
    progress(len(places), len(places))
    frames.flush()


def _resized(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Images (k, 3, size, size), resized as the static release's are."""
    if images.shape[-1] == size:
        return images
    from PIL import Image

    coloured = (Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in images)
    return np.stack([resized(image, size) for image in coloured])


def _write(folder: Path, rows: Transitions) -> None:
    """Everything but the pixels, so that opening draws no random number."""
    arrays: dict[str, NDArray[np.generic]] = {
        "index": rows.index,
        "hits": rows.hits,
        "condition": rows.conditions.of(rows.hits),
        "latents": rows.latents,
        "classes": rows.classes,
    }
    arrays |= {f"split_{name}": members for name, members in rows.splits.items()}
    np.savez(folder / "rows.npz", allow_pickle=False, **arrays)
    names = {
        "conditions": rows.conditions.names,
        "perturbations": rows.conditions.perturbations,
        "excluded": rows.excluded,
        "quality": rows.quality,
    }
    (folder / "names.json").write_text(json.dumps(names, indent=1), encoding="utf-8")


def _read(folder: Path, spec: TemporalCausal3DIdentData, fingerprint: str) -> PerturbationData:
    names, tensors, splits, frames = open_kept(folder)
    return PerturbationData(
        frames=frames,
        index=tensors["index"],
        u=tensors["hits"].float(),
        condition=tensors["condition"],
        conditions=tuple(names["conditions"]),
        perturbations=tuple(names["perturbations"]),
        splits=splits,
        ood=("double",) if "double" in splits else (),
        pairs="true",
        fingerprint=fingerprint,
        targets=_targets(spec),
        truth=_truth(spec, tensors["latents"].float(), tensors["classes"]),
        excluded=names["excluded"],
        quality=names["quality"],
    )


def _truth(spec: TemporalCausal3DIdentData, latents: torch.Tensor, classes: torch.Tensor) -> Truth:
    """Raw latents by name, positions in [-2, 2] and angles in radians; the shape is a class and no latent."""

    def columns(names: tuple[str, ...]) -> torch.Tensor:
        return latents[:, [COLUMNS.index(name) for name in names]]

    return Truth(
        responsive=columns(spec.responsive),
        invariant=columns(spec.invariant),
        responsive_names=spec.responsive,
        invariant_names=spec.invariant,
        periodic=tuple(name for name in (*spec.responsive, *spec.invariant) if name in ANGLES),
        classes=classes,
    )


def _targets(spec: TemporalCausal3DIdentData) -> torch.Tensor:
    """(k, d_v) bool, the responsive latents that each variable is made of; none for the shape."""
    rows = [[name in parts for name in spec.responsive] for parts in spec.variables.values()]
    return torch.tensor(rows, dtype=torch.bool)
