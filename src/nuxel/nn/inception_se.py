"""The augmented decoder's block: transposed convolution, multi-scale convolutions, squeeze-and-excitation.

Source: multi-head U-Net paper, section 5.2.3 and figure 3. The paper does not list the module's branches; they are
those of Inception with the 5 x 5 convolution as two of 3 x 3 (Szegedy et al. 2015, the paper's reference 12).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nuxel.nn.blocks import DEFAULT_STYLE, ConvStyle, conv_norm_act, up_conv_norm_act


class InceptionModule(nn.Module):
    """Convolutions of several scales side by side: ``(N, inputs, H, W)`` -> ``(N, outputs, H, W)``.

    A quarter of the outputs, a multiple of 4, comes from each branch: 1 x 1; 1 x 1 then 3 x 3; 1 x 1 then twice
    3 x 3; mean of 3 x 3 then 1 x 1. Batch normalisation and activation follow every convolution.
    """

    def __init__(self, inputs: int, outputs: int, style: ConvStyle = DEFAULT_STYLE) -> None:
        super().__init__()
        if outputs % 4:
            raise ValueError(f"an Inception module of four branches cannot have {outputs} outputs")
        width = outputs // 4

        def wide() -> nn.Sequential:
            return conv_norm_act(width, width, 3, style)

        def narrow() -> nn.Sequential:
            return conv_norm_act(inputs, width, 1, style)

        self.branches = nn.ModuleList(
            [
                narrow(),
                nn.Sequential(narrow(), wide()),
                nn.Sequential(narrow(), wide(), wide()),
                nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), narrow()),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class SqueezeExcitation(nn.Module):
    """Scale each channel by what the whole input says: ``x * sigmoid(W2 relu(W1 mean(x) + b1) + b2)``.

    Source: Hu et al. 2018, equations 2 to 4; in the multi-head U-Net paper section 5.2.3. ``(N, C, H, W)``
    stays as it is in shape. The mean is over H and W, so the answer at a pixel depends on the whole window.

    Parameters
    ----------
    channels
        C.
    reduction
        r: the hidden layer has ``C / r`` channels, at least one.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.excite = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor = self.excite(self.squeeze(x))
        return x * scale


class InceptionSEUpBlock(nn.Module):
    """Double the size by a transposed convolution, join the skip, look at several scales, weigh the channels.

    ``skip`` is the number of channels of the encoder's map of that size, 0 where there is none.
    """

    def __init__(
        self, inputs: int, skip: int, outputs: int, reduction: int = 16, style: ConvStyle = DEFAULT_STYLE
    ) -> None:
        super().__init__()
        self.up = up_conv_norm_act(inputs, outputs, style)
        self.inception = InceptionModule(outputs + skip, outputs, style)
        self.weigh = SqueezeExcitation(outputs, reduction)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        enlarged = self.up(x)
        joined = enlarged if skip is None else torch.cat([enlarged, skip], 1)
        weighed: Tensor = self.weigh(self.inception(joined))
        return weighed
