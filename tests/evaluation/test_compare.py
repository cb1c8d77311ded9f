"""Two predictions side by side: means, intervals, tests, and where they differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from nuxel.errors import UsageError
from nuxel.evaluation import compare as room
from nuxel.evaluation.compare import Comparison, compare
from nuxel.evaluation.evaluate import Evaluation, evaluate

Draw = Callable[..., np.ndarray]
Save = Callable[..., Path]
SHIFTS = ((0, 1), (2, 0), (1, 3), (0, 4), (3, 0), (0, 2), (1, 1), (4, 1), (2, 2), (0, 5))


@pytest.fixture
def comparison(tmp_path: Path, save: Save, squares: Draw) -> Comparison:
    """Ten images of three nuclei, of which the two predictions move the first by so many pixels."""
    for number, pair in enumerate(SHIFTS):
        save(f"truth/{number}.png", squares(1, 2, 3))
        for name, shift in zip("ab", pair, strict=True):
            save(f"{name}/{number}.npy", squares(1, 2, 3, shift={1: shift}))
    return compare(*(evaluate(tmp_path / name, tmp_path / "truth") for name in "ab"))


def values(evaluation: Evaluation, score: str) -> np.ndarray:
    return np.array([row.scores[score] for row in evaluation.images])


def test_means_and_counts(comparison: Comparison) -> None:
    first, second = values(comparison.first, "aji"), values(comparison.second, "aji")
    found = comparison.differences["aji"]
    assert (found.first, found.second) == pytest.approx((first.mean(), second.mean()))
    assert found.mean == pytest.approx((second - first).mean())
    assert (found.better, found.worse) == (3, 5)
    assert list(comparison.differences) == list(comparison.first.totals.mean)


def test_wilcoxon_is_scipys(comparison: Comparison) -> None:
    for score in ("ap", "aji", "dice"):
        gap = values(comparison.second, score) - values(comparison.first, score)
        assert comparison.differences[score].p_value == pytest.approx(
            stats.wilcoxon(np.round(gap, 12)).pvalue
        )


def test_the_interval_is_that_of_an_independent_bootstrap(comparison: Comparison) -> None:
    gap = values(comparison.second, "aji") - values(comparison.first, "aji")
    # Hesterberg 2015: the percentiles at which a normal distribution has the width of Student's interval
    level = 2 * stats.norm.cdf(stats.t.ppf(0.975, len(gap) - 1) * np.sqrt(len(gap) / (len(gap) - 1))) - 1
    expected = stats.bootstrap(
        (gap,), np.mean, confidence_level=level, method="percentile", n_resamples=50_000, rng=1
    ).confidence_interval
    found = comparison.differences["aji"]
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.006)
    assert found.low < found.mean < found.high


@pytest.mark.parametrize("images", [5, 8, 16, 66])
def test_intervals_hold_the_true_mean_as_often_as_they_say(images: int) -> None:
    """95 of 100, of which few images cost at most five; plain percentiles would hold 80 for five images."""
    gaps = np.random.default_rng(images).normal(0.1, 1, (images, 400))
    low, high = room._intervals(gaps, 0)
    assert 0.9 <= ((low < 0.1) & (high > 0.1)).mean() <= 0.985


def test_fewer_than_five_images_have_no_interval() -> None:
    gaps = np.random.default_rng(0).normal(0, 1, (6, 2))
    gaps[4:, 1] = np.nan
    found = room._intervals(gaps, 0)
    assert np.isfinite(found[:, 0]).all()
    assert np.isnan(found[:, 1]).all()
    assert np.isnan(room._intervals(gaps[:1], 0)).all()


def test_the_order_reverses_the_signs(comparison: Comparison) -> None:
    there, back = comparison.differences["pq"], compare(comparison.second, comparison.first).differences["pq"]
    assert back.mean == -there.mean
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=1e-9)
    assert (back.better, back.worse, back.p_value) == (there.worse, there.better, there.p_value)


def test_the_same_twice(comparison: Comparison) -> None:
    found = compare(comparison.first, comparison.first)
    one = found.differences["ap"]
    assert (one.mean, one.low, one.high, one.p_value, one.better, one.worse) == (0, 0, 0, 1, 0, 0)
    assert found.most_different(3) == []


def test_where_they_differ_most(comparison: Comparison) -> None:
    gaps = np.abs(values(comparison.second, "ap") - values(comparison.first, "ap"))
    found = comparison.most_different(4)
    assert len(found) == 4
    assert gaps[found].tolist() == sorted(gaps, reverse=True)[:4]
    assert comparison.most_different(1, "aji") == [9]


def test_distances_are_better_when_small(squares: Draw) -> None:
    truth = squares(1, 2)
    near, far = squares(1, 2, shift={1: 1}), squares(1, 2, shift={1: 3})
    found = compare(*(evaluate(one, truth, hausdorff=True) for one in (far, near))).differences["hausdorff"]
    assert (found.first, found.second, found.better, found.worse) == (1.5, 0.5, 1, 0)


def test_images_without_a_distance_are_left_out(tmp_path: Path, save: Save, squares: Draw) -> None:
    for name, truth, a, b in (("x", (1,), (1,), (1,)), ("y", (1,), (), (1,)), ("z", (1, 2), (2,), (1, 2))):
        for side, numbers in (("t", truth), ("a", a), ("b", b)):
            save(f"{side}/{name}.npy", squares(*numbers, shift={1: 2 if side == "b" else 0}))
    evaluations = [evaluate(tmp_path / name, tmp_path / "t", hausdorff=True) for name in "ab"]
    found = compare(*evaluations).differences["hausdorff"]
    assert (found.first, found.second, found.worse) == (0, 1.5, 2)
    assert np.isnan([found.low, found.high]).all()  # of two images
    nothing = [evaluate(squares(), squares(), hausdorff=True)] * 2
    assert np.isnan(compare(*nothing).differences["hausdorff"].mean)


def test_other_images_are_refused(comparison: Comparison, squares: Draw) -> None:
    with pytest.raises(UsageError, match="only evaluations of the same images can be compared; 0 is in one"):
        compare(comparison.first, evaluate(squares(1), squares(1)))


@pytest.mark.parametrize("images", [1, 2, 5, 9, 14, 40])
@pytest.mark.parametrize("step", [1.0, 0.25])
def test_the_test_is_scipys_with_and_without_ties(images: int, step: float) -> None:
    rng = np.random.default_rng(images)
    gap = rng.normal(0.3, 1, images)
    gap = np.round(gap / step) * step if step == 0.25 else gap
    gap[gap == 0] = step
    expected = stats.wilcoxon(gap).pvalue
    assert room._wilcoxon(np.append(gap, [0.0, 0.0])) == pytest.approx(expected)
