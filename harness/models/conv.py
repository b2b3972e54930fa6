"""Encoder and decoder of images: patches first, then a few strided convolutions. Small enough for a CPU."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad

#: Patches along the smaller side of an image, at least; finer grids cost more and see no more of a smooth scene.
GRID = 16
#: The coarsest grid of features is this many cells a side, or fewer.
COARSEST = 4
#: Features between the coarsest grid and the latents, for each channel of the first layer.
DENSE = 8


class ConvEncoder(nn.Module):
    """Non-overlapping patches, 3×3 convolutions of stride 2 down to 4×4 cells (or fewer), two dense layers.

    Cutting an image into patches first costs a quarter of convolutions at full size, and keeps positions: the dense
    layers see every cell. A linear map of the patches' means is added: what is linear need not be learned through the
    nonlinearity, and latents start as a straight chart of the images.

    Parameters
    ----------
    shape
        (channels, height, width).
    hidden
        Channels of the first layer; they double up to four times that.
    outputs
        Size of the output vector.
    """

    def __init__(self, shape: tuple[int, ...], hidden: int, outputs: int) -> None:
        super().__init__()
        self.patch = patch_side(shape[1:])
        sizes, channels = pyramid(shape[1:], hidden)
        self.short = tuple(grid * self.patch - side for grid, side in zip(sizes[0], shape[1:], strict=True))
        blocks: list[nn.Module] = [nn.Conv2d(shape[0], hidden, self.patch, stride=self.patch), nn.LeakyReLU(0.2)]
        for before, after in zip(channels[:-1], channels[1:], strict=True):
            blocks += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
        flat = channels[-1] * sizes[-1][0] * sizes[-1][1]
        self.body = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(flat, DENSE * hidden), nn.LeakyReLU(0.2))
        self.head = nn.Linear(DENSE * hidden, outputs)
        self.means = nn.Sequential(nn.AvgPool2d(self.patch), nn.Flatten())
        self.skip = nn.Linear(shape[0] * sizes[0][0] * sizes[0][1], outputs)
        self.scale = self.skip.in_features**-0.5

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, height, width) to (n, outputs)."""
        whole = pad(x, (0, self.short[1], 0, self.short[0]))
        # scaled, so that one step of the optimiser moves the sum over many pixels as little as one unit's
        out: Tensor = self.head(self.body(whole)) + self.skip(self.means(whole) * self.scale)
        return out


class ConvDecoder(nn.Module):
    """Mirror of `ConvEncoder`: two dense layers to a coarse grid, transposed convolutions, then patches; and a linear
    map to the patches' means.

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
        patch = patch_side(shape[1:])
        sizes, channels = pyramid(shape[1:], hidden)
        self.height, self.width = shape[1:]
        self.start = (channels[-1], *sizes[-1])
        self.dense = nn.Sequential(
            nn.Linear(inputs, DENSE * hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(DENSE * hidden, channels[-1] * sizes[-1][0] * sizes[-1][1]),
            nn.LeakyReLU(0.2),
        )
        blocks: list[nn.Module] = []
        for level in range(len(channels) - 1, 0, -1):
            blocks += [Double(channels[level], channels[level - 1], sizes[level - 1]), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*blocks, nn.Conv2d(hidden, shape[0] * patch**2, 1))
        self.skip = nn.Linear(inputs, shape[0] * sizes[0][0] * sizes[0][1])
        self.means = (shape[0], *sizes[0])
        self.pixels = nn.PixelShuffle(patch)
        self.area = patch**2

    def forward(self, latents: Tensor) -> Tensor:
        """(n, inputs) to (n, channels, height, width)."""
        linear = self.skip(latents).unflatten(1, self.means).repeat_interleave(self.area, dim=1)
        out: Tensor = self.pixels(self.body(self.dense(latents).unflatten(1, self.start)) + linear)
        return out[..., : self.height, : self.width]


class Double(nn.Module):
    """A transposed convolution of stride 2, cut to a given size: (n, before, ⌈h/2⌉, ⌈w/2⌉) to (n, after, h, w)."""

    def __init__(self, before: int, after: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.up = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.up(x)
        return out[..., : self.size[0], : self.size[1]]


def patch_side(size: tuple[int, ...]) -> int:
    """Pixels along a patch: the largest power of two that leaves `GRID` patches along the smaller side."""
    patch = 1
    while min(size) >= 2 * patch * GRID:
        patch *= 2
    return patch


def pyramid(size: tuple[int, ...], hidden: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Grids from the patches to the coarsest, (height, width) each, and the channels of each."""
    patch = patch_side(size)
    return halved((-(-size[0] // patch), -(-size[1] // patch)), hidden)


def halved(grid: tuple[int, int], hidden: int) -> tuple[list[tuple[int, int]], list[int]]:
    """A grid and its halves down to the coarsest, (height, width) each, and the channels of each."""
    sizes = [grid]
    while min(sizes[-1]) > COARSEST:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes, [min(hidden * 2**level, hidden * 4) for level in range(len(sizes))]
