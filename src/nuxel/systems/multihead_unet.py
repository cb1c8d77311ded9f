"""The default system: a U-Net with three heads on a pretrained encoder, decoded by watershed.

Source: "Nuclei detection based on Fully Convolutional Networks" (multi-head U-Net paper), sections 5.2, 5.3 and 5.5.
Beyond the paper: where the pixel's nucleus has its centre, by which pixels vote for nuclei, and the logarithm of
the nucleus' diameter, from which prediction chooses its scale.
No operation looks further than its receptive field, so the answer cannot depend on how an image is tiled.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nuxel.data.targets import TargetRule, multihead_targets
from nuxel.decode.watershed import WatershedRule
from nuxel.errors import UsageError
from nuxel.losses.segmentation import cross_entropy, masked_smooth_l1, soft_dice
from nuxel.nn.encoder import Encoder, load_imagenet_weights
from nuxel.nn.multihead_unet import SubpixelHead, UNetDecoder

MAPS = ("nucleus", "shrunk", "touching", "offset_y", "offset_x", "log_diameter")
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class NetworkConfig:
    """Parameters
    ----------
    encoder
        A timm model name.
    weights
        ``"imagenet"``, ``"none"`` (from scratch) or the path of a local weights file.
    depth
        Encoder levels; the coarsest has stride ``2 ** depth``.
    widths
        Channels of the decoder's blocks, coarse to fine; one fewer than ``depth``.
    """

    encoder: str = "tf_efficientnet_lite0"
    weights: str = "imagenet"
    depth: int = 4
    widths: tuple[int, ...] = (160, 96, 64)

    def __post_init__(self) -> None:
        if self.depth < 2 or len(self.widths) != self.depth - 1 or min(self.widths) < 1:
            raise UsageError(
                f"a U-Net has a depth of at least 2 and one positive width fewer than its depth, "
                f"got depth {self.depth} and widths {list(self.widths)}"
            )


@dataclass(frozen=True)
class LossConfig:
    """Weights of the maps in the loss: cross-entropy + soft Dice for the masks, smooth L1 for offset and diameter."""

    nucleus: float = 1.0
    shrunk: float = 1.0
    touching: float = 1.0
    offset: float = 2.0
    log_diameter: float = 0.3


class MultiheadUNetNetwork(nn.Module):
    """``(N, 3, H, W)`` in ``[0, 1]``, sides multiples of ``stride`` -> ``(N, 6, H, W)``, the maps of ``MAPS``; masks as logits."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config.encoder, config.depth)
        if config.weights != "none":
            path = None if config.weights == "imagenet" else config.weights
            load_imagenet_weights(self.encoder, config.encoder, path)
        self.decoder = UNetDecoder(self.encoder.channels, config.widths)
        self.head = SubpixelHead(self.decoder.channels, len(MAPS))
        self.stride = 2**config.depth
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.head(self.decoder(self.encoder((images - self.mean) / self.std)))
        return maps


@dataclass(frozen=True)
class MultiheadUNet:
    """Everything that training, export and prediction ask of a system."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    targets: TargetRule = field(default_factory=TargetRule)
    loss: LossConfig = field(default_factory=LossConfig)
    decoder_rule: WatershedRule = field(default_factory=WatershedRule)

    name = "multihead_unet"
    decoder = "watershed"
    context = "local"
    maps = MAPS
    diameters = (10.0, 44.0)

    @property
    def stride(self) -> int:
        """The sides of the network's input are multiples of this."""
        return 1 << self.network.depth

    def build(self) -> MultiheadUNetNetwork:
        return MultiheadUNetNetwork(self.network)

    def draw_targets(self, labels: NDArray[np.int32]) -> NDArray[np.float32]:
        return multihead_targets(labels, self.targets)

    def compute_loss(self, outputs: Tensor, targets: Tensor, annotated: Tensor) -> dict[str, Tensor]:
        """The weighted losses by name, and their sum under ``loss``."""
        logits, drawn = outputs[:, :3], targets[:, :3]
        masks = cross_entropy(logits, drawn, annotated) + soft_dice(logits, drawn, annotated)
        inside = targets[:, :1] * annotated
        offset = masked_smooth_l1(outputs[:, 3:5], targets[:, 3:5], inside, beta=0.1)
        size = masked_smooth_l1(outputs[:, 5:], targets[:, 5:], inside, beta=0.25)
        weights = self.loss
        parts = {
            "nucleus": weights.nucleus * masks[0],
            "shrunk": weights.shrunk * masks[1],
            "touching": weights.touching * masks[2],
            "offset": weights.offset * offset,
            "log_diameter": weights.log_diameter * size,
        }
        return {**parts, "loss": torch.stack(list(parts.values())).sum()}

    def probabilities(self, outputs: Tensor) -> Tensor:
        """What the exported graph returns: the masks as probabilities, the other maps as they are."""
        return torch.cat([torch.sigmoid(outputs[:, :3]), outputs[:, 3:]], 1)

    def parameter_groups(self, network: nn.Module) -> dict[str, list[nn.Parameter]]:
        """Parameters by the part of the recipe that sets their learning rate."""
        if not isinstance(network, MultiheadUNetNetwork):
            raise TypeError(f"expected a MultiheadUNetNetwork, got {type(network).__name__}")
        encoder = list(network.encoder.parameters())
        own = {id(p) for p in encoder}
        return {"encoder": encoder, "decoder": [p for p in network.parameters() if id(p) not in own]}
