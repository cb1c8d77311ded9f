"""Mask R-CNN on images of which a part is not annotated: what may be a nucleus there is no background."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import box_iou

_MOSTLY = 0.5


class CautiousProposals(RegionProposalNetwork):  # type: ignore[misc]
    """Torchvision's, but for anchors of which nobody knows whether they are background: these teach nothing. And a
    nucleus that overlaps no anchor has none; torchvision's would take all for it.

    A target may hold, beside its ``boxes``, ``unknown`` and ``proposed``: see :func:`is_doubtful`.
    """

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        reached = [
            {"boxes": _reached(target["boxes"], boxes)}
            for boxes, target in zip(anchors, targets, strict=True)
        ]
        labels, matched = super().assign_targets_to_anchors(anchors, reached)
        for label, boxes, target in zip(labels, anchors, targets, strict=True):
            if "unknown" in target:
                like = None
                if "proposed" in target:
                    supposed = [{"boxes": _reached(target["proposed"], boxes)}]
                    like = super().assign_targets_to_anchors([boxes], supposed)[0][0] != 0
                label[(label == 0) & is_doubtful(boxes, target["unknown"], like)] = -1
        return labels, matched

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        if not any((label >= 0).any() for label in labels):  # torchvision would divide by their number
            return objectness.sum() * 0, pred_bbox_deltas.sum() * 0
        found: tuple[Tensor, Tensor] = super().compute_loss(
            objectness, pred_bbox_deltas, labels, regression_targets
        )
        return found


def _reached(boxes: Tensor, anchors: Tensor) -> Tensor:
    """The boxes that overlap any anchor."""
    return boxes[(box_iou(boxes, anchors) > 0).any(1)]


def is_doubtful(boxes: Tensor, unknown: Tensor, like: Tensor | None) -> Tensor:
    """Whether a box that is none of the annotated nuclei may still be one.

    Parameters
    ----------
    boxes
        ``(k, 4)``.
    unknown
        What :func:`unknown_table` makes of the image.
    like
        ``(k,)`` bool: whether the box would be no background if the proposed boxes were nuclei; None where every box
        may be one.

    Returns
    -------
    ``(k,)`` bool: true where more than half of the box, as far as it lies in the image, is not annotated.
    """
    height, width = (side - 1 for side in unknown.shape)
    x0, y0, x1, y1 = (boxes + 0.5).round().long().unbind(1)
    top, bottom = y0.clamp(0, height), y1.clamp(0, height)
    left, right = x0.clamp(0, width), x1.clamp(0, width)
    pixels = unknown[bottom, right] - unknown[top, right] - unknown[bottom, left] + unknown[top, left]
    mostly = pixels > _MOSTLY * (bottom - top) * (right - left)
    return mostly if like is None else mostly & like


def _is_like(boxes: Tensor, others: Tensor, least: float) -> Tensor:
    """Whether each box has at least this IoU with any of the others."""
    found: Tensor = (box_iou(boxes, others) >= least).any(1)
    return found


def unknown_table(annotated: Tensor) -> Tensor:
    """``(H, W)`` bool -> ``(H + 1, W + 1)`` int64: pixels above and to the left of each corner not annotated."""
    counts = (~annotated).long().cumsum(0).cumsum(1)
    return functional.pad(counts, (1, 0, 1, 0))


def certain_proposals(
    proposals: Tensor, target: dict[str, Tensor], positive_iou: float, like_iou: float
) -> Tensor:
    """The proposals of an image without those of which nobody knows whether they are background.

    Parameters
    ----------
    proposals
        ``(k, 4)``.
    target
        Of the image: ``boxes`` and what :class:`CautiousProposals` names.
    positive_iou
        From this IoU with an annotated nucleus on a proposal is that nucleus.
    like_iou
        From this IoU with a box that the module proposes on it may be that box's nucleus: these boxes are only about
        right.
    """
    if "unknown" not in target or not len(proposals):
        return proposals
    like = _is_like(proposals, target["proposed"], like_iou) if "proposed" in target else None
    doubtful = is_doubtful(proposals, target["unknown"], like)
    return proposals[_is_like(proposals, target["boxes"], positive_iou) | ~doubtful]
