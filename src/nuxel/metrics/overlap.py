"""How truth and prediction overlap: the one sparse table that every other metric reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nuxel.errors import NuxelError

LabelImage = NDArray[np.integer]
Counts = NDArray[np.int64]

PIXELS_AT_ONCE = 1 << 22
PAIRS_BEFORE_MERGE = 1 << 20
LARGEST_LABEL = 2**32 - 2


@dataclass(frozen=True, eq=False)
class OverlapTable:
    """Areas of the nuclei of two label images, and the overlaps between them that are not empty.

    All arrays are int64, all areas are in pixels. With ``T`` true nuclei, ``P`` predicted nuclei and
    ``K`` overlapping pairs:

    Parameters
    ----------
    truth_labels, predicted_labels
        ``(T,)`` and ``(P,)``: the labels that occur, increasing. They need not be sequential.
    truth_areas, predicted_areas
        ``(T,)`` and ``(P,)``: area of each nucleus, annotated pixels only.
    truth_index, predicted_index, intersection
        ``(K,)``: pair ``k`` says that ``truth_labels[truth_index[k]]`` and
        ``predicted_labels[predicted_index[k]]`` share ``intersection[k] > 0`` pixels. Sorted by truth, then
        prediction.
    pixels
        Number of annotated pixels, background included.
    dropped_labels
        Labels of predictions left out because more than half of their pixels are not annotated.
    """

    truth_labels: Counts
    truth_areas: Counts
    predicted_labels: Counts
    predicted_areas: Counts
    truth_index: Counts
    predicted_index: Counts
    intersection: Counts
    pixels: int
    dropped_labels: Counts

    @cached_property
    def union(self) -> Counts:
        """``(K,)`` int64: area of the union of each pair."""
        both = self.truth_areas[self.truth_index] + self.predicted_areas[self.predicted_index]
        return np.asarray(both - self.intersection, np.int64)

    @cached_property
    def iou(self) -> NDArray[np.float64]:
        """``(K,)`` float64 in ``(0, 1]``: intersection over union of each pair."""
        return np.asarray(self.intersection / self.union, np.float64)

    @cached_property
    def best_pairs(self) -> Counts:
        """``(B,)`` int64: for each true nucleus that is overlapped at all, its pair of largest IoU.

        Among equal IoU the larger intersection wins, then the prediction with the lower label.
        """
        order = np.lexsort((self.predicted_index, -self.intersection, -self.iou, self.truth_index))
        return order[np.diff(self.truth_index[order], prepend=-1) > 0]


def overlap_table(truth: LabelImage | OverlapTable, predicted: LabelImage | None = None) -> OverlapTable:
    """Count how the nuclei of two label images overlap, in one pass over the pixels.

    Time grows with the number of pixels and memory with the number of overlapping pairs, never with the
    number of true times the number of predicted nuclei.

    Parameters
    ----------
    truth
        Label image of any integer dtype and any shape: 0 is background, negative is *not annotated*. Pixels
        that are not annotated are removed from both images, and a prediction with more than half of its
        pixels on them is left out. A table that has been counted before is returned as it is.
    predicted
        Label image of the same shape, without negative labels. Omitted if ``truth`` is a table.

    Raises
    ------
    NuxelError
        If the shapes differ, the images do not hold integers, a predicted label is negative, or a label is
        larger than 4,294,967,294.

    Examples
    --------
    >>> truth = np.array([[1, 1, 0, 7]])
    >>> predicted = np.array([[0, 3, 3, 4]])
    >>> table = overlap_table(truth, predicted)
    >>> table.truth_labels.tolist(), table.predicted_areas.tolist(), table.iou.round(2).tolist()
    ([1, 7], [2, 1], [0.33, 1.0])
    """
    if isinstance(truth, OverlapTable):
        if predicted is not None:
            raise TypeError("an OverlapTable already holds the prediction: pass the table alone")
        return truth
    if predicted is None:
        raise TypeError("a label image of the truth needs a label image of the prediction beside it")
    return count_overlaps([(np.asarray(truth), np.asarray(predicted))])


def count_overlaps(bands: Iterable[tuple[LabelImage, LabelImage]]) -> OverlapTable:
    """Count overlaps band by band, so that a whole slide never has to be in memory.

    Parameters
    ----------
    bands
        Pairs of ``(truth, predicted)`` label images that together cover each pixel of the image once: bands
        of rows, chunks, in any order. A nucleus that crosses a border has the same label on both sides of
        it. Otherwise as :func:`overlap_table`.

    Examples
    --------
    >>> truth, predicted = np.eye(4, dtype=int), np.ones((4, 4), int)
    >>> table = count_overlaps((truth[y : y + 2], predicted[y : y + 2]) for y in (0, 2))
    >>> table.intersection.tolist(), table.union.tolist()
    ([4], [16])
    """
    keys, counts = np.empty(0, np.uint64), np.empty(0, np.int64)
    waiting: list[tuple[NDArray[np.uint64], Counts]] = []
    pixels = rows_waiting = 0
    for truth, predicted in bands:
        _check_band(truth, predicted)
        pixels += truth.size
        for piece in _pieces(truth, predicted):
            waiting.append(_count_piece(*piece))
            rows_waiting += len(waiting[-1][0])
            if rows_waiting > max(PAIRS_BEFORE_MERGE, len(keys)):
                keys, counts = _merge([(keys, counts), *waiting])
                waiting, rows_waiting = [], 0
    return _table(*_merge([(keys, counts), *waiting]), pixels)


def _check_band(truth: LabelImage, predicted: LabelImage) -> None:
    if truth.shape != predicted.shape:
        raise NuxelError(
            f"truth has shape {truth.shape} but the prediction has shape {predicted.shape}: "
            "give two label images of the same image."
        )
    for name, labels in (("truth", truth), ("prediction", predicted)):
        if labels.dtype.kind not in "biu":
            raise NuxelError(f"the {name} holds {labels.dtype}, not integers: give a label image.")


def _pieces(truth: LabelImage, predicted: LabelImage) -> Iterator[tuple[LabelImage, LabelImage]]:
    # Small pieces stay in the processor's cache, and bound the memory of the pass whatever the band's size.
    truth, predicted = truth.reshape(-1), predicted.reshape(-1)
    for start in range(0, truth.size, PIXELS_AT_ONCE):
        yield truth[start : start + PIXELS_AT_ONCE], predicted[start : start + PIXELS_AT_ONCE]


def _count_piece(truth: LabelImage, predicted: LabelImage) -> tuple[NDArray[np.uint64], Counts]:
    """Distinct ``(truth, predicted)`` pairs of two flat images as sorted keys, and their pixel counts."""
    # Nuclei are runs of equal pixels: only the ends of runs are worth sorting.
    change = truth[1:] != truth[:-1]
    change |= predicted[1:] != predicted[:-1]
    starts = np.concatenate([[0], np.flatnonzero(change) + 1])
    lengths = np.diff(starts, append=truth.size)
    truth, predicted = truth[starts], predicted[starts]
    occupied = (truth != 0) | (predicted != 0)
    truth, predicted, lengths = truth[occupied], predicted[occupied], lengths[occupied]
    _check_labels(truth, predicted)
    # One unsigned key a pair: the truth, moved up by one so that "not annotated" is 0, above the prediction.
    above = np.maximum(truth.astype(np.int64), -1) + 1
    keys = (above.astype(np.uint64) << np.uint64(32)) | predicted.astype(np.uint64)
    return _merge([(keys, lengths)])


def _check_labels(truth: LabelImage, predicted: LabelImage) -> None:
    if predicted.min(initial=0) < 0:
        raise NuxelError(
            f"the prediction holds the negative label {predicted.min()}: "
            "only the truth can have pixels that are not annotated."
        )
    for name, labels in (("truth", truth), ("prediction", predicted)):
        if labels.max(initial=0) > LARGEST_LABEL:
            raise NuxelError(
                f"the {name} holds label {labels.max()}, the largest can be {LARGEST_LABEL}: relabel it."
            )


def _merge(parts: list[tuple[NDArray[np.uint64], Counts]]) -> tuple[NDArray[np.uint64], Counts]:
    """Add the counts of equal keys. Keys come out sorted."""
    keys = np.concatenate([part[0] for part in parts])
    counts = np.concatenate([part[1] for part in parts])
    if not len(keys):
        return keys, counts
    order = np.argsort(keys)
    keys = keys[order]
    firsts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[firsts], np.add.reduceat(counts[order], firsts)


def _table(keys: NDArray[np.uint64], counts: Counts, pixels: int) -> OverlapTable:
    truth = (keys >> np.uint64(32)).astype(np.int64) - 1
    predicted = (keys & np.uint64(2**32 - 1)).astype(np.int64)
    annotated = truth >= 0
    pixels -= int(counts[~annotated].sum())
    dropped = _mostly_unannotated(predicted, counts, annotated)
    predicted = np.where(np.isin(predicted, dropped), 0, predicted)
    truth, predicted, counts = truth[annotated], predicted[annotated], counts[annotated]
    truth_labels, truth_areas, truth_rank = _areas(truth, counts)
    predicted_labels, predicted_areas, predicted_rank = _areas(predicted, counts)
    pair = (truth > 0) & (predicted > 0)
    return OverlapTable(
        truth_labels,
        truth_areas,
        predicted_labels,
        predicted_areas,
        truth_rank[pair],
        predicted_rank[pair],
        counts[pair],
        pixels,
        dropped,
    )


def _mostly_unannotated(predicted: Counts, counts: Counts, annotated: NDArray[np.bool_]) -> Counts:
    """Labels of the predictions with more than half of their pixels where the truth is not annotated."""
    if annotated.all():
        return np.empty(0, np.int64)
    labels, rank = np.unique(predicted, return_inverse=True)
    inside = np.zeros(len(labels), np.int64)
    outside = np.zeros(len(labels), np.int64)
    np.add.at(inside, rank[annotated], counts[annotated])
    np.add.at(outside, rank[~annotated], counts[~annotated])
    return np.asarray(labels[(outside > inside) & (labels > 0)], np.int64)


def _areas(labels: Counts, counts: Counts) -> tuple[Counts, Counts, Counts]:
    """Labels above 0, their areas, and for each row the place of its label in them (-1 for background)."""
    found, rank = np.unique(labels, return_inverse=True)
    areas = np.zeros(len(found), np.int64)
    np.add.at(areas, rank, counts)
    background = int(len(found) > 0 and found[0] == 0)
    return found[background:], areas[background:], rank - background
