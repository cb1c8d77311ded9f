"""The image with every nucleus outlined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nuxel.export.atomic import replacing
from nuxel.export.colours import NEIGHBOUR_GAP, choose_colours
from nuxel.export.png import encode_png
from nuxel.instances import Instances
from nuxel.labels.border import border_pixels


def draw_overlay(display: NDArray[np.uint8], nuclei: Instances) -> NDArray[np.uint8]:
    """Draw the outermost pixels of each nucleus over the image.

    Nuclei that touch both show their outline; nuclei near each other have different colours.

    Parameters
    ----------
    display
        ``(H, W, 3)`` uint8 red, green, blue: the image as it is to be shown. It stays as it is.
    nuclei
        The nuclei of this image.

    Returns
    -------
    ``(H, W, 3)`` uint8.

    Raises
    ------
    ValueError
        If ``display`` is not a uint8 RGB image of the size of the labels.
    """
    labels = nuclei.labels
    if display.dtype != np.uint8 or display.shape != (*labels.shape, 3):
        raise ValueError(f"display must be {(*labels.shape, 3)} uint8, got {display.shape} {display.dtype}")
    margin = NEIGHBOUR_GAP + 1
    padded = np.pad(labels, margin)
    border = border_pixels(padded)
    colours = choose_colours(padded, border, len(nuclei))
    row, column = np.divmod(border, padded.shape[1])
    drawn = np.array(display, order="C")
    place = (row - margin) * labels.shape[1] + column - margin
    drawn.reshape(-1, 3)[place] = colours[padded.ravel()[border] - 1]
    return drawn


def write_overlay(path: Path | str, display: NDArray[np.uint8], nuclei: Instances) -> None:
    """Write the image with every nucleus outlined as PNG; see :func:`draw_overlay`.

    Raises
    ------
    NuxelError
        If the file cannot be written.
    ValueError
        If ``display`` is not a uint8 RGB image of the size of the labels.
    """
    encoded = encode_png(draw_overlay(display, nuclei))
    with replacing(path) as part:
        part.write_bytes(encoded)
