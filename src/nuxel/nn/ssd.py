"""The single-shot detection branch: default boxes, what is predicted of each, and which nucleus each stands for.

Sources: US-Net paper, section 3.2; Liu et al. 2016, "SSD: Single Shot MultiBox Detector" (SSD paper); for the first
bias, Lin et al. 2017, "Focal Loss for Dense Object Detection", section 4.1. Anchors, coding of boxes, matching and
suppression are torchvision's. Boxes are torchvision's ``(x0, y0, x1, y1)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder, SSDMatcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import box_iou, clip_boxes_to_image, nms

from nuxel.nn.blocks import conv_norm_act, in_full

_PRIOR = 0.01
"""The score that every default box begins with, so that the many empty ones do not rule the first steps."""
_CODER = BoxCoder((10.0, 10.0, 5.0, 5.0))
"""Offsets of centres over the box's sides times 10, logarithms of sides times 5: SSD's own variances."""


def thinnest_side(sizes: Sequence[float], ratios: Sequence[float]) -> float:
    """The shorter side of the thinnest box of these sizes and ratios; torchvision makes nothing of one of 1 pixel.

    Examples
    --------
    >>> thinnest_side([8, 16], [0.25, 1])
    4.0
    """
    return min(sizes) * math.sqrt(min(*ratios, *(1 / ratio for ratio in ratios)))


class DefaultBoxes:
    """Boxes of several sizes and shapes around the centre of every cell of several maps.

    Parameters
    ----------
    strides
        Pixels between the cells of each map; a map has as many cells as it takes to cover the image.
    sizes
        Base sizes in pixels, one for each map.
    scales
        Factors of the base size.
    ratios
        Heights over widths, of boxes of one area.

    Examples
    --------
    >>> boxes = DefaultBoxes((8, 16, 32), (25, 52, 107), (0.8, 1.2), (1, 0.75))
    >>> len(boxes.around(300, 300))  # 4 in each of 38 x 38 + 19 x 19 + 10 x 10 cells
    7620
    """

    def __init__(
        self,
        strides: Sequence[int],
        sizes: Sequence[float],
        scales: Sequence[float],
        ratios: Sequence[float],
    ) -> None:
        self.strides = tuple(strides)
        self.each = len(scales) * len(ratios)
        self._generator = AnchorGenerator(
            tuple(tuple(size * scale for scale in scales) for size in sizes), (tuple(ratios),) * len(sizes)
        )

    def around(self, height: int, width: int) -> Tensor:
        """The boxes of an image, ``(A, 4)`` float32: map by map, row by row, sides rounded to pairs of pixels.

        Those of the outer cells reach beyond the image.
        """
        grids = [[-(-height // stride), -(-width // stride)] for stride in self.strides]
        steps = [[stride, stride] for stride in self.strides]
        # torchvision puts them at the cells' corners
        at_corners = self._generator.grid_anchors(grids, steps)
        return torch.cat([boxes + stride / 2 for boxes, stride in zip(at_corners, self.strides, strict=True)])


class DetectionBranch(nn.Module):
    """Maps -> of each default box the logit of "nucleus" ``(N, A)`` and the offsets of its sides ``(N, A, 4)``.

    A convolution of 3 x 3 with batch normalisation and activation comes before SSD's own, in which the maps, whose
    first purpose is segmentation, become detection's.

    Parameters
    ----------
    channels
        Channels of the maps.
    each
        Default boxes of a cell.
    """

    def __init__(self, channels: Sequence[int], each: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for width in channels:
            predict = nn.Conv2d(width, 5 * each, 3, padding=1)
            nn.init.normal_(predict.weight, std=0.01)
            assert predict.bias is not None
            nn.init.zeros_(predict.bias)
            nn.init.constant_(predict.bias[::5], -math.log(1 / _PRIOR - 1))
            self.levels.append(nn.Sequential(conv_norm_act(width, width), predict))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        found = [
            level(one).permute(0, 2, 3, 1).reshape(len(one), -1, 5)
            for level, one in zip(self.levels, maps, strict=True)
        ]
        together = in_full(torch.cat(found, 1))
        return together[..., 0], together[..., 1:]


def match(boxes: Tensor, truth: Tensor, least: float) -> Tensor:
    """The true box that each default box stands for: ``(A,)`` int64, -1 for background.

    It is the one with the greatest IoU, if that is at least ``least``. Each true box has at least the default box that
    it overlaps most, whatever the IoU, so that none is lost for being too small or too large (SSD paper, section
    2.2); but if two have the same one, only the latter. One that overlaps no default box has none.
    """
    ious = box_iou(truth, boxes)
    overlapped = torch.nonzero((ious > 0).any(1))[:, 0]
    if not len(overlapped):
        return torch.full((len(boxes),), -1, dtype=torch.int64, device=boxes.device)
    matches: Tensor = SSDMatcher(least)(ious[overlapped])
    return torch.where(matches < 0, matches, overlapped[matches])


def encode(truth: Tensor, boxes: Tensor) -> Tensor:
    """The offsets ``(P, 4)`` that turn default boxes into true ones, both ``(P, 4)``."""
    offsets: Tensor = _CODER.encode_single(truth, boxes)
    return offsets


def best_boxes(
    logits: Tensor,
    offsets: Tensor,
    boxes: Tensor,
    shape: tuple[int, int],
    *,
    candidates: int,
    min_score: float,
    greatest_iou: float,
    most: int,
) -> tuple[Tensor, Tensor]:
    """What is found in one image, best first: boxes ``(n, 4)`` within the image and scores ``(n,)``.

    Parameters
    ----------
    logits, offsets, boxes
        ``(A,)``, ``(A, 4)`` and ``(A, 4)``.
    shape
        Height and width of the image.
    candidates
        So many of the best are looked at; of them only those with at least ``min_score``.
    greatest_iou
        A box that has a greater IoU with a better one is dropped.
    most
        n is at most this.
    """
    scores, order = torch.sigmoid(logits).topk(min(candidates, len(boxes)))
    decoded = _CODER.decode_single(offsets[order], boxes[order])
    inside = clip_boxes_to_image(decoded, shape)
    sure = torch.nonzero(scores >= min_score)[:, 0]
    inside, scores = inside[sure], scores[sure]
    kept = nms(inside, scores, greatest_iou)[:most]
    return inside[kept], scores[kept]
