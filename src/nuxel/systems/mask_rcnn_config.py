"""What may be chosen of a Mask R-CNN: network, what it learns from, what becomes of boxes, and weights of losses."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from nuxel.errors import UsageError
from nuxel.nn.attention_fpn import EXTRAS, VARIANTS
from nuxel.nn.ssd import thinnest_side
from nuxel.systems.system import check_weights


@dataclass(frozen=True)
class NetworkConfig:
    """Parameters
    ----------
    backbone, weights, frozen_norm
        See :class:`nuxel.nn.pyramid_backbone.PyramidBackbone`.
    pyramid
        ``"vanilla"`` or a variant of the attention paper's table I: see :class:`nuxel.nn.attention_fpn.AttentionFPN`.
    levels
        Levels of the pyramid from P2 on, at most 4. The attention paper has 3: P2, P3 and P4.
    extra
        ``"pool"`` for one more, coarser level for proposals only (P6 of Mask R-CNN with ``levels = 4``), or ``"none"``.
    width
        Channels of every level.
    anchors
        Sides in pixels, one for each level, the extra one included.
    ratios
        Heights of anchors over their widths.
    box_head
        Width of the two fully connected layers that classify a box and refine it.
    mask_head
        Channels of the convolutions before the mask.
    """

    backbone: str = "tf_efficientnet_lite0"
    weights: str = "imagenet"
    frozen_norm: bool = False
    pyramid: str = "proposed"
    levels: int = 3
    extra: str = "none"
    width: int = 256
    anchors: tuple[float, ...] = (16.0, 32.0, 64.0)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    box_head: int = 1024
    mask_head: tuple[int, ...] = (256, 256, 256, 256)

    def __post_init__(self) -> None:
        for key, known in (("pyramid", VARIANTS), ("extra", EXTRAS)):
            if (value := getattr(self, key)) not in known:
                raise UsageError(f"{key} must be one of {', '.join(known)}, got {value!r}")
        if not 1 <= self.levels <= 4:
            raise UsageError(f"a pyramid from P2 on has 1 to 4 levels, got levels {self.levels}")
        expected = self.levels + (self.extra == "pool")
        if len(self.anchors) != expected or not all(side > 0 for side in self.anchors):
            raise UsageError(
                f"anchors must hold one positive side for each of the {expected} levels, got {list(self.anchors)}"
            )
        if not self.ratios or not all(ratio > 0 for ratio in self.ratios):
            raise UsageError(f"ratios must hold positive numbers, got {list(self.ratios)}")
        if (thinnest := thinnest_side(self.anchors, self.ratios)) <= 1:
            raise UsageError(
                f"anchors must be more than 1 pixel wide and high at all ratios, got one of {thinnest:.2g}"
            )
        for key in ("width", "box_head"):
            if getattr(self, key) < 1:
                raise UsageError(f"{key} must be at least 1, got {getattr(self, key)}")
        if not self.mask_head or min(self.mask_head) < 1:
            raise UsageError(f"mask_head must hold positive widths, got {list(self.mask_head)}")


@dataclass(frozen=True)
class SamplingConfig:
    """What the losses are computed on.

    Parameters
    ----------
    rpn_positive_iou, rpn_negative_iou
        Anchors with a greater IoU are nuclei, with a lesser one background; those between teach nothing.
    rpn_samples, rpn_positive_share
        Anchors an image, and the greatest share of positive ones.
    rois, roi_positive_share, roi_iou
        Proposals an image that reach the heads, the greatest share of positive ones, and the IoU that makes one so.
    """

    rpn_positive_iou: float = 0.7
    rpn_negative_iou: float = 0.3
    rpn_samples: int = 256
    rpn_positive_share: float = 0.5
    rois: int = 600
    roi_positive_share: float = 0.33
    roi_iou: float = 0.5

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, int):
                if value < 1:
                    raise UsageError(f"{name} must be at least 1, got {value}")
            elif isinstance(value, float) and not 0 < value <= 1:
                raise UsageError(f"{name} must lie above 0 and not above 1, got {value}")
        if self.rpn_negative_iou > self.rpn_positive_iou:
            raise UsageError(
                f"rpn_negative_iou must not be above rpn_positive_iou, got {self.rpn_negative_iou} and "
                f"{self.rpn_positive_iou}"
            )


@dataclass(frozen=True)
class DetectionConfig:
    """What becomes of proposals and boxes, in training and within the exported graph.

    Parameters
    ----------
    rpn_nms, proposals
        Non-maximum suppression of proposals, and how many are kept: the best of each level before it, of all after it.
    box_nms, box_min_score
        Non-maximum suppression of refined boxes, and the least score of one; the decoder's rule is applied afterwards.
    most
        The greatest number of nuclei of one window; prediction reports when it is reached.
    """

    rpn_nms: float = 0.7
    proposals: int = 1000
    box_nms: float = 0.5
    box_min_score: float = 0.05
    most: int = 500

    def __post_init__(self) -> None:
        for name in ("rpn_nms", "box_nms"):
            if not 0 < getattr(self, name) <= 1:
                raise UsageError(f"{name} must lie above 0 and not above 1, got {getattr(self, name)}")
        if not 0 <= self.box_min_score < 1:
            raise UsageError(f"box_min_score must lie between 0 and 1, got {self.box_min_score}")
        for name in ("proposals", "most"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class LossConfig:
    """Weights in the sum of losses (attention paper, equation 3, and the two of the proposals)."""

    objectness: float = 1.0
    rpn_box: float = 1.0
    classifier: float = 1.0
    box: float = 1.0
    mask: float = 1.0

    def __post_init__(self) -> None:
        check_weights(asdict(self))
