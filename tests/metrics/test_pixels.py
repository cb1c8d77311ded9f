"""Pixel accuracy, mean IoU and count error worked out by hand."""

import numpy as np
import pytest

from nuxel.metrics.overlap import overlap_table
from nuxel.metrics.pixels import count_error, foreground_iou, mean_iou, pixel_accuracy

TRUTH = np.array([[1, 1, 1, 2, 0, 0, 0, 0]])
PREDICTED = np.array([[9, 9, 0, 5, 5, 0, 0, 7]])
EMPTY = np.zeros((1, 8), int)


def test_two_classes_of_pixels() -> None:
    # Foreground in both 3, background in both 2, wrong 3.
    assert pixel_accuracy(TRUTH, PREDICTED) == 5 / 8
    assert mean_iou(TRUTH, PREDICTED) == pytest.approx((3 / 6 + 2 / 5) / 2)
    assert foreground_iou(TRUTH, PREDICTED) == pytest.approx(3 / 6)
    assert mean_iou(overlap_table(TRUTH, PREDICTED)) == pytest.approx(0.45)


def test_pixels_that_are_not_annotated_do_not_count() -> None:
    truth = np.array([[1, 1, 1, 2, 0, -1, -1, -1]])
    # 7 lies on them altogether and is gone.
    assert pixel_accuracy(truth, PREDICTED) == 3 / 5
    assert mean_iou(truth, PREDICTED) == pytest.approx((3 / 5 + 0) / 2)


def test_class_that_does_not_occur() -> None:
    full = np.ones((1, 8), int)
    assert mean_iou(EMPTY, EMPTY) == foreground_iou(EMPTY, EMPTY) == 1
    assert mean_iou(full, full) == 1
    assert mean_iou(full, TRUTH) == pytest.approx((4 / 8 + 0) / 2)
    assert pixel_accuracy(full, EMPTY) == mean_iou(full, EMPTY) == foreground_iou(full, EMPTY) == 0


def test_nothing_annotated() -> None:
    assert pixel_accuracy(EMPTY - 1, PREDICTED) == mean_iou(EMPTY - 1, PREDICTED) == 1


def test_count_error_has_a_sign() -> None:
    assert count_error(TRUTH, PREDICTED) == 1
    assert count_error(overlap_table(PREDICTED, TRUTH)) == -1
    assert count_error(EMPTY, EMPTY) == 0
