"""US-Net's networks: the base that two branches share, the segmentation branch, and the U-Net that redraws one nucleus.

Source: "US-Net for Robust and Efficient Nuclei Instance Segmentation" (US-Net paper), sections 2 and 3.2. The paper
prints no widths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nuxel.nn.blocks import conv_norm_act, in_full, up_conv_norm_act

DEPTH = 6
"""Down-sampling layers, and up-sampling layers: section 3.2."""
PATCH = 48
"""Side of the patches in which nuclei are redrawn: section 3.1."""


def plain_block(inputs: int, outputs: int) -> nn.Sequential:
    """Four 3 x 3 convolutions: "the block size for all the layers is 4" (section 3.2)."""
    first = conv_norm_act(inputs, outputs)
    return nn.Sequential(first, *(conv_norm_act(outputs, outputs) for _ in range(3)))


class ResidualUnit(nn.Module):
    """Two convolutions beside a shortcut, added before the last activation (He et al. 2016, figure 2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        *second, _ = conv_norm_act(outputs, outputs)
        self.convs = nn.Sequential(conv_norm_act(inputs, outputs), *second)
        *projection, _ = conv_norm_act(inputs, outputs, 1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Sequential(*projection)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.convs(x) + self.shortcut(x))


def residual_block(inputs: int, outputs: int) -> nn.Sequential:
    """The four convolutions as two residual units."""
    return nn.Sequential(ResidualUnit(inputs, outputs), ResidualUnit(outputs, outputs))


class DenseBlock(nn.Module):
    """Four convolutions, each of which sees the input and all before it, then a 1 x 1 one (Huang et al. 2017).

    Each gives a quarter of ``outputs``, which is a multiple of 4.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        if outputs % 4:
            raise ValueError(f"a dense block of four convolutions cannot have {outputs} outputs")
        growth = outputs // 4
        self.convs = nn.ModuleList(conv_norm_act(inputs + k * growth, growth) for k in range(4))
        self.transition = conv_norm_act(inputs + outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = torch.cat([x, conv(x)], 1)
        joined: Tensor = self.transition(x)
        return joined


BLOCKS: dict[str, Callable[[int, int], nn.Module]] = {
    "plain": plain_block,
    "residual": residual_block,
    "dense": DenseBlock,
}


class SharedBase(nn.Module):
    """``(N, 3, H, W)`` in ``[0, 1]`` of any size -> the maps of six down-sampling layers, finest first.

    A layer is a block, whose map is kept, and a maximum over 2 x 2 that rounds up: an image of 300 x 300 has maps of
    300, 150, 75, 38, 19 and 10, of which the last three are the paper's for detection.

    Parameters
    ----------
    widths
        Channels of the six maps.
    block
        One of :data:`BLOCKS`.
    """

    def __init__(self, widths: Sequence[int], block: str) -> None:
        super().__init__()
        if len(widths) != DEPTH:
            raise ValueError(f"there are {DEPTH} down-sampling layers, got {len(widths)} widths")
        self.channels = tuple(widths)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.layers = nn.ModuleList(BLOCKS[block](*pair) for pair in zip((3, *widths), widths, strict=False))

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for layer in self.layers:
            maps.append(layer(self.pool(maps[-1]) if maps else images))
        return maps


class UpLayer(nn.Module):
    """Double the size by a transposed convolution, crop to the skip's size, join the skip, then a block."""

    def __init__(self, inputs: int, skip: int, block: str) -> None:
        super().__init__()
        self.up = up_conv_norm_act(inputs, skip)
        self.block = BLOCKS[block](2 * skip, skip)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        # pooling rounds up, so what is enlarged may have a row or a column more than the skip
        enlarged = self.up(x)[..., : skip.shape[2], : skip.shape[3]]
        joined: Tensor = self.block(torch.cat([enlarged, skip], 1))
        return joined


class SegmentationBranch(nn.Module):
    """The base's maps -> bottleneck -> six up-sampling layers -> ``(N, 1, H, W)``: the logit of "nucleus"."""

    def __init__(self, widths: Sequence[int], bottleneck: int, block: str) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.bottleneck = BLOCKS[block](widths[-1], bottleneck)
        skips = list(reversed(widths))
        self.layers = nn.ModuleList(
            UpLayer(inputs, skip, block) for inputs, skip in zip((bottleneck, *skips), skips, strict=False)
        )
        self.head = nn.Conv2d(widths[0], 1, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = self.bottleneck(self.pool(maps[-1]))
        for layer, skip in zip(self.layers, reversed(maps), strict=True):
            x = layer(x, skip)
        logits: Tensor = in_full(self.head(x))
        return logits


class RefinementUNet(nn.Module):
    """Patches ``(n, inputs, 48, 48)`` -> ``(n, 1, 48, 48)``: the logit of "belongs to the nucleus in the middle".

    The paper's "U-net structure" of four convolutional layers: at 48, 24 and 12 pixels a side, and at 24 again; a 1 x 1
    convolution joins the last with the first. They are 5 x 5, so that each pixel sees 40 of the 48: of layers of 3 x 3
    it would see 22, and not tell a nucleus from its neighbour.
    """

    def __init__(self, inputs: int, width: int = 8) -> None:
        super().__init__()
        self.first = _wide(inputs, width)
        self.second = _wide(width, 2 * width)
        self.third = _wide(2 * width, 4 * width)
        self.fourth = _wide(6 * width, 2 * width)
        self.head = nn.Conv2d(3 * width, 1, 1)
        self.pool, self.enlarge = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)

    def forward(self, patches: Tensor) -> Tensor:
        fine = self.first(patches)
        middle = self.second(self.pool(fine))
        coarse = self.third(self.pool(middle))
        joined = self.fourth(torch.cat([self.enlarge(coarse), middle], 1))
        logits: Tensor = in_full(self.head(torch.cat([self.enlarge(joined), fine], 1)))
        return logits


def _wide(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 5, padding=2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )
