"""Encoders and decoders, for vectors (mlp) and images (conv), and what is done to inputs before them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LinearPlusMLP(nn.Module):
    """A linear map plus a small network: what is linear need not be learned through the nonlinearity.

    Parameters
    ----------
    inputs, hidden, outputs, layers
        Sizes; ``layers`` hidden layers.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, layers: int) -> None:
        super().__init__()
        self.skip = nn.Linear(inputs, outputs)
        widths = [inputs, *[hidden] * layers]
        blocks: list[nn.Module] = []
        for before, after in zip(widths[:-1], widths[1:], strict=True):
            blocks += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*blocks, nn.Linear(hidden, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs) to (n, outputs)."""
        out: Tensor = self.skip(x) + self.body(x)
        return out


class ConvEncoder(nn.Module):
    """Strided convolutions down to 4×4 (or fewer) pixels, then a linear head.

    Parameters
    ----------
    shape
        (channels, height, width).
    hidden
        Channels of the first convolution; they double up to four times that.
    outputs
        Size of the output vector.
    """

    def __init__(self, shape: tuple[int, ...], hidden: int, outputs: int) -> None:
        super().__init__()
        stages = conv_stages(shape[1:])
        channels = [shape[0], *[min(hidden * 2**k, hidden * 4) for k in range(stages)]]
        blocks: list[nn.Module] = []
        for before, after in zip(channels[:-1], channels[1:], strict=True):
            blocks += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*blocks, nn.Flatten())
        with torch.no_grad():
            size = self.body(torch.zeros(1, *shape)).shape[1]
        self.head = nn.Linear(size, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, height, width) to (n, outputs)."""
        out: Tensor = self.head(self.body(x))
        return out


class ConvDecoder(nn.Module):
    """Mirror of `ConvEncoder`: a linear map to a coarse grid, then upsampling convolutions.

    Parameters
    ----------
    inputs
        Size of the latent vector.
    hidden
        Channels of the last but one layer.
    shape
        (channels, height, width) of the output.
    """

    def __init__(self, inputs: int, hidden: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        stages = conv_stages(shape[1:])
        sizes = [shape[1:]]
        for _ in range(stages):
            sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))
        channels = [min(hidden * 2**k, hidden * 4) for k in range(stages)]
        self.start = (channels[-1] if channels else hidden, *sizes[-1])
        self.expand = nn.Linear(inputs, self.start[0] * self.start[1] * self.start[2])
        blocks: list[nn.Module] = []
        width = self.start[0]
        for k in range(stages - 1, -1, -1):
            after = channels[max(k - 1, 0)]
            blocks += [nn.Upsample(size=sizes[k], mode="nearest"), nn.Conv2d(width, after, 3, padding=1)]
            blocks += [nn.LeakyReLU(0.2)]
            width = after
        self.body = nn.Sequential(*blocks, nn.Conv2d(width, shape[0], 3, padding=1))

    def forward(self, latents: Tensor) -> Tensor:
        """(n, inputs) to (n, channels, height, width)."""
        out: Tensor = self.body(self.expand(latents).unflatten(1, self.start))
        return out


def conv_stages(size: tuple[int, ...]) -> int:
    """How many halvings bring the smaller side to 4 pixels or fewer."""
    stages, side = 0, min(size)
    while side > 4:
        side, stages = (side + 1) // 2, stages + 1
    return stages


class InputTransform(nn.Module):
    """What is done to frames before the encoder, and undone after the decoder; fitted on training frames only.

    With ``components``, frames are flattened, projected on that many principal components and, with ``whiten``, scaled
    to unit variance each (else all by the leading one's, which keeps small curved components small); without, each
    feature of a vector (each channel of an image) is centred and scaled to unit variance.

    Parameters
    ----------
    shape
        Shape of one frame.
    components
        Principal components kept, or None.
    whiten
        Whether components are scaled one by one.
    """

    centre: Tensor
    scale: Tensor
    basis: Tensor

    def __init__(self, shape: tuple[int, ...], components: int | None, whiten: bool = True) -> None:
        super().__init__()
        self.whiten = whiten
        self.shape = shape
        self.components = components
        features = int(torch.tensor(shape).prod())
        if components is not None and components > features:
            raise ValueError(f"input_pca {components} exceeds the {features} features of a frame")
        size = (features,) if components is not None or len(shape) == 1 else (shape[0], 1, 1)
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("scale", torch.ones((components,) if components is not None else size))
        self.register_buffer("basis", torch.zeros(features, components or 0))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of what the encoder sees."""
        return self.shape if self.components is None else (self.components,)

    def fit(self, frames: Tensor, generator: torch.Generator) -> None:
        """Fit on training frames (m, *shape) float; ``generator`` starts the search for large bases."""
        if self.components is None:
            axes = (0,) if frames.ndim == 2 else (0, 2, 3)
            self.centre.copy_(frames.mean(axes).reshape(self.centre.shape))
            spread = frames.std(axes).reshape(self.scale.shape)
            # a constant feature is left as it is: dividing by its noise would make it the loudest
            self.scale.copy_(torch.where(spread > 1e-6, spread, 1.0))
            return
        flat = frames.flatten(1)
        self.centre.copy_(flat.mean(0))
        singular, basis = principal_components(flat - self.centre, self.components, generator)
        self.basis.copy_(basis)
        deviations = (singular / max(len(flat) - 1, 1) ** 0.5).clamp_min(1e-6)
        self.scale.copy_(deviations if self.whiten else deviations[:1].expand_as(deviations))

    def prepare(self, frames: Tensor) -> Tensor:
        """All frames, once, as they are kept on the device: reduced where there is a PCA, else untouched."""
        if self.components is None:
            return frames
        chunks = [((_float(part).flatten(1) - self.centre) @ self.basis) / self.scale for part in frames.split(4096)]
        return torch.cat(chunks)

    def inputs(self, prepared: Tensor) -> Tensor:
        """A batch of prepared frames, as the encoder sees it."""
        return prepared if self.components is not None else (_float(prepared) - self.centre) / self.scale

    def restore(self, outputs: Tensor) -> Tensor:
        """The decoder's output in the units of float frames, (n, *shape)."""
        if self.components is None:
            return outputs * self.scale + self.centre
        return ((outputs * self.scale) @ self.basis.T + self.centre).unflatten(1, self.shape)


def principal_components(centred: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Leading singular values (k,) and right singular vectors (features, k), signs fixed by the largest entry.

    Exact for small matrices; for large ones a randomised range finder with eight power iterations, its start drawn
    from ``generator`` so that every process finds the same.
    """
    if min(centred.shape) <= 1024:
        _, singular, right = torch.linalg.svd(centred, full_matrices=False)
        singular, basis = singular[:count], right[:count].T
    else:
        start = torch.randn(centred.shape[1], count + 10, generator=generator, device=generator.device)
        span = torch.linalg.qr(centred @ start.to(centred)).Q
        for _ in range(8):
            span = torch.linalg.qr(centred @ torch.linalg.qr(centred.T @ span).Q).Q
        _, singular, right = torch.linalg.svd(span.T @ centred, full_matrices=False)
        singular, basis = singular[:count], right[:count].T
    found = len(singular)
    if found < count:
        raise ValueError(f"input_pca {count} exceeds the {found} components {len(centred)} training frames have")
    largest = basis.abs().argmax(0)
    return singular, basis * basis[largest, torch.arange(count, device=basis.device)].sign()


def _float(frames: Tensor) -> Tensor:
    return frames.float() / 255.0 if frames.dtype == torch.uint8 else frames
