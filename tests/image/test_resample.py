"""Views of an image at another scale."""

import numpy as np
import pytest
from PIL import Image

from nuxel.image import resample
from nuxel.image.resample import ScaledImage, resize_labels, resize_map

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (61, 83, 3)).astype(np.uint8)


def whole_view(pixels, scale, margin=0):
    """The whole view by one call, and ``margin`` mirrored pixels at the bottom and the right."""
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    view = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    return np.pad(view, ((0, margin), (0, margin), (0, 0)), mode="symmetric")


def difference(one, other):
    return np.abs(one.astype(int) - other).max(initial=0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (6, 8)])
def test_scale_one_is_the_image_itself(shape):
    pixels = RNG.integers(0, 256, (*shape, 3)).astype(np.uint8)
    view = ScaledImage(pixels)
    assert view.shape == view.full_shape == shape
    np.testing.assert_array_equal(view.window((0, 0, *shape)), pixels)


@pytest.mark.parametrize(
    ("scale", "shape"), [(0.5, (30, 42)), (2, (122, 166)), (0.01, (1, 1)), (1.004, (61, 83))]
)
def test_the_view_has_the_nearest_shape_and_at_least_one_pixel(scale, shape):
    view = ScaledImage(IMAGE, scale)
    assert view.shape == shape
    assert view.full_shape == (61, 83)


@pytest.mark.parametrize("scale", [0.125, 0.3, 0.5, 0.77, 1.0, 1.3, 2.0, 8.0])
def test_any_window_is_the_crop_of_the_whole_view(scale):
    view, margin = ScaledImage(IMAGE, scale), 40
    whole = whole_view(IMAGE, scale, margin)
    rng = np.random.default_rng(1)
    for _ in range(60):
        y0, x0 = rng.integers(0, view.shape)
        y1, x1 = rng.integers((y0 + 1, x0 + 1), (view.shape[0] + margin + 1, view.shape[1] + margin + 1))
        window = view.window((y0, x0, y1, x1))
        assert window.shape == (y1 - y0, x1 - x0, 3)
        assert window.dtype == np.uint8
        assert difference(window, whole[y0:y1, x0:x1]) <= (scale != 1)


@pytest.mark.parametrize("scale", [0.3, 1.7, 7.3, 15.1])
def test_windows_agree_to_the_last_bit(scale, monkeypatch):
    """Also where they cross the squares that the view is resampled in, and when these have been forgotten."""
    monkeypatch.setattr(resample, "_MOST_BLOCKS", 3)
    view = ScaledImage(IMAGE, scale)
    whole = view.window((0, 0, *view.shape))
    assert difference(whole, whole_view(IMAGE, scale)) <= 1
    rng = np.random.default_rng(2)
    for _ in range(40):
        y0, x0 = rng.integers(0, view.shape)
        y1, x1 = rng.integers((y0 + 1, x0 + 1), (view.shape[0] + 1, view.shape[1] + 1))
        window = ScaledImage(IMAGE, scale).window((y0, x0, y1, x1))
        np.testing.assert_array_equal(window, whole[y0:y1, x0:x1])
        np.testing.assert_array_equal(view.window((y0, x0, y1, x1)), window)


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.7])
def test_far_from_the_origin_windows_are_as_exact(scale):
    strip = RNG.integers(0, 256, (3, 60_000, 3)).astype(np.uint8)
    view = ScaledImage(strip, scale)
    whole = whole_view(strip, scale)
    end = view.shape[1]
    for x0 in (end - 50, end - 333, end // 2 + 1):
        window = view.window((0, x0, view.shape[0], x0 + 50))
        assert difference(window, whole[:, x0 : x0 + 50]) <= 1


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_beyond_the_edge_the_view_is_mirrored_however_little_of_it_is_in_the_window(scale):
    view = ScaledImage(IMAGE, scale)
    height, width = view.shape
    whole = whole_view(IMAGE, scale, 12)
    corner = view.window((height - 1, width - 2, height + 12, width + 12))
    assert difference(corner, whole[height - 1 :, width - 2 :]) <= (scale != 1)
    np.testing.assert_array_equal(corner[0], corner[1])
    np.testing.assert_array_equal(corner[:, 1], corner[:, 2])


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
@pytest.mark.parametrize("scale", [1.0, 2.0, 0.4])
def test_tiny_images_are_mirrored_again_and_again(shape, scale):
    pixels = RNG.integers(0, 256, (*shape, 3)).astype(np.uint8)
    view = ScaledImage(pixels, scale)
    expected = whole_view(pixels, scale, 32)[:32, :32]
    assert difference(view.window((0, 0, 32, 32)), expected) <= (view.shape != shape)


def test_shrinking_averages_and_does_not_pick():
    board = ((np.indices((64, 64)).sum(0) % 2) * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    window = ScaledImage(board, 0.25).window((4, 4, 12, 12)).astype(int)
    assert np.abs(window - 127).max() <= 2


# ---- maps and labels ------------------------------------------------------------------------------------


def test_a_map_of_the_wanted_size_is_returned_as_it_is():
    values = RNG.integers(0, 256, (7, 9)).astype(np.uint8)
    assert resize_map(values, (7, 9)) is values


def test_a_map_is_interpolated_linearly():
    values = np.array([[0, 100, 200]], np.uint8)
    assert resize_map(values, (1, 6)).tolist() == [[0, 25, 75, 125, 175, 200]]
    assert resize_map(values.T, (6, 1)).T.tolist() == [[0, 25, 75, 125, 175, 200]]
    assert resize_map(values, (4, 6)).shape == (4, 6)


def test_a_map_of_one_pixel_becomes_an_even_one():
    assert (resize_map(np.array([[77]], np.uint8), (5, 3)) == 77).all()


def test_labels_of_the_wanted_size_are_returned_as_they_are():
    labels = np.arange(12, dtype=np.int32).reshape(3, 4)
    assert resize_labels(labels, (3, 4)) is labels


def test_enlarging_by_a_whole_number_repeats_labels():
    labels = RNG.integers(-1, 70_000, (5, 4)).astype(np.int32)
    enlarged = resize_labels(labels, (15, 8))
    assert enlarged.dtype == np.int32
    np.testing.assert_array_equal(enlarged, labels.repeat(3, axis=0).repeat(2, axis=1))
    np.testing.assert_array_equal(resize_labels(enlarged, (5, 4)), labels)


def test_each_pixel_takes_the_label_at_its_centre():
    labels = np.array([[1, 2, 3, 4, 5]], np.int32)
    assert resize_labels(labels, (1, 2)).tolist() == [[2, 4]]
    assert resize_labels(labels, (1, 1)).tolist() == [[3]]
    assert resize_labels(labels, (2, 7)).tolist() == [[1, 2, 2, 3, 4, 4, 5]] * 2
    assert resize_labels(labels.T, (2, 1)).tolist() == [[2], [4]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (33, 29), (100, 3)])
def test_no_label_is_invented(shape):
    labels = RNG.integers(0, 30, (20, 20)).astype(np.int32)
    resized = resize_labels(labels, shape)
    assert resized.shape == shape
    assert set(resized.ravel()) <= set(labels.ravel())


@pytest.mark.parametrize("scale", [0.125, 0.3, 0.5])
def test_the_squares_that_a_shrunken_view_is_made_of_have_no_seams(scale):
    strip = np.random.default_rng(0).integers(0, 256, (40, 8000, 3)).astype(np.uint8)
    view = ScaledImage(strip, scale)
    whole = np.asarray(Image.fromarray(strip).resize(view.shape[::-1], Image.Resampling.BILINEAR))
    assert np.abs(view.window((0, 0, *view.shape)).astype(int) - whole).max() <= 1
