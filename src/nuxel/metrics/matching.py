"""Which predicted nucleus is which true one: one to one, at any IoU threshold, decided in integers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from nuxel.metrics.overlap import Counts, LabelImage, OverlapTable, overlap_table

Threshold = float | Fraction
Criterion = Callable[[OverlapTable, Fraction], NDArray[np.bool_]]

PAIRS_AT_ONCE = 512
LARGEST_DENOMINATOR = 10_000
LEAST_PROGRESS = 20


def iou_above(table: OverlapTable, threshold: Fraction) -> NDArray[np.bool_]:
    """``(K,)`` bool: pairs with IoU strictly greater than the threshold (2018 Data Science Bowl)."""
    return table.intersection * threshold.denominator > table.union * threshold.numerator


def iou_at_least(table: OverlapTable, threshold: Fraction) -> NDArray[np.bool_]:
    """``(K,)`` bool: pairs with IoU greater than or equal to the threshold (StarDist)."""
    return table.intersection * threshold.denominator >= table.union * threshold.numerator


@dataclass(frozen=True, eq=False)
class Matching:
    """A one-to-one matching of true and predicted nuclei.

    Parameters
    ----------
    table
        The overlaps that were matched.
    pairs
        ``(M,)`` int64, increasing: the matched pairs, as indices into the ``K`` pairs of the table.

    Examples
    --------
    >>> truth, predicted = np.array([[1, 1, 2, 2, 3]]), np.array([[0, 5, 6, 6, 0]])
    >>> found = match(truth, predicted, 0.5)
    >>> found.true_positives, found.false_positives, found.false_negatives
    (1, 1, 2)
    >>> found.truth_labels.tolist(), found.predicted_labels.tolist(), found.iou.tolist()
    ([2], [6], [1.0])
    """

    table: OverlapTable
    pairs: Counts

    @property
    def true_positives(self) -> int:
        """Number of matched pairs."""
        return len(self.pairs)

    @property
    def false_positives(self) -> int:
        """Number of predicted nuclei that match no true one."""
        return len(self.table.predicted_labels) - len(self.pairs)

    @property
    def false_negatives(self) -> int:
        """Number of true nuclei that match no predicted one."""
        return len(self.table.truth_labels) - len(self.pairs)

    @property
    def truth_labels(self) -> Counts:
        """``(M,)`` int64: label of the true nucleus of each match."""
        return self.table.truth_labels[self.table.truth_index[self.pairs]]

    @property
    def predicted_labels(self) -> Counts:
        """``(M,)`` int64: label of the predicted nucleus of each match."""
        return self.table.predicted_labels[self.table.predicted_index[self.pairs]]

    @property
    def iou(self) -> NDArray[np.float64]:
        """``(M,)`` float64: IoU of each match."""
        return self.table.iou[self.pairs]


def match(
    truth: LabelImage | OverlapTable,
    predicted: LabelImage | None = None,
    threshold: Threshold = 0.5,
    criterion: Criterion = iou_above,
) -> Matching:
    """Match true and predicted nuclei one to one.

    Among all one-to-one matchings of pairs that meet the criterion, the one with the most pairs is taken,
    and of those one with the largest sum of IoU. From a threshold of 0.5 strictly exceeded upwards there is
    only one. Below it, choosing each nucleus' best partner would count one prediction twice, or miss
    matches.

    Parameters
    ----------
    truth, predicted
        Two label images, or one :class:`OverlapTable`.
    threshold
        IoU in ``[0, 1]``. A float stands for the nearest fraction with a denominator of at most 10,000, so
        0.55 (and 0.5 + 0.05) is exactly 11/20, and an IoU of 11/20 is not above it.
    criterion
        :func:`iou_above` (default) or :func:`iou_at_least`. Pairs that do not overlap never match, even at 0.

    Raises
    ------
    ValueError
        If the threshold is not between 0 and 1.
    """
    table = overlap_table(truth, predicted)
    candidates = np.flatnonzero(criterion(table, exact_threshold(threshold)))
    # Any extra match outweighs all the IoU that could be lost by it.
    weights = table.iou[candidates] + (len(candidates) + 1)
    return Matching(table, candidates[assign(table, candidates, weights)])


def exact_threshold(threshold: Threshold) -> Fraction:
    """The threshold as the fraction that its decimals stand for.

    >>> exact_threshold(0.1 + 0.2)
    Fraction(3, 10)
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"an IoU threshold lies between 0 and 1, not at {threshold}")
    return Fraction(threshold).limit_denominator(LARGEST_DENOMINATOR)


def assign(table: OverlapTable, candidates: Counts, weights: NDArray[np.float64]) -> Counts:
    """The one-to-one subset of the candidate pairs with the largest total weight.

    Parameters
    ----------
    table
        Gives the pairs their nuclei.
    candidates
        ``(C,)`` int64: pairs of the table that may be chosen.
    weights
        ``(C,)`` float64, positive.

    Returns
    -------
    chosen
        Increasing int64 indices into ``candidates``.
    """
    truth, predicted = table.truth_index[candidates], table.predicted_index[candidates]
    alone = (np.bincount(truth)[truth] == 1) & (np.bincount(predicted)[predicted] == 1)
    chosen = [np.flatnonzero(alone)]
    contested = np.flatnonzero(~alone)
    # Most nuclei have an obvious partner. Only knots go to the solver, whose time grows faster than their
    # size.
    while len(contested):
        safe = _safe(truth[contested], predicted[contested], weights[contested])
        if safe.sum() * LEAST_PROGRESS < len(contested):
            break
        chosen.append(contested[safe])
        taken_truth = np.isin(truth[contested], truth[contested[safe]])
        taken_predicted = np.isin(predicted[contested], predicted[contested[safe]])
        contested = contested[~(taken_truth | taken_predicted)]
    for batch in _batches(truth[contested], predicted[contested]):
        rows = contested[batch]
        chosen.append(rows[_solve(truth[rows], predicted[rows], weights[rows])])
    return np.sort(np.concatenate(chosen))


def _safe(truth: Counts, predicted: Counts, weights: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Pairs that every best assignment holds: they outweigh their best rivals on both sides together.

    Exchanging the (at most two) rivals for such a pair gains weight, so *every* best assignment holds it,
    and all safe pairs can be taken at once.
    """
    return weights > _best_rival(truth, weights) + _best_rival(predicted, weights)


def _best_rival(nucleus: Counts, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """For the heaviest pair of each nucleus, the weight of its second, or 0; for all others, infinity."""
    order = np.lexsort((-weights, nucleus))
    nucleus, ordered = nucleus[order], weights[order]
    changes = nucleus[1:] != nucleus[:-1]
    runner_up = np.append(np.where(changes, 0.0, ordered[1:]), 0.0)
    rival = np.empty_like(weights)
    rival[order] = np.where(np.append(True, changes), runner_up, np.inf)
    return rival


def _batches(truth: Counts, predicted: Counts) -> list[Counts]:
    """Split pairs into groups that share no nucleus, each with few nuclei unless they all hang together."""
    if not len(truth):
        return []
    truths = int(truth.max()) + 1
    size = truths + int(predicted.max()) + 1
    graph = sparse.coo_array((np.ones(len(truth), np.int8), (truth, truths + predicted)), (size, size))
    component = csgraph.connected_components(graph, directed=False)[1][truth]
    order = np.argsort(component, kind="stable")
    component = component[order]
    starts = np.flatnonzero(np.concatenate([[True], component[1:] != component[:-1]]))
    batch = starts // PAIRS_AT_ONCE
    cuts = starts[np.flatnonzero(np.concatenate([[False], batch[1:] != batch[:-1]]))]
    return list(np.split(order, cuts))


def _solve(truth: Counts, predicted: Counts, weights: NDArray[np.float64]) -> Counts:
    """Indices of the pairs of the heaviest one-to-one subset, by sparse assignment."""
    truth_nodes, row = np.unique(truth, return_inverse=True)
    predicted_nodes, column = np.unique(predicted, return_inverse=True)
    rows, columns = len(truth_nodes), len(predicted_nodes)
    # The solver assigns every row, so each gets a column of its own that means "unmatched". The weight of 1
    # that all entries gain changes no comparison, and keeps that choice from being a zero, which a sparse
    # matrix would drop.
    own = np.arange(rows)
    matrix = sparse.csr_array(
        (
            np.concatenate([weights + 1, np.ones(rows)]),
            (np.concatenate([row, own]), np.concatenate([column, columns + own])),
        ),
        (rows, columns + rows),
    )
    assigned = csgraph.min_weight_full_bipartite_matching(matrix, maximize=True)[1]
    return np.flatnonzero(assigned[row] == column)
