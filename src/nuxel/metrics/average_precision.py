"""Average precision over IoU thresholds, precision, recall and F1: of one image or many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from nuxel.errors import NuxelError
from nuxel.metrics.matching import Criterion, Threshold, exact_threshold, iou_above, match
from nuxel.metrics.overlap import Counts, LabelImage, OverlapTable, overlap_table

DSB2018_THRESHOLDS = tuple(Fraction(n, 20) for n in range(10, 20))
"""0.50, 0.55, ... 0.95: the thresholds of the 2018 Data Science Bowl (and of COCO)."""


@dataclass(frozen=True, eq=False)
class MatchCounts:
    """Matched and unmatched nuclei, and the rates that follow from them.

    All three are int64 arrays of one shape, whose last axis is the thresholds. A rate is an array of that
    shape. Where a rate is 0 / 0, it is 1 if there is neither a true nor a predicted nucleus (nothing to
    find, nothing found), and 0 otherwise.

    Parameters
    ----------
    true_positives
        Matched pairs.
    false_positives
        Predicted nuclei without a match.
    false_negatives
        True nuclei without a match.

    Examples
    --------
    >>> counts = MatchCounts(np.array([6]), np.array([2]), np.array([0]))
    >>> counts.average_precision.tolist(), counts.precision.tolist(), counts.recall.tolist()
    ([0.75], [0.75], [1.0])
    """

    true_positives: Counts
    false_positives: Counts
    false_negatives: Counts

    @property
    def average_precision(self) -> NDArray[np.float64]:
        """TP / (TP + FP + FN): what the Data Science Bowl calls precision, and StarDist accuracy."""
        return self._rate(self.true_positives + self.false_positives + self.false_negatives)

    @property
    def precision(self) -> NDArray[np.float64]:
        """TP / (TP + FP)."""
        return self._rate(self.true_positives + self.false_positives)

    @property
    def recall(self) -> NDArray[np.float64]:
        """TP / (TP + FN)."""
        return self._rate(self.true_positives + self.false_negatives)

    @property
    def f1(self) -> NDArray[np.float64]:
        """2 TP / (2 TP + FP + FN): the harmonic mean of precision and recall."""
        half_missing = (self.false_positives + self.false_negatives) / 2
        return self._rate(self.true_positives + half_missing)

    def _rate(self, of: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
        nothing = self.true_positives + self.false_positives + self.false_negatives == 0
        return np.asarray(np.where(nothing, 1.0, self.true_positives / np.maximum(of, 0.5)), np.float64)


def match_counts(
    truth: LabelImage | OverlapTable,
    predicted: LabelImage | None = None,
    thresholds: Sequence[Threshold] = DSB2018_THRESHOLDS,
    criterion: Criterion = iou_above,
) -> MatchCounts:
    """Count matches of one image at each of ``(R,)`` thresholds; the counts have shape ``(R,)``.

    Parameters are those of :func:`nuxel.metrics.matching.match`. Overlaps are counted once for all
    thresholds.

    Examples
    --------
    >>> truth, predicted = np.array([[1, 1, 1, 2]]), np.array([[1, 1, 0, 0]])
    >>> match_counts(truth, predicted, [0.5, 0.75]).recall.tolist()
    [0.5, 0.0]
    """
    table = overlap_table(truth, predicted)
    found = np.array([match(table, None, t, criterion).true_positives for t in thresholds], np.int64)
    return MatchCounts(found, len(table.predicted_labels) - found, len(table.truth_labels) - found)


def average_precision(
    truth: LabelImage | OverlapTable,
    predicted: LabelImage | None = None,
    thresholds: Sequence[Threshold] = DSB2018_THRESHOLDS,
    criterion: Criterion = iou_above,
) -> float:
    """Average precision of one image: the mean over IoU thresholds of TP / (TP + FP + FN), in ``[0, 1]``.

    With the default thresholds and criterion this is the score of the 2018 Data Science Bowl (Caicedo et
    al. 2019, doi 10.1038/s41592-019-0612-7), in which a match has an IoU strictly greater than the
    threshold. Give one threshold for the AP at that threshold.

    An image with neither true nor predicted nuclei scores 1; with only one of the two, 0. Parameters are
    those of :func:`nuxel.metrics.matching.match`; for many images see :class:`MatchTally`.

    Examples
    --------
    >>> truth, predicted = np.array([[1, 1, 1, 1, 2]]), np.array([[1, 1, 1, 0, 2]])
    >>> average_precision(truth, predicted), average_precision(truth, predicted, [0.75])
    (0.6666666666666666, 0.3333333333333333)
    """
    return float(match_counts(truth, predicted, thresholds, criterion).average_precision.mean())


class MatchTally:
    """Matches of many images, added one by one: the average precision of a dataset.

    Both rules for several images are here. The *mean over images* (the Data Science Bowl's) gives each
    image the same weight, however many nuclei it has. *Pooled* counts give each nucleus the same weight.

    Parameters
    ----------
    thresholds, criterion
        As in :func:`nuxel.metrics.matching.match`.

    Examples
    --------
    >>> tally = MatchTally()
    >>> tally.add(np.array([[1, 2]]), np.array([[1, 0]]))
    >>> tally.add(np.array([[0, 0]]), np.array([[0, 0]]))
    >>> tally.mean_average_precision(), tally.pooled().average_precision.mean()
    (0.75, np.float64(0.5))
    """

    def __init__(
        self, thresholds: Sequence[Threshold] = DSB2018_THRESHOLDS, criterion: Criterion = iou_above
    ) -> None:
        self.thresholds = tuple(exact_threshold(threshold) for threshold in thresholds)
        self.criterion = criterion
        self._images: list[MatchCounts] = []

    def __len__(self) -> int:
        return len(self._images)

    def add(self, truth: LabelImage | OverlapTable, predicted: LabelImage | None = None) -> None:
        """Add one image: two label images, or their overlap table."""
        self._images.append(match_counts(truth, predicted, self.thresholds, self.criterion))

    def per_image(self) -> MatchCounts:
        """Counts of shape ``(images, thresholds)``, in the order in which images were added.

        Raises
        ------
        NuxelError
            If no image was added.
        """
        if not self._images:
            raise NuxelError("no image has been added: a score needs at least one pair of label images.")
        return MatchCounts(
            np.stack([image.true_positives for image in self._images]),
            np.stack([image.false_positives for image in self._images]),
            np.stack([image.false_negatives for image in self._images]),
        )

    def pooled(self) -> MatchCounts:
        """Counts of shape ``(thresholds,)``, summed over images."""
        images = self.per_image()
        return MatchCounts(
            images.true_positives.sum(axis=0),
            images.false_positives.sum(axis=0),
            images.false_negatives.sum(axis=0),
        )

    def mean_average_precision(self) -> float:
        """Mean over thresholds, then over images, of the average precision (the Data Science Bowl's)."""
        return float(self.per_image().average_precision.mean())

    def pooled_average_precision(self) -> float:
        """Average precision of the pooled counts, averaged over thresholds."""
        return float(self.pooled().average_precision.mean())
