"""ResNet-18 (He et al. 2016) as an encoder, and its mirror as a decoder: for images on a GPU.

Group norm (Wu & He 2018) takes batch norm's place: statistics of a batch would tie each cell's latents to the
conditions of the others, and differ between training and scoring.
"""

from __future__ import annotations

from torch import Tensor, nn

#: Residual blocks in each of the four stages, and each stage's channels as multiples of the first.
BLOCKS, WIDTHS = (2, 2, 2, 2), (1, 2, 4, 8)
#: Most groups of a group norm.
GROUPS = 8


class ResNetEncoder(nn.Module):
    """Four stages of two residual blocks, each but the first halving the image; features averaged over a 2×2 grid.

    The original averages over the whole image, which forgets where things are; positions are latents here.

    Parameters
    ----------
    shape
        (channels, height, width).
    hidden
        Channels of the first stage; 64 in the original.
    outputs
        Size of the output vector.
    """

    def __init__(self, shape: tuple[int, ...], hidden: int, outputs: int) -> None:
        super().__init__()
        large = min(shape[1:]) >= 128  # the original's stem halves twice, made for 224 pixels
        stem: list[nn.Module] = [nn.Conv2d(shape[0], hidden, 7 if large else 3, 2 if large else 1, 3 if large else 1)]
        stem += [group_norm(hidden), nn.ReLU(), *([nn.MaxPool2d(3, 2, 1)] if large else [])]
        stages: list[nn.Module] = []
        before = hidden
        for stage, (count, width) in enumerate(zip(BLOCKS, WIDTHS, strict=True)):
            for block in range(count):
                stages.append(_Residual(before, hidden * width, stride=2 if stage and not block else 1))
                before = hidden * width
        self.body = nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.head = nn.Linear(4 * before, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, height, width) to (n, outputs)."""
        out: Tensor = self.head(self.body(x))
        return out


class ResNetDecoder(nn.Module):
    """Mirror of `ResNetEncoder`: a linear map to a coarse grid, residual blocks, nearest-neighbour doubling.

    Parameters
    ----------
    inputs
        Size of the latent vector.
    hidden
        Channels of the last stage.
    shape
        (channels, height, width) of the output.
    """

    def __init__(self, inputs: int, hidden: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        sizes = [shape[1:]]
        doublings = len(WIDTHS) - 1 + (2 if min(shape[1:]) >= 128 else 0)
        for _ in range(doublings):
            sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))
        self.start = (hidden * WIDTHS[-1], *sizes[-1])
        self.expand = nn.Linear(inputs, self.start[0] * self.start[1] * self.start[2])
        blocks: list[nn.Module] = []
        before = self.start[0]
        for level, (count, width) in enumerate(zip(reversed(BLOCKS), reversed(WIDTHS), strict=True)):
            if level:
                blocks.append(nn.Upsample(size=sizes[doublings - level], mode="nearest"))
            for _ in range(count):
                blocks.append(_Residual(before, hidden * width, stride=1))
                before = hidden * width
        for level in range(len(WIDTHS), doublings + 1):
            blocks += [nn.Upsample(size=sizes[doublings - level], mode="nearest"), _Residual(before, before, stride=1)]
        self.body = nn.Sequential(*blocks, nn.Conv2d(before, shape[0], 3, padding=1))

    def forward(self, latents: Tensor) -> Tensor:
        """(n, inputs) to (n, channels, height, width)."""
        out: Tensor = self.body(self.expand(latents).unflatten(1, self.start))
        return out


class _Residual(nn.Module):
    """Two 3×3 convolutions around a shortcut, which is projected where sizes differ."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
            group_norm(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            group_norm(after),
        )
        same = before == after and stride == 1
        self.shortcut: nn.Module = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False), group_norm(after))
        )
        self.last = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.body(x) + self.shortcut(x))
        return out


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm of as many groups, up to `GROUPS`, as divide the channels."""
    groups = next(count for count in range(min(GROUPS, channels), 0, -1) if channels % count == 0)
    return nn.GroupNorm(groups, channels)
