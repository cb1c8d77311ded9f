"""Polygons turned into pixels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.draw import polygon as skimage_polygon

from nuxel.labels.polygons import paint_polygons, polygon_runs


def filled(polygon, shape):
    """How many runs of the polygon hold each pixel."""
    runs = polygon_runs([np.asarray(polygon, float)], shape)
    image = np.zeros(shape, int)
    for row, start, stop in zip(runs.row, runs.start, runs.stop, strict=True):
        image[row, start:stop] += 1
    return image


def winding(polygon, shape):
    """How often the polygon goes around each pixel centre: the angle that it sweeps, pixel by pixel."""
    rows, columns = np.indices(shape) + 0.5
    away = [np.arctan2(y - rows, x - columns) for y, x in [*polygon, polygon[0]]]
    swept = sum((b - a + np.pi) % (2 * np.pi) - np.pi for a, b in pairwise(away))
    return np.round(swept / (2 * np.pi))


def star(rng, corners, middle, radius):
    """A polygon without crossings."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    reach = rng.uniform(0.3, 1, corners) * radius
    return np.stack([middle + reach * np.sin(angle), middle + reach * np.cos(angle)], axis=1)


@pytest.mark.parametrize("seed", range(40))
def test_inside_is_where_the_polygon_winds_around_the_centre(seed):
    rng = np.random.default_rng(seed)
    polygon = rng.uniform(-3, 15, (rng.integers(3, 12), 2))
    np.testing.assert_array_equal(filled(polygon, (12, 10)), winding(polygon, (12, 10)) != 0)


@pytest.mark.parametrize("seed", range(20))
def test_as_scikit_image_where_nothing_crosses(seed):
    polygon = star(np.random.default_rng(seed), 20, 12.0, 14.0)
    expected = np.zeros((24, 25), int)
    expected[skimage_polygon(*(polygon.T - 0.5), expected.shape)] = 1
    np.testing.assert_array_equal(filled(polygon, expected.shape), expected)


def test_a_pixel_spans_from_its_number_to_the_next():
    square = [[2, 3], [2, 7], [5, 7], [5, 3]]
    expected = np.zeros((8, 9), int)
    expected[2:5, 3:7] = 1
    np.testing.assert_array_equal(filled(square, (8, 9)), expected)


@given(
    centre=st.tuples(st.integers(1, 15), st.integers(1, 15)),
    rim=st.lists(st.integers(0, 31), min_size=3, max_size=10, unique=True),
)
def test_polygons_with_common_sides_share_every_pixel_out(centre, rim):
    # corners on half pixels, so that many sides run through pixel centres
    around = [(0, i) for i in range(8)] + [(i, 8) for i in range(8)]
    around += [(8, 8 - i) for i in range(8)] + [(8 - i, 0) for i in range(8)]
    middle = np.array(centre) / 2
    corners = sorted({0, 8, 16, 24, *rim})
    total = np.zeros((8, 8), int)
    for a, b in pairwise([*corners, 32]):
        total += filled([middle, around[a], around[b % 32]], (8, 8))
    np.testing.assert_array_equal(total, 1)


@pytest.mark.parametrize("seed", range(10))
def test_neither_start_nor_direction_nor_closing_matters(seed):
    polygon = np.round(np.random.default_rng(seed).uniform(0, 9, (7, 2)) * 2) / 2
    expected = filled(polygon, (9, 9))
    for same in (polygon[::-1], np.roll(polygon, 3, axis=0), np.vstack([polygon, polygon[:1]])):
        np.testing.assert_array_equal(filled(same, (9, 9)), expected)


@pytest.mark.parametrize("seed", range(10))
def test_what_lies_beyond_the_image_is_cut_off(seed):
    polygon = np.random.default_rng(seed).uniform(-20, 30, (6, 2))
    whole = filled(polygon + 20, (50, 50))
    np.testing.assert_array_equal(filled(polygon, (9, 7)), whole[20:29, 20:27])


def test_an_outline_that_runs_over_its_beginning_has_no_hole():
    once = [[1, 1], [1, 9], [9, 9], [9, 1]]
    again = [*once, *once[:3], [5, 5]]
    np.testing.assert_array_equal(filled(again, (10, 10)), filled(once, (10, 10)))


def test_both_halves_of_an_eight_are_inside():
    eight = filled([[0, 0], [0, 6], [8, 0], [8, 6]], (8, 6))
    assert eight[0].tolist() == eight[7].tolist() == [1] * 6
    assert eight.sum() == 24


def test_a_hole_joined_to_the_outside_by_a_cut_stays_a_hole():
    outer, inner = [[0, 0], [0, 6], [6, 6], [6, 0], [0, 0]], [[2, 2], [4, 2], [4, 4], [2, 4], [2, 2]]
    expected = np.ones((6, 6), int)
    expected[2:4, 2:4] = 0
    np.testing.assert_array_equal(filled(outer + inner, (6, 6)), expected)


@pytest.mark.parametrize(
    "polygons", [[], [np.empty((0, 2))], [np.ones((1, 2))], [np.array([[1.0, 1], [3, 3], [2, 2]])]]
)
def test_what_encloses_nothing_has_no_pixels(polygons):
    assert len(polygon_runs(polygons, (5, 5))) == 0
    assert paint_polygons(polygons, (5, 5)).tolist() == [[0] * 5] * 5


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0)])
def test_an_image_without_pixels(shape):
    assert paint_polygons([np.array([[0.0, 0], [0, 3], [3, 3]])], shape).shape == shape


def square(top, left, side, width=None):
    bottom, right = top + side, left + (width or side)
    return np.array([[top, left], [top, right], [bottom, right], [bottom, left]], float)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_none_of_nested_polygons_is_lost(order):
    nested = [square(0, 0, 9), square(2, 2, 5), square(3, 3, 1)]
    labels = paint_polygons([nested[i] for i in order], (9, 9))
    assert [(labels == 1 + order.index(i)).sum() for i in range(3)] == [81 - 25, 25 - 1, 1]


def test_the_smaller_of_two_that_overlap_is_whole():
    assert paint_polygons([square(0, 0, 1, 4), square(0, 2, 1, 6)], (1, 9)).tolist() == [
        [1, 1, 1, 1, 2, 2, 2, 2, 0]
    ]


def test_the_smaller_is_the_one_with_fewer_pixels_in_the_image():
    large_outside = square(0, -20, 1, 23)
    assert paint_polygons([square(0, 0, 1, 5), large_outside], (1, 6)).tolist() == [[2, 2, 2, 1, 1, 0]]


def test_of_the_same_polygon_twice_the_later_remains():
    assert np.unique(paint_polygons([square(1, 1, 3)] * 2, (5, 5))).tolist() == [0, 2]


def test_too_small_for_any_centre_is_one_pixel_on_top():
    speck, sliver = square(2.6, 2.6, 0.2), np.array([[0.1, 0.6], [4.9, 0.7], [4.9, 0.8]])
    labels = paint_polygons([speck, square(0, 0, 5), sliver], (5, 5))
    assert np.argwhere(labels == 1).tolist() == [[2, 2]]
    assert np.argwhere(labels == 3).tolist() == [[3, 0]]


def test_too_small_and_outside_is_nothing():
    specks = [square(-0.3, 2.6, 0.2), square(2.6, 5.1, 0.2), square(5.1, 2.6, 0.2), square(2.6, -0.3, 0.2)]
    assert not paint_polygons(specks, (5, 5)).any()


@pytest.mark.parametrize("seed", range(5))
def test_painting_is_drawing_one_after_the_other_from_large_to_small(seed):
    rng = np.random.default_rng(seed)
    polygons = [star(rng, 12, rng.uniform(0, 40), rng.uniform(2, 15)) for _ in range(30)]
    masks = [filled(polygon, (40, 40)) > 0 for polygon in polygons]
    expected = np.zeros((40, 40), int)
    for number in sorted(range(30), key=lambda i: (-masks[i].sum(), i)):
        expected[masks[number]] = number + 1
    labels = paint_polygons(polygons, (40, 40))
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, expected)


# ---- the curve ------------------------------------------------------------------------------------------
