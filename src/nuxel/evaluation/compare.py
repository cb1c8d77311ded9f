"""Two predictions of the same images side by side: is one better, and could that be chance?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuxel.errors import UsageError
from nuxel.evaluation.evaluate import Evaluation
from nuxel.evaluation.scores import HAUSDORFF

RESAMPLES = 5000
CONFIDENCE = 0.95

Floats = NDArray[np.float64]

_AT_ONCE = 1 << 20
_FEWEST = 5
_FEW = 13


@dataclass(frozen=True)
class Difference:
    """One score of two predictions.

    Parameters
    ----------
    first, second
        Means over images.
    low, high
        95 % confidence interval of the mean of ``second - first``, by a bootstrap over images whose percentiles are
        moved apart for small samples (the expanded percentile interval of Hesterberg, The American Statistician 69,
        2015); NaN below five images, for which no bootstrap holds what it says.
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
        order = np.argsort(-np.nan_to_num(gap), kind="stable")[:count]
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
    values = [np.stack([_values(one, name) for name in scores], axis=1) for one in (first, second)]
    low, high = _intervals(values[1] - values[0], seed)
    differences = {
        name: _difference(name, values[0][:, n], values[1][:, n], (float(low[n]), float(high[n])))
        for n, name in enumerate(scores)
    }
    return Comparison(first, second, differences)


def _values(evaluation: Evaluation, score: str) -> Floats:
    return np.array([row.scores.get(score, np.nan) for row in evaluation.images], np.float64)


def _intervals(gaps: Floats, seed: int) -> Floats:
    """``(2, S)``: ends of the confidence intervals of the means of the columns of ``(images, S)``; NaN is left out."""
    images, known = len(gaps), np.isfinite(gaps)
    rng = np.random.default_rng(seed)
    means = []
    for size in np.diff(np.append(np.arange(0, RESAMPLES, max(_AT_ONCE // images, 1)), RESAMPLES)):
        # How often each image is drawn, so that a mean is a product with a matrix.
        drawn = rng.multinomial(images, np.full(images, 1 / images), size).astype(np.float64)
        counts = drawn @ known
        means.append(np.where(counts > 0, drawn @ np.where(known, gaps, 0) / np.maximum(counts, 1), np.nan))
    drawn_means = np.concatenate(means)
    found = np.full((2, gaps.shape[1]), np.nan)
    for column, count in enumerate(known.sum(axis=0).tolist()):
        if count >= _FEWEST:
            tail = _tail(count)
            found[:, column] = np.nanquantile(drawn_means[:, column], [tail, 1 - tail])
    return found


def _tail(count: int) -> float:
    """The share of the bootstrap's means below the interval: less than 2.5 % where there are few images."""
    # scipy.special loads quickly, scipy.stats does not
    from scipy.special import ndtr, stdtrit

    return float(ndtr(np.sqrt(count / (count - 1)) * stdtrit(count - 1, (1 - CONFIDENCE) / 2)))


def _difference(score: str, first: Floats, second: Floats, interval: tuple[float, float]) -> Difference:
    """Images in which either has no value are left out."""
    both = np.isfinite(first) & np.isfinite(second)
    # Rounded, so that sums of the same numbers in another order do not count as a difference.
    gap = np.round(second[both] - first[both], 12)
    if not len(gap):
        return Difference(np.nan, np.nan, *interval, 1.0, 0, 0)
    gain = -gap if score == HAUSDORFF else gap
    means = float(first[both].mean()), float(second[both].mean())
    return Difference(*means, *interval, _wilcoxon(gap), int((gain > 0).sum()), int((gain < 0).sum()))


def _wilcoxon(gap: Floats) -> float:
    # scipy.stats takes longer to import than all the rest, and only comparisons need it.
    from scipy.stats import rankdata, wilcoxon

    gap = gap[gap != 0]
    if not len(gap):
        return 1.0
    if len(gap) > _FEW:
        return float(wilcoxon(gap).pvalue)
    # The exact test by all ways to set the signs: what SciPy does in the end where there are ties, in seconds.
    ranks = rankdata(np.abs(gap))
    signs = np.arange(1 << len(gap))[:, None] >> np.arange(len(gap)) & 1
    sums, found = signs @ ranks, ranks[gap > 0].sum()
    return min(1.0, 2 * float(min((sums <= found).mean(), (sums >= found).mean())))
