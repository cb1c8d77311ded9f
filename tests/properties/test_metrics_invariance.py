"""What may be done to two label images without changing any score."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nuxel.metrics.aggregated_jaccard import aggregated_jaccard, aggregated_jaccard_plus, normalised_coverage
from nuxel.metrics.average_precision import average_precision, match_counts
from nuxel.metrics.dice import dice, ensemble_dice, object_dice
from nuxel.metrics.error_classes import error_classes
from nuxel.metrics.hausdorff import hausdorff_distances
from nuxel.metrics.matching import iou_above, iou_at_least, match
from nuxel.metrics.overlap import count_overlaps, overlap_table
from nuxel.metrics.panoptic_quality import panoptic_quality
from nuxel.metrics.pixels import count_error, mean_iou, pixel_accuracy

Score = Callable[[np.ndarray, np.ndarray], object]


def sorted_distances(truth: np.ndarray, predicted: np.ndarray) -> list[float]:
    return sorted(hausdorff_distances(truth, predicted).tolist())


def counts_at_two_tenths(truth: np.ndarray, predicted: np.ndarray) -> int:
    return match(truth, predicted, 0.2, iou_at_least).true_positives


def error_counts(truth: np.ndarray, predicted: np.ndarray) -> tuple[dict[str, int], dict[str, int]]:
    found = error_classes(truth, predicted)
    return found.truth_counts(), found.predicted_counts()


OF_NUCLEI: list[Score] = [
    average_precision,
    counts_at_two_tenths,
    panoptic_quality,
    aggregated_jaccard,
    aggregated_jaccard_plus,
    normalised_coverage,
    dice,
    ensemble_dice,
    object_dice,
    count_error,
    error_counts,
    sorted_distances,
]
OF_PIXELS: list[Score] = [pixel_accuracy, mean_iou]
SYMMETRIC: list[Score] = [
    average_precision,
    counts_at_two_tenths,
    panoptic_quality,
    dice,
    ensemble_dice,
    object_dice,
    pixel_accuracy,
    mean_iou,
    sorted_distances,
]


@st.composite
def image_pairs(draw: st.DrawFn, lowest: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Blocky label images, so that nuclei overlap in all ways; the truth may hold negative labels."""
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    truth = draw(hnp.arrays(np.int32, shape, elements=st.integers(lowest, 5)))
    predicted = draw(hnp.arrays(np.int32, shape, elements=st.integers(0, 5)))
    tall, wide = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    shift = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    truth, predicted = (np.kron(image, np.ones((tall, wide), np.int32)) for image in (truth, predicted))
    return truth, np.roll(predicted, shift, (0, 1))


def same(a: object, b: object) -> bool:
    return a == pytest.approx(b) if not isinstance(a, tuple) or isinstance(a[0], float) else a == b


@pytest.mark.parametrize("score", OF_NUCLEI + OF_PIXELS)
@given(images=image_pairs(lowest=-1))
@settings(max_examples=25)
def test_relabelling(score: Score, images: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = images
    names = np.array([0, 4, 70_000, 2_000_000_000, 2_000_000_001, 2**31 - 1, -9])
    assert same(score(names[truth], names[predicted]), score(truth, predicted))


@pytest.mark.parametrize("score", OF_NUCLEI + OF_PIXELS)
@given(images=image_pairs(lowest=-1))
@settings(max_examples=25)
def test_transposition(score: Score, images: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = images
    assert same(score(truth.T, predicted.T), score(truth, predicted))


@pytest.mark.parametrize("score", OF_NUCLEI)
@given(images=image_pairs(lowest=-1), width=st.integers(1, 3))
@settings(max_examples=25)
def test_empty_border(score: Score, images: tuple[np.ndarray, np.ndarray], width: int) -> None:
    truth, predicted = images
    assert same(score(np.pad(truth, width), np.pad(predicted, width)), score(truth, predicted))


@pytest.mark.parametrize("score", OF_NUCLEI + OF_PIXELS)
@given(images=image_pairs(), width=st.integers(1, 3))
@settings(max_examples=25)
def test_border_that_is_not_annotated(
    score: Score, images: tuple[np.ndarray, np.ndarray], width: int
) -> None:
    truth, predicted = images
    padded = np.pad(truth, width, constant_values=-1), np.pad(predicted, width, constant_values=77)
    assert same(score(*padded), score(truth, predicted))


@pytest.mark.parametrize("score", SYMMETRIC)
@given(images=image_pairs())
@settings(max_examples=25)
def test_swapping_roles(score: Score, images: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = images
    assert same(score(predicted, truth), score(truth, predicted))


@given(images=image_pairs())
@settings(max_examples=25)
def test_swapping_roles_swaps_precision_and_recall(images: tuple[np.ndarray, np.ndarray]) -> None:
    here, there = match_counts(*images), match_counts(*images[::-1])
    assert here.precision.tolist() == there.recall.tolist()
    assert here.false_positives.tolist() == there.false_negatives.tolist()


@given(images=image_pairs(lowest=-1), cuts=st.lists(st.integers(0, 15), max_size=4))
@settings(max_examples=60)
def test_bands(images: tuple[np.ndarray, np.ndarray], cuts: list[int]) -> None:
    truth, predicted = (np.split(image, sorted(cuts)) for image in images)
    whole, parts = overlap_table(*images), count_overlaps(zip(truth, predicted, strict=True))
    for name in whole.__dataclass_fields__:
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name


@given(images=image_pairs(lowest=-1), thresholds=st.tuples(st.floats(0, 1), st.floats(0, 1)))
@settings(max_examples=100)
def test_stricter_thresholds_never_match_more(
    images: tuple[np.ndarray, np.ndarray], thresholds: tuple[float, float]
) -> None:
    table = overlap_table(*images)
    for criterion in (iou_above, iou_at_least):
        lower, higher = (match(table, threshold=t, criterion=criterion) for t in sorted(thresholds))
        assert higher.true_positives <= lower.true_positives
        assert len(set(lower.truth_labels)) == len(set(lower.predicted_labels)) == lower.true_positives


@pytest.mark.parametrize(
    "score", [average_precision, aggregated_jaccard, aggregated_jaccard_plus, object_dice]
)
@given(images=image_pairs())
@settings(max_examples=25)
def test_only_the_truth_itself_is_perfect(score: Score, images: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = images
    table = overlap_table(truth, predicted)
    perfect = len(table.truth_labels) == len(table.predicted_labels) == len(table.iou) == table.iou.sum()
    assert (score(truth, predicted) == 1) == bool(perfect)
    assert 0 <= score(truth, predicted) <= 1  # type: ignore[operator]
    assert score(truth, truth) == 1
