"""FCN-8s: VGG16 made fully convolutional, with skip connections from pool4 and pool3 and learned deconvolutions.

Sources: "Instance Segmentation of Nucleus Images" (FCN-8s and Mask R-CNN paper), sections 2.1 and 3.3, and the network
that it takes, Shelhamer, Long and Darrell, "Fully Convolutional Networks for Semantic Segmentation" (2017), section
4. The former speaks of deconvolutions of "the last two max-pooling layers"; these are read as FCN-8s' own skip
connections, pool4 and pool3.
"""

from __future__ import annotations

import contextlib
import math
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, vgg16

from nuxel.errors import NuxelError, UsageError
from nuxel.nn.blocks import in_full, initialise
from nuxel.nn.encoder import IMAGENET_MEAN, IMAGENET_STD, read_state

_FC_CHANNELS = 4096
"""Of VGG16's classifier."""


class FCN8s(nn.Module):
    """``(N, 3, H, W)`` in ``[0, 1]``, sides multiples of 32 -> ``(N, 1, H, W)``: the logit of "nucleus".

    The convolution fc6, of 7 x 7, pads by 3 pixels, so that every map is exactly input / stride. (The original pads
    the image by 100 pixels and crops what it then has too much of.) The deconvolutions overlap by half: kernels of 4, 4
    and 16 pixels for strides 2, 2 and 8.

    From scratch all convolutions begin as He et al. 2015; whatever the weights, the deconvolutions begin as bilinear
    interpolation, and the scores of pool4 and pool3 as zero, so that training starts from the prediction of fc7 alone
    (Shelhamer et al., section 4.2).

    Attributes
    ----------
    encoder
        VGG16's convolutions and poolings under torchvision's names, ``encoder.0.weight`` being its
        ``features.0.weight``. All else is the decoder.
    mean, std
        ``(1, 3, 1, 1)``: ImageNet's, by which images are normalised here. They are no part of the state dict.
    stride
        32: the sides of the input are multiples of this.

    Parameters
    ----------
    width
        Multiplies the channels of all layers of VGG16, which it is at 1.
    fc_channels
        Channels of fc6 and fc7.
    dropout
        Share of the values of fc6 and fc7 that training drops.
    weights
        ``"none"``; ``"imagenet"``, downloaded by torchvision into its cache (528 MB, ``IMAGENET1K_V1``: unlike
        ``IMAGENET1K_FEATURES`` it has fc6 and fc7, and expects ImageNet's mean and spread); or the path of a state
        dict of torchvision's vgg16, safetensors or ``torch.save``. What it has of a classifier becomes fc6 and fc7 if
        these have 4096 channels; otherwise, and where there is none, they begin from scratch.

    Raises
    ------
    UsageError
        If a number is out of its range, or there are weights for a network that is not as wide as VGG16.
    NuxelError
        If the weights cannot be downloaded or read, or do not fit.

    Examples
    --------
    >>> network = FCN8s(width=0.125, fc_channels=64)
    >>> network(torch.rand(2, 3, 64, 96)).shape
    torch.Size([2, 1, 64, 96])
    """

    mean: Tensor
    std: Tensor
    stride = 32

    def __init__(
        self,
        width: float = 1.0,
        fc_channels: int = _FC_CHANNELS,
        dropout: float = 0.5,
        weights: str = "none",
    ) -> None:
        super().__init__()
        if not 0 < width < math.inf:
            raise UsageError(f"width multiplies the channels of VGG16 and must be positive, got {width}")
        if fc_channels < 1:
            raise UsageError(f"fc_channels must be at least 1, got {fc_channels}")
        if not 0 <= dropout < 1:
            raise UsageError(f"dropout is a share and must be at least 0 and below 1, got {dropout}")
        if weights != "none" and width != 1:
            raise UsageError(
                f"weights of VGG16 fit a network of width 1 only, got width {width}; set weights = 'none'"
            )
        self.encoder, (pool3, pool4, pool5) = _vgg16_features(width)
        self.fc = nn.Sequential(
            nn.Conv2d(pool5, fc_channels, 7, padding=3),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(fc_channels, fc_channels, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        self.score_fc = nn.Conv2d(fc_channels, 1, 1)
        self.score_pool4 = nn.Conv2d(pool4, 1, 1)
        self.score_pool3 = nn.Conv2d(pool3, 1, 1)
        self.up_fc, self.up_pool4, self.up_pool3 = _deconvolution(2), _deconvolution(2), _deconvolution(8)
        for part in (self.encoder, self.fc, self.score_fc):
            initialise(part, "he")
        for values in (*self.score_pool4.parameters(), *self.score_pool3.parameters()):
            nn.init.zeros_(values)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        if weights != "none":
            _load_vgg16(self, weights, with_classifier=fc_channels == _FC_CHANNELS)

    def forward(self, images: Tensor) -> Tensor:
        x = (images - self.mean) / self.std
        pools = []
        for layer in self.encoder:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                pools.append(x)
        _, _, pool3, pool4, pool5 = pools
        scores = self.up_fc(self.score_fc(self.fc(pool5))) + self.score_pool4(pool4)
        logits: Tensor = in_full(self.up_pool3(self.up_pool4(scores) + self.score_pool3(pool3)))
        return logits


def _vgg16_features(width: float) -> tuple[nn.Sequential, list[int]]:
    """torchvision's layers with ``width`` times their channels, and the channels of pool3, pool4 and pool5."""
    # Without memory for its classifier, which has nine tenths of the weights and is not used.
    with torch.device("meta"):
        features: nn.Sequential = vgg16(init_weights=False).features
    channels, of_pools = 3, []
    for place, layer in enumerate(features):
        if isinstance(layer, nn.Conv2d):
            inputs, channels = channels, max(1, round(width * layer.out_channels))
            features[place] = nn.Conv2d(inputs, channels, 3, padding=1)
        elif isinstance(layer, nn.MaxPool2d):
            of_pools.append(channels)
    return features, of_pools[2:]


def _deconvolution(times: int) -> nn.ConvTranspose2d:
    """Enlarge one channel ``times``, an even number; to begin with bilinearly, beyond the edge being 0."""
    deconvolution = nn.ConvTranspose2d(1, 1, 2 * times, stride=times, padding=times // 2, bias=False)
    taps = 1 - (torch.arange(2 * times) + 0.5 - times).abs() / times
    with torch.no_grad():
        deconvolution.weight.copy_(torch.outer(taps, taps))
    return deconvolution


def _load_vgg16(network: FCN8s, weights: str, *, with_classifier: bool) -> None:
    """Load a state dict of torchvision's vgg16 into the encoder and, where it has a classifier, into fc6 and fc7."""
    if weights == "imagenet":
        where, state = VGG16_Weights.IMAGENET1K_V1.url, _download()
    else:
        where, state = weights, read_state(Path(weights))
    own = {f"features.{key}": value for key, value in network.encoder.state_dict().items()}
    if with_classifier and any(key.startswith("classifier.") for key in state):
        # fc6 and fc7 have the places in our sequence that they have in torchvision's.
        own |= {f"classifier.{key}": value for key, value in network.fc.state_dict().items()}
    missing = [key for key, value in own.items() if not _fits(state.get(key), value)]
    if missing:
        raise NuxelError(
            f"{where}: the weights do not fit VGG16: {len(missing)} keys missing, of another shape or not finite, "
            f"first {missing[:3]}; the first of its own are {sorted(state)[:3]}"
        )
    for key, value in own.items():
        value.copy_(state[key].reshape(value.shape))


def _fits(given: Tensor | None, own: Tensor) -> bool:
    """Whether ``given`` holds numbers for a layer: a convolution's, or those of the linear layer that is the same.

    The latter has one row an output, in it all of the first input channel's rows and columns, and so on.
    """
    if given is None or given.shape not in (own.shape, own.view(len(own), -1).shape):
        return False
    # Least and greatest are numbers only if all are; to ask each of a hundred million takes seconds.
    return bool(torch.stack(given.aminmax()).isfinite().all())


def _download() -> dict[str, Tensor]:
    published = VGG16_Weights.IMAGENET1K_V1
    try:
        # torchvision announces the download on stdout, which is for data.
        with contextlib.redirect_stdout(sys.stderr):
            state: dict[str, Tensor] = published.get_state_dict(check_hash=True, weights_only=True)
    except Exception as error:  # the network, the disk and damaged files each have errors of their own
        reason = str(error).partition("\n")[0]
        raise NuxelError(
            f"{published.url}: VGG16's ImageNet weights cannot be downloaded ({reason}); give a local file of "
            "torchvision's vgg16, or set weights = 'none'"
        ) from None
    return state
