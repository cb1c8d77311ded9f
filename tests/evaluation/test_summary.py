"""Means and pooled scores of many images, against the metrics room's own tally."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from nuxel.evaluation.scores import score_image
from nuxel.evaluation.summary import summarise
from nuxel.metrics.average_precision import MatchTally
from nuxel.metrics.matching import iou_at_least, match
from nuxel.metrics.panoptic_quality import pooled_panoptic_quality

Draw = Callable[..., np.ndarray]


@pytest.fixture
def pairs(squares: Draw) -> list[tuple[np.ndarray, np.ndarray]]:
    half = squares(1)
    half[:, 7:] = 0
    return [
        (squares(1, 2, 3, 4, 5, 6, 7), squares(1, 2, 3, 5, 8, shift={2: 1, 3: 3, 5: 5})),
        (squares(1), squares(1, shift={1: 1})),
        (squares(1), half),
        (squares(), squares()),
    ]


def test_both_rules_are_those_of_the_tally(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    mean_rule, pooled_rule = MatchTally(), MatchTally(criterion=iou_at_least)
    for pair in pairs:
        mean_rule.add(*pair)
        pooled_rule.add(*pair)
    found = summarise([score_image("a", *pair) for pair in pairs])
    assert found.mean["ap"] == pytest.approx(mean_rule.mean_average_precision())
    np.testing.assert_allclose(found.mean_curve, mean_rule.per_image().average_precision.mean(axis=0))
    assert found.pooled["ap"] == pytest.approx(pooled_rule.pooled_average_precision())
    np.testing.assert_allclose(found.pooled_curve, pooled_rule.pooled().average_precision)
    assert found.mean["ap75"] == pytest.approx(found.mean_curve[5])
    assert found.pooled["ap75"] == found.pooled_curve[5]
    assert found.pooled["ap"] != pytest.approx(found.mean["ap"])


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_pooled_quality_precision_and_recall(
    pairs: list[tuple[np.ndarray, np.ndarray]], threshold: float
) -> None:
    matchings = [match(*pair, threshold) for pair in pairs]
    found = summarise([score_image("a", *pair, threshold=threshold) for pair in pairs]).pooled
    expected = pooled_panoptic_quality(matchings)
    assert (found["pq"], found["sq"], found["rq"]) == pytest.approx(tuple(expected))
    matched = sum(one.true_positives for one in matchings)
    assert found["precision"] == pytest.approx(matched / 7)
    assert found["recall"] == pytest.approx(matched / 9)
    assert found["f1"] == found["rq"]


def test_sums(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    found = summarise([score_image("a", *pair) for pair in pairs])
    assert (found.images, found.truth_nuclei, found.predicted_nuclei) == (4, 9, 7)
    assert found.errors == {
        "correct": 4,
        "merged": 0,
        "split": 0,
        "poorly outlined": 3,
        "missed": 2,
        "spurious": 1,
    }
    rows = [score_image("a", *pair) for pair in pairs]
    assert found.mean["aji"] == pytest.approx(np.mean([row.scores["aji"] for row in rows]))


def test_without_any_match(squares: Draw) -> None:
    nothing = summarise([score_image("a", squares(), squares())])
    assert set(nothing.pooled.values()) == {1.0}
    missed = summarise([score_image("a", squares(1), squares())])
    assert set(missed.pooled.values()) == {0.0}


def test_images_without_a_distance_do_not_count(squares: Draw) -> None:
    rows = [
        score_image("a", squares(1), squares(1, shift={1: 2}), hausdorff=True),
        score_image("b", squares(1), squares(), hausdorff=True),
    ]
    assert summarise(rows).mean["hausdorff"] == 2.0
    assert math.isnan(summarise(rows[1:]).mean["hausdorff"])
    slide = score_image("c", squares(1), squares(1))
    assert summarise([*rows, slide]).mean["hausdorff"] == 2.0
    assert summarise([slide, *rows]).mean["hausdorff"] == 2.0
