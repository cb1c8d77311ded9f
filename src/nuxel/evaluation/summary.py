"""The scores of many images as one row: their means, and the scores of all nuclei pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuxel.evaluation.scores import AP_AT, ImageScores
from nuxel.metrics.average_precision import MatchCounts


@dataclass(frozen=True, eq=False)
class Summary:
    """What is said of a set of images.

    Parameters
    ----------
    images, truth_nuclei, predicted_nuclei
        How many there are.
    mean
        Mean over images of each score (the Data Science Bowl's rule): each image counts the same. Images without a
        Hausdorff distance are left out of its mean, and those of which nothing is annotated of all.
    pooled
        Scores of the matches of all images counted together (StarDist's rule, and that of PQ's authors): each nucleus
        counts the same. Images of which nothing is annotated do not count. ``ap`` and ``ap50`` ... ``ap95`` match at an
        IoU of at least the threshold here, the others above the chosen one.
    errors
        Sums over images.
    mean_curve, pooled_curve
        ``(10,)`` AP at IoU 0.50, 0.55 ... 0.95 by the two rules.
    """

    images: int
    truth_nuclei: int
    predicted_nuclei: int
    mean: Mapping[str, float]
    pooled: Mapping[str, float]
    errors: Mapping[str, int]
    mean_curve: NDArray[np.float64]
    pooled_curve: NDArray[np.float64]


def summarise(rows: Sequence[ImageScores]) -> Summary:
    """Summarise one or more images."""
    annotated = [row for row in rows if row.annotated]
    matches = _pool([row.matches for row in annotated or rows])
    curve = _pool([row.at_least for row in annotated or rows]).average_precision
    matched, rq = int(matches.true_positives[0]), float(matches.f1[0])
    iou = sum(row.matched_iou for row in annotated)
    # Without a match all three are what F1 is: 1 where there was nothing to find, else 0.
    sq = iou / matched if matched else rq
    pooled = {
        "ap": float(curve.mean()),
        **{name: float(curve[place]) for name, place in AP_AT.items()},
        "precision": float(matches.precision[0]),
        "recall": float(matches.recall[0]),
        "f1": rq,
        "pq": sq * rq,
        "sq": sq,
        "rq": rq,
    }
    curves = [row.above.average_precision for row in annotated]
    if not annotated:
        pooled, curve = dict.fromkeys(pooled, np.nan), np.full(len(curve), np.nan)
    return Summary(
        len(rows),
        sum(row.truth_nuclei for row in rows),
        sum(row.predicted_nuclei for row in rows),
        {name: _mean([row.scores.get(name, np.nan) for row in rows]) for name in _names(rows)},
        pooled,
        {name: sum(row.errors[name] for row in rows) for name in rows[0].errors},
        np.mean(curves, axis=0) if curves else np.full(len(curve), np.nan),
        curve,
    )


def _pool(counts: Sequence[MatchCounts]) -> MatchCounts:
    return MatchCounts(
        np.sum([one.true_positives for one in counts], axis=0),
        np.sum([one.false_positives for one in counts], axis=0),
        np.sum([one.false_negatives for one in counts], axis=0),
    )


def _names(rows: Sequence[ImageScores]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.scores))


def _mean(values: list[float]) -> float:
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("nan")
