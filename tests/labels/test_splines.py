"""Splines around nuclei."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from scipy.interpolate import CubicSpline, make_interp_spline
from skimage.measure import find_contours

from nuxel.errors import UsageError
from nuxel.labels import splines
from nuxel.labels.polygons import paint_polygons
from nuxel.labels.splines import LEAST_IOU, Spline, fit_spline, splines_of

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "dsb2018" / "labels"
EIGHT = np.ones((3, 3), bool)
CONTROL = np.array([[3.0, 4.0], [2.0, 11.5], [9.0, 14.0], [13.0, 8.0], [8.0, 5.0]])


def winding(polygon, shape):
    """How often the polygon goes around each pixel centre: the angle that it sweeps, pixel by pixel."""
    rows, columns = np.indices(shape) + 0.5
    away = [np.arctan2(y - rows, x - columns) for y, x in [*polygon, polygon[0]]]
    swept = sum((b - a + np.pi) % (2 * np.pi) - np.pi for a, b in pairwise(away))
    return np.round(swept / (2 * np.pi))


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def solid(mask):
    """The largest piece without holes, by definition: what is cut off from the edge by it."""
    pieces, count = ndimage.label(mask, EIGHT)
    sizes = [(pieces == piece).sum() for piece in range(1, count + 1)]
    outside, _ = ndimage.label(np.pad(pieces != 1 + int(np.argmax(sizes)), 1, constant_values=True))
    return (outside != outside[0, 0])[1:-1, 1:-1]


def middles(mask):
    """The middles of the pixel sides around a mask: scikit-image's contour at one half."""
    (contour,) = find_contours(np.pad(solid(mask), 1).astype(float), 0.5, fully_connected="high")
    return contour[:-1] - 0.5


def farthest(points, spline):
    """The largest distance from the points to the curve."""
    curve = spline.points(100 * len(spline.control))
    return max(np.linalg.norm(curve - point, axis=1).min() for point in points)


def blob(seed, side=14):
    """A ragged mask: often with holes, several pieces and thin parts, at times reaching the edge."""
    rng = np.random.default_rng(seed)
    mask = ndimage.gaussian_filter(rng.normal(size=(side, side)), rng.uniform(0.5, 3)) > 0
    mask[rng.integers(side), rng.integers(side)] = True
    return mask


# ---- polygons to pixels ---------------------------------------------------------------------------------


def test_it_passes_through_its_control_points():
    np.testing.assert_allclose(Spline(CONTROL).points(35)[::7], CONTROL, atol=1e-12)


def test_it_is_the_periodic_cubic_spline():
    reference = make_interp_spline(np.arange(6), np.vstack([CONTROL, CONTROL[:1]]), k=3, bc_type="periodic")
    np.testing.assert_allclose(Spline(CONTROL).points(41), reference(np.arange(41) * 5 / 41), atol=1e-12)


def test_it_is_smooth_everywhere_and_at_its_ends_as_elsewhere():
    curve = Spline(CONTROL).points(5000)
    ahead = np.roll(curve, -1, axis=0)
    bend = ahead + np.roll(curve, 1, axis=0) - 2 * curve
    # continuous: the second difference changes by little from point to point
    assert np.abs(np.roll(bend, -1, axis=0) - bend).max() < 0.005 * np.abs(bend).max()


def test_which_control_point_comes_first_does_not_matter():
    turned = Spline(np.roll(CONTROL, 2, axis=0)).points(50)
    np.testing.assert_allclose(np.roll(turned, -20, axis=0), Spline(CONTROL).points(50), atol=1e-12)


@pytest.mark.parametrize(
    "control",
    [np.zeros((2, 2)), np.zeros((4, 3)), np.zeros(4), np.full((4, 2), np.nan), np.full((3, 2), np.inf)],
)
def test_what_are_no_control_points(control):
    with pytest.raises(ValueError, match="control points must be"):
        Spline(control)


def test_its_pixels_are_those_whose_centres_it_encloses():
    spline = Spline(CONTROL)
    expected = winding(spline.points(3000), (16, 17)) != 0
    np.testing.assert_array_equal(spline.rasterise((16, 17)), expected)
    np.testing.assert_array_equal(spline.rasterise((6, 9)), expected[:6, :9])


# ---- fitting --------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), tolerance=st.sampled_from([0.3, 0.5, 1.0, 3.0]))
def test_the_curve_keeps_what_it_promises(seed, tolerance):
    mask = blob(seed)
    spline = fit_spline(mask, tolerance)
    assert iou(spline.rasterise(mask.shape), solid(mask)) > 0.95
    assert farthest(middles(mask), spline) <= tolerance + 0.001


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_the_curve_through_all_middles_encloses_exactly_the_pixels(seed):
    mask = blob(seed)
    spline = fit_spline(mask, 1e-9)
    assert sorted(spline.control.tolist()) == sorted(middles(mask).tolist())
    np.testing.assert_array_equal(spline.rasterise(mask.shape), solid(mask))


@pytest.mark.parametrize("seed", range(6))
def test_no_fewer_control_points_would_do(seed):
    mask = solid(blob(seed, side=24))
    spline = fit_spline(mask)
    outline = np.roll(middles(mask), 1, axis=0)
    # the same points, from where and in the direction in which the fit goes
    start = np.argwhere(mask)[0] + [0, 0.5]
    outline = np.roll(outline, -int(np.linalg.norm(outline - start, axis=1).argmin()), axis=0)
    if outline[1][1] < outline[0][1]:
        outline = np.roll(outline[::-1], 1, axis=0)
    along = np.cumsum(np.linalg.norm(outline - np.roll(outline, 1, axis=0), axis=1))
    for count in range(3, len(spline.control) + 1):
        nodes = np.vstack([np.eye(count), np.eye(count)[:1]])
        basis = CubicSpline(np.arange(count + 1), nodes, bc_type="periodic")(along / along[-1] * count)
        control = np.linalg.lstsq(basis, outline)[0]
        close = np.linalg.norm(basis @ control - outline, axis=1).max() <= 1
        written = Spline(control.round(3))
        shown = written.rasterise(mask.shape), paint_polygons([written.polygon()], mask.shape) > 0
        good = close and all(iou(one, mask) > 0.95 for one in shown)
        assert good == (count == len(spline.control))
    np.testing.assert_allclose(spline.control, control, atol=0.0005 + 1e-9)


def test_a_long_ragged_outline_takes_few_fits(monkeypatch):
    """A search one by one would try 2,500 numbers of control points."""
    teeth = np.zeros((60, 500), bool)
    teeth[50:] = True
    teeth[:, ::4] = True
    fits = []
    fit = splines._least_squares
    monkeypatch.setattr(splines, "_least_squares", lambda *given: fits.append(1) or fit(*given))
    spline = fit_spline(teeth)
    assert 0 < len(fits) < 100
    union = spline.rasterise(teeth.shape) | teeth
    assert (spline.rasterise(teeth.shape) & teeth).sum() / union.sum() > LEAST_IOU


def test_a_disc_needs_four():
    rows, columns = np.mgrid[:40, :40]
    spline = fit_spline((rows - 19) ** 2 + (columns - 20) ** 2 < 15**2)
    assert len(spline.control) == 4
    np.testing.assert_allclose(spline.control.mean(axis=0), [19.5, 20.5], atol=0.1)


@pytest.mark.parametrize(
    "picture", ["#", "##", "#########", "#.. .#. ..#", "#.. #.. ###", "##### #...# #...# #####", "#####"]
)
def test_nuclei_of_few_pixels(picture):
    mask = np.array([[mark == "#" for mark in row] for row in picture.split()])
    for nucleus in (mask, mask.T):
        np.testing.assert_array_equal(fit_spline(nucleus, 0.3).rasterise(nucleus.shape), solid(nucleus))
        assert iou(fit_spline(nucleus).rasterise(nucleus.shape), solid(nucleus)) > 0.95


def test_of_several_pieces_the_largest_is_taken():
    mask = np.zeros((20, 20), bool)
    mask[1:3, 1:3] = mask[8:18, 5:17] = True
    mask[11:13, 9:12] = False
    expected = np.zeros((20, 20), bool)
    expected[8:18, 5:17] = True
    assert iou(fit_spline(mask).rasterise(mask.shape), expected) > 0.95


def test_at_the_edge_as_anywhere():
    mask = blob(3)
    mask[:, 0] = mask[0] = True
    inner = fit_spline(np.pad(mask, 7)).control - 7
    np.testing.assert_allclose(fit_spline(mask).control, inner, atol=1e-9)


def test_a_tolerance_larger_than_the_image_still_gives_the_nucleus():
    mask = blob(1)
    assert iou(fit_spline(mask, 1e9).rasterise(mask.shape), solid(mask)) > 0.95


@pytest.mark.parametrize("tolerance", [0, -1, np.nan, np.inf])
def test_no_tolerance(tolerance):
    with pytest.raises(UsageError, match="must be a positive number of pixels"):
        fit_spline(np.ones((3, 3), bool), tolerance)


@pytest.mark.parametrize("mask", [np.zeros((4, 4), bool), np.zeros((0, 3), bool), np.ones((2, 2, 2), bool)])
def test_no_nucleus(mask):
    with pytest.raises(ValueError, match="at least one pixel"):
        fit_spline(mask)


def test_splines_of_a_label_image_lie_where_the_nuclei_are():
    labels = np.full((40, 50), -1)
    labels[:30] = 0
    labels[3:15, 4:20] = 900_000_000
    labels[18:28, 30:50] = 5
    splines = splines_of(labels)
    assert list(splines) == [5, 900_000_000]
    for number, spline in splines.items():
        assert iou(spline.rasterise(labels.shape), labels == number) > 0.95


def test_no_nuclei_no_splines():
    assert splines_of(np.array([[0, -1]])) == {}


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
def test_real_nuclei_come_back():
    counts = []
    for path in sorted(DATA.glob("*.png"))[::80]:
        labels = np.asarray(Image.open(path)).astype(np.int32)
        labels[labels > 15] = 0
        for number, spline in splines_of(labels).items():
            nucleus = labels == number
            assert iou(spline.rasterise(labels.shape), solid(nucleus)) > 0.95, (path, number)
            written = paint_polygons([spline.polygon().round(3)], labels.shape) > 0
            assert iou(written, solid(nucleus)) > 0.95, (path, number)
            if nucleus.sum() >= 30:
                counts.append(len(spline.control))
    assert len(counts) > 60
    assert np.median(counts) <= 10
