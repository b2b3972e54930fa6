"""From a spec to `PerturbationData`: latents, then images drawn or served, built once and kept in the cache."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.batch import Mechanisms, PerturbationData, Truth
from harness.data.cache import built_once
from harness.data.causal3dident.meshes import meshes_of
from harness.data.causal3dident.native import sample_native
from harness.data.causal3dident.progress import ProgressLine
from harness.data.causal3dident.release import Pool, make_pools, read_image
from harness.data.causal3dident.rendering import Job, render_to
from harness.data.causal3dident.scene import COLUMNS
from harness.data.causal3dident.squash import Squash
from harness.data.latent_process import Design, make_design, sample_process
from harness.data.partners import paired
from harness.data.seeding import derive
from harness.data_spec import Causal3DIdentData, LinearGaussianSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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
    """

    index: Ints
    scenes: Floats
    latents: Floats
    quality: dict[str, float]


def build_dataset(spec: Causal3DIdentData, fingerprint: str, cache_dir: Path) -> PerturbationData:
    """Build the data, or open what was built before; see ``harness.data.causal3dident.build``."""
    assert isinstance(spec.seed, int), "the plan resolves data.seed: per_trial"
    name = f"causal3dident-{fingerprint}"

    def fill(folder: Path) -> None:
        design = make_design(spec, spec.responsive)
        wanted = wanted_scenes(spec, design)
        if spec.path is None:
            stored = _render(spec, wanted, cache_dir / f".{name}.images.npy", folder)
        else:
            stored = _serve(spec, design, wanted, folder)
        _write(folder, design, wanted, stored)

    return _read(built_once(cache_dir, name, fill), spec, fingerprint)


def wanted_scenes(spec: Causal3DIdentData, design: Design) -> Wanted:
    """Draw the latents of every row and place them in scenes; latents that are not named are held at 0."""
    assert isinstance(spec.seed, int)
    if not isinstance(spec.process, LinearGaussianSpec):
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


def _columns(spec: Causal3DIdentData) -> list[int]:
    return [COLUMNS.index(name) for name in (*spec.responsive, *spec.invariant)]


def _render(spec: Causal3DIdentData, wanted: Wanted, unfinished: Path, folder: Path) -> Stored:
    """Draw every scene asked for; an interrupted drawing stays in ``unfinished`` and is gone on with."""
    n, times, _ = wanted.scenes.shape
    scenes = wanted.scenes.reshape(n * times, -1)
    job = Job(
        meshes=meshes_of(Path(spec.meshes) if spec.meshes else None, spec.classes),
        classes=np.repeat(wanted.classes, times),
        latents=scenes,
        seeds=np.array([derive(int(spec.seed), "pixels", frame) % 2**32 for frame in range(n * times)]),
        image_size=spec.image_size,
        samples=spec.samples,
    )
    render_to(job, unfinished, progress=ProgressLine("rendering images"))
    unfinished.rename(folder / "frames.npy")
    index = np.arange(n * times).reshape(n, times)
    return Stored(index, scenes, wanted.truth(scenes[:, _columns(spec)]), {})


def _serve(spec: Causal3DIdentData, design: Design, wanted: Wanted, folder: Path) -> Stored:
    """Serve every scene by the nearest stored image of its class; the truth is that of the image served."""
    assert spec.path is not None
    random = np.random.default_rng(derive(int(spec.seed), "release"))
    pools = make_pools(Path(spec.path), spec.classes, spec.validation, random)
    n, times, _ = wanted.scenes.shape
    scenes, distances = wanted.scenes.copy(), np.zeros((n, times))
    paths = np.empty((n, times), dtype=object)
    held = [COLUMNS.index(name) for name in COLUMNS if name not in spec.responsive]
    for split, rows in design.splits.items():
        pool = pools.get(split, pools["test"])
        chosen = rows.numpy()
        # The perturbed frame first: its twin is then asked to share the invariant latents of the image served.
        for time in (*range(1, times), 0):
            request = wanted.scenes[chosen, time].copy()
            if time == 0:
                request[:, held] = scenes[chosen, 1][:, held]
            served, scenes[chosen, time], distances[chosen, time] = pool.serve(wanted.classes[chosen], request)
            paths[chosen, time] = _paths(pool, wanted.classes[chosen], served)
    unique, first, index = np.unique(paths.ravel().astype(str), return_index=True, return_inverse=True)
    _copy_images([Path(str(path)) for path in unique], spec.image_size, folder / "frames.npy")
    invariant = [COLUMNS.index(name) for name in spec.invariant]
    apart = scenes[:, 0][:, invariant] - scenes[:, 1][:, invariant]
    quality = {
        "served_distance_mean": float(distances.mean()),
        "served_distance_max": float(distances.max()),
        "pair_invariant_rmse": float(np.sqrt(np.mean(apart**2))),
        "images_served": float(len(unique)),
    }
    flat = scenes.reshape(n * times, -1)[first]
    return Stored(index.reshape(n, times), flat, wanted.truth(flat[:, _columns(spec)]), quality)


def _paths(pool: Pool, classes: Ints, rows: Ints) -> list[str]:
    pairs = zip(classes.tolist(), rows.tolist(), strict=True)
    return [str(pool.sets[class_id].image_path(row)) for class_id, row in pairs]


def _copy_images(paths: list[Path], size: int, target: Path) -> None:
    frames = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=(len(paths), 3, size, size))
    progress = ProgressLine("reading images")
    for row, path in enumerate(paths):
        frames[row] = read_image(path, size)
        progress(row, len(paths))
    progress(len(paths), len(paths))
    frames.flush()


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
    arrays |= {f"split_{name}": rows.numpy() for name, rows in design.splits.items()}
    if wanted.mechanisms is not None:
        parts = {key.name: getattr(wanted.mechanisms, key.name) for key in fields(Mechanisms)}
        arrays |= {f"mechanisms_{name}": part.numpy() for name, part in parts.items() if part is not None}
    np.savez(folder / "rows.npz", allow_pickle=False, **arrays)
    names = {"conditions": design.conditions, "perturbations": design.perturbations, "quality": stored.quality}
    (folder / "names.json").write_text(json.dumps(names, indent=1), encoding="utf-8")


def _read(folder: Path, spec: Causal3DIdentData, fingerprint: str) -> PerturbationData:
    names = json.loads((folder / "names.json").read_text(encoding="utf-8"))
    with np.load(folder / "rows.npz", allow_pickle=False) as arrays:
        tensors = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    splits = {key.removeprefix("split_"): value for key, value in tensors.items() if key.startswith("split_")}
    # mapped copy-on-write: nothing is read before it is needed, and torch may hold what it must not write back
    frames = torch.from_numpy(np.load(folder / "frames.npy", mmap_mode="c", allow_pickle=False))
    latents = tensors["latents"].float()
    d_v = len(spec.responsive)
    mechanisms = None
    if "mechanisms_graph" in tensors:
        named = {key.name: tensors.get(f"mechanisms_{key.name}") for key in fields(Mechanisms)}
        mechanisms = Mechanisms(**{name: part for name, part in named.items() if part is not None})
    ood = ("double",) if "double" in splits else ()
    return PerturbationData(
        frames=frames,
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
        truth=Truth(latents[:, :d_v], latents[:, d_v:], spec.responsive, spec.invariant, mechanisms=mechanisms),
        quality=names["quality"],
    )
