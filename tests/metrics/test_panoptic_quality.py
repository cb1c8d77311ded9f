"""Panoptic quality worked out by hand."""

import numpy as np
import pytest

from nuxel.metrics.matching import iou_at_least, match
from nuxel.metrics.overlap import overlap_table
from nuxel.metrics.panoptic_quality import PanopticQuality, panoptic_quality, pooled_panoptic_quality

EMPTY = np.zeros((1, 12), int)
# IoU 1, 3/4 and 1/2; a fourth true nucleus is missed, and one prediction is spurious.
TRUTH = np.array([[1, 1, 2, 2, 2, 2, 3, 3, 0, 4, 0, 0]])
PREDICTED = np.array([[1, 1, 2, 2, 2, 0, 0, 3, 0, 0, 0, 8]])


def test_three_factors_by_hand() -> None:
    quality = panoptic_quality(TRUTH, PREDICTED)
    assert quality.pq == pytest.approx(1.75 / (2 + 2 / 2 + 2 / 2))
    assert quality.sq == pytest.approx(1.75 / 2)
    assert quality.rq == pytest.approx(2 / 4)


def test_at_least_a_half_counts_where_asked() -> None:
    quality = panoptic_quality(overlap_table(TRUTH, PREDICTED), criterion=iou_at_least)
    assert quality == pytest.approx((2.25 / 4, 2.25 / 3, 3 / 4))
    assert panoptic_quality(TRUTH, PREDICTED, 0.75) == pytest.approx((1 / 4, 1, 1 / 4))


def test_empty_images() -> None:
    assert panoptic_quality(EMPTY, EMPTY) == PanopticQuality(1, 1, 1)
    assert panoptic_quality(TRUTH, EMPTY) == PanopticQuality(0, 0, 0)
    assert panoptic_quality(EMPTY, PREDICTED) == PanopticQuality(0, 0, 0)
    assert pooled_panoptic_quality([]) == PanopticQuality(1, 1, 1)


def test_pooled_sums_over_nuclei_of_all_images() -> None:
    matchings = [match(TRUTH, PREDICTED), match(TRUTH, EMPTY), match(TRUTH, TRUTH)]
    pooled = pooled_panoptic_quality(matchings)
    # Nuclei: 4 + 4, 4 + 0 and 4 + 4.
    assert pooled == pytest.approx((2 * 5.75 / 20, 5.75 / 6, 2 * 6 / 20))
