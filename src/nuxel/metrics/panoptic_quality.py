"""Panoptic quality: how well nuclei are found times how well those found are outlined."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from nuxel.metrics.matching import Criterion, Matching, Threshold, iou_above, match
from nuxel.metrics.overlap import LabelImage, OverlapTable


class PanopticQuality(NamedTuple):
    """Panoptic quality ``pq = sq * rq`` and its two factors, each in ``[0, 1]``."""

    pq: float
    """Panoptic quality."""
    sq: float
    """Segmentation quality: mean IoU of the matches."""
    rq: float
    """Recognition quality: F1 of the matching."""


def panoptic_quality(
    truth: LabelImage | OverlapTable,
    predicted: LabelImage | None = None,
    threshold: Threshold = 0.5,
    criterion: Criterion = iou_above,
) -> PanopticQuality:
    """Panoptic quality of one image (Kirillov et al. 2019, arXiv 1801.00868, equation 1).

    PQ is the sum of IoU over matches, divided by TP + FP / 2 + FN / 2. A match has an IoU strictly greater
    than 0.5 unless other rules are given. Without a match all three are 0, except that an image with
    neither true nor predicted nuclei scores 1. Parameters are those of
    :func:`nuxel.metrics.matching.match`.

    Examples
    --------
    >>> import numpy as np
    >>> panoptic_quality(np.array([[1, 1, 1, 1, 2]]), np.array([[3, 3, 3, 0, 0]]))
    PanopticQuality(pq=0.5, sq=0.75, rq=0.6666666666666666)
    """
    return pooled_panoptic_quality([match(truth, predicted, threshold, criterion)])


def pooled_panoptic_quality(matchings: Iterable[Matching]) -> PanopticQuality:
    """Panoptic quality of many images: sums run over the nuclei of all of them, as in the paper.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.array([[1, 0]])
    >>> pooled_panoptic_quality([match(image, image), match(image, image * 0)]).rq
    0.6666666666666666
    """
    iou = 0.0
    matches = nuclei = 0
    for found in matchings:
        iou += float(found.iou.sum())
        matches += found.true_positives
        nuclei += len(found.table.truth_labels) + len(found.table.predicted_labels)
    if not matches:
        nothing_to_find = float(nuclei == 0)
        return PanopticQuality(nothing_to_find, nothing_to_find, nothing_to_find)
    return PanopticQuality(2 * iou / nuclei, iou / matches, 2 * matches / nuclei)
