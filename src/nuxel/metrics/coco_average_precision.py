"""Average precision of scored boxes as in COCO, by a maintained evaluator (``faster-coco-eval``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nuxel.errors import NuxelError, UsageError
from nuxel.metrics.box_average_precision import Boxes, Floats

_ALL_AREAS = 0


class CocoAveragePrecision(NamedTuple):
    """COCO's average precision, each in ``[0, 1]``."""

    ap: float
    """Mean over IoU 0.50, 0.55 ... 0.95."""
    ap50: float
    """At IoU 0.50."""
    ap75: float
    """At IoU 0.75."""


def coco_average_precision(
    truth: Sequence[Boxes], predicted: Sequence[Boxes], scores: Sequence[Floats]
) -> CocoAveragePrecision:
    """COCO average precision of detections (Lin et al. 2014, arXiv 1405.0312), all of them counted.

    COCO looks at the surest 100 detections of an image, fewer than there are nuclei in many; here the cap is as many
    as there are. Precision is interpolated at 101 recalls. Neither true nor predicted boxes score 1, predictions
    without any true box 0.

    Parameters
    ----------
    truth
        For each image, ``(T, 4)`` boxes ``(y0, x0, y1, x1)``, half-open.
    predicted
        For each image, ``(P, 4)`` boxes.
    scores
        For each image, ``(P,)`` scores.

    Raises
    ------
    NuxelError
        If the three do not speak of equally many images, or an image has not one score per box.
    UsageError
        If ``faster-coco-eval`` is not installed.
    """
    sizes = [(len(boxes), len(of_boxes)) for boxes, of_boxes in zip(predicted, scores, strict=False)]
    if not len(truth) == len(predicted) == len(scores) or any(boxes != given for boxes, given in sizes):
        raise NuxelError(
            "COCO average precision needs true boxes, predicted boxes and one score each of every image."
        )
    if not any(map(len, truth)):
        nothing = float(not any(map(len, predicted)))
        return CocoAveragePrecision(nothing, nothing, nothing)
    precision = _precision(truth, predicted, scores)
    return CocoAveragePrecision(*(float(part.mean()) for part in (precision, precision[0], precision[5])))


def _precision(truth: Sequence[Boxes], predicted: Sequence[Boxes], scores: Sequence[Floats]) -> Any:
    """``(10, 101)`` precision at each IoU threshold and recall."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise UsageError(
            "COCO average precision needs faster-coco-eval; install it with: pip install 'nuxel[report]'"
        ) from None
    true_boxes = COCO(
        {
            "images": [{"id": image} for image in range(len(truth))],
            "categories": [{"id": 1, "name": "nucleus"}],
            "annotations": _annotations(truth, None),
        }
    )
    detections = _annotations(predicted, scores)
    if not detections:
        return np.zeros((10, 101))
    evaluator = COCOeval_faster(true_boxes, true_boxes.loadRes(detections), "bbox")
    evaluator.params.maxDets = [max(map(len, predicted))]
    evaluator.evaluate()
    evaluator.accumulate()
    return evaluator.eval["precision"][:, :, 0, _ALL_AREAS, -1]


def _annotations(images: Sequence[Boxes], scores: Sequence[Floats] | None) -> list[dict[str, Any]]:
    """Boxes as COCO has them: x, y, width, height; numbered from 1."""
    found: list[dict[str, Any]] = []
    for image, boxes in enumerate(images):
        for place, (y0, x0, y1, x1) in enumerate(np.asarray(boxes, np.float64).reshape(-1, 4).tolist()):
            width, height = x1 - x0, y1 - y0
            box = {"id": len(found) + 1, "image_id": image, "category_id": 1, "bbox": [x0, y0, width, height]}
            score = {} if scores is None else {"score": float(scores[image][place])}
            found.append({**box, "area": width * height, "iscrowd": 0, **score})
    return found
