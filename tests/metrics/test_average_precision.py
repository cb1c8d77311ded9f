"""Average precision worked out by hand."""

from fractions import Fraction

import numpy as np
import pytest

from nuxel.errors import NuxelError
from nuxel.metrics.average_precision import (
    DSB2018_THRESHOLDS,
    MatchCounts,
    MatchTally,
    average_precision,
    match_counts,
)
from nuxel.metrics.matching import iou_at_least
from nuxel.metrics.overlap import overlap_table

EMPTY = np.zeros((1, 10), int)
# IoU 1 for nucleus 1, 3/4 for nucleus 2, none for nucleus 3; one spurious prediction.
TRUTH = np.array([[1, 1, 2, 2, 2, 2, 0, 3, 0, 0]])
PREDICTED = np.array([[1, 1, 2, 2, 2, 0, 0, 0, 4, 0]])


def counts(tp: list[int], fp: list[int], fn: list[int]) -> MatchCounts:
    return MatchCounts(np.array(tp), np.array(fp), np.array(fn))


def test_thresholds_are_those_of_the_bowl() -> None:
    assert [float(t) for t in DSB2018_THRESHOLDS] == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]


def test_counts_at_each_threshold() -> None:
    found = match_counts(TRUTH, PREDICTED)
    assert found.true_positives.tolist() == [2] * 5 + [1] * 5
    assert found.false_positives.tolist() == [1] * 5 + [2] * 5
    assert found.false_negatives.tolist() == [1] * 5 + [2] * 5
    assert found.average_precision.tolist() == [0.5] * 5 + [0.2] * 5


def test_average_over_thresholds() -> None:
    assert average_precision(TRUTH, PREDICTED) == pytest.approx(0.35)
    assert average_precision(overlap_table(TRUTH, PREDICTED)) == pytest.approx(0.35)


def test_criterion_decides_at_exactly_three_quarters() -> None:
    assert average_precision(TRUTH, PREDICTED, [0.75]) == 0.2
    assert average_precision(TRUTH, PREDICTED, [0.75], iou_at_least) == 0.5
    assert average_precision(TRUTH, PREDICTED, [Fraction(3, 4), 0.5]) == pytest.approx(0.35)


def test_all_rates_by_hand() -> None:
    rates = counts([6, 0], [2, 3], [1, 1])
    assert rates.average_precision.tolist() == [6 / 9, 0]
    assert rates.precision.tolist() == [6 / 8, 0]
    assert rates.recall.tolist() == [6 / 7, 0]
    assert rates.f1.tolist() == pytest.approx([12 / 15, 0])


@pytest.mark.parametrize("rate", ["average_precision", "precision", "recall", "f1"])
def test_nothing_to_find_and_nothing_found_is_perfect(rate: str) -> None:
    values = getattr(counts([0, 0, 0, 0, 1], [0, 1, 0, 2, 0], [0, 0, 1, 2, 0]), rate)
    assert values.dtype == np.float64
    assert values.tolist() == [1, 0, 0, 0, 1]


def test_empty_images() -> None:
    assert average_precision(EMPTY, EMPTY) == 1
    assert average_precision(TRUTH, EMPTY) == 0
    assert average_precision(EMPTY, PREDICTED) == 0


def test_perfect_prediction() -> None:
    assert average_precision(TRUTH, TRUTH * 7) == 1


def test_tally_means_and_pools() -> None:
    tally = MatchTally()
    for truth, predicted in ((TRUTH, PREDICTED), (EMPTY, EMPTY), (EMPTY, PREDICTED)):
        tally.add(truth, predicted)
    assert len(tally) == 3
    assert tally.per_image().average_precision.mean(axis=1).tolist() == pytest.approx([0.35, 1, 0])
    assert tally.mean_average_precision() == pytest.approx(1.35 / 3)
    # Pooled: the third image adds three false positives.
    assert tally.pooled().true_positives.tolist() == [2] * 5 + [1] * 5
    assert tally.pooled().false_positives.tolist() == [4] * 5 + [5] * 5
    assert tally.pooled().false_negatives.tolist() == [1] * 5 + [2] * 5
    assert tally.pooled_average_precision() == pytest.approx((2 / 7 + 1 / 8) / 2)


def test_tally_keeps_order_thresholds_and_criterion() -> None:
    tally = MatchTally([0.75, 0.5], iou_at_least)
    tally.add(overlap_table(EMPTY, PREDICTED))
    tally.add(TRUTH, PREDICTED)
    assert tally.thresholds == (Fraction(3, 4), Fraction(1, 2))
    assert tally.per_image().true_positives.tolist() == [[0, 0], [2, 2]]
    assert tally.per_image().false_positives.tolist() == [[3, 3], [1, 1]]
    assert tally.per_image().false_negatives.tolist() == [[0, 0], [1, 1]]


def test_tally_checks_thresholds_at_once() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        MatchTally([50])


def test_score_of_no_image_is_an_error() -> None:
    for score in (MatchTally().mean_average_precision, MatchTally().pooled_average_precision):
        with pytest.raises(NuxelError, match=r"^no image has been added: a score needs"):
            score()
