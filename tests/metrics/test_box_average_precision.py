"""Average precision of boxes, worked out by hand."""

import numpy as np
import pytest

from nuxel.errors import NuxelError
from nuxel.metrics.box_average_precision import (
    area_under_curve,
    eleven_point,
    precision_recall_curve,
    voc_average_precision,
)

NO_BOXES = np.empty((0, 4))
NO_SCORES = np.empty(0)


def box(x0: int, width: int) -> list[int]:
    return [0, x0, 10, x0 + width]


def test_surest_detection_first() -> None:
    truth = [np.array([box(0, 10), box(20, 10)]), np.array([box(0, 10)])]
    predicted = [np.array([box(20, 10), box(50, 10)]), np.array([box(0, 10)])]
    curve = precision_recall_curve(truth, predicted, [np.array([0.3, 0.8]), np.array([0.9])])
    assert curve.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert curve.recall.tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    ap = voc_average_precision(truth, predicted, [np.array([0.3, 0.8]), np.array([0.9])])
    assert ap == pytest.approx(1 / 3 + 2 / 9)


def test_a_box_is_found_once() -> None:
    truth, predicted = [np.array([box(0, 10)])], [np.array([box(0, 9), box(0, 10)])]
    curve = precision_recall_curve(truth, predicted, [np.array([0.9, 0.8])])
    assert curve.precision.tolist() == [1, 0.5]
    assert curve.recall.tolist() == [1, 1]


def test_no_turning_to_the_second_best() -> None:
    # Both look at the first true box, although the second detection would reach 0.5 with the other one too.
    truth = [np.array([box(0, 10), box(4, 10)])]
    predicted = [np.array([box(0, 10), box(1, 10)])]
    curve = precision_recall_curve(truth, predicted, [np.array([0.9, 0.8])])
    assert curve.recall.tolist() == [0.5, 0.5]


def test_threshold_is_reached_exactly() -> None:
    truth, predicted, scores = [np.array([box(0, 20)])], [np.array([box(0, 11)])], [np.ones(1)]
    assert voc_average_precision(truth, predicted, scores, 0.55) == 1
    assert voc_average_precision(truth, predicted, scores, 0.5 + 0.05) == 1
    assert voc_average_precision(truth, predicted, scores, 0.5501) == 0


def test_default_threshold_is_a_half() -> None:
    truth, scores = [np.array([box(0, 20)])], [np.ones(1)]
    assert voc_average_precision(truth, [np.array([box(0, 10)])], scores) == 1
    assert voc_average_precision(truth, [np.array([box(0, 9)])], scores) == 0


def test_small_unsigned_boxes_do_not_wrap_around() -> None:
    truth = [np.array([[0, 0, 200, 200], [210, 210, 250, 250]], np.uint8)]
    predicted = [np.array([[210, 210, 250, 250]], np.uint8)]
    assert voc_average_precision(truth, predicted, [np.ones(1)]) == 0.5


@pytest.mark.parametrize("shift", [(0, 10), (10, 0), (11, 12), (-10, 0)])
def test_boxes_that_only_touch_or_lie_apart(shift: tuple[int, int]) -> None:
    other = np.array([0, 0, 10, 10]) + np.tile(shift, 2)
    assert voc_average_precision([np.array([[0, 0, 10, 10]])], [other[None]], [np.ones(1)], 0) == 0


def test_largest_iou_not_largest_intersection() -> None:
    # The wide box shares more with the detection, the narrow one fits it better.
    truth, predicted = [np.array([box(0, 100), box(0, 18)])], [np.array([box(0, 20)])]
    assert voc_average_precision(truth, predicted, [np.ones(1)]) == 0.5


def test_boxes_in_fractions_of_the_image() -> None:
    truth = [np.array([[0.1, 0.1, 0.2, 0.4], [0.1, 0.1, 0.2, 0.2]])]
    assert voc_average_precision(truth, [truth[0][1:]], [np.ones(1)], 0.9) == 0.5


def test_empty_boxes_never_match() -> None:
    flat = [np.array([[5, 5, 5, 9]])]
    assert voc_average_precision(flat, flat, [np.ones(1)]) == 0


def test_equal_scores_keep_their_order() -> None:
    truth = [np.array([box(0, 10)])]
    first = [np.array([box(0, 10), *[box(50, 10)] * 299])]
    for scores in (np.ones(300), np.repeat([2.0, 1.0], 150)):
        assert voc_average_precision(truth, first, [scores]) == 1
        assert voc_average_precision(truth, [first[0][::-1]], [scores]) == pytest.approx(1 / 300)


def test_interpolations() -> None:
    precision, recall = np.array([1, 0.5, 0.4, 0.5]), np.array([0.25, 0.25, 0.25, 0.5])
    assert area_under_curve(precision, recall) == pytest.approx(0.25 * 1 + 0.25 * 0.5)
    assert eleven_point(precision, recall) == pytest.approx((3 * 1 + 3 * 0.5) / 11)


def test_eleven_points_are_exact_tenths() -> None:
    # 3 of 10 true boxes reach recall 0.3, which as a float is less than 3 * 0.1.
    assert eleven_point(np.ones(3), np.array([1, 2, 3]) / 10) == pytest.approx(4 / 11)
    assert eleven_point(np.ones(1), np.array([0.29])) == pytest.approx(3 / 11)
    assert eleven_point(np.ones(1), np.ones(1)) == 1
    assert eleven_point(np.zeros(1), np.ones(1)) == 0


def test_interpolation_is_passed_on() -> None:
    truth, predicted = [np.array([box(0, 10), box(20, 10)])], [np.array([box(0, 10)])]
    assert voc_average_precision(truth, predicted, [np.ones(1)]) == 0.5
    assert voc_average_precision(truth, predicted, [np.ones(1)], 0.5, eleven_point) == pytest.approx(6 / 11)


@pytest.mark.parametrize("interpolation", [area_under_curve, eleven_point])
def test_nothing_there(interpolation) -> None:
    one, score = np.array([box(0, 10)]), np.ones(1)
    assert voc_average_precision([NO_BOXES], [NO_BOXES], [NO_SCORES], interpolation=interpolation) == 1
    assert voc_average_precision([NO_BOXES], [one], [score], interpolation=interpolation) == 0
    assert voc_average_precision([one], [NO_BOXES], [NO_SCORES], interpolation=interpolation) == 0
    images = [NO_BOXES, one], [one, one], [score, score / 2]
    assert voc_average_precision(*images) == 0.5


def test_wrong_input_is_named() -> None:
    with pytest.raises(
        NuxelError, match=r"^there are true boxes of 2 images, predicted boxes of 1 and scores of 1: "
    ):
        voc_average_precision([NO_BOXES] * 2, [NO_BOXES], [NO_SCORES])
    with pytest.raises(
        NuxelError, match=r"^there are true boxes of 1 images, predicted boxes of 1 and scores of 2: "
    ):
        voc_average_precision([NO_BOXES], [NO_BOXES], [NO_SCORES] * 2)
    with pytest.raises(NuxelError, match=r"^there are true boxes of 0 images"):
        voc_average_precision([], [], [])
    with pytest.raises(NuxelError, match=r"^image 1 has 0 predicted boxes but 2 scores: give one each\.$"):
        voc_average_precision([NO_BOXES] * 2, [NO_BOXES] * 2, [NO_SCORES, np.ones(2)])
