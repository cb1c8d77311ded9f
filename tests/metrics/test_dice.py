"""Dice coefficients worked out by hand."""

import numpy as np
import pytest

from nuxel.metrics.dice import dice, ensemble_dice, object_dice
from nuxel.metrics.overlap import overlap_table

EMPTY = np.zeros((1, 9), int)
# Truth 1 (4 pixels) shares 3 with 5; truth 2 (2) shares 1 with 5 and 1 with 6; 3 is missed, 7 spurious.
TRUTH = np.array([[1, 1, 1, 1, 2, 2, 0, 3, 0]])
PREDICTED = np.array([[0, 5, 5, 5, 5, 6, 6, 0, 7]])


def test_foreground() -> None:
    assert dice(TRUTH, PREDICTED) == pytest.approx(2 * 5 / (7 + 7))


def test_all_overlapping_pairs() -> None:
    # Pairs 1-5 (3 of 4 and 4), 2-5 (1 of 2 and 4), 2-6 (1 of 2 and 2).
    assert ensemble_dice(TRUTH, PREDICTED) == pytest.approx(2 * (3 + 1 + 1) / (8 + 6 + 4))


def test_object_by_object() -> None:
    # 2 shares one pixel with each of 5 and 6, and the smaller counts: Dice 1/2.
    of_truth = (4 * (6 / 8) + 2 * (2 / 4) + 1 * 0) / 7
    of_predicted = (4 * (6 / 8) + 2 * (2 / 4) + 1 * 0) / 7
    assert object_dice(TRUTH, PREDICTED) == pytest.approx((of_truth + of_predicted) / 2)


def test_object_dice_takes_the_larger_share_not_the_better_dice() -> None:
    truth, predicted = np.array([[1] * 4 + [0] * 20]), np.array([[2, 3, 3, 3] + [3] * 20])
    assert object_dice(truth, predicted) == pytest.approx(((4 * 6 / 27) / 4 + (2 / 5 + 23 * 6 / 27) / 24) / 2)


def test_lower_object_dice_when_a_nucleus_is_cut() -> None:
    truth = np.array([[1, 1, 1, 1]])
    assert dice(truth, np.array([[1, 1, 2, 2]])) == 1
    assert object_dice(truth, np.array([[1, 1, 2, 2]])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("score", [dice, ensemble_dice, object_dice])
def test_extremes(score) -> None:
    assert score(EMPTY, EMPTY) == 1
    assert score(TRUTH, EMPTY) == 0
    assert score(EMPTY, TRUTH) == 0
    assert score(TRUTH, TRUTH) == 1
    assert score(overlap_table(TRUTH, (TRUTH == 0) * 3)) == 0
    assert score(np.array([[1, 0]]), np.array([[0, 1]])) == 0
