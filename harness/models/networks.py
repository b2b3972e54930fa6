"""Networks for vectors, and what is done to inputs before any network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Counts to which log-normalised frames scale each cell before the logarithm.
COUNTS_PER = 1e4


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
    standardise
        Without components: whether features are centred and scaled, or left as they are.
    counts
        Whether frames are log-normalised counts that go on beside their library sizes: `prepare` then reduces nothing,
        and appends the sizes where they are given.
    """

    centre: Tensor
    scale: Tensor
    basis: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        components: int | None,
        whiten: bool = True,
        *,
        standardise: bool = True,
        counts: bool = False,
    ) -> None:
        super().__init__()
        self.whiten, self.standardise, self.counts = whiten, standardise, counts
        if counts and len(shape) != 1:
            raise ValueError(f"likelihood: nb needs counts of genes, but a frame has shape {shape}; use mse")
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
        if self.components is None and not self.standardise:
            return  # centre 0 and scale 1, as made
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

    def prepare(self, frames: Tensor, library: Tensor | None = None) -> Tensor:
        """All frames, once, as they are kept on the device: reduced where there is a PCA, else untouched.

        Parameters
        ----------
        frames : (m, *shape)
        library : (m,)
            Total counts of their cells. With ``counts`` they are appended, (m, features + 1), and are what likelihoods
            and draws of counts need; else of no use.
        """
        if self.counts:
            return frames if library is None else torch.cat([frames.float(), library[:, None].float()], dim=1)
        if self.components is None:
            return frames
        return torch.cat([self._reduced(part) for part in frames.split(4096)])

    def inputs(self, prepared: Tensor) -> Tensor:
        """A batch of prepared frames, as the encoder sees it."""
        if self.counts:
            prepared = prepared[:, : self.shape[0]]
            return self._reduced(prepared) if self.components is not None else (prepared - self.centre) / self.scale
        return prepared if self.components is not None else (_float(prepared) - self.centre) / self.scale

    def with_library(self, prepared: Tensor) -> tuple[Tensor, Tensor]:
        """Log-normalised frames (n, features) and library sizes (n,) of frames prepared with both.

        Raises
        ------
        ValueError
            If they were prepared without.
        """
        genes = self.shape[0]
        if prepared.shape[1] != genes + 1:
            raise ValueError("likelihood: nb needs the library size of every cell, and these were prepared without")
        return prepared[:, :genes], prepared[:, genes]

    def _reduced(self, frames: Tensor) -> Tensor:
        return ((_float(frames).flatten(1) - self.centre) @ self.basis) / self.scale

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
