"""Overlap tables counted by hand."""

import numpy as np
import pytest

from nuxel.errors import NuxelError
from nuxel.metrics import overlap
from nuxel.metrics.overlap import count_overlaps, overlap_table

TRUTH = np.array(
    [
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 9, 9],
        [0, 0, 0, 0, 9, 9],
    ]
)
PREDICTED = np.array(
    [
        [0, 4, 4, 4, 0, 0],
        [0, 4, 4, 4, 2, 2],
        [0, 0, 0, 0, 2, 7],
    ]
)


def test_areas_and_intersections_are_counted() -> None:
    table = overlap_table(TRUTH, PREDICTED)
    assert table.truth_labels.tolist() == [1, 9]
    assert table.truth_areas.tolist() == [6, 4]
    assert table.predicted_labels.tolist() == [2, 4, 7]
    assert table.predicted_areas.tolist() == [3, 6, 1]
    assert table.truth_index.tolist() == [0, 1, 1]
    assert table.predicted_index.tolist() == [1, 0, 2]
    assert table.intersection.tolist() == [4, 3, 1]
    assert table.union.tolist() == [8, 4, 4]
    assert table.iou.tolist() == [0.5, 0.75, 0.25]
    assert table.pixels == 18
    assert table.dropped_labels.tolist() == []


def test_all_counts_are_int64() -> None:
    table = overlap_table(TRUTH.astype(np.uint8), PREDICTED.astype(np.uint16))
    for name in ("truth_labels", "truth_areas", "predicted_labels", "predicted_areas", "dropped_labels"):
        assert getattr(table, name).dtype == np.int64, name
    for name in ("truth_index", "predicted_index", "intersection", "union"):
        assert getattr(table, name).dtype == np.int64, name
    assert table.iou.dtype == np.float64


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.int64, np.uint64])
def test_dtype_does_not_matter(dtype: type) -> None:
    table = overlap_table(TRUTH.astype(dtype), PREDICTED.astype(dtype))
    assert table.intersection.tolist() == [4, 3, 1]


def test_boolean_masks_are_one_nucleus() -> None:
    table = overlap_table(TRUTH > 0, PREDICTED > 0)
    assert table.truth_areas.tolist() == [10]
    assert table.intersection.tolist() == [8]


@pytest.mark.parametrize("shape", [(0, 0), (3, 4), (1, 1), (2, 3, 4)])
def test_images_without_nuclei_give_an_empty_table(shape: tuple[int, ...]) -> None:
    table = overlap_table(np.zeros(shape, int), np.zeros(shape, int))
    assert len(table.truth_labels) == len(table.predicted_labels) == len(table.intersection) == 0
    assert table.pixels == np.prod(shape)
    assert table.iou.shape == (0,)


def test_one_side_may_be_empty() -> None:
    table = overlap_table(TRUTH, np.zeros_like(TRUTH))
    assert table.truth_areas.tolist() == [6, 4]
    assert table.predicted_areas.tolist() == []
    assert table.intersection.tolist() == []


def test_volumes_and_views_that_are_not_contiguous() -> None:
    truth, predicted = np.stack([TRUTH, TRUTH]), np.stack([PREDICTED, PREDICTED])
    assert overlap_table(truth.T, predicted.T).intersection.tolist() == [8, 6, 2]


def test_largest_label() -> None:
    truth = np.array([[2**32 - 2, 2**31 - 1]])
    table = overlap_table(truth, truth[:, ::-1])
    assert table.truth_labels.tolist() == [2**31 - 1, 2**32 - 2]
    assert table.predicted_labels.tolist() == [2**31 - 1, 2**32 - 2]
    assert table.truth_index.tolist() == [0, 1]
    assert table.predicted_index.tolist() == [1, 0]
    for pair, name in ((([[2**32 - 1]]), "truth"), (([[1]]), "prediction")):
        other = [[2**32 - 1]] if name == "prediction" else [[1]]
        with pytest.raises(NuxelError, match=f"^the {name} holds label 4294967295, .* relabel it"):
            overlap_table(np.array(pair), np.array(other))


def test_pixels_that_are_not_annotated_leave_both_images() -> None:
    truth = np.array([[1, 1, -1, -1, 0, 2, -3, -3, 3, 3]])
    predicted = np.array([[5, 5, 5, 0, 0, 6, 6, 6, 7, 7]])
    table = overlap_table(truth, predicted)
    assert table.pixels == 6
    assert table.truth_labels.tolist() == [1, 2, 3]
    assert table.truth_areas.tolist() == [2, 1, 2]
    # 5 has one of its three pixels on them and loses it; 6 has two of three and goes.
    assert table.predicted_labels.tolist() == [5, 7]
    assert table.predicted_areas.tolist() == [2, 2]
    assert table.dropped_labels.tolist() == [6]
    assert table.intersection.tolist() == [2, 2]
    assert table.truth_index.tolist() == [0, 2]
    assert table.predicted_index.tolist() == [0, 1]


def test_prediction_exactly_half_on_them_stays() -> None:
    table = overlap_table(np.array([[-1, -1, 1, 1]]), np.array([[4, 4, 4, 4]]))
    assert table.predicted_areas.tolist() == [2]
    assert table.iou.tolist() == [1.0]
    assert table.dropped_labels.tolist() == []


def test_background_on_them_is_not_a_dropped_prediction() -> None:
    table = overlap_table(np.array([[-1, -1, 1]]), np.array([[0, 0, 0]]))
    assert table.dropped_labels.tolist() == []
    assert table.pixels == 1


def test_image_without_any_annotation() -> None:
    table = overlap_table(np.full((2, 2), -1), np.array([[0, 3], [3, 1]]))
    assert table.pixels == 0
    assert table.dropped_labels.tolist() == [1, 3]
    assert table.predicted_labels.tolist() == []


def test_bands_add_up_before_predictions_are_dropped() -> None:
    # In the first band alone the prediction lies wholly on pixels that are not annotated.
    truth = np.array([[-1, -1], [1, 1], [1, 1]])
    predicted = np.array([[8, 8], [8, 8], [0, 8]])
    table = count_overlaps((truth[y : y + 1], predicted[y : y + 1]) for y in range(3))
    assert table.predicted_areas.tolist() == [3]
    assert table.intersection.tolist() == [3]
    assert table.truth_areas.tolist() == [4]
    assert table.pixels == 4


def test_no_band_at_all() -> None:
    assert count_overlaps([]).pixels == 0


@pytest.mark.parametrize("pieces", [1, 2, 5, 7])
@pytest.mark.parametrize("pairs", [0, 1, 3])
def test_small_pieces_and_many_merges_change_nothing(
    monkeypatch: pytest.MonkeyPatch, pieces: int, pairs: int
) -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(-1, 5, (9, 7)), rng.integers(0, 5, (9, 7))
    whole = overlap_table(truth, predicted)
    monkeypatch.setattr(overlap, "PIXELS_AT_ONCE", pieces)
    monkeypatch.setattr(overlap, "PAIRS_BEFORE_MERGE", pairs)
    parts = count_overlaps((truth[y : y + 2], predicted[y : y + 2]) for y in range(0, 9, 2))
    for name in whole.__dataclass_fields__:
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name


def test_waiting_counts_are_merged_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    merged: list[int] = []

    def merge(parts: list) -> tuple:
        merged.append(len(parts))
        return original(parts)

    original = overlap._merge
    monkeypatch.setattr(overlap, "_merge", merge)
    monkeypatch.setattr(overlap, "PAIRS_BEFORE_MERGE", 4)
    band = np.array([[1, 2, 3]])
    count_overlaps([(band, band)] * 10)
    # Each band holds 3 pairs: what has been merged joins two bands at a time, never more.
    assert max(merged) == 3
    assert merged.count(3) == 5


def test_table_passes_through() -> None:
    table = overlap_table(TRUTH, PREDICTED)
    assert overlap_table(table) is table
    with pytest.raises(TypeError, match=r"^an OverlapTable already holds the prediction"):
        overlap_table(table, PREDICTED)
    with pytest.raises(TypeError, match=r"^a label image of the truth needs"):
        overlap_table(TRUTH)


def test_nested_lists_are_read() -> None:
    assert overlap_table([[1, 1]], [[0, 2]]).union.tolist() == [2]  # type: ignore[arg-type]


def test_wrong_input_is_named() -> None:
    with pytest.raises(
        NuxelError, match=r"^truth has shape \(3, 6\) but the prediction has shape \(6, 3\): give two"
    ):
        overlap_table(TRUTH, PREDICTED.T)
    with pytest.raises(NuxelError, match=r"^the truth holds float64, not integers: give a label image\.$"):
        overlap_table(TRUTH.astype(float), PREDICTED)
    with pytest.raises(
        NuxelError, match=r"^the prediction holds float32, not integers: give a label image\.$"
    ):
        overlap_table(TRUTH, PREDICTED.astype(np.float32))
    with pytest.raises(NuxelError, match=r"^the prediction holds the negative label -4: only the truth can"):
        overlap_table(TRUTH, np.where(PREDICTED == 4, -4, 0))
