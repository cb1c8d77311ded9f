"""Nuclei as smooth closed curves, and closed curves back to pixels.

Everywhere here a point is (row, column) and pixel ``(r, c)`` covers ``[r, r + 1) x [c, c + 1)``, so its centre is
``(r + 0.5, c + 0.5)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import BSpline, CubicSpline
from scipy.sparse import csr_array
from scipy.sparse.linalg import spsolve

from nuxel.errors import UsageError
from nuxel.labels.relabel import relabel
from nuxel.labels.runs import Runs

Points = NDArray[np.float64]

LEAST_IOU = 0.95
"""A fitted spline covers the pixels of its nucleus with an IoU above this."""

_EIGHT = np.ones((3, 3), bool)
_FEWEST = 3  # control points of a closed curve
_STEPS = (
    32  # straight pieces between two control points when a spline is turned into pixels: far below a pixel
)


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

    def rasterise(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """The pixels inside, as ``(H, W)`` bool of this shape; see :func:`polygon_runs`."""
        runs = polygon_runs([self.points(_STEPS * len(self.control))], shape)
        mask = np.zeros(shape, bool)
        mask.ravel()[_pixels(runs, shape[1])] = True
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
    - the curve encloses the nucleus' pixels with an IoU above 0.95 (:data:`LEAST_IOU`).

    Where even one control point to two middles is not enough, it goes through all of them.

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
    for count in range(_FEWEST, len(outline) // 2 + 1):
        control, distances = _least_squares(outline, along * count, count)
        if (
            distances.max() <= tolerance
            and _iou(Spline(control).rasterise(nucleus.shape), nucleus) > LEAST_IOU
        ):
            return Spline(control - margin)
    return Spline(outline - margin)


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


def polygon_runs(polygons: Sequence[Points], shape: tuple[int, int]) -> Runs:
    """The pixels of an image whose centres lie inside each of many polygons.

    Inside is where the polygon winds around a point in one sense more often than in the other: an outline that runs
    over its own beginning, as drawn by hand, has no hole there. Of two polygons on either side of a common line, one
    gets the pixel whose centre lies on it.

    Parameters
    ----------
    polygons
        ``(V, 2)`` float64 corners each, open or closed, clockwise or not, anywhere; V may be 0.
    shape
        ``(H, W)`` of the image; what lies beyond it is left out.

    Returns
    -------
    Runs whose value is the place of the polygon in the list, sorted by polygon, row and column. Two runs of one polygon
    may touch and never overlap.

    Examples
    --------
    >>> runs = polygon_runs([np.array([[0.0, 1.0], [0.0, 4.0], [2.0, 4.0], [2.0, 1.0]])], (2, 6))
    >>> [r.tolist() for r in (runs.value, runs.row, runs.start, runs.stop)]
    [[0, 0], [0, 1], [1, 1], [4, 4]]
    """
    corners = np.concatenate([np.empty((0, 2)), *polygons])
    ends = np.concatenate([np.empty((0, 2)), *(np.roll(polygon, -1, axis=0) for polygon in polygons)])
    owner = np.repeat(np.arange(len(polygons)), [len(polygon) for polygon in polygons])
    falls = ends[:, 0] > corners[:, 0]
    # from top to bottom whichever way it is walked, so that neighbours agree on a common side to the last bit
    top = np.where(falls[:, None], corners, ends)
    bottom = np.where(falls[:, None], ends, corners)
    first, stop = (np.clip(np.ceil(end[:, 0] - 0.5), 0, shape[0]).astype(np.int64) for end in (top, bottom))
    side = np.repeat(np.arange(len(corners)), stop - first)
    row = np.arange(len(side)) - np.repeat(np.cumsum(stop - first) - stop, stop - first)
    share = (row + 0.5 - top[side, 0]) / (bottom[side, 0] - top[side, 0])
    crossing = top[side, 1] + share * (bottom[side, 1] - top[side, 1])
    column = np.clip(np.ceil(crossing - 0.5), 0, shape[1]).astype(np.int64)

    order = np.lexsort((column, row, owner[side]))
    value, row, column = owner[side][order], row[order], column[order]
    # back at 0 at the end of each row of each polygon, since what goes down comes up again
    winding = np.cumsum(np.where(falls, 1, -1)[side][order])
    inside = np.flatnonzero((winding[:-1] != 0) & (column[1:] > column[:-1]))
    return Runs(value[inside], row[inside], column[inside], column[inside + 1])


def paint_polygons(polygons: Sequence[Points], shape: tuple[int, int]) -> NDArray[np.int32]:
    """A label image in which the polygon at place i of the list has the number ``i + 1``.

    Smaller ones (in pixels) lie on top of larger ones, so that one inside another is not lost, and of equally large
    ones the later. A polygon so small or thin that it holds the centre of no pixel gets the one pixel in the middle of
    its corners. Without a pixel remain polygons whose corners all lie on one line, which enclose nothing; those beyond
    the image; those drawn twice, but for the last time; and those that several others hide together.

    Parameters
    ----------
    polygons, shape
        As for :func:`polygon_runs`.

    Returns
    -------
    ``(H, W)`` int32.

    Examples
    --------
    >>> square = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    >>> paint_polygons([square + 1, 3 * square, square + [0, 4]], (3, 5)).tolist()
    [[2, 2, 2, 0, 3], [2, 1, 2, 0, 0], [2, 2, 2, 0, 0]]
    """
    polygons = [polygon if _encloses(polygon) else polygon[:0] for polygon in polygons]
    runs = polygon_runs(polygons, shape)
    area = np.bincount(runs.value, weights=runs.stop - runs.start, minlength=len(polygons))
    order = np.argsort(-area[runs.value], kind="stable")
    runs = Runs(runs.value[order], runs.row[order], runs.start[order], runs.stop[order])
    labels = np.zeros(shape, np.int32)
    # where a pixel comes several times the last counts
    labels.ravel()[_pixels(runs, shape[1])] = np.repeat(runs.value + 1, runs.stop - runs.start)
    for place in np.flatnonzero(area == 0).tolist():
        if len(polygons[place]):
            row, column = np.floor(polygons[place].mean(axis=0)).tolist()
            if 0 <= row < shape[0] and 0 <= column < shape[1]:
                labels[int(row), int(column)] = place + 1
    return labels


def _encloses(polygon: Points) -> bool:
    """Whether the corners do not all lie on one line."""
    return len(polygon) > 2 and int(np.linalg.matrix_rank(polygon - polygon[0])) == 2


def _pixels(runs: Runs, width: int) -> NDArray[np.int64]:
    """Places of the pixels of runs in the flat image, in the order of the runs."""
    length = runs.stop - runs.start
    begin = runs.row * width + runs.start
    return np.repeat(begin - np.cumsum(length) + length, length) + np.arange(length.sum())
