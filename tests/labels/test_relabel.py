import numpy as np
import pytest

from nuxel.labels.relabel import relabel


def test_gaps_close_and_the_order_stays():
    labels = np.array([[9, 9, 0], [3, 0, 70]])
    assert relabel(labels).tolist() == [[2, 2, 0], [1, 0, 3]]


def test_sequential_labels_come_back_as_a_new_array():
    labels = np.array([[0, 1], [2, 3]], np.int32)
    again = relabel(labels)
    assert again.tolist() == labels.tolist()
    assert not np.shares_memory(again, labels)


def test_negative_labels_stay_and_are_not_counted():
    assert relabel(np.array([[-1, -1, 5], [-3, 0, 9]])).tolist() == [[-1, -1, 1], [-3, 0, 2]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.uint32, np.int64, np.uint64])
def test_every_integer_type_becomes_int32(dtype):
    again = relabel(np.array([[0, 100], [50, 100]], dtype))
    assert again.dtype == np.int32
    assert again.tolist() == [[0, 2], [1, 2]]


def test_numbers_beyond_int32_are_only_names():
    assert relabel(np.array([[2**60, 0, 2**61]], np.uint64)).tolist() == [[1, 0, 2]]


def test_without_background_the_first_nucleus_is_one():
    assert relabel(np.array([[4, 4]])).tolist() == [[1, 1]]


@pytest.mark.parametrize("shape", [(3, 4), (0, 4), (0, 0)])
def test_nothing_stays_nothing(shape):
    again = relabel(np.zeros(shape, np.int32))
    assert again.shape == shape
    assert not again.any()


def test_more_nuclei_than_sixteen_bits_count():
    labels = np.arange(300 * 300, dtype=np.int64).reshape(300, 300) * 7
    np.testing.assert_array_equal(relabel(labels), labels // 7)


@pytest.mark.parametrize("labels", [np.zeros((2, 2)), np.zeros((2, 2, 2), int), np.zeros((2, 2), bool)])
def test_anything_but_a_plane_of_integers_is_refused(labels):
    with pytest.raises(ValueError, match="integers"):
        relabel(labels)
