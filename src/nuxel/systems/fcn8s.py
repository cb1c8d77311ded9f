"""FCN-8s and opening: the foreground first, then nuclei by what erosion leaves apart.

Source: "MLP Coursework 4: Instance Segmentation of Nucleus Images" (FCN-8s and Mask R-CNN paper), sections 2.1 and 3.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nuxel.decode.opening import OpeningRule
from nuxel.losses.segmentation import cross_entropy, soft_dice
from nuxel.nn.fcn8s import FCN8s
from nuxel.systems.system import check_weights

_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cross_entropy": cross_entropy,
    "soft_dice": soft_dice,
}


@dataclass(frozen=True)
class NetworkConfig:
    """Parameters of :class:`nuxel.nn.fcn8s.FCN8s`, by the same names."""

    width: float = 1.0
    fc_channels: int = 4096
    dropout: float = 0.5
    weights: str = "imagenet"


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses of the foreground; the paper does not name its loss, FCN's own is cross-entropy."""

    cross_entropy: float = 1.0
    soft_dice: float = 0.0

    def __post_init__(self) -> None:
        check_weights(asdict(self))


@dataclass(frozen=True)
class FCN8sSystem:
    """Everything that training, export and prediction ask of a system."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    decoder_rule: OpeningRule = field(default_factory=OpeningRule)

    name = "fcn8s"
    decoder = "opening"
    diameters = (12.0, 60.0)
    parts = ("encoder", "decoder")
    needs_background = True
    maps = ("nucleus",)
    masks = ("nucleus",)
    stride = FCN8s.stride
    most = None

    def build(self) -> FCN8s:
        config = self.network
        return FCN8s(config.width, config.fc_channels, config.dropout, config.weights)

    def draw_targets(self, labels: NDArray[np.int32]) -> NDArray[np.float32]:
        """``(H, W)`` labels -> the foreground, ``(1, H, W)`` float32 in {0, 1}."""
        return (labels > 0).astype(np.float32)[None]

    def compute_loss(
        self, network: nn.Module, images: Tensor, targets: Tensor, annotated: Tensor
    ) -> dict[str, Tensor]:
        """The weighted losses by name, those whose weight is not 0, and their sum under ``loss``."""
        logits = network(images)
        parts = {
            name: weight * loss(logits, targets, annotated).sum()
            for name, loss in _LOSSES.items()
            if (weight := getattr(self.loss, name))
        }
        return {**parts, "loss": torch.stack(list(parts.values())).sum()}

    def answer(self, network: nn.Module, images: Tensor) -> Tensor:
        """What the exported graph returns: the probability of a nucleus, ``(N, 1, H, W)``."""
        return torch.sigmoid(network(images))

    def parameter_groups(self, network: nn.Module) -> dict[str, list[nn.Parameter]]:
        """Parameters by part: ``encoder`` is VGG16's convolutions, ``decoder`` all else."""
        if not isinstance(network, FCN8s):
            raise TypeError(f"expected an FCN8s, got {type(network).__name__}")
        encoder = list(network.encoder.parameters())
        own = {id(p) for p in encoder}
        return {"encoder": encoder, "decoder": [p for p in network.parameters() if id(p) not in own]}
