"""Metrics that do not know nuclei: only which pixels are foreground, and how many nuclei there are."""

from __future__ import annotations

from nuxel.metrics.overlap import LabelImage, OverlapTable, overlap_table


def pixel_accuracy(truth: LabelImage | OverlapTable, predicted: LabelImage | None = None) -> float:
    """Share of pixels, in ``[0, 1]``, that truth and prediction both call foreground, or both background.

    Only annotated pixels count; without any, the accuracy is 1.

    Parameters
    ----------
    truth, predicted
        Two label images, or one :class:`OverlapTable`.

    Examples
    --------
    >>> import numpy as np
    >>> pixel_accuracy(np.array([[1, 1, 2, 0]]), np.array([[5, 5, 0, 0]]))
    0.75
    """
    foreground, background, wrong = _pixel_counts(overlap_table(truth, predicted))
    pixels = foreground + background + wrong
    return (foreground + background) / pixels if pixels else 1.0


def foreground_iou(truth: LabelImage | OverlapTable, predicted: LabelImage | None = None) -> float:
    """IoU of all pixels of nuclei, in ``[0, 1]``; 1 if neither truth nor prediction has any.

    Source: FCN-8s and Mask R-CNN paper, section 3.3, the IoU of the whole picture.

    Examples
    --------
    >>> import numpy as np
    >>> foreground_iou(np.array([[1, 1, 2, 0]]), np.array([[5, 5, 0, 0]]))
    0.6666666666666666
    """
    foreground, _, wrong = _pixel_counts(overlap_table(truth, predicted))
    return foreground / (foreground + wrong) if foreground + wrong else 1.0


def mean_iou(truth: LabelImage | OverlapTable, predicted: LabelImage | None = None) -> float:
    """Mean of the IoU of foreground and the IoU of background, in ``[0, 1]``.

    A class that occurs neither in truth nor in prediction is left out of the mean; if both are, it is 1.

    Examples
    --------
    >>> import numpy as np
    >>> mean_iou(np.array([[1, 1, 2, 0]]), np.array([[5, 5, 0, 0]]))
    0.5833333333333333
    """
    foreground, background, wrong = _pixel_counts(overlap_table(truth, predicted))
    classes = [right / (right + wrong) for right in (foreground, background) if right + wrong]
    return sum(classes) / len(classes) if classes else 1.0


def count_error(truth: LabelImage | OverlapTable, predicted: LabelImage | None = None) -> int:
    """Number of predicted minus number of true nuclei: positive if there are too many.

    Examples
    --------
    >>> import numpy as np
    >>> count_error(np.array([[1, 1, 2, 3]]), np.array([[5, 5, 0, 0]]))
    -2
    """
    table = overlap_table(truth, predicted)
    return len(table.predicted_labels) - len(table.truth_labels)


def _pixel_counts(table: OverlapTable) -> tuple[int, int, int]:
    """Pixels that are foreground in both images, background in both, and foreground in one only."""
    foreground = int(table.intersection.sum())
    wrong = int(table.truth_areas.sum() + table.predicted_areas.sum()) - 2 * foreground
    return foreground, table.pixels - foreground - wrong, wrong
