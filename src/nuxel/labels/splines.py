"""Nuclei as smooth closed curves.

Everywhere here a point is (row, column) and pixel ``(r, c)`` covers ``[r, r + 1) x [c, c + 1)``, so its centre is
``(r + 0.5, c + 0.5)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import BSpline, CubicSpline
from scipy.sparse import csr_array
from scipy.sparse.linalg import spsolve

from nuxel.errors import UsageError
from nuxel.labels.polygons import Points, paint_polygons, pixels_of, polygon_runs
from nuxel.labels.relabel import relabel

LEAST_IOU = 0.95
"""A fitted spline covers the pixels of its nucleus with an IoU above this."""

_EIGHT = np.ones((3, 3), bool)
_FEWEST = 3  # control points of a closed curve
_STEPS = (
    32  # straight pieces between two control points when a spline is turned into pixels: far below a pixel
)
_DIGITS = 3  # decimals of fitted control points, which are all that a file needs to hold
_CORNERS = 8
_LONG = 4000  # pixel sides: five times those of a nucleus of 200 px


@dataclass(frozen=True, eq=False)
class Spline:
    """A closed curve through its control points: a periodic cubic spline with one unit of parameter between two.

    The curve has continuous curvature everywhere, and its control points alone determine it, so that they are all that
    has to be stored or moved by hand.

    Parameters
    ----------
    control
        ``(N, 2)`` float64 control points on the curve, in order around it; N is at least 3.

    Raises
    ------
    ValueError
        If ``control`` is anything else, or not finite.

    Examples
    --------
    >>> circle = Spline(np.array([[0.0, 4.0], [4.0, 8.0], [8.0, 4.0], [4.0, 0.0]]))
    >>> circle.points(8).round(1).tolist()[:3]
    [[0.0, 4.0], [1.2, 6.8], [4.0, 8.0]]
    >>> int(circle.rasterise((8, 8)).sum())
    52
    """

    control: Points

    def __post_init__(self) -> None:
        shape = self.control.shape
        if len(shape) != 2 or shape[0] < _FEWEST or shape[1] != 2 or not np.isfinite(self.control).all():
            raise ValueError(f"control points must be (N, 2) finite numbers with N >= {_FEWEST}, got {shape}")

    def points(self, count: int) -> Points:
        """``(count, 2)`` float64 points on the curve, the first control point first, the last not equal to it."""
        size = len(self.control)
        curve = CubicSpline(
            np.arange(size + 1), np.concatenate([self.control, self.control[:1]]), bc_type="periodic"
        )
        points: Points = curve(np.linspace(0, size, count, endpoint=False))
        return points

    def polygon(self) -> Points:
        """``(8 N, 2)`` corners on the curve, which leaves their chords by far less than a pixel."""
        return self.points(_CORNERS * len(self.control))

    def rasterise(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """The pixels inside, as ``(H, W)`` bool of this shape; see :func:`polygon_runs`."""
        runs = polygon_runs([self.points(_STEPS * len(self.control))], shape)
        mask = np.zeros(shape, bool)
        mask.ravel()[pixels_of(runs, shape[1])] = True
        return mask


def splines_of(labels: NDArray[Any], tolerance: float = 1.0) -> dict[int, Spline]:
    """A spline for each nucleus of a label image, under its number, in rising order; see :func:`fit_spline`.

    Parameters
    ----------
    labels
        ``(H, W)`` integers: 0 is background, negative is not annotated. Numbers may be missing.
    tolerance
        In pixels.

    Examples
    --------
    >>> splines_of(np.array([[7, 7, 0, 3], [7, 7, 0, -1]])).keys()
    dict_keys([3, 7])
    """
    numbers = np.unique(labels[labels > 0]).tolist()
    numbered = relabel(labels)
    splines = {}
    for place, box in enumerate(ndimage.find_objects(numbered), 1):
        spline = fit_spline(numbered[box] == place, tolerance)
        splines[numbers[place - 1]] = Spline(spline.control + np.array([side.start for side in box]))
    return splines


def fit_spline(mask: NDArray[np.bool_], tolerance: float = 1.0) -> Spline:
    """The smooth closed curve around a nucleus with few control points.

    It is fitted by least squares to the middles of the pixel sides around the nucleus, control points at equal
    distances along them, and has the fewest control points with which

    - each of these middles lies within ``tolerance`` of the curve, and
    - the curve, and its polygon, enclose the nucleus' pixels with an IoU above 0.95 (:data:`LEAST_IOU`).

    Where even one control point to two middles is not enough, it goes through all of them. Control points have three
    decimals. Of more than 4,000 middles the number of control points is the fewest to within an eighth.

    Holes are filled. Of a nucleus in several pieces (not even diagonal neighbours) the largest piece is taken.

    Parameters
    ----------
    mask
        ``(H, W)`` bool, with at least one pixel. A nucleus that reaches the edge of the array ends there.
    tolerance
        In pixels, above 0. With 1, half of the nuclei in the 2018 Data Science Bowl need 9 control points or fewer;
        with 0.5, 19.

    Returns
    -------
    The spline in coordinates of ``mask``.

    Raises
    ------
    UsageError
        If the tolerance is not a positive number.
    ValueError
        If the mask is not two-dimensional or is empty.

    Examples
    --------
    >>> rows, columns = np.mgrid[:30, :40]
    >>> disc = (rows - 14) ** 2 + (columns - 20) ** 2 < 10**2
    >>> len(fit_spline(disc).control)
    4
    """
    if not (tolerance > 0 and math.isfinite(tolerance)):
        raise UsageError(f"the tolerance must be a positive number of pixels, got {tolerance}")
    if mask.ndim != 2 or not mask.any():
        raise ValueError(
            f"a nucleus must be (H, W) with at least one pixel, got {mask.shape}, {mask.sum()} pixels"
        )
    # room for a curve that leaves the box of its nucleus
    margin = min(math.ceil(tolerance), max(mask.shape)) + 1
    nucleus = np.pad(_solid(mask), margin)
    outline = _outline(nucleus)
    along = np.cumsum(np.linalg.norm(outline - np.roll(outline, 1, axis=0), axis=1))
    along /= along[-1]
    # with fewer than two points to each control point the fit is no longer well determined
    count, most = _FEWEST, len(outline) // 2
    while count <= most:
        control, distances = _least_squares(outline, along * count, count)
        spline = Spline(control.round(_DIGITS))
        if distances.max() <= tolerance and _encloses(spline, nucleus):
            return Spline((spline.control - margin).round(_DIGITS))
        count += max(1, count // 8) if len(outline) > _LONG else 1
    return Spline(outline - margin)


def _encloses(spline: Spline, nucleus: NDArray[np.bool_]) -> bool:
    """Whether the curve and its polygon both show the nucleus."""
    shape = nucleus.shape[0], nucleus.shape[1]
    if _iou(spline.rasterise(shape), nucleus) <= LEAST_IOU:
        return False
    return _iou(paint_polygons([spline.polygon()], shape) > 0, nucleus) > LEAST_IOU


def _least_squares(points: Points, place: Points, count: int) -> tuple[Points, Points]:
    """The control points of the closed spline that comes closest to ``points`` at these places, and how close to each.

    By way of periodic B-splines: each reaches over four units only, so that the work grows with the points alone.
    """
    pieces = BSpline.design_matrix(place, np.arange(-3.0, count + 4), 3)
    basis = csr_array((pieces.data, pieces.indices % count, pieces.indptr), shape=(len(points), count))
    weights: Points = spsolve((basis.T @ basis).tocsc(), basis.T @ points)
    control = (weights + 4 * np.roll(weights, -1, axis=0) + np.roll(weights, -2, axis=0)) / 6
    return control, np.linalg.norm(basis @ weights - points, axis=1)


def _solid(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest 8-connected piece of a mask, without holes."""
    pieces, count = ndimage.label(mask, _EIGHT)
    if count > 1:
        mask = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    solid: NDArray[np.bool_] = ndimage.binary_fill_holes(mask)
    return solid


def _outline(mask: NDArray[np.bool_]) -> Points:
    """The middles of the pixel sides around an 8-connected mask without holes or pixels at the edge: ``(P, 2)``.

    Walks from corner to corner of pixels with the mask at the right hand.
    """
    inside = mask.tolist()
    row, column = start = divmod(int(mask.argmax()), mask.shape[1])
    down, right = 0, 1
    middles = []
    while True:
        middles.append((row + down / 2, column + right / 2))
        row, column = row + down, column + right
        if (row, column) == start:
            return np.array(middles)
        # of the two pixels ahead, the one at the left hand, then the one at the right
        if inside[row + (down - right - 1) // 2][column + (right + down - 1) // 2]:
            down, right = -right, down
        elif not inside[row + (down + right - 1) // 2][column + (right - down - 1) // 2]:
            down, right = right, -down


def _iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)
