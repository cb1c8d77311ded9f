"""Hausdorff distances worked out by hand."""

import numpy as np
import pytest

from nuxel.metrics import hausdorff
from nuxel.metrics.hausdorff import hausdorff_distances
from nuxel.metrics.matching import iou_at_least, match


def test_worst_pixel_of_either_nucleus() -> None:
    truth, predicted = np.zeros((2, 9, 9), int)
    truth[2:6, 2:6] = 1
    predicted[2:6, 2:6] = 1
    assert hausdorff_distances(truth, predicted).tolist() == [0]
    predicted[8, 5] = 1
    assert hausdorff_distances(truth, predicted).tolist() == [3]
    assert hausdorff_distances(predicted, truth).tolist() == [3]
    truth[1, 1] = 1
    assert hausdorff_distances(truth, predicted).tolist() == [3]
    truth[5, 5] = predicted[8, 5] = 0
    assert hausdorff_distances(truth, predicted).tolist() == pytest.approx([2**0.5])


def test_one_distance_for_each_match_in_its_order() -> None:
    truth = np.array([[70, 70, 70, 70, 0, 5, 5, 5, 0, 0, 0, 9, 6]])
    predicted = np.array([[3, 3, 3, 3, 0, 8, 8, 8, 8, 8, 0, 0, 0]])
    assert match(truth, predicted).truth_labels.tolist() == [5, 70]
    assert hausdorff_distances(truth, predicted).tolist() == [2, 0]
    assert hausdorff_distances(truth, predicted, 0.6).tolist() == [0]
    assert hausdorff_distances(truth, predicted, 0.6, iou_at_least).tolist() == [2, 0]


def test_labels_crossing_over() -> None:
    truth = np.array([[1, 1, 1, 0, 2, 2, 2, 2]])
    predicted = np.array([[2, 2, 0, 0, 1, 1, 1, 1]])
    assert hausdorff_distances(truth, predicted).tolist() == [1, 0]


def test_many_labels_in_another_order() -> None:
    truth = np.repeat(np.arange(1, 9), 4)[None]
    predicted = np.repeat([5, 2, 8, 1, 7, 3, 6, 4], 4)[None]
    predicted[0, 8] = 0
    assert hausdorff_distances(truth, predicted).tolist() == [0, 0, 1, 0, 0, 0, 0, 0]


def test_each_pair_is_measured_in_its_own_box(monkeypatch: pytest.MonkeyPatch) -> None:
    def distance(truth: np.ndarray, predicted: np.ndarray) -> float:
        return float(truth.size + predicted.size)

    monkeypatch.setattr(hausdorff, "_distance", distance)
    truth, predicted = np.zeros((2, 20, 20), int)
    truth[3:9, 4:8] = predicted[4:10, 3:8] = 1
    assert hausdorff_distances(truth, predicted).tolist() == [2 * 7 * 5]


def test_pixels_that_are_not_annotated_belong_to_neither() -> None:
    truth = np.array([[1, 1, 1, -1, -1, 2, 2]])
    predicted = np.array([[1, 1, 1, 1, 1, 0, 2]])
    assert hausdorff_distances(truth, predicted).tolist() == [0]


def test_without_matches() -> None:
    distances = hausdorff_distances(np.array([[1, 1, 0]]), np.array([[0, 1, 1]]))
    assert distances.shape == (0,)
    assert distances.dtype == np.float64


def test_volumes() -> None:
    truth = np.zeros((3, 3, 5), int)
    truth[1, 1, :4] = 4
    predicted = truth.copy()
    predicted[1, 1, 4] = 4
    assert hausdorff_distances(truth, predicted).tolist() == [1]
