"""Average precision of scored boxes, as in the PASCAL VOC challenge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nuxel.errors import NuxelError
from nuxel.metrics.matching import Threshold, exact_threshold

Boxes = NDArray[np.integer] | NDArray[np.floating]
Floats = NDArray[np.float64]
Interpolation = Callable[[Floats, Floats], float]


def area_under_curve(precision: Floats, recall: Floats) -> float:
    """Area under the interpolated precision-recall curve (VOC since 2010).

    The interpolated precision at a recall is the largest precision at that recall or a higher one.

    Parameters
    ----------
    precision, recall
        ``(N,)`` float64, recall not decreasing.

    Examples
    --------
    >>> area_under_curve(np.array([1.0, 0.5, 2 / 3]), np.array([0.5, 0.5, 1.0]))
    0.8333333333333333
    """
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best_from_here * np.diff(recall, prepend=0)).sum())


def eleven_point(precision: Floats, recall: Floats) -> float:
    """Mean of the interpolated precision at recall 0, 0.1, ... 1 (VOC 2007).

    Examples
    --------
    >>> eleven_point(np.array([1.0]), np.array([0.5]))
    0.5454545454545454
    """
    # In tenths: as a float, a recall of 3 of 10 is below three steps of 0.1.
    tenths = np.round(recall * 10, 9)
    return float(np.mean([precision[tenths >= level].max(initial=0) for level in range(11)]))


class PrecisionRecall(NamedTuple):
    """Precision and recall, each ``(N,)`` float64, after each of ``N`` predictions from the surest on."""

    precision: Floats
    recall: Floats


def precision_recall_curve(
    truth: Sequence[Boxes],
    predicted: Sequence[Boxes],
    scores: Sequence[Floats],
    threshold: Threshold = 0.5,
) -> PrecisionRecall:
    """Precision and recall of detections, from the surest to the least sure.

    As in the development kit of VOC (Everingham et al. 2010, doi 10.1007/s11263-009-0275-4): all
    predictions of all images are sorted by score. Each looks at the true box of its image with the largest
    IoU: it is a true positive if that IoU is at least the threshold and the box was not taken before, else a
    false positive. It never turns to a second-best box. Equal scores keep the order in which they were given.

    Parameters
    ----------
    truth
        For each image, ``(T, 4)`` boxes ``(y0, x0, y1, x1)``, half-open.
    predicted
        For each image, ``(P, 4)`` boxes.
    scores
        For each image, ``(P,)`` scores.
    threshold
        IoU in ``(0, 1]``.

    Raises
    ------
    NuxelError
        If the three do not speak of equally many images, or an image has not one score per box.
    """
    _check(truth, predicted, scores)
    image = np.repeat(np.arange(len(predicted)), [len(boxes) for boxes in predicted])
    number = np.concatenate([np.arange(len(boxes)) for boxes in predicted])
    order = np.argsort(-np.concatenate(scores), kind="stable")
    exact = exact_threshold(threshold)
    taken = [np.zeros(len(boxes), bool) for boxes in truth]
    hits = np.zeros(len(order), bool)
    for rank, (i, n) in enumerate(zip(image[order], number[order], strict=True)):
        best, enough = _best_box(predicted[i][n], truth[i], exact)
        hits[rank] = enough and not taken[i][best]
        if hits[rank]:
            taken[i][best] = True
    found = np.cumsum(hits)
    true_boxes = sum(len(boxes) for boxes in truth)
    return PrecisionRecall(found / np.arange(1, len(found) + 1), found / max(true_boxes, 1))


def voc_average_precision(
    truth: Sequence[Boxes],
    predicted: Sequence[Boxes],
    scores: Sequence[Floats],
    threshold: Threshold = 0.5,
    interpolation: Interpolation = area_under_curve,
) -> float:
    """Average precision of detections, in ``[0, 1]``: the precision-recall curve in one number.

    Parameters are those of :func:`precision_recall_curve`, and ``interpolation`` is
    :func:`area_under_curve` or :func:`eleven_point`. Neither true nor predicted boxes score 1, predictions
    without any true box 0.

    Examples
    --------
    >>> truth = [np.array([[0, 0, 10, 10], [20, 20, 30, 30]])]
    >>> predicted = [np.array([[0, 0, 10, 9], [50, 50, 60, 60], [20, 20, 30, 30]])]
    >>> voc_average_precision(truth, predicted, [np.array([0.9, 0.8, 0.7])])
    0.8333333333333333
    """
    curve = precision_recall_curve(truth, predicted, scores, threshold)
    if not len(curve.precision) and not sum(len(boxes) for boxes in truth):
        return 1.0
    return interpolation(curve.precision, curve.recall)


def _check(truth: Sequence[Boxes], predicted: Sequence[Boxes], scores: Sequence[Floats]) -> None:
    if not len(truth) == len(predicted) == len(scores) or not len(truth):
        raise NuxelError(
            f"there are true boxes of {len(truth)} images, predicted boxes of {len(predicted)} and scores of "
            f"{len(scores)}: give all three for each of one or more images."
        )
    for i, (boxes, of_boxes) in enumerate(zip(predicted, scores, strict=True)):
        if len(boxes) != len(of_boxes):
            raise NuxelError(
                f"image {i} has {len(boxes)} predicted boxes but {len(of_boxes)} scores: give one each."
            )


def _best_box(box: Boxes, others: Boxes, threshold: Fraction) -> tuple[int, bool]:
    """Index of the box of largest IoU among the others, and whether that IoU reaches the threshold."""
    if not len(others):
        return 0, False
    top, bottom = box[:2].astype(np.float64), box[2:].astype(np.float64)
    tops, bottoms = others[:, :2].astype(np.float64), others[:, 2:].astype(np.float64)
    intersection = (np.minimum(bottom, bottoms) - np.maximum(top, tops)).clip(min=0).prod(axis=1)
    union = (bottom - top).prod() + (bottoms - tops).prod(axis=1) - intersection
    best = int((intersection / np.where(union > 0, union, 1)).argmax())
    reached = intersection[best] * threshold.denominator >= union[best] * threshold.numerator
    return best, bool(reached and intersection[best] > 0)
