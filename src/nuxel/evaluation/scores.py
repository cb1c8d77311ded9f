"""All scores of one image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from nuxel.metrics.aggregated_jaccard import aggregated_jaccard, aggregated_jaccard_plus, normalised_coverage
from nuxel.metrics.average_precision import DSB2018_THRESHOLDS, MatchCounts, match_counts
from nuxel.metrics.dice import dice, ensemble_dice, object_dice
from nuxel.metrics.error_classes import SPURIOUS, error_classes
from nuxel.metrics.matching import Threshold, iou_at_least
from nuxel.metrics.overlap import LabelImage, OverlapTable, overlap_table
from nuxel.metrics.panoptic_quality import panoptic_quality
from nuxel.metrics.pixels import mean_iou, pixel_accuracy

AP_AT = {f"ap{int(threshold * 100)}": place for place, threshold in enumerate(DSB2018_THRESHOLDS)}
"""Names of the average precisions at single thresholds, and the places of these in the counts."""

HAUSDORFF = "hausdorff"


@dataclass(frozen=True, eq=False)
class ImageScores:
    """One image compared.

    Parameters
    ----------
    image
        Its name.
    truth_nuclei, predicted_nuclei
        How many there are (those on pixels that are not annotated left out).
    scores
        Score by name, in ``[0, 1]``; ``hausdorff``, if asked for, is the mean of the matched pairs in pixels, NaN
        without a match.
    errors
        How many true nuclei are ``correct``, ``merged``, ``split``, ``poorly outlined`` and ``missed``, and how many
        predicted ones are ``spurious``.
    above, at_least
        Matches at IoU 0.50, 0.55 ... 0.95: strictly above each (Data Science Bowl) and at or above (StarDist).
    matches
        One entry: the matches above the chosen threshold.
    matched_iou
        The sum of their IoU.
    groups
        The image's value in each column of the index.
    """

    image: str
    truth_nuclei: int
    predicted_nuclei: int
    scores: Mapping[str, float]
    errors: Mapping[str, int]
    above: MatchCounts
    at_least: MatchCounts
    matches: MatchCounts
    matched_iou: float
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def annotated(self) -> bool:
        """Whether any pixel is, so that there are scores."""
        return not math.isnan(self.scores["ap"])

    @property
    def count_error(self) -> int:
        """Predicted minus true nuclei."""
        return self.predicted_nuclei - self.truth_nuclei


def score_image(
    image: str,
    truth: LabelImage | OverlapTable,
    predicted: LabelImage | None = None,
    *,
    threshold: Threshold = 0.5,
    hausdorff: bool = False,
    groups: Mapping[str, str] | None = None,
) -> ImageScores:
    """Compare one prediction with its truth: two label images, or their overlap table.

    Parameters
    ----------
    image
        Name of the image. One of which no pixel is annotated has no scores: they are not a number.
    truth, predicted
        See :func:`nuxel.metrics.overlap.overlap_table`.
    threshold
        IoU that a match must exceed, for precision, recall, F1, PQ and the error classes.
    hausdorff
        Measure distances as well, which takes longer than all else; needs label images.
    groups
        The image's value in each column of the index.

    Examples
    --------
    >>> found = score_image("a", np.array([[1, 1, 1, 1, 2]]), np.array([[3, 3, 3, 0, 0]]))
    >>> found.scores["ap50"], found.scores["pq"], found.errors["missed"]
    (0.5, 0.5, 1)
    """
    table = overlap_table(truth, predicted)
    above = match_counts(table)
    classes = error_classes(table, threshold=threshold)
    matches = match_counts(table, thresholds=[threshold])
    precisions = above.average_precision
    quality = panoptic_quality(table, threshold=threshold)
    scores = {
        "ap": float(precisions.mean()),
        **{name: float(precisions[place]) for name, place in AP_AT.items()},
        "precision": float(matches.precision[0]),
        "recall": float(matches.recall[0]),
        "f1": float(matches.f1[0]),
        **quality._asdict(),
        "aji": aggregated_jaccard(table),
        "aji_plus": aggregated_jaccard_plus(table),
        "ncs": normalised_coverage(table),
        "dice": dice(table),
        "ensemble_dice": ensemble_dice(table),
        "object_dice": object_dice(table),
        "pixel_accuracy": pixel_accuracy(table),
        "mean_iou": mean_iou(table),
    }
    if hausdorff and predicted is not None:
        scores[HAUSDORFF] = _mean_hausdorff(np.asarray(truth), predicted, threshold)
    if not table.pixels:  # of what nobody annotated nothing is known, not even that all is well
        scores = dict.fromkeys(scores, float("nan"))
    return ImageScores(
        image,
        len(table.truth_labels),
        len(table.predicted_labels),
        scores,
        {**classes.truth_counts(), SPURIOUS: classes.predicted_counts()[SPURIOUS]},
        above,
        match_counts(table, criterion=iou_at_least),
        matches,
        float(classes.matching.iou.sum()),
        groups or {},
    )


def _mean_hausdorff(truth: LabelImage, predicted: LabelImage, threshold: Threshold) -> float:
    from nuxel.metrics.hausdorff import hausdorff_distances

    distances = hausdorff_distances(truth, predicted, threshold)
    return float(distances.mean()) if len(distances) else float("nan")
