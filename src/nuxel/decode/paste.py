"""The small masks of detections, drawn at the resolution of the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]

CROSS = ndimage.generate_binary_structure(2, 1)
"""A pixel and its 4-neighbours."""


class Nucleus(NamedTuple):
    """One detection at the size of the image: its window, mask, area in pixels and score; and what was pasted, the
    ``cells`` of a grid of probabilities and the area that it spans."""

    top: int
    left: int
    bottom: int
    right: int
    mask: Mask
    area: int
    score: float
    span: tuple[float, ...]
    cells: NDArray[np.float32]

    @property
    def window(self) -> tuple[slice, slice]:
        return np.s_[self.top : self.bottom, self.left : self.right]

    def probability(self) -> NDArray[np.float32]:
        """That of each pixel of the window."""
        return _interpolated(self.cells, self.span, self[:4]).astype(np.float32)


def paste(
    spans: NDArray[np.float32],
    windows: NDArray[np.intp],
    masks: NDArray[np.float32],
    scores: NDArray[np.float32],
    threshold: float,
) -> Iterator[Nucleus]:
    """The nucleus of each detection that has a pixel in the image, at its resolution.

    Parameters
    ----------
    spans
        ``(N, 4)``: the area that each grid of cells covers, in continuous pixels ``(y0, x0, y1, x1)``.
    windows
        ``(N, 4)``: the pixels of the image in it, half-open.
    masks
        ``(N, M, M)``: probabilities.
    scores
        ``(N,)``.
    threshold
        A pixel belongs to a nucleus where its mask is at least this.
    """
    found = zip(spans.tolist(), windows.tolist(), masks, scores.tolist(), strict=True)
    for span, (top, left, bottom, right), cells, score in found:
        if bottom <= top or right <= left:
            continue
        padded = np.zeros((bottom - top + 2, right - left + 2), bool)
        values = _interpolated(cells, span, (top, left, bottom, right))
        np.greater_equal(values, threshold, out=padded[1:-1, 1:-1])
        # Holes are the background that is not connected to the frame.
        gaps = ndimage.label(~padded, CROSS)[0]
        whole = largest_region((gaps != gaps[0, 0])[1:-1, 1:-1])
        yield Nucleus(
            top, left, bottom, right, whole, int(np.count_nonzero(whole)), score, tuple(span), cells
        )


def _interpolated(
    cells: NDArray[np.float32], span: Sequence[float], window: tuple[int, int, int, int]
) -> NDArray[np.float64]:
    """What a grid of cells that spans an area gives to each pixel of a window."""
    (y0, x0, y1, x1), (top, left, bottom, right) = span, window
    rows = _weights(top, bottom, y0, y1, len(cells))
    columns = _weights(left, right, x0, x1, len(cells))
    return np.asarray(rows @ cells @ columns.T)


def _weights(first: int, stop: int, start: float, end: float, cells: int) -> NDArray[np.float64]:
    """``(stop - first, cells)``: what each cell between ``start`` and ``end`` gives to each pixel."""
    places = (np.arange(first, stop) + (0.5 - start)) * (cells / (end - start)) - 0.5
    distance = np.abs(places.clip(0, cells - 1)[:, None] - np.arange(cells))
    return np.asarray(np.maximum(1 - distance, 0))


def largest_region(mask: Mask) -> Mask:
    """The largest 4-connected region of a mask, the first of equal ones."""
    regions, count = ndimage.label(mask, CROSS)
    if count < 2:
        return mask
    return np.asarray(regions == 1 + np.bincount(regions.ravel())[1:].argmax())
