"""Two predictions of the same images side by side: is one better, and could that be chance?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuxel.errors import UsageError
from nuxel.evaluation.evaluate import Evaluation
from nuxel.evaluation.scores import HAUSDORFF

RESAMPLES = 10_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """One score of two predictions.

    Parameters
    ----------
    first, second
        Means over images.
    low, high
        95 % confidence interval of the mean of ``second - first``, by the percentiles of a bootstrap over images.
    p_value
        Two-sided Wilcoxon signed-rank test of the differences per image; 1 where no image differs.
    better, worse
        Images in which the second is better, and worse.
    """

    first: float
    second: float
    low: float
    high: float
    p_value: float
    better: int
    worse: int

    @property
    def mean(self) -> float:
        """Mean of ``second - first``."""
        return self.second - self.first


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two evaluations of the same images against the same truth.

    Parameters
    ----------
    first, second
        What is compared.
    differences
        By score.
    """

    first: Evaluation
    second: Evaluation
    differences: dict[str, Difference]

    def most_different(self, count: int, score: str = "ap") -> list[int]:
        """Places of the images whose score differs most, the largest difference first; equal ones are left out."""
        gap = np.abs(_values(self.second, score) - _values(self.first, score))
        order = np.argsort(-gap, kind="stable")[:count]
        return [int(place) for place in order if gap[place] > 0]


def compare(first: Evaluation, second: Evaluation, seed: int = 0) -> Comparison:
    """Compare two evaluations, image by image.

    Parameters
    ----------
    first, second
        Of the same images.
    seed
        Of the bootstrap.

    Raises
    ------
    UsageError
        If they are not of the same images.

    Examples
    --------
    >>> from nuxel.evaluation.evaluate import evaluate
    >>> truth = np.array([[1, 1, 2, 2]])
    >>> ap = compare(evaluate(truth * 0, truth), evaluate(truth, truth)).differences["ap"]
    >>> ap.first, ap.second, ap.p_value
    (0.0, 1.0, 1.0)
    """
    names = [[row.image for row in one.images] for one in (first, second)]
    if names[0] != names[1]:
        other = sorted(set(names[0]) ^ set(names[1]))
        raise UsageError(
            f"only evaluations of the same images can be compared; {other[0]} is in one of them only"
        )
    scores = [name for name in first.totals.mean if name in second.totals.mean]
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(names[0]), size=(RESAMPLES, len(names[0])))
    return Comparison(
        first,
        second,
        {name: _difference(_values(first, name), _values(second, name), drawn, name) for name in scores},
    )


def _values(evaluation: Evaluation, score: str) -> NDArray[np.float64]:
    return np.array([row.scores.get(score, np.nan) for row in evaluation.images], np.float64)


def _difference(
    first: NDArray[np.float64], second: NDArray[np.float64], drawn: NDArray[np.int64], score: str
) -> Difference:
    """Images in which either has no value are left out."""
    both = np.isfinite(first) & np.isfinite(second)
    first, second = first[both], second[both]
    gap = second - first
    if not len(gap):
        nan = float("nan")
        return Difference(nan, nan, nan, nan, 1.0, 0, 0)
    # Resampled images without a value fall out of the means as well.
    places = np.where(both[drawn], (np.cumsum(both) - 1)[drawn], len(gap))
    weights = both[drawn].sum(axis=1)
    means = np.append(gap, 0.0)[places].sum(axis=1)[weights > 0] / weights[weights > 0]
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    gain = -gap if score == HAUSDORFF else gap
    return Difference(
        float(first.mean()),
        float(second.mean()),
        float(low),
        float(high),
        _wilcoxon(gap),
        int((gain > 0).sum()),
        int((gain < 0).sum()),
    )


def _wilcoxon(gap: Sequence[float] | NDArray[np.float64]) -> float:
    # scipy.stats takes longer to import than all the rest, and only comparisons need it.
    from scipy.stats import wilcoxon

    gap = np.asarray(gap)
    # Rounded, so that sums of the same numbers in another order do not count as a difference.
    gap = np.round(gap, 12)
    return float(wilcoxon(gap).pvalue) if gap.any() else 1.0
