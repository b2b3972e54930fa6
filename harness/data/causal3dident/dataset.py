"""From a spec to `PerturbationData`: latents, then images drawn or served, built once and kept in the cache."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.batch import Mechanisms, PerturbationData, Truth
from harness.data.cache import built_once
from harness.data.causal3dident.image_cache import write_taken
from harness.data.causal3dident.meshes import meshes_for
from harness.data.causal3dident.native import sample_native
from harness.data.causal3dident.release import Pool, make_pools
from harness.data.causal3dident.rendering import job_of, render_to
from harness.data.causal3dident.row_limits import as_served, lowered_words
from harness.data.causal3dident.scene import COLUMNS
from harness.data.causal3dident.serving import notes_of, quality_of, serve_rows
from harness.data.causal3dident.squash import Squash
from harness.data.latent_process import Design, make_design, sample_process
from harness.data.later import hold_out_later
from harness.data.partners import paired
from harness.data.progress import ProgressLine
from harness.data.seeding import derive
from harness.data_spec import Causal3DIdentData, ImageData, TemporalCausal3DIdentData
from harness.process_spec import LinearGaussianSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Spec = Causal3DIdentData | TemporalCausal3DIdentData


@dataclass(frozen=True)
class Wanted:
    """Scenes asked for, before anything is drawn.

    Attributes
    ----------
    scenes : (n, T, 10) in [-1, 1]; time 0 is the control twin.
    classes : (n,) class of each row's object.
    squash : of the named latents, responsive then invariant; None where the process lives in [-1, 1] already.
    mechanisms : of a linear-Gaussian process.
    """

    scenes: Floats
    classes: Ints
    squash: Squash | None = None
    mechanisms: Mechanisms | None = None

    def truth(self, named: Floats) -> Floats:
        """Latents of the process (m, d) of frames whose named scene latents are ``named`` (m, d)."""
        return named if self.squash is None else self.squash.from_image(named)


@dataclass(frozen=True)
class Stored:
    """A built dataset without its pixels.

    Attributes
    ----------
    index : (n, T) rows of frames.
    scenes : (m, 10) scene of each frame.
    latents : (m, d) latents of the process, responsive then invariant.
    quality : numbers worth logging.
    notes : sentences about the data.
    """

    index: Ints
    scenes: Floats
    latents: Floats
    quality: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def build_dataset(spec: Spec, fingerprint: str, cache_dir: Path) -> PerturbationData:
    """Build native or linear-Gaussian data, or open what was built before; see ``harness.data.causal3dident.build``."""
    assert isinstance(spec.seed, int), "the plan resolves data.seed: per_trial"
    name = f"{spec.kind}-{fingerprint}"

    def fill(folder: Path) -> None:
        if isinstance(spec, Causal3DIdentData) and spec.path is not None:
            _fill_from_release(spec, cache_dir, folder)
            return
        design = make_design(spec, spec.responsive)
        wanted = wanted_scenes(spec, design)
        _write(folder, design, wanted, _render(spec, wanted, cache_dir / f".{name}.images.npy", folder))

    return _read(built_once(cache_dir, name, fill), spec, fingerprint)


def _fill_from_release(asked: Causal3DIdentData, cache_dir: Path, folder: Path) -> None:
    """Serve as many of the rows asked for as the release has images for."""
    assert asked.path is not None
    random = np.random.default_rng(derive(int(asked.seed), "release"))
    pools = make_pools(Path(asked.path), asked.classes, asked.validation, random)
    spec = as_served(asked, pools)
    design = make_design(spec, spec.responsive)
    wanted = wanted_scenes(spec, design)
    stored = _serve(spec, pools, design, wanted, cache_dir, folder)
    lowered = lowered_words(asked, spec)
    _write(folder, design, wanted, replace(stored, notes=(*([lowered] if lowered else []), *stored.notes)))


def wanted_scenes(spec: Spec, design: Design) -> Wanted:
    """Draw the latents of every row and place them in scenes; latents that are not named are held at 0."""
    assert isinstance(spec.seed, int)
    if not isinstance(spec.process, LinearGaussianSpec):
        assert isinstance(spec, Causal3DIdentData), "temporal dynamics are drawn in temporal.py"
        scenes, classes = sample_native(spec, design, spec.seed)
        return Wanted(scenes, classes)
    sample = sample_process(spec.process, design, spec.seed)
    n, times, _ = sample.responsive.shape
    twice = sample.invariant[:, None].expand(n, times, -1)
    latents = torch.cat([sample.responsive, twice], dim=2).double().numpy()
    seen = design.environment.numpy() <= len(design.perturbations)  # held-out doubles do not shape the mixing
    squash = Squash.fitted(latents[seen, 1:].reshape(-1, latents.shape[2]), spec.squash)
    scenes = np.zeros((n, times, len(COLUMNS)))
    scenes[:, :, _columns(spec)] = squash.to_image(latents)
    random = np.random.default_rng(derive(spec.seed, "classes"))
    classes = np.asarray(spec.classes, dtype=np.int64)[random.integers(len(spec.classes), size=n)]
    return Wanted(scenes, classes, squash, sample.mechanisms)


def _columns(spec: Spec) -> list[int]:
    return [COLUMNS.index(name) for name in (*spec.responsive, *spec.invariant)]


def _render(spec: Spec, wanted: Wanted, unfinished: Path, folder: Path) -> Stored:
    """Draw every scene asked for."""
    n, times, _ = wanted.scenes.shape
    scenes = wanted.scenes.reshape(n * times, -1)
    draw_frames(spec, scenes, np.repeat(wanted.classes, times), unfinished, folder)
    index = np.arange(n * times).reshape(n, times)
    return Stored(index, scenes, wanted.truth(scenes[:, _columns(spec)]))


def draw_frames(spec: ImageData, scenes: Floats, classes: Ints, unfinished: Path, folder: Path) -> None:
    """Draw frames into ``folder``; an interrupted drawing stays in ``unfinished`` and is gone on with.

    Parameters
    ----------
    spec
        Meshes, seed, size and samples of the images.
    scenes : (m, 10) scene of each frame.
    classes : (m,) class of its object.
    unfinished
        Names what is drawn.
    folder
        Gets ``frames.npy``.
    """
    render_to(job_of(spec, meshes_for(spec), classes, scenes), unfinished, progress=ProgressLine("rendering images"))
    unfinished.rename(folder / "frames.npy")


def _serve(
    spec: Spec, pools: Mapping[str, Pool], design: Design, wanted: Wanted, cache_dir: Path, folder: Path
) -> Stored:
    """Serve every scene by the nearest stored image of its class; the truth is that of the image served."""
    splits = {name: rows.numpy() for name, rows in design.splits.items()}
    served = serve_rows(pools, splits, wanted.classes, wanted.scenes, spec.responsive)
    n, times, _ = served.scenes.shape
    unique, first, index = np.unique(served.place.reshape(-1, 2), axis=0, return_index=True, return_inverse=True)
    write_taken(folder / "frames.npy", served.sources, unique[:, 0], unique[:, 1], spec.image_size, cache_dir)
    quality = quality_of(served, spec.invariant, design.environment.numpy(), design.conditions)
    flat = served.scenes.reshape(n * times, -1)[first]
    return Stored(
        index=index.reshape(n, times),
        scenes=flat,
        latents=wanted.truth(flat[:, _columns(spec)]),
        quality=quality,
        notes=notes_of(served, spec.invariant, spec.pairs),
    )


# ----------------------------------------------------------------------------------------- on disk


def _write(folder: Path, design: Design, wanted: Wanted, stored: Stored) -> None:
    """Everything but the pixels, so that opening draws no random number."""
    arrays: dict[str, NDArray[np.generic]] = {
        "index": stored.index,
        "scenes": stored.scenes,
        "classes": wanted.classes,
        "latents": stored.latents,
        "u": design.u.numpy(),
        "condition": design.environment.numpy(),
        "targets": design.targets.numpy(),
    }
    arrays["frame_classes"] = np.zeros(len(stored.scenes), dtype=np.int64)
    arrays["frame_classes"][stored.index] = wanted.classes[:, None]
    arrays |= {f"split_{name}": rows.numpy() for name, rows in design.splits.items()}
    if wanted.mechanisms is not None:
        parts = {key.name: getattr(wanted.mechanisms, key.name) for key in fields(Mechanisms)}
        arrays |= {f"mechanisms_{name}": part.numpy() for name, part in parts.items() if part is not None}
    np.savez(folder / "rows.npz", allow_pickle=False, **arrays)
    names = {
        "conditions": design.conditions,
        "perturbations": design.perturbations,
        "quality": stored.quality,
        "notes": stored.notes,
    }
    (folder / "names.json").write_text(json.dumps(names, indent=1), encoding="utf-8")


class Kept(NamedTuple):
    """A built folder: what names it, its arrays, the rows of each split, and its frames, mapped."""

    names: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    splits: dict[str, torch.Tensor]
    frames: torch.Tensor


def open_kept(folder: Path) -> Kept:
    """Open a folder with ``names.json``, ``rows.npz`` and ``frames.npy``."""
    names = json.loads((folder / "names.json").read_text(encoding="utf-8"))
    with np.load(folder / "rows.npz", allow_pickle=False) as arrays:
        tensors = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    splits = {key.removeprefix("split_"): value for key, value in tensors.items() if key.startswith("split_")}
    # mapped copy-on-write: nothing is read before it is needed, and torch may hold what it must not write back
    frames = torch.from_numpy(np.load(folder / "frames.npy", mmap_mode="c", allow_pickle=False))
    return Kept(names, tensors, splits, frames)


def _read(folder: Path, spec: Spec, fingerprint: str) -> PerturbationData:
    kept = open_kept(folder)
    names, tensors, splits = kept.names, kept.tensors, kept.splits
    latents = tensors["latents"].float()
    d_v = len(spec.responsive)
    mechanisms = None
    if "mechanisms_graph" in tensors:
        named = {key.name: tensors.get(f"mechanisms_{key.name}") for key in fields(Mechanisms)}
        mechanisms = Mechanisms(**{name: part for name, part in named.items() if part is not None})
    truth = Truth(
        responsive=latents[:, :d_v],
        invariant=latents[:, d_v:],
        responsive_names=spec.responsive,
        invariant_names=spec.invariant,
        mechanisms=mechanisms,
        classes=tensors["frame_classes"],
    )
    ood = ("double",) if "double" in splits else ()
    data = PerturbationData(
        frames=kept.frames,
        # twins stay in the file, unused where another control or none takes their place
        index=paired(tensors["index"], tensors["condition"], splits, ood, pairs=spec.pairs, seed=int(spec.seed)),
        u=tensors["u"],
        condition=tensors["condition"],
        conditions=tuple(names["conditions"]),
        perturbations=tuple(names["perturbations"]),
        splits=splits,
        ood=ood,
        pairs=spec.pairs,
        fingerprint=fingerprint,
        targets=tensors["targets"],
        truth=truth,
        quality=names["quality"],
        notes=tuple(names.get("notes", ())),  # folders built before there were any have none
    )
    steps = spec.process.held_out_steps if isinstance(spec.process, LinearGaussianSpec) else 0
    return hold_out_later(data, steps)
