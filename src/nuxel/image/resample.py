"""An image at another scale, window by window, every window as if cut from the whole."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Box = tuple[int, int, int, int]

_BLOCK = 256
_MOST_BLOCKS = 128
"""Of 192 KiB each: the halo between two rows of tiles is not resampled twice."""


class ScaledImage:
    """A normalised image seen at ``scale``, without ever holding the whole at that scale.

    Parameters
    ----------
    pixels
        ``(H, W, 3)`` uint8.
    scale
        Pixels of the view per pixel of the image, above 0. The view has at least one pixel a side.

    Examples
    --------
    >>> view = ScaledImage(np.zeros((100, 60, 3), np.uint8), 0.5)
    >>> view.shape, view.window((32, 16, 64, 32)).shape
    ((50, 30), (32, 16, 3))
    """

    def __init__(self, pixels: NDArray[np.uint8], scale: float = 1.0) -> None:
        self.pixels = pixels
        self.full_shape: tuple[int, int] = (pixels.shape[0], pixels.shape[1])
        height, width = (max(1, round(side * scale)) for side in self.full_shape)
        self.shape: tuple[int, int] = (height, width)
        self._blocks: dict[tuple[int, int], NDArray[np.uint8]] = {}

    def window(self, box: Box) -> NDArray[np.uint8]:
        """The part ``(y0, x0, y1, x1)`` of the view; what lies beyond its bottom and right edge is mirrored.

        It is the same, whatever the window.
        """
        (top, y0, beyond), (left, x0, aside) = (
            _mirrored(start, stop, side)
            for start, stop, side in ((box[0], box[2], self.shape[0]), (box[1], box[3], self.shape[1]))
        )
        height, width = box[2] - box[0], box[3] - box[1]
        part = self._part(top, left, height + y0 - beyond, width + x0 - aside)
        if beyond or aside:
            part = np.pad(part, ((0, beyond), (0, aside), (0, 0)), mode="symmetric")
        return part[y0:, x0:]

    def _part(self, y0: int, x0: int, height: int, width: int) -> NDArray[np.uint8]:
        if self.shape == self.full_shape:
            return self.pixels[y0 : y0 + height, x0 : x0 + width]
        part = np.empty((height, width, 3), np.uint8)
        for top in range(y0 - y0 % _BLOCK, y0 + height, _BLOCK):
            for left in range(x0 - x0 % _BLOCK, x0 + width, _BLOCK):
                block = self._block(top, left)
                here = part[max(0, top - y0) : top + _BLOCK - y0, max(0, left - x0) : left + _BLOCK - x0]
                row, column = max(0, y0 - top), max(0, x0 - left)
                here[:] = block[row : row + here.shape[0], column : column + here.shape[1]]
        return part

    def _block(self, y0: int, x0: int) -> NDArray[np.uint8]:
        """The square of the view that begins there, as always resampled by itself.

        Pillow's weights depend on where it begins to read, in the last bit: windows cut as they come differ in single
        grey levels.
        """
        if (y0, x0) not in self._blocks:
            if len(self._blocks) >= _MOST_BLOCKS:  # the oldest: tiles go through the view in order
                self._blocks.pop(next(iter(self._blocks)))
            height, width = (
                min(_BLOCK, side - start) for start, side in zip((y0, x0), self.shape, strict=True)
            )
            rows, top, bottom = _source(y0, height, self.shape[0], self.full_shape[0])
            columns, left, right = _source(x0, width, self.shape[1], self.full_shape[1])
            picture = Image.fromarray(self.pixels[rows, columns])
            size, box = (width, height), (left, top, right, bottom)
            self._blocks[y0, x0] = np.asarray(picture.resize(size, Image.Resampling.BILINEAR, box=box))
        return self._blocks[y0, x0]


def _mirrored(start: int, stop: int, side: int) -> tuple[int, int, int]:
    """Where to begin reading so that the mirror image has its original, how much that is too early, and how
    much lies beyond the edge."""
    beyond = max(0, stop - side)
    first = max(0, min(start, side - beyond))
    return first, start - first, beyond


def _source(start: int, length: int, side: int, full_side: int) -> tuple[slice, float, float]:
    """The pixels that the filter needs for a stretch of the view, and the stretch's ends counted from the first."""
    ratio = full_side / side
    begin, end = start * ratio, (start + length) * ratio
    reach = max(1.0, ratio) + 1
    first, last = max(0, math.floor(begin - reach)), min(full_side, math.ceil(end + reach))
    return slice(first, last), begin - first, end - first


def resize_map(values: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A uint8 map ``(H, W)`` at another size, interpolated linearly."""
    if values.shape == shape:
        return values
    return np.asarray(Image.fromarray(values).resize(shape[::-1], Image.Resampling.BILINEAR))


def resize_labels(labels: NDArray[np.int32], shape: tuple[int, int]) -> NDArray[np.int32]:
    """A label image ``(H, W)`` at another size; each pixel takes the label at its centre."""
    if labels.shape == shape:
        return labels
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp)
        for new, old in zip(shape, labels.shape, strict=True)
    )
    return labels[np.ix_(rows, columns)]
