"""Mask R-CNN that learns from partly annotated images: what looks like an annotated nucleus is no background.

Source: "Robust Nucleus Detection With Partially Labeled Exemplars" (partially labeled exemplars paper), section II. On
the Mask R-CNN of :mod:`nuxel.systems.attention_mask_rcnn`; boxes are as described there.

The module looks at the pyramid's first level beside the proposals and heads, which see that level as it is without the
module. So the paper's baseline, its Mask R-CNN alone, is ``module = false``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from nuxel.errors import NuxelError, UsageError
from nuxel.instances import Instances
from nuxel.labels.relabel import relabel
from nuxel.nn.centerness import SPLITS, CenternessHead
from nuxel.systems.attention_mask_rcnn import (
    AttentionMaskRCNN,
    MaskRCNNNetwork,
    batch_of,
    instances_of,
    weighted,
)
from nuxel.systems.mask_rcnn_config import DetectionConfig, LossConfig, NetworkConfig, SamplingConfig
from nuxel.systems.unknown import unknown_table

UNKNOWNS = ("unproposed", "ignore", "background")
_LEVEL_STRIDE = 4
"""Of P2, the pyramid's first level."""


@dataclass(frozen=True)
class PartialNetworkConfig(NetworkConfig):
    """Parameters
    ----------
    module
        Whether the network has the module that finds the centres of nuclei; without it is the paper's baseline.
    attention
        Channels of the module's attention, C_b = C_v in the paper.
    centre_split
        See :class:`nuxel.nn.centerness.CenternessHead`: 2 for tiny nuclei.
    """

    pyramid: str = "vanilla"
    module: bool = True
    attention: int = 64
    centre_split: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attention < 1:
            raise UsageError(f"attention must be at least 1, got {self.attention}")
        if self.centre_split not in SPLITS:
            raise UsageError(f"centre_split must be 1 or 2, got {self.centre_split}")


@dataclass(frozen=True)
class PartialSamplingConfig(SamplingConfig):
    """What the losses are computed on, beyond what :class:`SamplingConfig` says.

    Parameters
    ----------
    unknown
        Which anchors and proposals count as background where most of their area is not annotated, and they are none of
        the annotated nuclei. ``"background"``: all, as in the paper's naive training. ``"ignore"``: none, for images
        of which a part is annotated in full, background included (the paper's DH25crop). ``"unproposed"``: those that
        have an IoU below ``rpn_negative_iou`` with every box that the module proposes, too: the paper's own rule, for
        images of which some nuclei are annotated and nothing else (DH25). What is annotated is what it is
        annotated as, whatever the module proposes there.
    proposed_score
        What the module proposes, to that end, has at least this score: 0.95 in the paper. Scores need many steps to get
        there, and until then nothing is kept from being background: take less for short training.
    centre_samples, centre_positive_share
        Locations of a batch that the module's loss sees, and the greatest share of centres.
    """

    unknown: str = "unproposed"
    proposed_score: float = 0.95
    centre_samples: int = 128
    centre_positive_share: float = 0.5

    def __post_init__(self) -> None:
        if self.unknown not in UNKNOWNS:
            raise UsageError(f"unknown must be one of {', '.join(UNKNOWNS)}, got {self.unknown!r}")
        if not 0 < self.proposed_score < 1:
            raise UsageError(f"proposed_score must lie between 0 and 1, got {self.proposed_score}")
        super().__post_init__()


@dataclass(frozen=True)
class PartialDetectionConfig(DetectionConfig):
    """What becomes of proposals and boxes, beyond what :class:`DetectionConfig` says.

    Parameters
    ----------
    centre_min_score
        From this score on, locations next to each other are the centre of one nucleus, in prediction.
    """

    centre_min_score: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.centre_min_score < 1:
            raise UsageError(f"centre_min_score must lie between 0 and 1, got {self.centre_min_score}")


@dataclass(frozen=True)
class PartialLossConfig(LossConfig):
    """Weights in the sum of losses; all are 1 in the paper's equation 1."""

    centerness: float = 1.0
    centre_box: float = 1.0


_MODULE_LOSSES = ("centerness", "centre_box")


class PartialMaskRCNNNetwork(MaskRCNNNetwork):
    """:class:`MaskRCNNNetwork` with the module of the paper, if wanted, and with what is not annotated in mind."""

    def __init__(
        self,
        network: PartialNetworkConfig,
        sampling: PartialSamplingConfig,
        detection: PartialDetectionConfig,
    ) -> None:
        super().__init__(network, sampling, detection)
        self.sampling: PartialSamplingConfig = sampling
        self.detection = detection
        self.centre = (
            CenternessHead(network.width, network.attention, _LEVEL_STRIDE, network.centre_split)
            if network.module
            else None
        )

    def partial_losses(self, images: Tensor, labels: Tensor, annotated: Tensor) -> dict[str, Tensor]:
        """Torchvision's losses by its names, and the module's by ours.

        ``labels`` are ``(N, H, W)``, 0 or less is no nucleus; ``annotated`` ``(N, H, W)`` bool.
        """
        features, _ = self._look(images)
        wanted = [instances_of(one) for one in labels]
        of_module: dict[str, Tensor] = {}
        proposed: list[Tensor] = []
        if self.centre is not None:
            logits, codes = self.centre(features[self.names[0]])
            samples, share = self.sampling.centre_samples, self.sampling.centre_positive_share
            boxes = [one["boxes"] for one in wanted]
            found = self.centre.losses(logits, codes, labels, boxes, samples, share)
            of_module = dict(zip(_MODULE_LOSSES, found, strict=True))
            if self.sampling.unknown == "unproposed":
                proposed = self._centres(logits, codes, self.sampling.proposed_score)
        if self.sampling.unknown != "background":
            for one, known in zip(wanted, annotated, strict=True):
                one["unknown"] = unknown_table(known)
            for one, of_one in zip(wanted, proposed, strict=False):
                one["proposed"] = of_one
        return {**self._losses_on(features, batch_of(images), wanted), **of_module}

    def propose(self, batch: ImageList, features: dict[str, Tensor]) -> list[Tensor]:
        """Boxes of each image that may hold a nucleus: the proposals, and those of the centres as strong ones."""
        proposals = super().propose(batch, features)
        if self.centre is None:
            return proposals
        logits, codes = self.centre(features[self.names[0]])
        strong = self._centres(logits, codes, self.detection.centre_min_score)
        return [torch.cat(pair) for pair in zip(strong, proposals, strict=True)]

    def attention_map(self, image: Tensor, mask: Tensor) -> Tensor:
        """What a nucleus attends to in its image, ``(H / 4, W / 4)`` with the sum 1: figure 1 of the paper.

        Parameters
        ----------
        image
            ``(1, 3, H, W)`` in ``[0, 1]``, sides multiples of 32.
        mask
            ``(H, W)`` bool with at least one pixel: the nucleus.

        Raises
        ------
        UsageError
            If the network has no module, or the mask no pixel.
        """
        if self.centre is None:
            raise UsageError("the network has no attention: it was trained with module = false")
        if not mask.any():
            raise UsageError("attention is asked for at the pixels of a nucleus, and its mask has none")
        features, _ = self._look(image)
        places = torch.unique(torch.nonzero(mask) // _LEVEL_STRIDE, dim=0)
        locations = [(row, column) for row, column in places.tolist()]
        return self.centre.attention.attention_map(features[self.names[0]][0], locations)

    def _centres(self, logits: Tensor, codes: Tensor, least: float) -> list[Tensor]:
        assert self.centre is not None
        how = self.detection
        return self.centre.boxes(logits, codes, least, how.rpn_nms, how.proposals)


def attention_of_nucleus(
    network: nn.Module, image: NDArray[np.uint8], mask: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """What a nucleus attends to in its image, as a map to draw: figure 1 of the paper.

    Parameters
    ----------
    network
        Of a run that :func:`nuxel.training.export.load_run` opened, with the module.
    image
        A normalised image, ``(H, W, 3)`` uint8: see :func:`nuxel.image.normalise.normalise`.
    mask
        ``(H, W)`` bool: the pixels of the nucleus, or of several.

    Returns
    -------
    ``(H, W)`` float32 in ``[0, 1]``, 1 where it attends most; :func:`nuxel.export.heat_map.draw_heat_map` draws it.

    Raises
    ------
    UsageError
        If the network has no module, or the mask no pixel.
    """
    if not isinstance(network, PartialMaskRCNNNetwork):
        raise UsageError("attention from a nucleus is what a partial_mask_rcnn has, and this network is none")
    height, width = mask.shape
    below, right = -height % PartialMaskRCNN.stride, -width % PartialMaskRCNN.stride
    window = np.pad(image, ((0, below), (0, right), (0, 0)), mode="symmetric")
    device = next(network.parameters()).device
    pixels = torch.from_numpy(window.transpose(2, 0, 1)[None].astype(np.float32) / 255).to(device)
    where = torch.from_numpy(np.pad(mask, ((0, below), (0, right)))).to(device)
    with torch.no_grad():
        seen = network.attention_map(pixels, where)
    enlarged = seen.repeat_interleave(_LEVEL_STRIDE, 0).repeat_interleave(_LEVEL_STRIDE, 1)[:height, :width]
    drawn: NDArray[np.float32] = (enlarged / enlarged.max()).cpu().numpy()
    return drawn


@dataclass(frozen=True)
class PartialMaskRCNN(AttentionMaskRCNN):
    """Everything that training, export and prediction ask of a system."""

    network: PartialNetworkConfig = field(default_factory=PartialNetworkConfig)
    sampling: PartialSamplingConfig = field(default_factory=PartialSamplingConfig)
    detection: PartialDetectionConfig = field(default_factory=PartialDetectionConfig)
    loss: PartialLossConfig = field(default_factory=PartialLossConfig)

    name = "partial_mask_rcnn"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sampling.unknown == "unproposed" and not self.network.module:
            raise UsageError(
                '[sampling] unknown = "unproposed" needs the module; without it choose "ignore" or "background"'
            )

    @property
    def needs_background(self) -> bool:  # type: ignore[override]
        return self.sampling.unknown == "ignore"

    def build(self) -> PartialMaskRCNNNetwork:
        return PartialMaskRCNNNetwork(self.network, self.sampling, self.detection)

    def prepare(self, network: nn.Module, labels: Iterable[NDArray[np.int32]]) -> None:
        """Give the module the median size of the training set's nuclei, at the scale of their images.

        Raises
        ------
        NuxelError
            If there is no nucleus.
        """
        own = _own(network)
        if own.centre is None:
            return
        boxes = np.concatenate([Instances(np.maximum(relabel(image), 0)).boxes for image in labels])
        if not len(boxes):
            raise NuxelError(
                "no training image has an annotated nucleus, so there is none to learn from; annotate at least one"
            )
        height, width = np.median(boxes[:, 2:] - boxes[:, :2], axis=0)
        own.centre.anchor.copy_(torch.tensor([width, height]))

    def compute_loss(
        self, network: nn.Module, images: Tensor, targets: Tensor, annotated: Tensor
    ) -> dict[str, Tensor]:
        """The weighted losses by name, and their sum under ``loss``."""
        found = _own(network).partial_losses(images, targets[:, 0], annotated[:, 0] > 0)
        return weighted(found, self.loss)


def _own(network: nn.Module) -> PartialMaskRCNNNetwork:
    if not isinstance(network, PartialMaskRCNNNetwork):
        raise TypeError(f"expected a PartialMaskRCNNNetwork, got {type(network).__name__}")
    return network
