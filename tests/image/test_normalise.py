"""One linear map from any dtype to uint8 RGB, taken from the whole image."""

import numpy as np
import pytest

from nuxel.image import normalise as module
from nuxel.image.normalise import normalise

RNG = np.random.default_rng(0)
INTEGERS = [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64]
FLOATS = [np.float16, np.float32, np.float64]


def noise(dtype, shape=(40, 50)):
    """Values over much of the dtype's range, negative ones included."""
    if np.dtype(dtype).kind == "f":
        return (RNG.standard_normal(shape) * 100).astype(dtype)
    info = np.iinfo(dtype)
    middle, width = (info.max + info.min) / 2, (info.max / 2 - info.min / 2) / 4
    return np.clip(RNG.standard_normal(shape) * width + middle, info.min, info.max / 1.01).astype(dtype)


def plain(pixels):
    """The definition, in float64, for one channel."""
    values = pixels.astype(np.float64)
    low, high = np.percentile(values[np.isfinite(values)], [0.5, 99.8], method="nearest")
    stretched = (np.clip(values, low, high) - low) / (high - low) * 255
    return np.nan_to_num(stretched).astype(np.uint8)


@pytest.mark.parametrize("dtype", INTEGERS + FLOATS)
def test_the_map_is_the_one_between_the_percentiles(dtype):
    pixels = noise(dtype)
    shown = normalise(pixels)
    assert shown.dtype == np.uint8
    assert shown.shape == (40, 50, 3)
    np.testing.assert_array_equal(shown, plain(pixels)[..., None].repeat(3, axis=2))
    assert shown.min() == 0
    assert shown.max() == 255


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 250, 251, 300, 1000, 1001, 4999])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_the_percentile_is_the_nearest_value_that_occurs(size, dtype):
    values = RNG.integers(0, 100, (1, size)).astype(dtype)
    if values.min() == values.max():
        assert not normalise(values).any()
        return
    np.testing.assert_array_equal(normalise(values)[..., 0], plain(values))


def test_half_a_percent_below_and_a_fifth_of_a_percent_above_are_cut_off():
    ramp = np.arange(10_000, dtype=np.uint16)[None]
    shown = normalise(ramp)[0, :, 0].astype(int)
    assert shown[50] == 0
    assert shown[100] == 1
    assert shown[9979] == 255
    assert shown[9970] == 254
    assert (np.diff(shown) >= 0).all()


@pytest.mark.parametrize("dtype", INTEGERS + FLOATS + [bool])
@pytest.mark.parametrize("value", [0, 1, 100])
def test_a_constant_image_is_black(dtype, value):
    assert not normalise(np.full((6, 5), value, dtype)).any()
    assert not normalise(np.full((6, 5, 3), value, dtype)).any()


@pytest.mark.parametrize("dtype", INTEGERS)
def test_the_extremes_of_an_integer_type_do_not_overflow(dtype):
    info = np.iinfo(dtype)
    shown = normalise(np.array([[info.min, info.max] * 5], dtype))
    assert shown[0, :, 1].tolist() == [0, 255] * 5


def test_a_yes_no_mask_is_black_and_white():
    mask = np.zeros((10, 10), bool)
    mask[2:5, 2:5] = True
    assert (normalise(mask)[..., 2] == mask * 255).all()


def test_saturated_pixels_are_white():
    pixels = np.zeros((20, 20), np.uint16)
    pixels[5:15, 5:15] = 65535
    assert set(np.unique(normalise(pixels)[5:15, 5:15])) == {255}
    assert not normalise(pixels)[:5].any()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.float32])
def test_a_few_bright_pixels_on_an_even_background_are_seen(dtype):
    pixels = np.full((100, 100), 3, dtype)
    pixels[40, 40:43] = (53, 103, 53)
    shown = normalise(pixels)[..., 0]
    assert shown[40, 40:43].tolist() == [127, 255, 127]
    assert np.count_nonzero(shown) == 3


@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_and_infinity_do_not_count(dtype):
    pixels = noise(dtype)
    spoilt = pixels.copy()
    spoilt[0, :5], spoilt[1, :5], spoilt[2, :5] = np.nan, np.inf, -np.inf
    shown = normalise(spoilt)[..., 0]
    assert shown[0, :5].tolist() == [0] * 5
    assert shown[1, :5].tolist() == [255] * 5
    assert shown[2, :5].tolist() == [0] * 5
    np.testing.assert_array_equal(shown, plain(spoilt))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_an_image_without_finite_values_is_black(value, shape):
    assert not normalise(np.full(shape, value)).any()


def test_a_channel_without_finite_values_is_no_stain():
    pixels = np.full((20, 20, 3), np.nan)
    pixels[..., 1] = RNG.random((20, 20))
    np.testing.assert_array_equal(normalise(pixels)[..., 0], plain(pixels[..., 1]))


@pytest.mark.parametrize("low", [-1e300, 0, 1e-300])
def test_very_large_and_very_small_floats(low):
    shown = normalise(np.array([[low, low + 1e300 if low else 1e-300]] * 3))
    assert shown[0, 0, 0] == 0
    assert shown[0, 1, 0] == 255


# ---- channels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_stain_in_one_channel_is_shown_as_grey(dtype, channel):
    pixels = np.zeros((30, 30, 3), dtype)
    pixels[..., channel] = RNG.integers(0, 250, (30, 30))
    shown = normalise(pixels)
    np.testing.assert_array_equal(shown, plain(pixels[..., channel])[..., None].repeat(3, axis=2))


@pytest.mark.parametrize(("contrast", "grey"), [(14, True), (16, False)])
def test_a_channel_counts_as_stained_from_a_share_of_the_strongest_on(contrast, grey):
    pixels = np.zeros((30, 30, 3), np.uint8)
    pixels[:15, :, 2] = 100
    pixels[::2, :, 0] = contrast
    shown = normalise(pixels)
    assert (shown[..., 0] == shown[..., 2]).all() == grey
    assert shown[..., 2].max() == 255


def test_colours_share_one_map_and_keep_their_hue():
    pixels = np.stack([RNG.integers(20, 60, (30, 30)), RNG.integers(40, 90, (30, 30))] * 2, 2)[..., :3]
    shown = normalise(pixels.astype(np.uint8)).astype(int)
    lows, highs = np.percentile(pixels, [0.5, 99.8], axis=(0, 1), method="nearest")
    expected = np.clip((pixels - lows.min()) / (highs.max() - lows.min()) * 255, 0, 255).astype(int)
    np.testing.assert_array_equal(shown, expected)


def test_a_grey_picture_stored_as_colour_stays_as_it_is():
    grey = noise(np.uint8)
    np.testing.assert_array_equal(normalise(grey[..., None].repeat(3, axis=2)), normalise(grey))


@pytest.mark.parametrize(("channels", "used"), [(1, 1), (2, 1), (3, 3), (4, 3), (7, 3)])
def test_the_first_channel_or_the_first_three_are_shown(channels, used):
    pixels = RNG.integers(0, 200, (20, 20, channels)).astype(np.uint8)
    np.testing.assert_array_equal(normalise(pixels), normalise(pixels[..., :used]))
    if used == 1:
        np.testing.assert_array_equal(normalise(pixels), normalise(pixels[..., 0]))


# ---- what must not matter -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
@pytest.mark.parametrize(("gain", "shift"), [(1, 17), (200, 0), (200, 3000), (0.001, -4.5), (1e6, 1e9)])
def test_a_linear_change_of_the_values_changes_at_most_one_level(shape, gain, shift):
    pixels = RNG.integers(0, 200, shape).astype(np.float64)
    before, after = normalise(pixels), normalise(pixels * gain + shift)
    assert np.abs(before.astype(int) - after).max() <= 1


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int16, np.int32, np.float32, np.float64])
def test_the_same_values_in_another_type_are_shown_the_same(dtype):
    pixels = RNG.integers(0, 120, (30, 30, 3))
    np.testing.assert_array_equal(normalise(pixels.astype(dtype)), normalise(pixels.astype(np.uint8)))


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_byte_order_does_not_matter(dtype):
    pixels = noise(dtype)
    swapped = pixels.astype(np.dtype(dtype).newbyteorder("S"))
    np.testing.assert_array_equal(normalise(swapped), normalise(pixels))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_strides_do_not_matter(dtype):
    pixels = noise(dtype, (40, 50, 4))
    view = pixels[::-2, ::3]
    np.testing.assert_array_equal(normalise(view), normalise(view.copy()))
    np.testing.assert_array_equal(normalise(pixels.transpose(1, 0, 2)), normalise(pixels).transpose(1, 0, 2))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize("rows", [1, 7, 40])
def test_the_height_of_the_bands_does_not_matter(dtype, rows, monkeypatch):
    pixels = noise(dtype, (40, 50, 3))
    whole = normalise(pixels)
    monkeypatch.setattr(module, "_BAND_ROWS", rows)
    np.testing.assert_array_equal(normalise(pixels), whole)


def test_the_pixels_are_left_alone():
    for dtype in (np.uint8, np.float32):
        pixels = noise(dtype)
        before = pixels.copy()
        normalise(pixels)
        np.testing.assert_array_equal(pixels, before)


def test_large_images_of_wide_types_are_sampled_on_a_regular_grid(monkeypatch):
    monkeypatch.setattr(module, "_SAMPLE", 500)
    pixels = noise(np.float32)
    low, high = np.percentile(pixels[::2, ::2].astype(float), [0.5, 99.8], method="nearest")
    expected = (np.clip(pixels.astype(float), low, high) - low) / (high - low) * 255
    np.testing.assert_array_equal(normalise(pixels)[..., 0], expected.astype(np.uint8))
    monkeypatch.setattr(module, "_SAMPLE", 2000)
    np.testing.assert_array_equal(normalise(pixels)[..., 0], plain(pixels))


def test_the_largest_numbers_that_there_are() -> None:
    """Of which even the difference is none."""
    pixels = np.where(np.arange(100).reshape(10, 10) % 2, 1.7e308, -1.7e308)
    shown = normalise(pixels)
    assert set(np.unique(shown)) == {0, 255}
    assert ((shown[..., 0] == 255) == (pixels > 0)).all()
