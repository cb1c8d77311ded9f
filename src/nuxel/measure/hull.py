"""Areas of convex hulls, for all nuclei at once and in exact integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nuxel.labels.runs import Runs


def find_hull_areas(runs: Runs, boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pixels within the convex hull of each nucleus.

    The definition is that of scikit-image's ``convex_hull_image``: the hull is spanned by the middles of the
    four sides of each pixel, and a pixel counts when its centre is inside or on the hull.

    Parameters
    ----------
    runs
        The runs of the nuclei 1..N.
    boxes
        ``(N, 4)`` half-open boxes of the nuclei.

    Returns
    -------
    ``(N,)`` int64, never smaller than the areas of the nuclei.
    """
    nucleus = runs.value - 1
    heights = boxes[:, 2] - boxes[:, 0]
    first_line = np.cumsum(heights) - heights
    line = first_line[nucleus] + runs.row - boxes[nucleus, 0]
    owner = np.repeat(np.arange(len(boxes)), heights)
    # The furthest pixel of each line of each nucleus, to the right and to the left of its box; a line without
    # pixels keeps -1, which no hull reaches down to.
    reach_right = np.full(len(owner), -1, np.int64)
    reach_left = np.full(len(owner), -1, np.int64)
    np.maximum.at(reach_right, line, runs.stop - 1 - boxes[nucleus, 1])
    np.maximum.at(reach_left, line, boxes[nucleus, 3] - 1 - runs.start)
    widths = boxes[owner, 3] - boxes[owner, 1]
    across = _hull_reach(reach_right, owner) + _hull_reach(reach_left, owner) - widths + 2
    return np.bincount(owner, weights=across, minlength=len(boxes)).astype(np.int64)


def _hull_reach(reach: NDArray[np.int64], owner: NDArray[np.int64]) -> NDArray[np.int64]:
    """How far the hull reaches on each line, in whole pixels, given how far the pixels do.

    Works on half-pixel steps, so that the middles of pixel sides have whole numbers: a nucleus of h lines has
    the places 0..2h, with the centre of line ``i`` at ``2 i + 1``. Nuclei lie one behind the other.
    """
    centre = 2 * np.arange(len(reach)) + owner + 1
    size = 2 * len(reach) + (int(owner[-1]) + 1 if len(owner) else 0)
    outline = np.full(size, -2, np.int64)
    outline[centre - 1] = 2 * reach
    outline[centre + 1] = np.maximum(outline[centre + 1], 2 * reach)
    outline[centre] = 2 * reach + 1
    is_end = np.zeros(size, bool)
    new = np.flatnonzero(np.diff(owner, prepend=-1))
    is_end[centre[new] - 1] = True
    is_end[centre[new[1:] - 1] + 1] = True
    is_end[-1:] = True

    corner = _concave_corners(outline, is_end)
    after = np.searchsorted(corner, centre, side="right")
    left, right = corner[after - 1], corner[after]
    rise = (outline[right] - outline[left]) * (centre - left)
    whole: NDArray[np.int64] = (outline[left] * (right - left) + rise) // (2 * (right - left))
    return whole


def _concave_corners(outline: NDArray[np.int64], is_end: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Places of the corners of the upper hull of each piece of ``outline``; pieces lie between ends.

    A point on or below the line between its two neighbours is no corner, whichever points go with it, so all
    such points go at once, until none is left.
    """
    corner = np.arange(len(outline))
    while True:
        height = outline[corner]
        step, rise = np.diff(corner), np.diff(height)
        keep = is_end[corner]
        keep[1:-1] |= rise[:-1] * step[1:] > rise[1:] * step[:-1]
        if keep.all():
            return corner
        corner = corner[keep]
