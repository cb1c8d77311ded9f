"""Classes of error on small pictures."""

import numpy as np

from nuxel.metrics.error_classes import error_classes
from nuxel.metrics.matching import iou_at_least


def classes(truth: list[int], predicted: list[int], threshold: float = 0.5) -> tuple[list[str], list[str]]:
    found = error_classes(np.array([truth]), np.array([predicted]), threshold)
    return found.truth.tolist(), found.predicted.tolist()


def test_correct_missed_and_spurious() -> None:
    assert classes([1, 1, 0, 2, 0], [4, 4, 0, 0, 5]) == (["correct", "missed"], ["correct", "spurious"])


def test_merged() -> None:
    assert classes([1, 1, 2, 2], [3, 3, 3, 3]) == (["merged", "merged"], ["merged"])


def test_half_a_nucleus_is_not_covered() -> None:
    # 3 covers 1, and exactly half of 2.
    assert classes([1, 1, 2, 2, 0, 0], [3, 3, 3, 0, 0, 0]) == (["correct", "poorly outlined"], ["correct"])
    assert classes([1, 1, 2, 2, 2, 0], [3, 3, 3, 3, 3, 3]) == (["merged", "merged"], ["merged"])


def test_prediction_that_matches_one_of_two_is_correct_and_the_other_merged() -> None:
    assert classes([1, 1, 1, 1, 1, 2], [3, 3, 3, 3, 3, 3]) == (["correct", "merged"], ["correct"])


def test_split() -> None:
    assert classes([1, 1, 1, 1], [3, 3, 4, 4]) == (["split"], ["split", "split"])
    assert classes([1, 1, 1, 1], [3, 3, 3, 4]) == (["correct"], ["correct", "split"])


def test_half_a_prediction_does_not_lie_in_a_nucleus() -> None:
    truth, predicted = [1, 1, 1, 1, 0, 0], [3, 3, 0, 4, 4, 0]
    assert classes(truth, predicted) == (["poorly outlined"], ["poorly outlined", "poorly outlined"])


def test_poorly_outlined() -> None:
    assert classes([1, 1, 1, 1], [2, 0, 0, 0]) == (["poorly outlined"], ["poorly outlined"])
    assert classes([1, 1, 1, 1], [2, 2, 2, 0], 0.8) == (["poorly outlined"], ["poorly outlined"])


def test_touching_a_neighbour_is_neither_merging_nor_splitting() -> None:
    # 3 covers 1 and only touches 2; with the roles exchanged, 2 has most of 1 in it and only touches 3.
    poor = "poorly outlined"
    assert classes([1, 1, 2, 2, 2, 2], [3, 3, 3, 0, 0, 0], 0.8) == ([poor, poor], [poor])
    assert classes([3, 3, 3, 0, 0, 0], [1, 1, 2, 2, 2, 2], 0.8) == ([poor], [poor, poor])


def test_merged_goes_before_split() -> None:
    # Truth 1 is covered with truth 2 by prediction 5 and also holds fragments 6 and 7.
    truth = [1] * 10 + [2] * 10
    predicted = [6, 6, 7, 7, *[5] * 16]
    assert classes(truth, predicted) == (["merged", "correct"], ["correct", "split", "split"])
    assert classes(truth, predicted, 0.7) == (["merged", "merged"], ["merged", "split", "split"])


def test_counts_name_every_class() -> None:
    truth, predicted = np.array([[1, 1, 2, 2, 0, 3, 0, 4]]), np.array([[5, 5, 5, 5, 0, 6, 7, 0]])
    found = error_classes(truth, predicted)
    assert found.truth_counts() == {"correct": 1, "merged": 2, "split": 0, "poorly outlined": 0, "missed": 1}
    assert found.predicted_counts() == {
        "correct": 1,
        "merged": 1,
        "split": 0,
        "poorly outlined": 0,
        "spurious": 1,
    }
    assert found.matching.truth_labels.tolist() == [3]


def test_criterion_is_passed_on() -> None:
    truth, predicted = np.array([[1, 1]]), np.array([[1, 0]])
    assert error_classes(truth, predicted).truth.tolist() == ["poorly outlined"]
    assert error_classes(truth, predicted, criterion=iou_at_least).truth.tolist() == ["correct"]


def test_empty_images() -> None:
    assert classes([0, 0], [0, 0]) == ([], [])
    assert classes([1, 0], [0, 0]) == (["missed"], [])
    assert classes([0, 0], [1, 2]) == ([], ["spurious", "spurious"])
