import numpy as np
import pytest

from nuxel.labels.runs import find_runs


def painted(runs, shape):
    """The image again, run by run."""
    image = np.full(shape, 99, runs.value.dtype)
    for value, row, start, stop in zip(runs.value, runs.row, runs.start, runs.stop, strict=True):
        image[row, start:stop] = value
    return image


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint64])
def test_runs_paint_the_image_again(dtype):
    image = np.random.default_rng(0).integers(0, 3, (17, 23)).astype(dtype)
    runs = find_runs(image)
    np.testing.assert_array_equal(painted(runs, image.shape), image)
    assert runs.value.dtype == dtype


def test_runs_are_as_long_as_they_can_be():
    runs = find_runs(np.array([[1, 1, 1], [1, 1, 2]]))
    assert len(runs) == 3
    assert runs.start.tolist() == [0, 0, 2]
    assert runs.stop.tolist() == [3, 2, 3]


def test_a_run_never_continues_on_the_next_row():
    runs = find_runs(np.full((4, 5), 7))
    assert runs.row.tolist() == [0, 1, 2, 3]
    assert runs.stop.tolist() == [5] * 4


def test_an_image_one_pixel_wide_has_one_run_a_row():
    runs = find_runs(np.zeros((3, 1), int))
    assert runs.row.tolist() == [0, 1, 2]
    assert runs.stop.tolist() == [1, 1, 1]


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0)])
def test_an_empty_image_has_no_runs(shape):
    assert len(find_runs(np.zeros(shape, np.int32))) == 0


def test_a_view_in_column_order_gives_the_same_runs():
    image = np.random.default_rng(1).integers(0, 2, (9, 6))
    np.testing.assert_array_equal(painted(find_runs(np.asfortranarray(image)), image.shape), image)


def test_where_keeps_what_was_chosen():
    runs = find_runs(np.array([[0, 5, 5, 0, 6]]))
    nuclei = runs.where(runs.value > 0)
    assert nuclei.value.tolist() == [5, 6]
    assert nuclei.start.tolist() == [1, 4]
    assert nuclei.stop.tolist() == [3, 5]
    assert nuclei.row.tolist() == [0, 0]
