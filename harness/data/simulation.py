"""Vectors from a random mixing of the latent process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from harness.data.batch import PerturbationData, Truth
from harness.data.latent_process import LatentSample, make_design, sample_process
from harness.data.later import hold_out_later
from harness.data.mixing import draw_mixing
from harness.data.partners import paired
from harness.data.seeding import generator
from harness.data_spec import SimulationData


def build(spec: SimulationData, fingerprint: str, cache_dir: Path) -> PerturbationData:
    """Draw the latents, mix them and add observation noise.

    ``cache_dir`` is not used: drawing again takes less than reading.

    Raises
    ------
    UserError
        If ``pairs`` is ``random`` and a split has no control cell.
    """
    assert isinstance(spec.seed, int)
    process = spec.process
    design = make_design(spec, tuple(f"v{k + 1}" for k in range(process.responsive)))
    truth, index = frames_of(sample_process(process, design, spec.seed))
    latents = torch.cat([truth.responsive, truth.invariant], dim=1)
    mixing = draw_mixing(
        latents,
        features=spec.features,
        layers=spec.mixing_layers,
        slope=spec.mixing_slope,
        injective=spec.injective,
        seed=spec.seed,
    )
    mixed = mixing(latents)
    random = generator(spec.seed, "observation noise")
    frames = mixed + spec.noise * torch.randn(mixed.shape, generator=random)
    ood = ("double",) if "double" in design.splits else ()
    # twins are drawn and mixed whatever the pairs, so that the cells are the same; those no row shows are dropped
    index = paired(index, design.environment, design.splits, ood, pairs=spec.pairs, seed=spec.seed)
    shown, index = torch.unique(index, return_inverse=True)
    data = PerturbationData(
        frames=frames[shown],
        index=index,
        u=design.u,
        condition=design.environment,
        conditions=design.conditions,
        perturbations=design.perturbations,
        splits=design.splits,
        ood=ood,
        pairs=spec.pairs,
        fingerprint=fingerprint,
        targets=design.targets,
        truth=replace(truth, responsive=truth.responsive[shown], invariant=truth.invariant[shown], mixing=mixing),
        feature_names=tuple(f"x{k + 1}" for k in range(spec.features)),
    )
    return hold_out_later(data, process.held_out_steps)


def frames_of(sample: LatentSample) -> tuple[Truth, Tensor]:
    """Flatten rows × times to frames: the truth of each frame, and the (n, T) index into frames."""
    n, times, d_v = sample.responsive.shape
    d_i = sample.invariant.shape[1]
    truth = Truth(
        responsive=sample.responsive.reshape(n * times, d_v),
        invariant=sample.invariant[:, None].expand(n, times, d_i).reshape(n * times, d_i),
        responsive_names=tuple(f"v{k + 1}" for k in range(d_v)),
        invariant_names=tuple(f"i{k + 1}" for k in range(d_i)),
        mechanisms=sample.mechanisms,
    )
    return truth, torch.arange(n * times).reshape(n, times)
