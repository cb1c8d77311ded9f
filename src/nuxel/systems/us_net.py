"""US-Net: two branches on one base, of which one finds nuclei and the other maps them; then each is drawn by itself.

Source: "US-Net for Robust and Efficient Nuclei Instance Segmentation" (US-Net paper). Anchors, coding of boxes, their
matching and suppression, and RoIAlign are torchvision's.

Boxes are torchvision's ``(x0, y0, x1, y1)`` within this file, and ``(y0, x0, y1, x1)`` in what the graph returns.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import roi_align

from nuxel.decode.detections import DetectionRule
from nuxel.errors import UsageError
from nuxel.instances import Instances
from nuxel.labels.relabel import relabel
from nuxel.losses.detection import area_weights, box_loss, focal_loss, mean_absolute
from nuxel.nn.ssd import DefaultBoxes, DetectionBranch, best_boxes, encode, match, thinnest_side
from nuxel.nn.us_net import BLOCKS, DEPTH, PATCH, RefinementUNet, SegmentationBranch, SharedBase
from nuxel.systems.attention_mask_rcnn import instances_of
from nuxel.systems.system import check_weights

BRANCHES = ("joint", "detection", "segmentation")
_DETECTED = slice(DEPTH - 3, DEPTH)
"""Detection sees the base's last three maps, "38 x 38, 19 x 19, 10 x 10"."""
_STRIDES = (8, 16, 32)
_HALF = 0.5
"""From the boxes of Mask R-CNN, to which the centre of pixel i is i, to those here."""
_PATCHES = 32
"""Nuclei of one image, drawn by lot, from which refinement learns in a step."""
_JITTER = 0.1
"""Refinement learns from true boxes moved by up to this part of a side, and made larger or smaller by up to e to twice
this: about as wrong as those that detection finds."""


@dataclass(frozen=True)
class NetworkConfig:
    """Parameters
    ----------
    branches
        ``"joint"``, or one alone, to compare with: ``"detection"``, whose masks refinement draws from the image, or
        ``"segmentation"``, which maps nuclei and reports none.
    block
        What the layers are made of, four convolutions each: ``"plain"``, ``"residual"`` or ``"dense"``.
    widths
        Channels of the six layers and of the bottleneck; multiples of 4 for dense blocks.
    sizes, scales, ratios
        Of default boxes: base sizes in pixels, one for each of the three maps (the paper prints only what is found,
        20 to 128 pixels, which is the range of these times the scales); factors; heights over widths.
    refinement
        Whether a second network draws each nucleus; otherwise its mask is cut out of the segmentation branch's map.
    """

    branches: str = "joint"
    block: str = "plain"
    widths: tuple[int, ...] = (16, 32, 64, 128, 128, 128, 128)
    sizes: tuple[float, ...] = (25.0, 52.0, 107.0)
    scales: tuple[float, ...] = (0.8, 1.2)
    ratios: tuple[float, ...] = (1.0, 0.75)
    refinement: bool = True

    def __post_init__(self) -> None:
        for key, known in (("branches", BRANCHES), ("block", tuple(BLOCKS))):
            if (value := getattr(self, key)) not in known:
                raise UsageError(f"{key} must be one of {', '.join(known)}, got {value!r}")
        if len(self.widths) != DEPTH + 1 or min(self.widths) < 1:
            raise UsageError(
                f"widths must hold {DEPTH + 1} positive numbers, those of {DEPTH} layers and of the bottleneck, got "
                f"{list(self.widths)}"
            )
        if self.block == "dense" and any(width % 4 for width in self.widths):
            raise UsageError(f"widths of dense blocks must be multiples of 4, got {list(self.widths)}")
        for key in ("sizes", "scales", "ratios"):
            numbers = getattr(self, key)
            if not numbers or not all(0 < number < math.inf for number in numbers):
                raise UsageError(f"{key} must hold positive numbers, got {list(numbers)}")
        if len(self.sizes) != len(_STRIDES):
            raise UsageError(
                f"sizes must hold one for each of the {len(_STRIDES)} maps, got {list(self.sizes)}"
            )
        if (thinnest := min(self.scales) * thinnest_side(self.sizes, self.ratios)) <= 1:
            raise UsageError(
                f"boxes must be more than 1 pixel wide and high at all sizes, scales and ratios, got {thinnest:.2g}"
            )
        if self.branches == "detection" and not self.refinement:
            raise UsageError(
                "the detection branch alone has no map to cut masks out of; set refinement = true"
            )


@dataclass(frozen=True)
class DetectionConfig:
    """What becomes of default boxes, in training and within the exported graph.

    Parameters
    ----------
    matched_iou
        The least IoU with a nucleus of the default boxes that stand for it; the best one always does.
    candidates
        The best boxes of a window, so many of them, are looked at.
    box_nms, box_min_score
        Non-maximum suppression of boxes, and the least score of one; the decoder's rule is applied afterwards.
    most
        The greatest number of nuclei of one window; prediction reports when it is reached.
    """

    matched_iou: float = 0.5
    candidates: int = 1000
    box_nms: float = 0.45
    box_min_score: float = 0.05
    most: int = 500

    def __post_init__(self) -> None:
        for name in ("matched_iou", "box_nms"):
            if not 0 < getattr(self, name) <= 1:
                raise UsageError(f"{name} must lie above 0 and not above 1, got {getattr(self, name)}")
        if not 0 <= self.box_min_score < 1:
            raise UsageError(f"box_min_score must lie between 0 and 1, got {self.box_min_score}")
        for name in ("candidates", "most"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class LossConfig:
    """Equation 1: ``confidence + location * L_loc + segmentation * L_seg``; refinement has its own, cross-entropy.

    Parameters
    ----------
    location, segmentation
        The paper's alpha and beta.
    gamma
        Of the focal loss, which the paper does not print: 2 as in the one that it adapts; 0 or at least 1.
    area_ratio
        Whether eta, equation 4, weighs nuclei and background by what the segmentation branch gives them; else it is 1,
        as it is without that branch.
    """

    location: float = 1.0
    segmentation: float = 0.1
    gamma: float = 2.0
    area_ratio: bool = True

    def __post_init__(self) -> None:
        # the others have a weight of 1
        check_weights({"location": self.location, "segmentation": self.segmentation, "the others": 1})
        if self.gamma != 0 and not 1 <= self.gamma < math.inf:
            raise UsageError(f"gamma must be 0 or at least 1, got {self.gamma}")


@dataclass(frozen=True)
class USNetRule(DetectionRule):
    """The decoder of detections with US-Net's defaults: pixels that several nuclei claim go by probability, and masks
    span 1.2 times the sides of their boxes: the "scaled bounding boxes" of section 3.1, which names no factor."""

    overlap: str = "probability"
    mask_scale: float = 1.2


class USNetNetwork(nn.Module):
    """``(N, 3, H, W)`` in ``[0, 1]``, of any size -> detections of one image, or the losses of all."""

    def __init__(
        self, network: NetworkConfig, detection: DetectionConfig, loss: LossConfig, mask_scale: float
    ) -> None:
        super().__init__()
        self.config, self.loss, self.mask_scale = detection, loss, mask_scale
        *widths, bottleneck = network.widths
        self.default_boxes = DefaultBoxes(_STRIDES, network.sizes, network.scales, network.ratios)
        self.base = SharedBase(widths, network.block)
        self.segmentation = self.detection = self.refinement = None
        if network.branches != "detection":
            self.segmentation = SegmentationBranch(widths, bottleneck, network.block)
        if network.branches != "segmentation":
            self.detection = DetectionBranch(widths[_DETECTED], self.default_boxes.each)
            if network.refinement:
                self.refinement = RefinementUNet(3 if self.segmentation is None else 4)

    def losses(self, images: Tensor, labels: Tensor, annotated: Tensor) -> dict[str, Tensor]:
        """The weighted losses by name.

        ``labels`` and ``annotated`` are ``(N, 1, H, W)``; a label of 0 or less is no nucleus. What is not annotated
        counts neither for nor against: not as a pixel, and not as the centre of a default box without a nucleus.
        """
        maps = self.base(images)
        seen, weights = images, images.new_ones(len(images), 2)
        parts = {}
        if self.segmentation is not None:
            nuclei = torch.sigmoid(self.segmentation(maps))
            seen = torch.cat([images, nuclei.detach()], 1)
            error = mean_absolute(nuclei, (labels > 0).float(), annotated)
            parts["segmentation"] = self.loss.segmentation * error
            if self.loss.area_ratio:
                weights = area_weights(nuclei, annotated)
        if self.detection is not None:
            wanted = [nuclei_of(one[0]) for one in labels]
            logits, offsets = self.detection(maps[_DETECTED])
            parts["confidence"], location = self._detection_losses(
                logits, offsets, [one["boxes"] for one in wanted], annotated, weights
            )
            parts["location"] = self.loss.location * location
            if self.refinement is not None:
                parts["refinement"] = self._refinement_loss(self.refinement, seen, wanted, annotated)
        return parts

    def _detection_losses(
        self, logits: Tensor, offsets: Tensor, truth: list[Tensor], annotated: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        height, width = annotated.shape[2:]
        boxes = self.default_boxes.around(height, width).to(logits.device)
        x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2).long().unbind(1)
        known = annotated[:, 0, y.clamp(max=height - 1), x.clamp(max=width - 1)] > 0
        matches = torch.stack([match(boxes, one, self.config.matched_iou) for one in truth])
        nucleus = matches >= 0
        each = [encode(t[m[p]], boxes[p]) for t, m, p in zip(truth, matches, nucleus, strict=True)]
        return (
            focal_loss(logits, nucleus, known | nucleus, weights, self.loss.gamma),
            box_loss(offsets[nucleus], torch.cat(each)),
        )

    def _refinement_loss(
        self, refinement: nn.Module, seen: Tensor, wanted: list[dict[str, Tensor]], annotated: Tensor
    ) -> Tensor:
        """Of a data set of patches, cut around the nuclei of the batch.

        Without any it is 0, of no patch: on several devices each must have a gradient of every parameter.
        """
        boxes, masks = [], [seen.new_zeros(0, 1, PATCH, PATCH)]
        for one in wanted:
            drawn = torch.randperm(len(one["boxes"]), device=seen.device)[:_PATCHES]
            boxes.append(self._grown(jittered(one["boxes"][drawn])))
            if len(drawn):
                masks.append(cut(one["masks"][drawn][:, None].float(), list(boxes[-1][:, None])))
        patches = cut(torch.cat([seen, annotated], 1), boxes)
        inputs, known = patches[:, :-1], patches[:, -1:] >= 0.5  # beyond the image RoIAlign finds zeros
        target = (torch.cat(masks) >= 0.5).float()
        loss = functional.binary_cross_entropy_with_logits(refinement(inputs), target, reduction="none")
        return (loss * known).sum() / known.sum().clamp(min=1)

    def detect(self, image: Tensor) -> tuple[Tensor, ...]:
        """Of one image ``(1, 3, H, W)``: boxes ``(n, 4)``, scores ``(n,)``, masks ``(n, 48, 48)``, and, from the
        segmentation branch, the probability of a nucleus ``(1, H, W)``."""
        maps = self.base(image)
        shape = (int(image.shape[2]), int(image.shape[3]))
        seen, nuclei = image, None
        if self.segmentation is not None:
            nuclei = torch.sigmoid(self.segmentation(maps))
            seen = torch.cat([image, nuclei], 1)
        extra = () if nuclei is None else (nuclei[:, 0],)
        if self.detection is None:
            return image.new_zeros(0, 4), image.new_zeros(0), image.new_zeros(0, PATCH, PATCH), *extra
        logits, offsets = self.detection(maps[_DETECTED])
        config = self.config
        boxes, scores = best_boxes(
            logits[0],
            offsets[0],
            self.default_boxes.around(*shape).to(image.device),
            shape,
            candidates=config.candidates,
            min_score=config.box_min_score,
            greatest_iou=config.box_nms,
            most=config.most,
        )
        patches = cut(seen, [self._grown(boxes)])
        masks = patches[:, -1] if self.refinement is None else torch.sigmoid(self.refinement(patches))[:, 0]
        return boxes[:, [1, 0, 3, 2]], scores, masks, *extra

    def _grown(self, boxes: Tensor) -> Tensor:
        """The areas that masks span."""
        more = (boxes[:, 2:] - boxes[:, :2]) * ((self.mask_scale - 1) / 2)
        return torch.cat([boxes[:, :2] - more, boxes[:, 2:] + more], 1)


def nuclei_of(labels: Tensor) -> dict[str, Tensor]:
    """The nuclei of a label image ``(H, W)`` as :func:`instances_of` gives them, but for the boxes: these span pixels.

    Pixel i is ``[i, i + 1)`` to default boxes, and to RoIAlign as :func:`cut` calls it.

    Examples
    --------
    >>> nuclei_of(torch.tensor([[0.0, 0.0, 2.0], [-1.0, 0.0, 2.0]]))["boxes"].tolist()
    [[2.0, 0.0, 3.0, 2.0]]
    """
    found = instances_of(labels)
    return {**found, "boxes": found["boxes"] + _HALF}


def cut(maps: Tensor, boxes: list[Tensor]) -> Tensor:
    """Patches ``(K, C, 48, 48)`` of maps ``(N, C, H, W)``, from each map those of its boxes ``(k, 4)``, in order."""
    patches: Tensor = roi_align(maps, boxes, PATCH, sampling_ratio=2, aligned=True)
    return patches


def jittered(boxes: Tensor) -> Tensor:
    """Boxes ``(n, 4)`` moved and resized at random, about as wrong as those that are found."""
    middle, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    shift, stretch = (2 * torch.rand(2, *sides.shape, device=boxes.device) - 1) * _JITTER
    middle, half = middle + shift * sides, sides * torch.exp(2 * stretch) / 2
    return torch.cat([middle - half, middle + half], 1)


@dataclass(frozen=True)
class USNet:
    """Everything that training, export and prediction ask of a system."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    decoder_rule: USNetRule = field(default_factory=USNetRule)

    name = "us_net"
    decoder = "detections"
    parts = ("unet", "decoder")
    needs_background = True
    masks = ()
    stride = 1

    @property
    def diameters(self) -> tuple[float, float]:
        """From the smallest to the largest default box: 20 to 128 pixels."""
        network = self.network
        return min(network.sizes) * min(network.scales), max(network.sizes) * max(network.scales)

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the graph's outputs: those of the decoder, and the segmentation branch's map."""
        return (*self.decoder_rule.maps, *(("nucleus",) if self.network.branches != "detection" else ()))

    @property
    def most(self) -> int:
        return self.detection.most

    def build(self) -> USNetNetwork:
        return USNetNetwork(self.network, self.detection, self.loss, self.decoder_rule.mask_scale)

    def prepare(self, network: nn.Module, labels: Iterable[NDArray[np.int32]]) -> None:
        """Warn of nuclei that no default box is as small or as large as; they are learned from as all others are.

        The size of a nucleus is the side of the square that has the area of its box, at the image's own scale.
        """
        del network
        if self.network.branches == "segmentation":
            return
        boxes = np.concatenate([Instances(np.maximum(relabel(image), 0)).boxes for image in labels])
        sizes = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1, dtype=np.float64))
        least, greatest = self.diameters
        smaller, larger = int((sizes < least).sum()), int((sizes > greatest).sum())
        if smaller or larger:
            warnings.warn(
                f"of {len(sizes)} nuclei in the training images {smaller} are smaller than {least:.0f} pixels and "
                f"{larger} larger than {greatest:.0f}: they are learned from, but beyond what {self.name} finds well; "
                "shrink or enlarge such images, or change [network] sizes",
                stacklevel=2,
            )

    def draw_targets(self, labels: NDArray[np.int32]) -> NDArray[np.float32]:
        """The label image itself, ``(1, H, W)`` float32; boxes and masks are made of it where the loss is."""
        return labels[None].astype(np.float32)

    def compute_loss(
        self, network: nn.Module, images: Tensor, targets: Tensor, annotated: Tensor
    ) -> dict[str, Tensor]:
        """The weighted losses by name, and their sum under ``loss``.

        Raises
        ------
        UsageError
            If there is one image, of which six halvings leave a single value that has no spread to normalise by.
        """
        if len(images) == 1 and max(images.shape[2:]) <= 2**DEPTH:
            raise UsageError(
                f"{self.name} halves its input {DEPTH} times, and one image of {images.shape[2]} x {images.shape[3]} "
                "pixels is too small to learn from; enlarge [schedule] crop or batch"
            )
        parts = _own(network).losses(images, targets, annotated)
        return {**parts, "loss": torch.stack(list(parts.values())).sum()}

    def answer(self, network: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
        """What the exported graph returns of one image: the outputs that ``maps`` names."""
        return _own(network).detect(images)

    def parameter_groups(self, network: nn.Module) -> dict[str, list[nn.Parameter]]:
        """Parameters by part: ``unet`` is the base and the segmentation branch, ``decoder`` detection and refinement.

        Section 3.2 trains the first with one optimiser and the second with another.
        """
        own = _own(network)
        branches = {"unet": (own.base, own.segmentation), "decoder": (own.detection, own.refinement)}
        return {
            part: [p for module in modules if module is not None for p in module.parameters()]
            for part, modules in branches.items()
        }


def _own(network: Any) -> USNetNetwork:
    if not isinstance(network, USNetNetwork):
        raise TypeError(f"expected a USNetNetwork, got {type(network).__name__}")
    return network
