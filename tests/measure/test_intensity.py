import numpy as np
import pytest

from nuxel.instances import Instances
from nuxel.measure import intensity
from nuxel.measure.nuclei import measure_nuclei


def scene():
    labels = np.zeros((12, 9), np.int32)
    labels[1:4, 0:5] = 1
    labels[3:9, 5:9] = 2
    labels[4:8, 2:5] = 3
    labels[11, 8] = 4
    return labels


def measured(labels, pixels):
    return measure_nuclei(Instances(labels), pixels, channel_names=[str(c) for c in range(pixels.shape[2])])


def check_by_masks(labels, pixels):
    table = measured(labels, pixels)
    for channel in range(pixels.shape[2]):
        name = channel if pixels.shape[2] > 1 else "intensity"
        for row, label in enumerate(range(1, labels.max() + 1)):
            values = pixels[..., channel][labels == label].astype(np.float64)
            values = values[np.isfinite(values)]
            assert table[f"mean_{name}"][row] == pytest.approx(values.mean(), rel=1e-6)
            assert table[f"min_{name}"][row] == values.min()
            assert table[f"max_{name}"][row] == values.max()


TYPES = [np.uint8, np.int8, np.uint16, np.int32, np.int64, np.uint64, np.float16, np.float32, np.float64]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_every_type_equals_measuring_by_masks(dtype, channels):
    low = 0 if np.dtype(dtype).kind == "u" else -100
    pixels = np.random.default_rng(0).integers(low, 120, (12, 9, channels)).astype(dtype)
    check_by_masks(scene(), pixels)


def test_bands_do_not_show(monkeypatch):
    monkeypatch.setattr(intensity, "_BAND_PIXELS", 20)
    check_by_masks(scene(), np.random.default_rng(1).integers(0, 255, (12, 9, 2)).astype(np.uint8))


def test_an_image_wider_than_a_band(monkeypatch):
    monkeypatch.setattr(intensity, "_BAND_PIXELS", 2)
    check_by_masks(scene(), np.random.default_rng(1).normal(size=(12, 9, 1)))


def test_booleans_count_as_zero_and_one():
    labels = np.array([[1, 1, 1, 2]], np.int32)
    table = measured(labels, np.array([[True, False, False, True]])[..., None])
    assert table["mean_intensity"].tolist() == pytest.approx([1 / 3, 1])
    assert table["max_intensity"].tolist() == [1, 1]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_values_that_are_not_finite_are_left_out(dtype):
    pixels = np.random.default_rng(2).normal(size=(12, 9, 2)).astype(dtype)
    pixels[2, 1, 0], pixels[5, 3, 0], pixels[6, 6, 1] = np.nan, np.inf, -np.inf
    check_by_masks(scene(), pixels)


def test_a_nucleus_without_finite_values_is_nan_and_spares_the_others():
    pixels = np.ones((12, 9, 1), np.float32)
    pixels[scene() == 3] = np.nan
    table = measured(scene(), pixels)
    for name in ("mean_intensity", "min_intensity", "max_intensity"):
        np.testing.assert_array_equal(table[name], [1, 1, np.nan, 1])


def test_background_does_not_count():
    pixels = np.full((12, 9, 1), np.nan)
    pixels[scene() > 0] = 5
    assert measured(scene(), pixels)["mean_intensity"].tolist() == [5, 5, 5, 5]


def test_sums_do_not_overflow_and_extremes_are_exact():
    labels = np.ones((300, 300), np.int32)
    table = measured(labels, np.full((300, 300, 1), 65_535, np.uint16))
    assert table["mean_intensity"].tolist() == [65_535]
    top = np.full((1, 2, 1), 2**64 - 1, np.uint64)
    assert measured(np.array([[1, 2]], np.int32), top)["max_intensity"].tolist() == [2**64 - 1] * 2


def test_extremes_keep_the_integer_type():
    table = measured(scene(), np.zeros((12, 9, 1), np.uint16))
    assert table["min_intensity"].dtype == np.uint16
    assert table["mean_intensity"].dtype == np.float64


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_layout_in_memory_does_not_matter(order):
    pixels = np.array(np.random.default_rng(4).integers(0, 255, (12, 9, 3)), np.uint8, order=order)
    check_by_masks(scene(), pixels)
    check_by_masks(scene()[::-1].copy(), pixels[::-1])


def test_the_image_is_left_as_it_was():
    pixels = np.array([[[np.nan], [1.0]]])
    measured(np.array([[1, 1]], np.int32), pixels)
    np.testing.assert_array_equal(pixels, [[[np.nan], [1.0]]])


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_sums_of_the_largest_integers_do_not_wrap(dtype):
    value = np.iinfo(dtype).max
    table = measured(np.ones((2, 2), np.int32), np.full((2, 2, 1), value, dtype))
    assert table["mean_intensity"][0] == pytest.approx(float(value))
    assert table["max_intensity"][0] == value
