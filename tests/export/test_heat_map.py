import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from nuxel.export.heat_map import _COLOURS, draw_heat_map

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def constant(value, shape=(1, 1)):
    return np.full(shape, value, np.float32)


def lab_of_all_values(grey):
    """The 256 values side by side over a plain image, as CIE Lab."""
    image = np.full((1, 256, 3), grey, np.uint8)
    drawn = draw_heat_map(image, np.linspace(0, 1, 256, dtype=np.float32)[None])
    return rgb2lab(drawn)[0]


@pytest.mark.parametrize("value", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 3), (40, 50)])
def test_a_constant_map_gives_every_pixel_the_same_colour(value, shape):
    drawn = draw_heat_map(np.full((20, 30, 3), 90, np.uint8), constant(value, shape))
    assert drawn.shape == (20, 30, 3)
    assert drawn.dtype == np.uint8
    expected = _COLOURS[round(value * 255)] * 2 / 3 + 30
    np.testing.assert_allclose(drawn.reshape(-1, 3), np.broadcast_to(expected, (600, 3)), atol=0.5)


def test_the_ends_of_the_scale():
    black = np.zeros((1, 1, 3), np.uint8)
    white = np.full((1, 1, 3), 255, np.uint8)
    assert draw_heat_map(black, constant(0))[0, 0].tolist() == [5, 19, 48]
    assert draw_heat_map(white, constant(1))[0, 0].tolist() == [252, 246, 170]


@pytest.mark.parametrize("grey", [0, 80, 255])
def test_lightness_rises_with_the_value(grey):
    lightness = lab_of_all_values(grey)[:, 0]
    assert (lightness[2:] > lightness[:-2]).all()  # one step may be lost to whole numbers
    assert lightness[-1] - lightness[0] > 25


def test_equal_steps_of_the_value_are_equal_steps_of_colour():
    lab = rgb2lab(_COLOURS[None] / 255)[0]
    assert (np.diff(lab[:, 0]) > 0.15).all()
    apart = deltaE_ciede2000(lab[16:], lab[:-16])
    assert apart.min() > 0.9 * apart.mean()
    assert apart.max() < 1.12 * apart.mean()


def test_the_image_shows_through_in_grey():
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    drawn = draw_heat_map(image, constant(0.4)).astype(int)
    luminance = image @ np.array([0.299, 0.587, 0.114])
    shown = drawn - drawn.min((0, 1))
    assert (np.ptp(shown, axis=2) == 0).all()
    assert np.abs(shown[..., 0] - (luminance - luminance.min()) / 3).max() < 1.5


def test_values_are_interpolated_between_the_centres_of_their_cells():
    drawn = draw_heat_map(np.zeros((1, 8, 3), np.uint8), np.array([[0, 1]], np.float32))
    expected = np.clip((np.arange(8) + 0.5) / 4 - 0.5, 0, 1)
    channels = [np.interp(expected * 255, np.arange(256), channel) for channel in _COLOURS.T * 2 / 3]
    np.testing.assert_allclose(drawn[0], np.stack(channels, axis=1), atol=1.5)


def test_rows_are_rows():
    values = np.array([[0, 0.5], [1, 1]], np.float32)
    drawn = draw_heat_map(np.zeros((64, 64, 3), np.uint8), values)
    corners = [drawn[y, x].tolist() for y, x in ((0, 0), (0, 63), (63, 0), (63, 63))]
    alone = [draw_heat_map(np.zeros((1, 1, 3), np.uint8), constant(v))[0, 0].tolist() for v in (0, 0.5, 1, 1)]
    assert corners == alone


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (17, 33)])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (17, 33), (60, 60)])
def test_any_size_over_any_size(size, shape):
    values = np.random.default_rng(0).random(shape, np.float32)
    image = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
    drawn = draw_heat_map(image, values)
    assert drawn.shape == image.shape
    np.testing.assert_array_equal(drawn, draw_heat_map(image.copy(), values.copy()))


def test_the_arrays_stay_as_they_were():
    image = np.full((6, 6, 3), 77, np.uint8)
    values = constant(0.3, (6, 6))
    draw_heat_map(image, values)
    assert (image == 77).all()
    assert (values == np.float32(0.3)).all()


def test_a_view_is_drawn_like_a_copy():
    image = np.random.default_rng(0).integers(0, 256, (9, 12, 3)).astype(np.uint8)
    values = np.random.default_rng(1).random((3, 4), np.float32)
    turned = draw_heat_map(image[:, ::-1], values[:, ::-1])
    np.testing.assert_array_equal(turned, draw_heat_map(image[:, ::-1].copy(), values[:, ::-1].copy()))


@pytest.mark.parametrize(
    "image", [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 4), np.uint8), np.zeros((4, 5, 3))]
)
def test_an_image_that_does_not_fit_is_refused(image):
    with pytest.raises(ValueError, match=r"image must be \(H, W, 3\) uint8"):
        draw_heat_map(image, constant(0))


@pytest.mark.parametrize("values", [np.zeros((2, 2)), np.zeros(3, np.float32), np.zeros((0, 4), np.float32)])
def test_a_map_that_does_not_fit_is_refused(values):
    with pytest.raises(ValueError, match=r"values must be \(h, w\) float32"):
        draw_heat_map(np.zeros((4, 5, 3), np.uint8), values)


@pytest.mark.parametrize("value", [-0.01, 1.01, np.nan, np.inf])
def test_values_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match="values must lie between 0 and 1"):
        draw_heat_map(np.zeros((4, 5, 3), np.uint8), np.array([[0.5, value]], np.float32))


def test_attended_nuclei_of_a_real_image_stand_out():
    index = DATA / "dsb2018" / "index.csv"
    if not index.is_file():
        pytest.skip("shared/data/dsb2018 is not here")
    with index.open() as file:
        name = next(
            row["id"] for row in csv.DictReader(file) if row["modality"] == "histology_purple_on_white"
        )
    image = np.asarray(Image.open(index.parent / "images" / f"{name}.png").convert("RGB"))
    nuclei = np.asarray(Image.open(index.parent / "labels" / f"{name}.png")) > 0
    yellow = rgb2lab(draw_heat_map(image, nuclei.astype(np.float32)))[..., 2]
    assert yellow[nuclei].min() > yellow[~nuclei].max()
