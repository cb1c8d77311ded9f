"""COCO's average precision: edge cases, and its definition written out."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from nuxel.errors import NuxelError, UsageError
from nuxel.metrics.coco_average_precision import coco_average_precision

NO_BOXES, NO_SCORES = np.empty((0, 4)), np.empty(0)
BOX = np.array([[0, 0, 10, 10]])


@pytest.fixture(autouse=True)
def evaluator() -> None:
    pytest.importorskip("faster_coco_eval")


def iou(a: list[float], b: list[float]) -> float:
    height, width = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    both = max(height, 0) * max(width, 0)
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return both / (sum(areas) - both)


def written_out(truth: list, predicted: list, scores: list, threshold: float) -> float:
    """Detections from the surest on; each takes the free true box of largest IoU; 101 recalls."""
    detections = [
        (-s, i, b)
        for i, (bs, ss) in enumerate(zip(predicted, scores, strict=True))
        for b, s in zip(bs, ss, strict=True)
    ]
    free = [list(boxes) for boxes in truth]
    total, hits, points = sum(map(len, truth)), 0, []
    for rank, (_, image, box) in enumerate(sorted(detections, key=lambda one: one[:2]), 1):
        reached = [(iou(box, other), place) for place, other in enumerate(free[image])]
        best = max(reached, default=(0, 0))
        if best[0] >= threshold:
            free[image].pop(best[1])
            hits += 1
        points.append((hits / total, hits / rank))
    at = [max((p for r, p in points if r >= step / 100 - 1e-9), default=0) for step in range(101)]
    return sum(at) / 101


@pytest.mark.parametrize("seed", range(4))
def test_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted, scores = [], [], []
    for count in (12, 1, 0, 150):
        corner = rng.permutation(400)[:count, None] * 40 + rng.integers(0, 9, (count, 2))
        boxes = np.hstack([corner, corner + rng.integers(10, 25, (count, 2))])
        found = boxes[rng.random(count) < 0.8]
        moved = found + np.repeat(rng.integers(-3, 4, (len(found), 2)), 2, axis=0).reshape(len(found), 4)
        spurious = np.array([[50_000, 0, 50_020, 9]] * 2)
        truth.append(boxes)
        predicted.append(np.vstack([moved, spurious]))
        scores.append(rng.permutation(1000)[: len(found) + 2] / 1000)
    # no two scores are equal, so that the order is not a matter of sorting
    scores = [one + image * 1e-5 for image, one in enumerate(scores)]
    found = coco_average_precision(truth, predicted, scores)
    lists = [[one.tolist() for one in part] for part in (truth, predicted, scores)]
    each = [written_out(*lists, step / 20) for step in range(10, 20)]
    assert found.ap50 == pytest.approx(each[0], abs=1e-6)
    assert found.ap75 == pytest.approx(each[5], abs=1e-6)
    assert found.ap == pytest.approx(np.mean(each), abs=1e-6)
    assert 0 < found.ap < found.ap50 < 1


def test_more_than_a_hundred_detections_count() -> None:
    boxes = np.array([[0, x, 10, x + 10] for x in range(0, 3000, 20)])
    assert coco_average_precision([boxes], [boxes], [np.linspace(0.1, 1, 150)]) == pytest.approx((1, 1, 1))


def test_nothing_to_find_and_nothing_found() -> None:
    assert coco_average_precision([NO_BOXES], [NO_BOXES], [NO_SCORES]) == (1, 1, 1)
    assert coco_average_precision([NO_BOXES], [BOX], [np.ones(1)]) == (0, 0, 0)
    assert coco_average_precision([BOX], [NO_BOXES], [NO_SCORES]) == (0, 0, 0)


def test_numbers_that_do_not_agree() -> None:
    for scores in ([NO_SCORES], [np.ones(2)], [np.ones(1), NO_SCORES], []):
        with pytest.raises(NuxelError, match="one score each of every image"):
            coco_average_precision([BOX], [BOX], scores)
    with pytest.raises(NuxelError, match="one score each"):
        coco_average_precision([BOX, BOX], [BOX], [np.ones(1)])


def test_without_the_evaluator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(
        UsageError, match=r"needs faster-coco-eval; install it with: pip install 'nuxel\[report\]'"
    ):
        coco_average_precision([BOX], [BOX], [np.ones(1)])
