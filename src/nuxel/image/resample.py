"""An image at another scale, window by window, every window as if cut from the whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Box = tuple[int, int, int, int]


class ScaledImage:
    """A normalised image seen at ``scale``, without ever holding the whole at that scale.

    Parameters
    ----------
    pixels
        ``(H, W, 3)`` uint8.
    scale
        Pixels of the view per pixel of the image, above 0. The view has at least one pixel a side.
    """

    def __init__(self, pixels: NDArray[np.uint8], scale: float = 1.0) -> None:
        self.pixels = pixels
        self.full_shape: tuple[int, int] = (pixels.shape[0], pixels.shape[1])
        height, width = (max(1, round(side * scale)) for side in self.full_shape)
        self.shape: tuple[int, int] = (height, width)
        self._picture = None if self.shape == self.full_shape else Image.fromarray(pixels)

    def window(self, box: Box) -> NDArray[np.uint8]:
        """The part ``(y0, x0, y1, x1)`` of the view; what lies beyond its bottom and right edge is mirrored."""
        y0, x0, y1, x1 = box
        height, width = min(y1, self.shape[0]) - y0, min(x1, self.shape[1]) - x0
        part = self._part(y0, x0, height, width)
        if (height, width) == (y1 - y0, x1 - x0):
            return part
        return np.pad(part, ((0, y1 - y0 - height), (0, x1 - x0 - width), (0, 0)), mode="symmetric")

    def _part(self, y0: int, x0: int, height: int, width: int) -> NDArray[np.uint8]:
        if self._picture is None:
            return self.pixels[y0 : y0 + height, x0 : x0 + width]
        down, across = (full / here for full, here in zip(self.full_shape, self.shape, strict=True))
        box = (x0 * across, y0 * down, (x0 + width) * across, (y0 + height) * down)
        return np.asarray(self._picture.resize((width, height), Image.Resampling.BILINEAR, box=box))


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
