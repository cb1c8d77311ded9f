"""The outermost pixels of each nucleus."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def border_pixels(padded: NDArray[Any]) -> NDArray[np.int64]:
    """Pixels of nuclei with at least one of their four neighbours outside that nucleus.

    Two nuclei that touch both have border pixels along the line between them.

    Parameters
    ----------
    padded
        ``(H, W)`` label image with at least one pixel of background on every side (``np.pad(labels, 1)``), so
        that a nucleus cut by the edge of the image has its border there.

    Returns
    -------
    ``(B,)`` int64, rising: places in ``padded.ravel()``.

    Examples
    --------
    >>> labels = np.ones((3, 3), np.int32)
    >>> np.unravel_index(border_pixels(np.pad(labels, 1)), (5, 5))[0].tolist()
    [1, 1, 1, 2, 2, 3, 3, 3]
    """
    flat = padded.ravel()
    border = np.zeros(flat.size, bool)
    for step in (1, padded.shape[1]):
        differs = flat[step:] != flat[:-step]
        border[step:] |= differs
        border[:-step] |= differs
    border &= flat > 0
    return np.flatnonzero(border)
