"""Watershed by flooding: markers grow over a landscape, lowest ground first, and meet at the ridges.

Source: F. Meyer, "Topographic distance and watershed lines" (1994): flooding with an ordered queue. Here whole
fronts of pixels move at once, which NumPy does fast: the landscape is cut into steps, within a step every front
advances by one pixel a round, and where two arrive at a pixel in the same round the lower label takes it.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

STEP = 16
"""Height of one step of the landscape; differences below it do not decide which front is first."""

_LABEL_BITS = 31  # of a 64-bit number, which leaves as many as any image needs for the pixel
_LABEL = (1 << _LABEL_BITS) - 1


def flood(
    height: NDArray[np.int16], markers: NDArray[np.int32], inside: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Grow markers over a landscape.

    Parameters
    ----------
    height
        ``(H, W)`` int16, the landscape.
    markers
        ``(H, W)`` int32, positive where flooding starts; markers outside of ``inside`` are left out.
    inside
        ``(H, W)`` bool; nothing is flooded elsewhere.

    Returns
    -------
    ``(H, W)`` int32: each pixel that a marker reaches through ``inside`` by 4-neighbours has the label of one that
    does, all others 0.

    Examples
    --------
    >>> height = np.array([[0, 0, 90, 0, 0]], np.int16)
    >>> markers = np.array([[1, 0, 0, 0, 2]], np.int32)
    >>> flood(height, markers, np.ones((1, 5), bool)).tolist()
    [[1, 1, 1, 2, 2]]
    """
    # A border of one pixel that is never open, so that a neighbour's flat index is an addition.
    labels = np.pad(np.where(inside, markers, 0), 1)
    closed = ~np.pad(inside, 1)
    levels = np.pad(height, 1).ravel() // STEP
    flat, closed_flat = labels.ravel(), closed.ravel()
    seeds = np.flatnonzero(flat != 0)
    closed_flat[seeds] = True
    steps = np.array([1, -1, labels.shape[1], -labels.shape[1]])
    waiting: dict[int, list[NDArray[np.intp]]] = defaultdict(list)
    _wait(waiting, seeds, levels[seeds])
    while waiting:
        level = min(waiting)
        front = np.concatenate(waiting.pop(level))
        while front.size:
            front = _advance(front, flat, closed_flat, steps)
            reached = levels[front]
            _wait(waiting, front[reached > level], reached[reached > level])
            front = front[reached <= level]
    return labels[1:-1, 1:-1]


def _advance(
    front: NDArray[np.intp], labels: NDArray[np.int32], closed: NDArray[np.bool_], steps: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Let a front take its open neighbours; returns them, each once."""
    neighbours = front + steps[:, None]
    claims = np.broadcast_to(labels[front], neighbours.shape)
    free = ~closed[neighbours]
    # one number of both, because sorting those is several times as fast as sorting pairs
    claimed = neighbours[free] << _LABEL_BITS | claims[free]
    claimed.sort()
    pixels = claimed >> _LABEL_BITS
    first = np.ones(len(pixels), bool)
    first[1:] = pixels[1:] != pixels[:-1]
    taken: NDArray[np.intp] = pixels[first]
    labels[taken] = claimed[first] & _LABEL
    closed[taken] = True
    return taken


def _wait(
    waiting: dict[int, list[NDArray[np.intp]]], pixels: NDArray[np.intp], levels: NDArray[np.int16]
) -> None:
    """Queue pixels for the time when the flood has risen to their level."""
    if not levels.size:
        return
    order = np.argsort(levels, kind="stable")
    pixels, levels = pixels[order], levels[order]
    starts = [0, *(np.flatnonzero(levels[1:] != levels[:-1]) + 1).tolist()]
    for start, stop, level in zip(starts, [*starts[1:], None], levels[starts].tolist(), strict=True):
        waiting[level].append(pixels[start:stop])
