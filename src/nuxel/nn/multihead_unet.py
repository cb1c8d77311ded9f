"""The decoder half of the multi-head U-Net."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def conv_norm_act(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    """Convolution that keeps the size, batch normalisation (after every convolution: section 5.2.1), ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class UpBlock(nn.Module):
    """Double the size, join the encoder's map of that size, refine.

    The first convolution of a U-Net's block sees the enlarged features and the skip side by side. Here it is taken apart:
    the features' share is convolved before it is enlarged, at a quarter of the work, and the two shares are added.
    Nothing is concatenated, which saves the most memory where maps are largest.
    """

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.coarse = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.skip = nn.Conv2d(skip, outputs, 3, padding=1, bias=False)
        self.join = nn.Sequential(nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
        self.refine = conv_norm_act(outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        enlarged = nn.functional.interpolate(self.coarse(x), scale_factor=2.0, mode="nearest")
        joined: Tensor = self.refine(self.join(enlarged + self.skip(skip)))
        return joined


class SubpixelHead(nn.Module):
    """Maps at full size from features at half size: each feature pixel predicts its own 2 x 2 output pixels."""

    def __init__(self, inputs: int, maps: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 4 * maps, 1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.conv(x), 2)


class UNetDecoder(nn.Module):
    """From the encoder's maps (finest first, strides 2, 4, ...) to features at stride 2."""

    def __init__(self, channels: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        inputs = channels[-1]
        self.blocks = nn.ModuleList()
        for skip, width in zip(reversed(channels[:-1]), widths, strict=True):
            self.blocks.append(UpBlock(inputs, skip, width))
            inputs = width
        self.channels = inputs

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = maps[-1]
        for block, skip in zip(self.blocks, reversed(maps[:-1]), strict=True):
            x = block(x, skip)
        return x
