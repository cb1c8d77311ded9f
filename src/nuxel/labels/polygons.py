"""Polygons as pixels.

A point is (row, column) and pixel ``(r, c)`` covers ``[r, r + 1) x [c, c + 1)``, so its centre is
``(r + 0.5, c + 0.5)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nuxel.labels.runs import Runs

Points = NDArray[np.float64]


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
    labels.ravel()[pixels_of(runs, shape[1])] = np.repeat(runs.value + 1, runs.stop - runs.start)
    for place in np.flatnonzero(area == 0).tolist():
        if len(polygons[place]):
            row, column = np.floor(polygons[place].mean(axis=0)).tolist()
            if 0 <= row < shape[0] and 0 <= column < shape[1]:
                labels[int(row), int(column)] = place + 1
    return labels


def _encloses(polygon: Points) -> bool:
    """Whether the corners do not all lie on one line."""
    return len(polygon) > 2 and int(np.linalg.matrix_rank(polygon - polygon[0])) == 2


def pixels_of(runs: Runs, width: int) -> NDArray[np.int64]:
    """Places of the pixels of runs in the flat image, in the order of the runs."""
    length = runs.stop - runs.start
    begin = runs.row * width + runs.start
    return np.repeat(begin - np.cumsum(length) + length, length) + np.arange(length.sum())
