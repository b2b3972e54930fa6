"""Encoder and decoder of images: plain convolutions of stride 2 with group norm, which see finer things than patches.

Told the true latents of 20,000 images of a teapot, this encoder says its three rotations in new ones with R² 0.63, 0.85
and 0.69 after 10 epochs, and `conv`, which cuts patches first, with 0.62, 0.80 and 0.62 after 40; an epoch costs some
three times as much.
"""

from __future__ import annotations

from torch import Tensor, nn

from harness.models.conv import DENSE, Double, halved
from harness.models.resnet import group_norm


class StridedEncoder(nn.Module):
    """A 5×5 and then 3×3 convolutions, each halving the image, down to 4×4 cells (or fewer); two dense layers.

    Parameters
    ----------
    shape, hidden, outputs
        As of `harness.models.conv.ConvEncoder`.
    """

    def __init__(self, shape: tuple[int, ...], hidden: int, outputs: int) -> None:
        super().__init__()
        sizes, channels = halvings(shape[1:], hidden)
        blocks: list[nn.Module] = []
        for level, (before, after) in enumerate(zip([shape[0], *channels[:-1]], channels, strict=True)):
            side = 3 if level else 5
            blocks += [nn.Conv2d(before, after, side, stride=2, padding=side // 2), group_norm(after), nn.ReLU()]
        flat = channels[-1] * sizes[-1][0] * sizes[-1][1]
        self.body = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(flat, DENSE * hidden), nn.ReLU())
        self.head = nn.Linear(DENSE * hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, height, width) to (n, outputs)."""
        out: Tensor = self.head(self.body(x))
        return out


class StridedDecoder(nn.Module):
    """Mirror of `StridedEncoder`.

    Parameters
    ----------
    inputs, hidden, shape
        As of `harness.models.conv.ConvDecoder`.
    """

    def __init__(self, inputs: int, hidden: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        sizes, channels = halvings(shape[1:], hidden)
        self.start = (channels[-1], *sizes[-1])
        flat = channels[-1] * sizes[-1][0] * sizes[-1][1]
        self.dense = nn.Sequential(nn.Linear(inputs, DENSE * hidden), nn.ReLU(), nn.Linear(DENSE * hidden, flat))
        blocks: list[nn.Module] = [group_norm(channels[-1]), nn.ReLU()]
        for level in range(len(channels) - 1, 0, -1):
            after = channels[level - 1]
            blocks += [Double(channels[level], after, sizes[level - 1]), group_norm(after), nn.ReLU()]
        height, width = shape[1:]
        self.body = nn.Sequential(*blocks, Double(channels[0], shape[0], (height, width)))

    def forward(self, latents: Tensor) -> Tensor:
        """(n, inputs) to (n, channels, height, width)."""
        out: Tensor = self.body(self.dense(latents).unflatten(1, self.start))
        return out


def halvings(size: tuple[int, ...], hidden: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Grids after each halving of an image, (height, width) each, one at least, and the channels of each."""
    return halved((-(-size[0] // 2), -(-size[1] // 2)), hidden)
