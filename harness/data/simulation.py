"""Vectors from a random injective mixing of the latent process."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from harness.data.batch import PerturbationData, Truth
from harness.data.latent_process import Design, LatentSample, make_design, sample_process
from harness.data.seeding import generator
from harness.data_spec import SimulationData


def build(spec: SimulationData, fingerprint: str, cache_dir: Path) -> PerturbationData:
    """Draw the latents, mix them and add observation noise.

    ``cache_dir`` is not used: drawing again takes less than reading.
    """
    assert isinstance(spec.seed, int)
    process = spec.process
    design = make_design(spec, tuple(f"v{k + 1}" for k in range(process.responsive)))
    sample = sample_process(process, design, spec.seed)
    truth, index = frames_of(sample, design)
    latents = torch.cat([truth.responsive, truth.invariant], dim=1)
    random = generator(spec.seed, "observation noise")
    mixed = mix(latents, spec.features, spec.mixing_layers, spec.mixing_slope, spec.seed)
    frames = mixed + spec.noise * torch.randn(mixed.shape, generator=random)
    return PerturbationData(
        frames=frames,
        index=index,
        u=design.u,
        condition=design.environment,
        conditions=design.conditions,
        perturbations=design.perturbations,
        splits=design.splits,
        ood=("double",) if "double" in design.splits else (),
        pairs=True,
        fingerprint=fingerprint,
        targets=design.targets,
        truth=truth,
        feature_names=tuple(f"x{k + 1}" for k in range(spec.features)),
    )


def frames_of(sample: LatentSample, design: Design) -> tuple[Truth, Tensor]:
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


def mix(latents: Tensor, features: int, layers: int, slope: float, seed: int) -> Tensor:
    """Injective mixing: ``layers`` of rotation and leaky ReLU on standardised latents, then a linear lift.

    Parameters
    ----------
    latents : (m, d)
    features
        Observed dimensions, at least d.
    layers, slope
        Leaky layers and their negative slope; a slope of 1, or no layer, is a linear mixing.
    seed
        The data seed.

    Returns
    -------
    (m, features), each feature of about unit variance.
    """
    random = generator(seed, "mixing")
    d = latents.shape[1]
    hidden = (latents - latents.mean(0)) / latents.std(0)
    for _ in range(layers):
        rotation = torch.linalg.qr(torch.randn(d, d, generator=random)).Q
        hidden = torch.nn.functional.leaky_relu(hidden @ rotation, slope)
    lift = torch.linalg.qr(torch.randn(features, d, generator=random)).Q  # orthonormal columns: injective
    return hidden @ lift.T * (features / d) ** 0.5
