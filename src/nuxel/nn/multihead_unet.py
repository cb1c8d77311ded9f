"""The decoder half of the multi-head U-Net."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nuxel.nn.blocks import DEFAULT_STYLE, ConvStyle, conv_norm_act, up_conv_norm_act


class UpBlock(nn.Module):
    """Double the size, join the encoder's map of that size, refine.

    The first convolution of a U-Net's block sees the enlarged features and the skip side by side. Here it is
    taken apart: the features' share is convolved before it is enlarged, at a quarter of the work, and the two
    shares are added. Nothing is concatenated, which saves the most memory where maps are largest.
    ``convolutions`` are those that follow the sum.
    """

    def __init__(
        self,
        inputs: int,
        skip: int,
        outputs: int,
        style: ConvStyle = DEFAULT_STYLE,
        convolutions: int = 1,
    ) -> None:
        super().__init__()
        self.coarse = style.conv(inputs, outputs, 3)
        self.skip = style.conv(skip, outputs, 3)
        self.join = nn.Sequential(nn.BatchNorm2d(outputs), style.activate())
        self.refine = nn.Sequential(
            *(part for _ in range(convolutions) for part in conv_norm_act(outputs, outputs, 3, style))
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        enlarged = nn.functional.interpolate(self.coarse(x), scale_factor=2.0, mode="nearest")
        joined: Tensor = self.refine(self.join(enlarged + self.skip(skip)))
        return joined

    @torch.no_grad()
    def fold_norm(self) -> None:
        """Let the two convolutions do the normalisation of their sum, in place, for evaluation only.

        An exporter folds a normalisation into the one convolution before it, but not into two.
        """
        norm = self.join[0]
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        for conv in (self.coarse, self.skip):
            conv.weight.mul_(factor.view(-1, 1, 1, 1))
        self.skip.bias = nn.Parameter(norm.bias - norm.running_mean * factor)
        self.join[0] = nn.Identity()


class ConcatUpBlock(nn.Module):
    """The U-Net's own block: a transposed convolution, the skip beside it, two 3 x 3 convolutions.

    Source: multi-head U-Net paper, section 5.2.1; batch normalisation and activation follow every convolution.
    ``skip`` is the number of channels of the encoder's map of that size, 0 where there is none.
    """

    def __init__(self, inputs: int, skip: int, outputs: int, style: ConvStyle = DEFAULT_STYLE) -> None:
        super().__init__()
        self.up = up_conv_norm_act(inputs, outputs, style)
        self.refine = nn.Sequential(
            conv_norm_act(outputs + skip, outputs, 3, style), conv_norm_act(outputs, outputs, 3, style)
        )

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        enlarged = self.up(x)
        joined = enlarged if skip is None else torch.cat([enlarged, skip], 1)
        refined: Tensor = self.refine(joined)
        return refined


class SubpixelHead(nn.Module):
    """Maps at full size from features at half size: each feature pixel predicts its own 2 x 2 output pixels."""

    def __init__(self, inputs: int, maps: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 4 * maps, 1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.conv(x), 2)


class UNetDecoder(nn.Module):
    """From the encoder's maps (finest first, each half the one before) to features at the size of the finest.

    Parameters
    ----------
    channels
        Channels of the encoder's maps, fine to coarse.
    widths
        Channels of the blocks, coarse to fine; one block for each map but the coarsest. One more doubles the size
        once more, without a skip.
    make_blocks
        Of each block, ``(inputs, skip, outputs)`` -> a block that takes features and the skip of twice their size.
    """

    def __init__(
        self,
        channels: Sequence[int],
        widths: Sequence[int],
        make_blocks: Sequence[Callable[[int, int, int], nn.Module]],
    ) -> None:
        super().__init__()
        skips = list(reversed(channels[:-1]))
        if len(widths) == len(skips) + 1:
            skips.append(0)
        inputs = channels[-1]
        self.blocks = nn.ModuleList()
        for make_block, skip, width in zip(make_blocks, skips, widths, strict=True):
            self.blocks.append(make_block(inputs, skip, width))
            inputs = width
        self.channels = inputs

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = maps[-1]
        skips: list[Tensor | None] = list(reversed(maps[:-1]))
        if len(skips) < len(self.blocks):
            skips.append(None)
        for block, skip in zip(self.blocks, skips, strict=True):
            x = block(x, skip)
        return x
