"""Aggregated Jaccard index, AJI+ and normalised coverage score."""

from __future__ import annotations

import numpy as np

from nuxel.metrics.matching import assign
from nuxel.metrics.overlap import Counts, LabelImage, OverlapTable, overlap_table


def aggregated_jaccard(truth: LabelImage | OverlapTable, predicted: LabelImage | None = None) -> float:
    """Aggregated Jaccard index, AJI (Kumar et al. 2017, doi 10.1109/TMI.2017.2677499), in ``[0, 1]``.

    Each true nucleus selects the prediction of largest IoU with it; two may select the same one. AJI is the
    sum of their intersections, divided by the sum of their unions plus the areas of the predictions that no
    true nucleus selected. A true nucleus that nothing overlaps selects nothing, and adds its own area to
    the unions.

    Two empty images score 1. Where two predictions have equal IoU, see
    :attr:`nuxel.metrics.overlap.OverlapTable.best_pairs`.

    Parameters
    ----------
    truth, predicted
        Two label images, or one :class:`OverlapTable`.

    Examples
    --------
    >>> truth, predicted = np.array([[1, 1, 1, 1, 0, 0]]), np.array([[2, 2, 2, 0, 0, 5]])
    >>> aggregated_jaccard(truth, predicted)
    0.6
    """
    table = overlap_table(truth, predicted)
    return _aggregate(table, table.best_pairs)


def aggregated_jaccard_plus(truth: LabelImage | OverlapTable, predicted: LabelImage | None = None) -> float:
    """AJI+ (Graham et al. 2019, HoVer-Net, doi 10.1016/j.media.2019.101563), in ``[0, 1]``.

    As :func:`aggregated_jaccard`, but true and predicted nuclei are paired one to one, by the assignment
    with the largest sum of IoU: one bad prediction is punished once, not once for each true nucleus that it
    covers.

    Examples
    --------
    >>> truth, predicted = np.array([[1, 1, 2, 2]]), np.array([[3, 3, 3, 3]])
    >>> aggregated_jaccard(truth, predicted), aggregated_jaccard_plus(truth, predicted)
    (0.5, 0.3333333333333333)
    """
    table = overlap_table(truth, predicted)
    return _aggregate(table, assign(table, np.arange(len(table.iou)), table.iou))


def _aggregate(table: OverlapTable, pairs: Counts) -> float:
    left_truth = np.delete(table.truth_areas, table.truth_index[pairs]).sum()
    left_predicted = np.delete(table.predicted_areas, table.predicted_index[pairs]).sum()
    union = int(table.union[pairs].sum() + left_truth + left_predicted)
    return int(table.intersection[pairs].sum()) / union if union else 1.0


def normalised_coverage(truth: LabelImage | OverlapTable, predicted: LabelImage | None = None) -> float:
    """Normalised coverage score, NCS, in ``[0, 1]``: mean best IoU of the true nuclei, weighted by area.

    Spurious predictions cost nothing. Without true nuclei there is nothing to cover, and the score is 1.

    Parameters
    ----------
    truth, predicted
        Two label images, or one :class:`OverlapTable`.

    Examples
    --------
    >>> normalised_coverage(np.array([[1, 1, 1, 1, 2, 2]]), np.array([[3, 3, 3, 0, 0, 0]]))
    0.5
    """
    table = overlap_table(truth, predicted)
    if not len(table.truth_areas):
        return 1.0
    best = table.best_pairs
    covered = (table.truth_areas[table.truth_index[best]] * table.iou[best]).sum()
    return float(covered / table.truth_areas.sum())
