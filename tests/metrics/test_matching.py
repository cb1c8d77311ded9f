"""Matchings worked out by hand."""

from fractions import Fraction

import numpy as np
import pytest

from nuxel.metrics import matching
from nuxel.metrics.matching import assign, exact_threshold, iou_above, iou_at_least, match
from nuxel.metrics.overlap import OverlapTable, overlap_table


def row(*runs: tuple[int, int]) -> np.ndarray:
    """A label image of one row, from (label, length) runs."""
    return np.repeat([label for label, _ in runs], [length for _, length in runs])[None]


def table_of(areas: tuple[list[int], list[int]], pairs: list[tuple[int, int, int]]) -> OverlapTable:
    """A table from areas of truth and prediction and (truth index, predicted index, intersection)."""
    truth, predicted = (np.array(side, np.int64) for side in areas)
    columns = np.array(pairs, np.int64).reshape(-1, 3).T
    labels = np.arange(1, len(truth) + 1), np.arange(1, len(predicted) + 1)
    return OverlapTable(labels[0], truth, labels[1], predicted, *columns, 10**6, np.empty(0, np.int64))


def test_identical_images_match_completely() -> None:
    image = row((3, 2), (0, 1), (1, 4), (8, 1))
    found = match(image, image, Fraction(99, 100))
    assert found.truth_labels.tolist() == [1, 3, 8]
    assert found.predicted_labels.tolist() == [1, 3, 8]
    assert found.iou.tolist() == [1.0, 1.0, 1.0]
    assert (found.true_positives, found.false_positives, found.false_negatives) == (3, 0, 0)


def test_iou_of_exactly_the_threshold_is_not_above_it() -> None:
    truth, predicted = row((1, 2), (0, 2)), row((1, 1), (0, 3))
    assert match(truth, predicted, 0.5, iou_above).true_positives == 0
    assert match(truth, predicted, 0.5, iou_at_least).true_positives == 1
    assert match(truth, predicted, 0.4999, iou_above).true_positives == 1
    assert match(truth, predicted, 0.5001, iou_at_least).true_positives == 0


@pytest.mark.parametrize("threshold", [0.55, 0.5 + 0.05, np.arange(0.5, 1, 0.05)[1], Fraction(11, 20)])
def test_decimals_are_meant_as_they_are_written(threshold: float) -> None:
    # 11 of 20 pixels: as floats, 11 / 20 and 0.55 agree or not depending on how 0.55 was computed.
    truth, predicted = row((1, 20)), row((1, 11), (0, 9))
    assert match(truth, predicted, threshold).true_positives == 0
    assert match(truth, predicted, threshold, iou_at_least).true_positives == 1


def test_no_overflow_on_large_areas() -> None:
    table = table_of(([10**10], [10**10]), [(0, 0, 10**10 - 1)])
    assert match(table, threshold=0.9999).true_positives == 1


@pytest.mark.parametrize("threshold", [-0.01, 1.01, float("nan")])
def test_threshold_outside_its_range(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"^an IoU threshold lies between 0 and 1, not at"):
        exact_threshold(threshold)


def test_thresholds_zero_and_one() -> None:
    truth, predicted = row((1, 5), (2, 5)), row((1, 5), (0, 4), (2, 1))
    assert match(truth, predicted, 0).true_positives == 2
    assert match(truth, predicted, 0, iou_at_least).true_positives == 2
    assert match(truth, predicted, 1).true_positives == 0
    assert match(truth, predicted, 1, iou_at_least).truth_labels.tolist() == [1]


def test_defaults_are_the_data_science_bowl() -> None:
    assert match(row((1, 2)), row((1, 1), (0, 1))).true_positives == 0
    assert match(row((1, 3)), row((1, 2), (0, 1))).true_positives == 1


def test_nuclei_that_only_touch_never_match() -> None:
    found = match(row((1, 2), (0, 2)), row((0, 2), (1, 2)), 0, iou_at_least)
    assert (found.true_positives, found.false_positives, found.false_negatives) == (0, 1, 1)


def test_more_matches_beat_a_better_one() -> None:
    # Truth 0 and prediction 0 fit well, but then truth 1 and prediction 1 would both stay alone.
    table = table_of(([60, 60], [60, 60]), [(0, 0, 40), (0, 1, 15), (1, 0, 15)])
    assert match(table, threshold=0.1).pairs.tolist() == [1, 2]
    assert match(table, threshold=0.2).pairs.tolist() == [0]


def test_among_equally_many_matches_iou_decides() -> None:
    table = table_of(([10, 10], [10, 10]), [(0, 0, 5), (0, 1, 4), (1, 0, 4), (1, 1, 1)])
    # IoU: 1/3, 1/4, 1/4, 1/19: the diagonal sums to 0.386, the other to 0.5.
    assert match(table, threshold=0).pairs.tolist() == [1, 2]


def test_one_nucleus_matches_once() -> None:
    truth, predicted = row((1, 10)), row((1, 5), (2, 5))
    found = match(truth, predicted, 0.5, iou_at_least)
    assert (found.true_positives, found.false_positives, found.false_negatives) == (1, 1, 0)
    found = match(predicted, truth, 0.5, iou_at_least)
    assert (found.true_positives, found.false_positives, found.false_negatives) == (1, 0, 1)


def test_best_of_three_rivals() -> None:
    table = table_of(([100], [10, 30, 20]), [(0, 0, 10), (0, 1, 30), (0, 2, 20)])
    assert match(table, threshold=0).pairs.tolist() == [1]


def test_knot_that_no_pair_settles_alone() -> None:
    # A ring of four: each nucleus overlaps two others, all equally.
    table = table_of(([4, 4], [4, 4]), [(0, 0, 2), (0, 1, 2), (1, 0, 2), (1, 1, 2)])
    found = match(table, threshold=0.3)
    assert found.pairs.tolist() in ([0, 3], [1, 2])


@pytest.mark.parametrize("at_once", [1, 4, 1000])
def test_many_knots_and_simple_pairs(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(matching, "PAIRS_AT_ONCE", at_once)
    knot = [(0, 0, 2), (0, 1, 2), (1, 0, 2), (1, 1, 2)]
    pairs = [(t + 2 * k, p + 2 * k, i) for k in range(9) for t, p, i in knot] + [(18, 18, 3)]
    found = match(table_of(([4] * 19, [4] * 19), pairs), threshold=0.3)
    assert found.true_positives == 19
    assert len(set(found.truth_labels)) == len(set(found.predicted_labels)) == 19


def test_long_chain_is_solved_and_quickly() -> None:
    # Each prediction lies across two true nuclei: only the ends are obvious, and greedy choices miss the end.
    n = 3000
    pairs = sorted([(i, i, 4) for i in range(n)] + [(i + 1, i, 5) for i in range(n - 1)])
    found = match(table_of(([10] * n, [10] * n), pairs), threshold=0.1)
    assert found.true_positives == n


def test_assign_takes_the_heaviest_set_not_the_largest() -> None:
    table = table_of(([9, 9], [9, 9]), [(0, 0, 1), (0, 1, 1), (1, 0, 1)])
    every = np.arange(3)
    assert assign(table, every, np.array([5.0, 2.0, 2.0])).tolist() == [0]
    assert assign(table, every, np.array([5.0, 3.0, 3.0])).tolist() == [1, 2]
    assert assign(table, every[1:], np.array([3.0, 3.0])).tolist() == [0, 1]
    assert assign(table, every[:0], np.empty(0)).tolist() == []


def test_solver_may_leave_a_truth_unmatched() -> None:
    table = table_of(([9, 9, 9], [9, 9]), [(t, p, 1) for t in range(3) for p in range(2)])
    assert len(assign(table, np.arange(6), np.ones(6))) == 2
    assert assign(table, np.arange(6), np.array([1, 1, 1, 3, 3, 1.0])).tolist() == [3, 4]


def test_solver_is_only_asked_about_knots(monkeypatch: pytest.MonkeyPatch) -> None:
    def solve(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
        asked.append(sorted(set(truth)))
        return original(truth, predicted, weights)

    asked: list[list[int]] = []
    original = matching._solve
    monkeypatch.setattr(matching, "_solve", solve)
    star = [(0, 0, 2), (0, 1, 5), (0, 2, 4)]
    chain = [(1, 3, 5), (2, 3, 4), (2, 4, 3), (3, 4, 2)]
    table = table_of(([10] * 6, [10] * 7), star + chain)
    assert match(table, threshold=0).pairs.tolist() == [1, 3, 5]
    assert asked == []
    ring = [(4, 5, 3), (4, 6, 3), (5, 5, 3), (5, 6, 3)]
    table = table_of(([10] * 6, [10] * 7), star + chain + ring)
    assert match(table, threshold=0).true_positives == 5
    assert asked == [[4, 5]]


def test_groups_share_no_nucleus_and_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "PAIRS_AT_ONCE", 4)
    truth = np.array([0, 3, 1, 4, 1, 2, 2, 5, 5, 5])
    predicted = np.array([0, 5, 0, 6, 1, 2, 3, 7, 8, 9])
    batches = matching._batches(truth, predicted)
    assert [sorted(truth[batch].tolist()) for batch in batches] == [[0, 1, 1, 2, 2], [3, 4, 5, 5, 5]]
    assert matching._batches(truth[:0], predicted[:0]) == []


def test_table_and_images_agree() -> None:
    truth, predicted = row((1, 3), (2, 4)), row((6, 4), (5, 3))
    table = overlap_table(truth, predicted)
    found = match(table, threshold=0.6)
    assert found.table is table
    assert found.pairs.tolist() == match(truth, predicted, 0.6).pairs.tolist() == [0, 1]
    assert found.iou.tolist() == [0.75, 0.75]
    assert found.predicted_labels.tolist() == [6, 5]
