"""Hausdorff distance of matched nuclei: how far the worst point of an outline is off."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nuxel.metrics.matching import Criterion, Threshold, iou_above, match
from nuxel.metrics.overlap import Counts, LabelImage


def hausdorff_distances(
    truth: LabelImage,
    predicted: LabelImage,
    threshold: Threshold = 0.5,
    criterion: Criterion = iou_above,
) -> NDArray[np.float64]:
    """Hausdorff distance of each matched pair, in pixels.

    That of a pair is the largest distance from a pixel of either nucleus to the nearest pixel of the other,
    between pixel centres. Pixels that are not annotated belong to neither.

    Parameters
    ----------
    truth, predicted
        Two label images of the same shape.
    threshold, criterion
        Which pairs match: see :func:`nuxel.metrics.matching.match`.

    Returns
    -------
    distances
        ``(M,)`` float64, in the order of :attr:`nuxel.metrics.matching.Matching.truth_labels`; empty
        without matches.

    Examples
    --------
    >>> hausdorff_distances(np.array([[1, 1, 1, 1, 1]]), np.array([[2, 2, 2, 0, 0]]))
    array([2.])
    """
    found = match(truth, predicted, threshold, criterion)
    truth_ranks = _ranks(truth, found.truth_labels)
    predicted_ranks = np.where(truth < 0, 0, _ranks(predicted, found.predicted_labels))
    boxes = zip(ndimage.find_objects(truth_ranks), ndimage.find_objects(predicted_ranks), strict=True)
    distances = np.zeros(found.true_positives, np.float64)
    for i, (truth_box, predicted_box) in enumerate(boxes):
        box = tuple(
            slice(min(a.start, b.start), max(a.stop, b.stop))
            for a, b in zip(truth_box, predicted_box, strict=True)
        )
        distances[i] = _distance(truth_ranks[box] == i + 1, predicted_ranks[box] == i + 1)
    return distances


def _ranks(image: LabelImage, labels: Counts) -> NDArray[np.int32]:
    """The image with ``labels[i]`` renamed to ``i + 1``, and all other labels to background."""
    if not len(labels):
        return np.zeros(image.shape, np.int32)
    order = np.argsort(labels)
    rank = order[np.searchsorted(labels, image, sorter=order).clip(max=len(labels) - 1)]
    return np.where(labels[rank] == image, rank + 1, 0).astype(np.int32)


def _distance(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    to_truth = ndimage.distance_transform_edt(~truth)
    to_predicted = ndimage.distance_transform_edt(~predicted)
    return float(max(to_truth[predicted].max(), to_predicted[truth].max()))
