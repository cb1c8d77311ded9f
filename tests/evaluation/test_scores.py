"""One image's scores: each is the metric of that name, of the same two label images."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from nuxel.evaluation.scores import AP_AT, score_image
from nuxel.metrics.aggregated_jaccard import aggregated_jaccard, aggregated_jaccard_plus, normalised_coverage
from nuxel.metrics.average_precision import average_precision
from nuxel.metrics.dice import dice, ensemble_dice, object_dice
from nuxel.metrics.hausdorff import hausdorff_distances
from nuxel.metrics.overlap import overlap_table
from nuxel.metrics.panoptic_quality import panoptic_quality
from nuxel.metrics.pixels import mean_iou, pixel_accuracy

Draw = Callable[..., np.ndarray]


@pytest.fixture
def pair(squares: Draw) -> tuple[np.ndarray, np.ndarray]:
    """Six true nuclei: 1 exact, 2 off by 1, 3 off by 3, 4 missed, 5 at IoU 1/3; and a spurious one."""
    truth = squares(1, 2, 3, 4, 5)
    predicted = squares(1, 2, 3, 5, 8, shift={2: 1, 3: 3, 5: 5})
    return truth, predicted


def test_each_score_is_its_metric(pair: tuple[np.ndarray, np.ndarray]) -> None:
    found = score_image("a", *pair, threshold=0.6).scores
    expected = {
        "ap": average_precision(*pair),
        **{f"ap{n}": average_precision(*pair, [n / 100]) for n in range(50, 100, 5)},
        **panoptic_quality(*pair, threshold=0.6)._asdict(),
        "precision": 2 / 5,
        "recall": 2 / 5,
        "f1": 2 / 5,
        "aji": aggregated_jaccard(*pair),
        "aji_plus": aggregated_jaccard_plus(*pair),
        "ncs": normalised_coverage(*pair),
        "dice": dice(*pair),
        "ensemble_dice": ensemble_dice(*pair),
        "object_dice": object_dice(*pair),
        "pixel_accuracy": pixel_accuracy(*pair),
        "mean_iou": mean_iou(*pair),
    }
    assert found == expected
    assert len(set(found.values())) > 12


def test_counts_and_classes(pair: tuple[np.ndarray, np.ndarray]) -> None:
    found = score_image("a/b", *pair, groups={"stain": "x"})
    assert (found.image, found.groups) == ("a/b", {"stain": "x"})
    assert (found.truth_nuclei, found.predicted_nuclei, found.count_error) == (5, 5, 0)
    assert found.errors == {
        "correct": 3,
        "merged": 0,
        "split": 0,
        "poorly outlined": 1,
        "missed": 1,
        "spurious": 1,
    }
    assert found.matches.true_positives.tolist() == [3]
    assert found.matched_iou == pytest.approx(1 + 90 / 110 + 70 / 130)
    assert score_image("a", *pair, threshold=0.3).errors["correct"] == 4


def test_both_rules_at_an_iou_of_exactly_a_half() -> None:
    found = score_image("a", np.array([[1, 1]]), np.array([[2, 0]]))
    assert found.scores["ap50"] == 0
    assert found.above.true_positives.tolist() == [0] * 10
    assert found.at_least.true_positives.tolist() == [1] + [0] * 9


def test_names_of_single_thresholds() -> None:
    assert list(AP_AT) == ["ap50", "ap55", "ap60", "ap65", "ap70", "ap75", "ap80", "ap85", "ap90", "ap95"]
    assert AP_AT["ap75"] == 5


def test_hausdorff_only_when_asked_for(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert "hausdorff" not in score_image("a", *pair).scores
    found = score_image("a", *pair, hausdorff=True, threshold=0.6).scores
    assert found["hausdorff"] == hausdorff_distances(*pair, threshold=0.6).mean() == 0.5
    nothing = score_image("a", pair[0], pair[0] * 0, hausdorff=True).scores
    assert math.isnan(nothing["hausdorff"])


def test_a_table_in_place_of_images(pair: tuple[np.ndarray, np.ndarray]) -> None:
    found = score_image("a", overlap_table(*pair), hausdorff=True)
    assert found.scores == score_image("a", *pair).scores


def test_empty_images(squares: Draw) -> None:
    none, one = squares(), squares(1)
    assert set(score_image("a", none, none).scores.values()) == {1.0}
    missed = score_image("a", one, none)
    assert (missed.scores["ap"], missed.scores["aji"], missed.errors["missed"]) == (0, 0, 1)
    assert score_image("a", none, one).errors["spurious"] == 1


def test_what_is_not_annotated_is_left_out(squares: Draw) -> None:
    truth, predicted = squares(1, 2), squares(1, 2, 3, 4)
    truth[:, 28:] = -1
    found = score_image("a", truth, predicted)
    assert (found.scores["ap"], found.predicted_nuclei) == (1.0, 2)
