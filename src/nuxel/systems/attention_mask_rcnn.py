"""Mask R-CNN with a plain or a residual-attention feature pyramid: nuclei as boxes first, then a mask in each.

Sources: "Nuclei Detection Using Residual Attention Feature Pyramid Networks" (attention paper) for the pyramid; "MLP
Coursework 4: Instance Segmentation of Nucleus Images" (FCN-8s and Mask R-CNN paper), sections 2.2 and 3.4, for the
elimination of overlaps. Proposals, RoIAlign, heads, sampling and their losses are torchvision's.

Boxes are torchvision's ``(x0, y0, x1, y1)`` within this file, and ``(y0, x0, y1, x1)`` in what the graph returns. Its
RoIAlign puts the centre of pixel i at i, and everywhere else here pixel i spans ``[i, i + 1)``: boxes lie half a pixel
further up and left for torchvision. Left out, every mask would be drawn half a pixel off.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from nuxel.decode.detections import DetectionRule
from nuxel.errors import UsageError
from nuxel.nn.attention_fpn import AttentionFPN
from nuxel.nn.blocks import answer_in_full, explained, in_full
from nuxel.nn.pyramid_backbone import PyramidBackbone
from nuxel.predict.card import ATTENTION
from nuxel.systems.mask_rcnn_config import DetectionConfig, LossConfig, NetworkConfig, SamplingConfig
from nuxel.systems.unknown import CautiousProposals, certain_proposals, unknown_table

_FINEST = 2
"""The pyramid begins at P2: C1 is left out (attention paper, section V)."""
_STRIDE = 32
_HALF = 0.5
"""From torchvision's coordinates to ours, in pixels."""
_CLASSES = 2
"""Background and nucleus."""


_LOSSES = {
    "loss_objectness": "objectness",
    "loss_rpn_box_reg": "rpn_box",
    "loss_classifier": "classifier",
    "loss_box_reg": "box",
    "loss_mask": "mask",
}
"""The losses by torchvision's names, and ours."""


class MaskRCNNNetwork(nn.Module):
    """``(N, 3, H, W)`` in ``[0, 1]``, sides multiples of 32 -> detections of one image, or losses of all."""

    def __init__(self, network: NetworkConfig, sampling: SamplingConfig, detection: DetectionConfig) -> None:
        super().__init__()
        self.sampling = sampling
        self.backbone = PyramidBackbone(network.backbone, network.weights, network.frozen_norm)
        self.pyramid = AttentionFPN(
            self.backbone.channels,
            network.width,
            network.pyramid,
            network.extra,
            network.levels,
        )
        names = [str(_FINEST + level) for level in range(network.levels)]
        self.names = [*names, "pool"] if network.extra == "pool" else names
        anchors = AnchorGenerator(
            tuple((side,) for side in network.anchors), (network.ratios,) * len(network.anchors)
        )
        kept = {"training": detection.proposals, "testing": detection.proposals}
        self.rpn = CautiousProposals(
            anchors,
            answer_in_full(RPNHead(network.width, len(network.ratios))),
            sampling.rpn_positive_iou,
            sampling.rpn_negative_iou,
            sampling.rpn_samples,
            sampling.rpn_positive_share,
            kept,
            kept,
            detection.rpn_nms,
        )
        self.heads = RoIHeads(
            MultiScaleRoIAlign(names, 7, 2),
            TwoMLPHead(network.width * 7 * 7, network.box_head),
            answer_in_full(FastRCNNPredictor(network.box_head, _CLASSES)),
            sampling.roi_iou,
            sampling.roi_iou,
            sampling.rois,
            sampling.roi_positive_share,
            None,
            detection.box_min_score,
            detection.box_nms,
            detection.most,
            MultiScaleRoIAlign(names, 14, 2),
            MaskRCNNHeads(network.width, network.mask_head, 1),
            answer_in_full(MaskRCNNPredictor(network.mask_head[-1], network.mask_head[-1], _CLASSES)),
        )

    def losses(self, images: Tensor, labels: Tensor, annotated: Tensor) -> dict[str, Tensor]:
        """Torchvision's losses, by its names.

        ``labels`` are ``(N, H, W)``: 0 or less is no nucleus; ``annotated`` ``(N, H, W)`` bool: anchors and proposals
        that lie mostly elsewhere teach nothing, unless they are an annotated nucleus.
        """
        features, _ = self._look(images)
        wanted = [instances_of(one) for one in labels]
        for one, known in zip(wanted, annotated, strict=True):
            one["unknown"] = unknown_table(known)
        return self._losses_on(features, batch_of(images), wanted)

    def detect(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Of one image ``(1, 3, H, W)``: boxes ``(n, 4)``, scores ``(n,)``, masks ``(n, 28, 28)``, and alphas
        ``(1, h, w)``, the mean over channels, of each level that has one."""
        features, alphas = self._look(image)
        batch = batch_of(image)
        found, _ = self.heads(features, self.propose(batch, features), batch.image_sizes)
        boxes: Tensor = found[0]["boxes"][:, [1, 0, 3, 2]] + _HALF
        return (
            boxes,
            found[0]["scores"],
            found[0]["masks"][:, 0],
            [in_full(alpha.mean(1)) for alpha in alphas],
        )

    def propose(self, batch: ImageList, features: dict[str, Tensor]) -> list[Tensor]:
        """``(k, 4)`` boxes of each image that may hold a nucleus."""
        proposals: list[Tensor] = self.rpn(batch, features)[0]
        return proposals

    def _losses_on(
        self, features: dict[str, Tensor], batch: ImageList, wanted: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        proposals, of_proposals = self.rpn(batch, features, wanted)
        how = self.sampling
        proposals = [
            certain_proposals(of_one, one, how.roi_iou, how.rpn_negative_iou)
            for of_one, one in zip(proposals, wanted, strict=True)
        ]
        return {**of_proposals, **self._head_losses(features, proposals, batch, wanted)}

    def _head_losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        batch: ImageList,
        wanted: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        if not any(len(of_one) + len(one["boxes"]) for of_one, one in zip(proposals, wanted, strict=True)):
            none = torch.stack([p.sum() for p in self.heads.parameters()]).sum() * 0
            return dict.fromkeys(("loss_classifier", "loss_box_reg", "loss_mask"), none)
        found: dict[str, Tensor] = self.heads(features, proposals, batch.image_sizes, wanted)[1]
        return found

    def _look(self, images: Tensor) -> tuple[OrderedDict[str, Tensor], list[Tensor]]:
        try:
            levels, alphas = self.pyramid(self.backbone(images))
        except ValueError as error:
            raise explained(error, images) from None
        return OrderedDict(zip(self.names, levels, strict=True)), alphas


def batch_of(images: Tensor) -> ImageList:
    """Images of one size as torchvision wants them."""
    return ImageList(images, [(images.shape[2], images.shape[3])] * len(images))


def instances_of(labels: Tensor) -> dict[str, Tensor]:
    """The nuclei of a label image ``(H, W)`` as torchvision wants them.

    Returns
    -------
    ``boxes`` ``(n, 4)`` float32 ``(x0, y0, x1, y1)`` around all of the outermost pixels, so that a nucleus of one pixel
    has an area of 1; ``labels`` ``(n,)`` ones; ``masks`` ``(n, H, W)`` uint8. n may be 0.

    Examples
    --------
    >>> instances_of(torch.tensor([[0.0, 0.0, 2.0], [-1.0, 0.0, 2.0]]))["boxes"].tolist()
    [[1.5, -0.5, 2.5, 1.5]]
    """
    present = torch.unique(labels)
    masks = labels[None] == present[present > 0][:, None, None]
    sides = []
    for axis in (1, 2):  # what is left of rows and of columns when the other axis is folded
        line = masks.any(axis)
        length = line.shape[1]
        first = line.float().argmax(1)
        last = length - line.flip(1).float().argmax(1)
        sides.append((first, last))
    (x0, x1), (y0, y1) = sides
    return {
        "boxes": torch.stack([x0, y0, x1, y1], 1).float() - _HALF,
        "labels": torch.ones(len(masks), dtype=torch.int64, device=labels.device),
        "masks": masks.to(torch.uint8),
    }


@dataclass(frozen=True)
class AttentionMaskRCNN:
    """Everything that training, export and prediction ask of a system."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    decoder_rule: DetectionRule = field(default_factory=DetectionRule)

    name = "attention_mask_rcnn"
    decoder = "detections"
    parts = ("stem", "encoder", "decoder")
    needs_background = True
    masks = ()
    stride = _STRIDE

    def __post_init__(self) -> None:
        if self.decoder_rule.mask_scale != 1:
            raise UsageError(
                f"mask_scale must be 1, got {self.decoder_rule.mask_scale}: masks of this network span their boxes"
            )

    @property
    def diameters(self) -> tuple[float, float]:
        """From the smallest to the greatest anchor, half an octave further at both ends."""
        return min(self.network.anchors) / 2**0.5, max(self.network.anchors) * 2**0.5

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the graph's outputs: those of the decoder, and attention by the number of its level."""
        gates = 0 if self.network.pyramid == "vanilla" else 3  # between the backbone's four maps
        return (*self.decoder_rule.maps, *(f"{ATTENTION}{_FINEST + level}" for level in range(gates)))

    @property
    def most(self) -> int:
        return self.detection.most

    def build(self) -> MaskRCNNNetwork:
        return MaskRCNNNetwork(self.network, self.sampling, self.detection)

    def draw_targets(self, labels: NDArray[np.int32]) -> NDArray[np.float32]:
        """The label image itself, ``(1, H, W)`` float32; boxes and masks are made of it where the loss is."""
        return labels[None].astype(np.float32)

    def compute_loss(
        self, network: nn.Module, images: Tensor, targets: Tensor, annotated: Tensor
    ) -> dict[str, Tensor]:
        """The weighted losses by name, and their sum under ``loss``."""
        return weighted(_own(network).losses(images, targets[:, 0], annotated[:, 0] > 0), self.loss)

    def answer(self, network: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
        """What the exported graph returns of one image: the outputs that ``maps`` names."""
        boxes, scores, masks, alphas = _own(network).detect(images)
        return boxes, scores, masks, *alphas

    def parameter_groups(self, network: nn.Module) -> dict[str, list[nn.Parameter]]:
        """Parameters by part: ``stem`` is the backbone up to C3, ``encoder`` the rest of it, ``decoder`` all else."""
        own = _own(network)
        stages = own.backbone.stages()
        groups = {
            "stem": [p for module in stages["stem"] for p in module.parameters(recurse=False)],
            "encoder": [p for module in stages["top"] for p in module.parameters(recurse=False)],
        }
        taken = {id(p) for group in groups.values() for p in group}
        return {**groups, "decoder": [p for p in own.parameters() if id(p) not in taken]}


def weighted(losses: dict[str, Tensor], weights: LossConfig) -> dict[str, Tensor]:
    """Losses by our names, each times its weight, and their sum under ``loss``; torchvision's may have its names."""
    ours = {_LOSSES.get(name, name): value for name, value in losses.items()}
    parts = {name: getattr(weights, name) * value for name, value in ours.items()}
    return {**parts, "loss": torch.stack(list(parts.values())).sum()}


def _own(network: Any) -> MaskRCNNNetwork:
    if not isinstance(network, MaskRCNNNetwork):
        raise TypeError(f"expected a MaskRCNNNetwork, got {type(network).__name__}")
    return network
