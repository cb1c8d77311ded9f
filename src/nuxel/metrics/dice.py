"""Dice coefficients: of the foreground, of all overlapping pairs, and object by object."""

from __future__ import annotations

import numpy as np

from nuxel.metrics.overlap import Counts, LabelImage, OverlapTable, overlap_table


def dice(truth: LabelImage | OverlapTable, predicted: LabelImage | None = None) -> float:
    """Dice coefficient of the foregrounds, in ``[0, 1]``: 2 |A & B| / (|A| + |B|), whatever the nucleus.

    Two empty images score 1.

    Parameters
    ----------
    truth, predicted
        Two label images, or one :class:`OverlapTable`.

    Examples
    --------
    >>> dice(np.array([[1, 1, 2, 0]]), np.array([[5, 5, 0, 5]]))
    0.6666666666666666
    """
    table = overlap_table(truth, predicted)
    both = int(table.truth_areas.sum() + table.predicted_areas.sum())
    return 2 * int(table.intersection.sum()) / both if both else 1.0


def ensemble_dice(truth: LabelImage | OverlapTable, predicted: LabelImage | None = None) -> float:
    """Dice over all overlapping pairs, "Dice2" (Vu et al. 2019, doi 10.3389/fbioe.2019.00053), in ``[0, 1]``.

    Twice the sum of intersections, divided by the sum of the two areas, both over all pairs that overlap by
    at least one pixel. Nuclei that nothing overlaps are not counted. If no pair overlaps the score is 0;
    two empty images score 1.

    Examples
    --------
    >>> ensemble_dice(np.array([[1, 1, 2, 2, 3]]), np.array([[4, 4, 4, 4, 0]]))
    0.6666666666666666
    """
    table = overlap_table(truth, predicted)
    if not len(table.intersection):
        return _nothing_to_find(table)
    return 2 * int(table.intersection.sum()) / int((table.union + table.intersection).sum())


def object_dice(truth: LabelImage | OverlapTable, predicted: LabelImage | None = None) -> float:
    """Object-level Dice (Sirinukunwattana et al. 2017, GlaS, doi 10.1016/j.media.2016.08.008), in ``[0, 1]``.

    Each true nucleus has its Dice with the prediction that shares most pixels with it, or 0; these are
    averaged with the areas as weights. So are the predictions, with the true nuclei that share most pixels
    with them. The score is the mean of the two averages. Among equal intersections the smaller partner
    counts. Two empty images score 1, one empty image 0.

    Examples
    --------
    >>> object_dice(np.array([[1, 1, 1, 2]]), np.array([[3, 3, 3, 0]]))
    0.875
    """
    table = overlap_table(truth, predicted)
    if not len(table.intersection):
        return _nothing_to_find(table)
    of_truth = _weighted_dice(table, table.truth_index, table.truth_areas)
    of_predicted = _weighted_dice(table, table.predicted_index, table.predicted_areas)
    return (of_truth + of_predicted) / 2


def _weighted_dice(table: OverlapTable, nucleus: Counts, areas: Counts) -> float:
    order = np.lexsort((table.union, -table.intersection, nucleus))
    best = order[np.diff(nucleus[order], prepend=-1) > 0]
    scores = 2 * table.intersection[best] / (table.intersection[best] + table.union[best])
    return float((areas[nucleus[best]] * scores).sum() / areas.sum())


def _nothing_to_find(table: OverlapTable) -> float:
    return float(len(table.truth_areas) + len(table.predicted_areas) == 0)
