"""The encoder of the plain U-Net."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nuxel.nn.blocks import DEFAULT_STYLE, ConvStyle, conv_norm_act


class PlainEncoder(nn.Module):
    """Two 3 x 3 convolutions a level, 2 x 2 max pooling between levels.

    Source: multi-head U-Net paper, section 5.2.1. Unlike the original U-Net, convolutions keep the size, so that skip
    connections need no cropping, and batch normalisation follows each.

    Parameters
    ----------
    widths
        Channels of each level, fine to coarse, at strides 1, 2, 4, ...
    style
        Activation and padding.
    """

    def __init__(self, widths: Sequence[int], style: ConvStyle = DEFAULT_STYLE) -> None:
        super().__init__()
        self.channels = list(widths)
        self.strides = [2**level for level in range(len(widths))]
        self.pool = nn.MaxPool2d(2)
        self.levels = nn.ModuleList()
        inputs = 3
        for width in widths:
            self.levels.append(
                nn.Sequential(conv_norm_act(inputs, width, 3, style), conv_norm_act(width, width, 3, style))
            )
            inputs = width

    def forward(self, images: Tensor) -> list[Tensor]:
        """``(N, 3, H, W)`` with H and W multiples of the last stride -> one map a level, finest first."""
        maps: list[Tensor] = []
        for level in self.levels:
            maps.append(level(self.pool(maps[-1]) if maps else images))
        return maps
