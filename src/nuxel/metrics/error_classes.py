"""What went wrong with each nucleus: missed, spurious, merged, split or poorly outlined."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuxel.metrics.matching import Criterion, Matching, Threshold, iou_above, match
from nuxel.metrics.overlap import Counts, LabelImage, OverlapTable

CORRECT = "correct"
MERGED = "merged"
SPLIT = "split"
POORLY_OUTLINED = "poorly outlined"
MISSED = "missed"
SPURIOUS = "spurious"

Classes = NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class ErrorClasses:
    """The class of each nucleus of both images.

    Parameters
    ----------
    matching
        The matching that decides what is correct; its table gives the labels.
    truth
        ``(T,)`` str: ``correct``, ``merged``, ``split``, ``poorly outlined`` or ``missed``.
    predicted
        ``(P,)`` str: ``correct``, ``merged``, ``split``, ``poorly outlined`` or ``spurious``.
    """

    matching: Matching
    truth: Classes
    predicted: Classes

    def truth_counts(self) -> dict[str, int]:
        """How many true nuclei there are of each class, zeros included."""
        return {
            name: int((self.truth == name).sum())
            for name in (CORRECT, MERGED, SPLIT, POORLY_OUTLINED, MISSED)
        }

    def predicted_counts(self) -> dict[str, int]:
        """How many predicted nuclei there are of each class, zeros included."""
        names = (CORRECT, MERGED, SPLIT, POORLY_OUTLINED, SPURIOUS)
        return {name: int((self.predicted == name).sum()) for name in names}


def error_classes(
    truth: LabelImage | OverlapTable,
    predicted: LabelImage | None = None,
    threshold: Threshold = 0.5,
    criterion: Criterion = iou_above,
) -> ErrorClasses:
    """Say of each true and predicted nucleus what became of it.

    The first that holds, of:

    - *correct*: it is matched;
    - *merged*: a prediction covers more than half of each of two or more true nuclei. Said of that prediction, and
      of the true nuclei that it covers;
    - *split*: two or more predictions have more than half of themselves in one true nucleus. Said of that nucleus,
      and of those predictions;
    - *poorly outlined*: it overlaps with something, at too low an IoU;
    - *missed* (truth) or *spurious* (prediction): nothing overlaps with it.

    Parameters are those of :func:`nuxel.metrics.matching.match`.

    Examples
    --------
    >>> truth = np.array([[1, 1, 2, 2, 0, 3, 0, 4]])
    >>> predicted = np.array([[5, 5, 5, 5, 0, 6, 7, 0]])
    >>> found = error_classes(truth, predicted)
    >>> found.truth.tolist(), found.predicted.tolist()
    (['merged', 'merged', 'correct', 'missed'], ['merged', 'correct', 'spurious'])
    """
    found = match(truth, predicted, threshold, criterion)
    table = found.table
    covers = 2 * table.intersection > table.truth_areas[table.truth_index]
    lies_in = 2 * table.intersection > table.predicted_areas[table.predicted_index]
    merging = covers & _shares(table.predicted_index, covers)
    splitting = lies_in & _shares(table.truth_index, lies_in)
    pairs_of = {
        POORLY_OUTLINED: np.ones(len(covers), bool),
        SPLIT: splitting,
        MERGED: merging,
        CORRECT: np.isin(np.arange(len(covers)), found.pairs),
    }
    return ErrorClasses(
        found,
        _classify(table.truth_index, pairs_of, len(table.truth_labels), MISSED),
        _classify(table.predicted_index, pairs_of, len(table.predicted_labels), SPURIOUS),
    )


def _shares(nucleus: Counts, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """``(K,)``: whether the nucleus of each pair has two or more of the chosen pairs."""
    return np.asarray((np.bincount(nucleus, chosen) >= 2)[nucleus])


def _classify(nucleus: Counts, pairs_of: dict[str, NDArray[np.bool_]], count: int, otherwise: str) -> Classes:
    """Name each nucleus after the last class of which it has a pair."""
    classes = np.full(count, otherwise, "U15")
    for name, pairs in pairs_of.items():
        classes[nucleus[pairs]] = name
    return classes
