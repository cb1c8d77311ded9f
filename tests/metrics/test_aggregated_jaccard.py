"""AJI, AJI+ and NCS worked out by hand."""

import numpy as np
import pytest

from nuxel.metrics.aggregated_jaccard import aggregated_jaccard, aggregated_jaccard_plus, normalised_coverage
from nuxel.metrics.overlap import overlap_table

EMPTY = np.zeros((1, 10), int)
# Truth 1 (4 pixels) shares 3 with 5; truth 2 (3) shares 2 with 5 and 1 with 6; 3 is missed, 7 spurious.
TRUTH = np.array([[1, 1, 1, 1, 2, 2, 2, 0, 3, 0]])
PREDICTED = np.array([[0, 5, 5, 5, 5, 5, 6, 6, 0, 7]])


def test_two_true_nuclei_may_select_one_prediction() -> None:
    # 1 selects 5 with 3 / 6, 2 selects 5 with 2 / 6; unused: 6 and 7; 3 adds itself.
    assert aggregated_jaccard(TRUTH, PREDICTED) == pytest.approx((3 + 2) / (6 + 6 + 1 + 2 + 1))


def test_plus_pairs_one_to_one() -> None:
    # 1 with 5 (3 / 6) and 2 with 6 (1 / 4) sum to more than any other choice.
    assert aggregated_jaccard_plus(TRUTH, PREDICTED) == pytest.approx((3 + 1) / (6 + 4 + 1 + 1))


def test_plus_weighs_iou_not_the_number_of_pairs() -> None:
    # 1 with 5 alone has IoU 0.8; two pairs (1 with 6 and 2 with 5) would sum to far less.
    truth = np.array([[1] * 9 + [2] * 9])
    predicted = np.array([[6] + [5] * 9 + [0] * 8])
    assert aggregated_jaccard_plus(truth, predicted) == pytest.approx(8 / (10 + 9 + 1))


def test_coverage_weights_best_iou_by_area() -> None:
    assert normalised_coverage(TRUTH, PREDICTED) == pytest.approx((4 * 3 / 6 + 3 * 2 / 6) / 8)
    assert normalised_coverage(overlap_table(TRUTH, PREDICTED)) == pytest.approx(3 / 8)


def test_spurious_predictions_do_not_change_coverage_but_lower_aji() -> None:
    with_more = np.where(TRUTH + PREDICTED == 0, 9, PREDICTED)
    assert normalised_coverage(TRUTH, with_more) == normalised_coverage(TRUTH, PREDICTED)
    alone, more = np.array([[1, 0]]), np.array([[1, 2]])
    assert aggregated_jaccard(alone, more) == aggregated_jaccard_plus(alone, more) == 0.5


@pytest.mark.parametrize("score", [aggregated_jaccard, aggregated_jaccard_plus, normalised_coverage])
def test_extremes(score) -> None:
    assert score(EMPTY, EMPTY) == 1
    assert score(TRUTH, EMPTY) == 0
    assert score(TRUTH, TRUTH) == 1
    assert score(EMPTY, PREDICTED) == (1 if score is normalised_coverage else 0)


def test_best_pairs_prefer_iou_then_intersection_then_lower_label() -> None:
    truth = np.array([[1, 1, 1, 1, 0, 0, 0, 0]])
    table = overlap_table(truth, np.array([[1, 0, 2, 2, 2, 2, 2, 2]]))
    assert table.intersection.tolist() == [1, 2]
    assert table.iou.tolist() == [1 / 4, 1 / 4]
    assert table.best_pairs.tolist() == [1]
    table = overlap_table(truth, np.array([[1, 1, 1, 2, 1, 1, 1, 1]]))
    assert table.iou.tolist() == [3 / 8, 1 / 4]
    assert table.best_pairs.tolist() == [0]
    table = overlap_table(np.array([[3, 3, 5, 5]]), np.array([[8, 4, 6, 6]]))
    assert table.best_pairs.tolist() == [0, 2]
