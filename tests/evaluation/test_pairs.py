"""What belongs together, and what has no partner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nuxel.data.label_sets import LabelArray, LabelFile, Nothing, RunLengthRows
from nuxel.errors import NuxelError, UsageError
from nuxel.evaluation import pairs as room
from nuxel.evaluation.pairs import Pair, pair_labels
from nuxel.labels.run_length import RunLengths
from nuxel.metrics.overlap import overlap_table

RUNS = (np.array([[1, 3]]),)


def sources(*names: str, of: str = "truth") -> dict[str, LabelArray]:
    return {name: LabelArray(np.zeros((2, 2), np.int32), f"{of} {name}") for name in names}


def predictions(*names: str) -> dict[str, LabelArray]:
    return sources(*names, of="prediction")


class TestPairing:
    def test_pairs_are_sorted_and_have_the_name_of_the_truth(self) -> None:
        found = pair_labels(predictions("out/b", "a"), sources("b", "a"))
        assert [(pair.image, pair.predicted.where, pair.truth.where) for pair in found] == [
            ("a", "prediction a", "truth a"),
            ("b", "prediction out/b", "truth b"),
        ]

    def test_a_missing_prediction(self) -> None:
        with pytest.raises(
            UsageError, match=r"^no prediction for b \(--allow-missing counts them as empty\)$"
        ):
            pair_labels(predictions("a"), sources("a", "b"))
        found = pair_labels(predictions("a"), sources("a", "b"), allow_missing=True)
        assert [(pair.image, isinstance(pair.predicted, Nothing)) for pair in found] == [
            ("a", False),
            ("b", True),
        ]
        assert found[1].read()[1].shape == (2, 2)

    def test_a_missing_truth_is_never_allowed(self) -> None:
        for allow in (False, True):
            with pytest.raises(UsageError, match=r"^no truth for c, d$"):
                pair_labels(predictions("a", "d", "c"), sources("a"), allow_missing=allow)

    def test_both_are_listed_and_long_lists_are_cut(self) -> None:
        with pytest.raises(UsageError) as refused:
            pair_labels(predictions("a", "z"), sources("a", *(f"t{n}" for n in range(7))))
        assert "no prediction for t0, t1, t2, t3, t4 and 2 more (" in str(refused.value)
        assert "; no truth for z" in str(refused.value)

    def test_nothing_matches(self) -> None:
        with pytest.raises(UsageError, match="no prediction has the name of a truth: a, b against c, d"):
            pair_labels(predictions("a", "b"), sources("c", "d"), allow_missing=True)

    def test_the_same_file_on_both_sides(self) -> None:
        first = {"a": LabelFile(Path("z.tif")), "b": LabelFile(Path("d/../x.tif"))}
        second = {"a": LabelFile(Path("y.tif")), "b": LabelFile(Path("x.tif"))}
        with pytest.raises(UsageError, match=r"prediction and truth are the same file: x\.tif"):
            pair_labels(first, second)


class TestReading:
    def test_run_lengths_take_the_shape_of_the_other_side(self) -> None:
        runs, array = RunLengthRows(RunLengths("r", RUNS)), LabelArray(np.ones((3, 4), np.int32))
        for pair in (Pair("a", runs, array), Pair("a", array, runs)):
            truth, predicted = pair.read()
            assert truth.shape == predicted.shape == (3, 4)
            assert sorted([truth.sum(), predicted.sum()]) == [3, 12]

    def test_run_lengths_on_both_sides(self) -> None:
        runs, sized = RunLengthRows(RunLengths("r", RUNS)), RunLengthRows(RunLengths("s", RUNS, (3, 2)))
        assert Pair("a", runs, sized).read()[0].shape == (3, 2)
        assert Pair("a", sized, runs).read()[1].shape == (3, 2)
        for other in (runs, Nothing()):
            with pytest.raises(NuxelError, match="r: runs alone do not say"):
                Pair("a", runs, other).read()

    def test_shapes_that_differ_name_both_files(self) -> None:
        pair = Pair(
            "a", LabelArray(np.zeros((2, 3), np.int32), "t"), LabelArray(np.zeros((3, 2), np.int32), "p")
        )
        with pytest.raises(NuxelError, match=r"^p: it is 3 x 2 pixels, but t is 2 x 3; both must"):
            pair.read()

    def test_a_negative_prediction_is_refused_by_name(self) -> None:
        negative = LabelArray(np.array([[-1]], np.int32), "n")
        zero = LabelArray(np.array([[0]], np.int32))
        assert Pair("a", negative, zero).read()[0].min() == -1
        with pytest.raises(NuxelError, match=r"^n: holds the negative label -1; only the truth"):
            Pair("a", zero, negative).read()


class TestSlides:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(room, "LARGE", 1000)

    def pair(self, tmp_path: Path, truth: np.ndarray, predicted: np.ndarray) -> Pair:
        tifffile.imwrite(tmp_path / "t.tif", truth, tile=(16, 16))
        tifffile.imwrite(tmp_path / "p.tif", predicted, rowsperstrip=7)
        return Pair("a", LabelFile(tmp_path / "t.tif"), LabelFile(tmp_path / "p.tif"))

    def test_counting_in_bands_is_counting(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        truth, predicted = (
            np.repeat(rng.integers(0, 50, (40, 10)), 5, axis=1).astype(np.int32) for _ in range(2)
        )
        pair = self.pair(tmp_path, truth, predicted)
        assert pair.is_slide
        found, expected = pair.count_in_bands(), overlap_table(truth, predicted)
        for name in ("truth_areas", "predicted_areas", "truth_index", "predicted_index", "intersection"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))

    def test_errors_name_the_files(self, tmp_path: Path) -> None:
        pair = self.pair(tmp_path, np.zeros((40, 50), np.int32), np.zeros((50, 40), np.int32))
        with pytest.raises(NuxelError, match=r"p\.tif: it is 50 x 40 pixels, but .*t\.tif is 40"):
            pair.count_in_bands()
        pair = self.pair(tmp_path, np.zeros((40, 50), np.int32), np.full((40, 50), -1, np.int32))
        with pytest.raises(
            NuxelError, match=r"p\.tif against .*t\.tif: the prediction holds the negative label"
        ):
            pair.count_in_bands()

    def test_what_is_no_slide(self, tmp_path: Path, save: Callable[..., Path]) -> None:
        small, large = np.zeros((9, 9), np.int32), np.zeros((40, 50), np.int32)
        assert not self.pair(tmp_path, small, small).is_slide
        png, tif = LabelFile(save("a.png", large)), LabelFile(save("a.tif", large))
        assert not Pair("a", png, tif).is_slide
        assert not Pair("a", tif, png).is_slide
        assert not Pair("a", tif, Nothing()).is_slide
        assert not Pair("a", LabelArray(large), tif).is_slide
