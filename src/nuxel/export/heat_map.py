"""A map of values in colours over the image: where a network attends.

Source: attention Mask R-CNN paper, figure 6.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nuxel.export.atomic import replacing
from nuxel.export.png import encode_png
from nuxel.image.resample import resize_map

# Dark blue over violet, red and orange to yellow. The points lie at equal differences in colour (CIEDE2000), so equal
# steps of the values look equal; lightness rises all the way, so the order shows to the colour-blind and in print, too.
_POINTS = np.array(
    [
        (8, 29, 72),
        (73, 40, 129),
        (146, 32, 142),
        (202, 39, 122),
        (232, 71, 98),
        (241, 116, 88),
        (247, 157, 91),
        (252, 198, 103),
        (251, 242, 127),
    ]
)
_LEVELS = np.linspace(0, len(_POINTS) - 1, 256)
# (256, 3): the colour of each value times 255.
_COLOURS = np.stack([np.interp(_LEVELS, range(len(_POINTS)), channel) for channel in _POINTS.T], axis=1)


def draw_heat_map(image: NDArray[np.uint8], values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draw a map of values over an image: one part of the image in grey, two parts of the value's colour.

    Parameters
    ----------
    image
        ``(H, W, 3)`` uint8 red, green, blue. It stays as it is.
    values
        ``(h, w)`` float32 in ``[0, 1]``, a map of the whole image at any resolution; it is enlarged to the image
        by linear interpolation. 0 is dark blue, 1 is light yellow.

    Returns
    -------
    ``(H, W, 3)`` uint8.

    Raises
    ------
    ValueError
        If either array has another shape or dtype, or a value lies outside of ``[0, 1]``.

    Examples
    --------
    >>> black = np.zeros((2, 2, 3), np.uint8)
    >>> draw_heat_map(black, np.ones((1, 1), np.float32))[0, 0].tolist()
    [167, 161, 85]
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
    if values.dtype != np.float32 or values.ndim != 2 or not values.size:
        raise ValueError(f"values must be (h, w) float32, got {values.shape} {values.dtype}")
    # Written so that it holds for NaN, too.
    if not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"values must lie between 0 and 1, got {values.min()} to {values.max()}")
    levels = resize_map(np.rint(values * 255).astype(np.uint8), image.shape[:2])
    grey = np.asarray(Image.fromarray(image).convert("L"))
    drawn: NDArray[np.uint8] = np.rint(_COLOURS * 2 / 3).astype(np.uint8)[levels]
    drawn += (grey // 3)[..., None]
    return drawn


def write_heat_map(path: Path | str, image: NDArray[np.uint8], values: NDArray[np.float32]) -> None:
    """Write a map of values over the image as PNG; see :func:`draw_heat_map`.

    Raises
    ------
    NuxelError
        If the file cannot be written.
    """
    encoded = encode_png(draw_heat_map(image, values))
    with replacing(path) as part:
        part.write_bytes(encoded)
