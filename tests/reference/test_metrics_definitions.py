"""Every overlap metric against its definition, written out slowly on sets of pixels, without the library."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import directed_hausdorff

from nuxel.metrics.aggregated_jaccard import aggregated_jaccard, aggregated_jaccard_plus, normalised_coverage
from nuxel.metrics.average_precision import MatchTally, average_precision, match_counts
from nuxel.metrics.box_average_precision import area_under_curve, eleven_point, voc_average_precision
from nuxel.metrics.dice import dice, ensemble_dice, object_dice
from nuxel.metrics.error_classes import error_classes
from nuxel.metrics.hausdorff import hausdorff_distances
from nuxel.metrics.matching import iou_above, iou_at_least, match
from nuxel.metrics.overlap import overlap_table
from nuxel.metrics.panoptic_quality import panoptic_quality
from nuxel.metrics.pixels import count_error, mean_iou, pixel_accuracy

Nuclei = dict[int, frozenset[int]]
SEEDS = range(40)


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction: random rectangles over one another, the prediction partly a shifted copy."""
    rng = np.random.default_rng(seed)
    truth, predicted = np.zeros((2, 24, 26), np.int32)
    labels = rng.permutation(np.arange(1, 60))
    for image, count in ((truth, rng.integers(0, 12)), (predicted, rng.integers(0, 8))):
        for label in labels[:count]:
            y, x = rng.integers(0, 20, 2)
            height, width = rng.integers(1, 9, 2)
            image[y : y + height, x : x + width] = label
    copied = np.roll(truth, rng.integers(-2, 3, 2), (0, 1))
    predicted[rng.random(24) < 0.7] = 0
    predicted = np.where((predicted == 0) & (copied % 5 != 1), copied, predicted)
    if seed % 3 == 0:
        truth[:, : rng.integers(1, 12)] *= -1
        truth[(truth == 0) & (rng.random(truth.shape) < 0.1)] = -1
    return truth, predicted


def nuclei_of(truth: np.ndarray, predicted: np.ndarray) -> tuple[Nuclei, Nuclei, set[int]]:
    """Pixels of each true and each predicted nucleus, and all annotated pixels."""
    flat_truth, flat_predicted = truth.ravel().tolist(), predicted.ravel().tolist()
    annotated = {pixel for pixel, label in enumerate(flat_truth) if label >= 0}

    def pixels(flat: list[int]) -> Nuclei:
        labels = sorted(set(flat) - {0})
        return {label: frozenset(i for i, found in enumerate(flat) if found == label) for label in labels}

    true = {label: found for label, found in pixels(flat_truth).items() if label > 0}
    kept = {
        k: found & annotated
        for k, found in pixels(flat_predicted).items()
        if 2 * len(found - annotated) <= len(found)
    }
    return true, kept, annotated


def iou(a: frozenset[int], b: frozenset[int]) -> Fraction:
    return Fraction(len(a & b), len(a | b))


def iou_matrix(true: Nuclei, found: Nuclei) -> list[list[Fraction]]:
    return [[iou(a, b) for b in found.values()] for a in true.values()]


def assigned(weights: list[list[float]]) -> list[tuple[int, int]]:
    matrix = np.array(weights, float)
    return list(zip(*linear_sum_assignment(-matrix), strict=True)) if matrix.size else []


def matched(true: Nuclei, found: Nuclei, enough: Callable[[Fraction], bool]) -> list[tuple[int, int]]:
    """Most pairs first, then most IoU, over the whole dense matrix."""
    scores = iou_matrix(true, found)
    pairs = assigned([[float(s) + 1000 if s and enough(s) else 0.0 for s in row] for row in scores])
    return [(i, j) for i, j in pairs if scores[i][j] and enough(scores[i][j])]


def rank_pairs(found) -> list[tuple[int, int]]:
    table = found.table
    return [(int(table.truth_index[k]), int(table.predicted_index[k])) for k in found.pairs]


@pytest.mark.parametrize("seed", SEEDS)
def test_table(seed: int) -> None:
    truth, predicted = scene(seed)
    true, found, annotated = nuclei_of(truth, predicted)
    table = overlap_table(truth, predicted)
    assert table.truth_labels.tolist() == list(true)
    assert table.predicted_labels.tolist() == list(found)
    assert table.truth_areas.tolist() == [len(pixels) for pixels in true.values()]
    assert table.predicted_areas.tolist() == [len(pixels) for pixels in found.values()]
    assert table.pixels == len(annotated)
    expected = [
        (i, j, len(a & b)) for i, a in enumerate(true.values()) for j, b in enumerate(found.values()) if a & b
    ]
    assert list(zip(table.truth_index, table.predicted_index, table.intersection, strict=True)) == expected


@pytest.mark.parametrize("threshold", [Fraction(n, 20) for n in (0, 1, 2, 5, 8, 10, 11, 15, 19, 20)])
@pytest.mark.parametrize("seed", SEEDS)
def test_matching(seed: int, threshold: Fraction) -> None:
    truth, predicted = scene(seed)
    true, found, _ = nuclei_of(truth, predicted)
    for criterion, enough in ((iou_above, lambda s: s > threshold), (iou_at_least, lambda s: s >= threshold)):
        expected = matched(true, found, enough)
        result = match(truth, predicted, float(threshold), criterion)
        assert result.true_positives == len(expected)
        assert result.false_positives == len(found) - len(expected)
        assert result.false_negatives == len(true) - len(expected)
        pairs = rank_pairs(result)
        scores = iou_matrix(true, found)
        assert all(scores[i][j] and enough(scores[i][j]) for i, j in pairs)
        assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
        assert float(sum(scores[i][j] for i, j in pairs)) == pytest.approx(
            float(sum(scores[i][j] for i, j in expected))
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_average_precision_and_panoptic_quality(seed: int) -> None:
    truth, predicted = scene(seed)
    true, found, _ = nuclei_of(truth, predicted)
    precision = []
    for step in range(10, 20):
        hits = sum(iou(a, b) > Fraction(step, 20) for a in true.values() for b in found.values())
        nuclei = len(true) + len(found) - hits
        precision.append(Fraction(hits, nuclei) if nuclei else Fraction(1))
    assert average_precision(truth, predicted) == pytest.approx(float(sum(precision) / 10))
    hits = [s for row in iou_matrix(true, found) for s in row if s > Fraction(1, 2)]
    if true or found:
        halves = Fraction(len(true) + len(found), 2)
        expected = float(sum(hits) / halves), float(sum(hits) / max(len(hits), 1)), float(len(hits) / halves)
        assert panoptic_quality(truth, predicted) == pytest.approx(expected)
        counts = match_counts(truth, predicted, [0.5])
        assert counts.f1[0] == pytest.approx(expected[2])
        assert counts.precision[0] == pytest.approx(len(hits) / max(len(found), 1))
        assert counts.recall[0] == pytest.approx(len(hits) / max(len(true), 1))


def test_dataset_scores() -> None:
    tally, per_image, totals = MatchTally(), [], np.zeros((10, 3))
    for seed in SEEDS:
        truth, predicted = scene(seed)
        tally.add(truth, predicted)
        per_image.append(average_precision(truth, predicted))
        true, found, _ = nuclei_of(truth, predicted)
        for row, step in enumerate(range(10, 20)):
            hits = sum(iou(a, b) > Fraction(step, 20) for a in true.values() for b in found.values())
            totals[row] += hits, len(found) - hits, len(true) - hits
    assert tally.mean_average_precision() == pytest.approx(np.mean(per_image))
    assert tally.pooled_average_precision() == pytest.approx(np.mean(totals[:, 0] / totals.sum(axis=1)))


def selected(pixels: frozenset[int], others: Nuclei) -> int | None:
    """Label of the nucleus of largest IoU; the larger intersection, then the lower label, among equals."""
    best = max(others, key=lambda k: (iou(pixels, others[k]), len(pixels & others[k]), -k), default=None)
    return best if best is not None and pixels & others[best] else None


@pytest.mark.parametrize("seed", SEEDS)
def test_aggregated_jaccard_and_coverage(seed: int) -> None:
    truth, predicted = scene(seed)
    true, found, _ = nuclei_of(truth, predicted)
    inside = outside = covered = 0
    unused = set(found)
    for pixels in true.values():
        choice = selected(pixels, found)
        unused.discard(choice)
        inside += len(pixels & found.get(choice, frozenset()))
        outside += len(pixels | found.get(choice, frozenset()))
        covered += len(pixels) * max((iou(pixels, other) for other in found.values()), default=0)
    outside += sum(len(found[k]) for k in unused)
    assert aggregated_jaccard(truth, predicted) == pytest.approx(inside / outside if outside else 1)
    area = sum(len(pixels) for pixels in true.values())
    assert normalised_coverage(truth, predicted) == pytest.approx(float(covered / area) if area else 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_aggregated_jaccard_plus(seed: int) -> None:
    truth, predicted = scene(seed)
    true, found, _ = nuclei_of(truth, predicted)
    scores = iou_matrix(true, found)
    a, b = list(true.values()), list(found.values())
    pairs = [(i, j) for i, j in assigned([[float(s) for s in row] for row in scores]) if scores[i][j]]
    union = sum(len(a[i] | b[j]) for i, j in pairs)
    union += (
        sum(map(len, a))
        - sum(len(a[i]) for i, _ in pairs)
        + sum(map(len, b))
        - sum(len(b[j]) for _, j in pairs)
    )
    expected = sum(len(a[i] & b[j]) for i, j in pairs) / union if union else 1
    assert aggregated_jaccard_plus(truth, predicted) == pytest.approx(expected)


def dice_of(a: frozenset[int], b: frozenset[int]) -> float:
    return 2 * len(a & b) / (len(a) + len(b))


def one_sided_object_dice(nuclei: Nuclei, others: Nuclei) -> float:
    total = 0.0
    for pixels in nuclei.values():
        share = max(len(pixels & other) for other in others.values())
        partners = [other for other in others.values() if len(pixels & other) == share]
        total += len(pixels) * max(dice_of(pixels, other) for other in partners)
    return total / sum(len(pixels) for pixels in nuclei.values())


@pytest.mark.parametrize("seed", SEEDS)
def test_dice_and_pixels(seed: int) -> None:
    truth, predicted = scene(seed)
    true, found, annotated = nuclei_of(truth, predicted)
    a, b = frozenset().union(*true.values()), frozenset().union(*found.values())
    assert pixel_accuracy(truth, predicted) == pytest.approx(1 - len(a ^ b) / len(annotated))
    assert count_error(truth, predicted) == len(found) - len(true)
    if a and b:
        assert dice(truth, predicted) == pytest.approx(dice_of(a, b))
        assert mean_iou(truth, predicted) == pytest.approx(
            float(iou(a, b) + iou(annotated - a, annotated - b)) / 2
        )
        pairs = [(x, y) for x in true.values() for y in found.values() if x & y]
        together = sum(len(x) + len(y) for x, y in pairs)
        expected = 2 * sum(len(x & y) for x, y in pairs) / together if pairs else 0
        assert ensemble_dice(truth, predicted) == pytest.approx(expected)
        expected = (one_sided_object_dice(true, found) + one_sided_object_dice(found, true)) / 2
        assert object_dice(truth, predicted) == pytest.approx(expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_hausdorff(seed: int) -> None:
    truth, predicted = scene(seed)
    found = match(truth, predicted, 0.3)
    for label, other, distance in zip(
        found.truth_labels, found.predicted_labels, hausdorff_distances(truth, predicted, 0.3), strict=True
    ):
        a, b = np.argwhere(truth == label), np.argwhere((predicted == other) & (truth >= 0))
        assert distance == pytest.approx(max(directed_hausdorff(a, b)[0], directed_hausdorff(b, a)[0]))


@pytest.mark.parametrize("seed", SEEDS)
def test_error_classes(seed: int) -> None:
    truth, predicted = scene(seed)
    true, found, _ = nuclei_of(truth, predicted)
    a, b = list(true.values()), list(found.values())
    result = error_classes(truth, predicted)
    pairs = matched(true, found, lambda s: s > Fraction(1, 2))
    covered = {j: [i for i, x in enumerate(a) if 2 * len(x & y) > len(x)] for j, y in enumerate(b)}
    held = {i: [j for j, y in enumerate(b) if 2 * len(x & y) > len(y)] for i, x in enumerate(a)}
    merged = [(i, j) for j, nuclei in covered.items() if len(nuclei) > 1 for i in nuclei]
    split = [(i, j) for i, pieces in held.items() if len(pieces) > 1 for j in pieces]
    touching = [(i, j) for i, x in enumerate(a) for j, y in enumerate(b) if x & y]
    for side, count, classes, otherwise in (
        (0, len(a), result.truth, "missed"),
        (1, len(b), result.predicted, "spurious"),
    ):
        names = {"correct": pairs, "merged": merged, "split": split, "poorly outlined": touching}
        expected = [
            next((name for name, of in names.items() if n in {pair[side] for pair in of}), otherwise)
            for n in range(count)
        ]
        assert classes.tolist() == expected


def box_scene(seed: int) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    truth, predicted, scores = [], [], []
    for _ in range(4):
        corners = rng.integers(0, 30, (rng.integers(0, 8), 2))
        boxes = np.hstack([corners, corners + rng.integers(1, 12, corners.shape)])
        moved = np.repeat(boxes, 2, axis=0) + rng.integers(-1, 1, (2 * len(boxes), 4)) * [1, 1, -1, -1]
        truth.append(boxes)
        predicted.append(moved)
        scores.append(rng.permutation(np.arange(len(moved))) + rng.random())
    return truth, predicted, scores


@pytest.mark.parametrize("seed", SEEDS)
def test_voc(seed: int) -> None:
    truth, predicted, scores = box_scene(seed)
    pixels = [
        [frozenset((y, x) for y in range(b[0], b[2]) for x in range(b[1], b[3])) for b in image]
        for image in truth
    ]
    detections = [
        (score, i, frozenset((y, x) for y in range(b[0], b[2]) for x in range(b[1], b[3])))
        for i, image in enumerate(predicted)
        for b, score in zip(image, scores[i], strict=True)
    ]
    taken, curve = set(), [(0.0, 1.0)]
    for rank, (_, i, box) in enumerate(sorted(detections, key=lambda d: -d[0]), start=1):
        ious = [iou(box, other) for other in pixels[i]] if box else []
        best = int(np.argmax(ious)) if ious else -1
        if ious and ious[best] >= Fraction(1, 2) and (i, best) not in taken:
            taken.add((i, best))
        curve.append((len(taken) / sum(map(len, truth)), len(taken) / rank))
    area = sum(
        (end - start) * max(precision for recall, precision in curve[1:] if recall >= end)
        for (start, _), (end, _) in pairwise(curve)
    )
    assert voc_average_precision(truth, predicted, scores, 0.5, area_under_curve) == pytest.approx(area)
    points = [max((p for r, p in curve[1:] if r > level / 10 - 1e-9), default=0) for level in range(11)]
    assert voc_average_precision(truth, predicted, scores, 0.5, eleven_point) == pytest.approx(
        np.mean(points)
    )
