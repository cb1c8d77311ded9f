"""One map of the whole image from the answers of its tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from nuxel.tiling.grid import Tile

Maps = NDArray[np.uint8]


def stitch(shape: tuple[int, int], count: int, tiles: Iterable[Tile], answer: Callable[[Tile], Maps]) -> Maps:
    """Put what the tiles own together.

    Every pixel of the result comes from exactly one tile, and the nuclei are decoded from the whole result: no
    nucleus is cut by a seam or found twice, however large it is.

    Parameters
    ----------
    shape
        Height and width of the image; the last tiles may reach beyond it.
    count
        Number of maps.
    tiles
        From :func:`nuxel.tiling.grid.plan_tiles`.
    answer
        Gives the maps ``(count, h, w)`` uint8 of what a tile owns, having seen its window.

    Returns
    -------
    ``(count, H, W)`` uint8.

    Raises
    ------
    ValueError
        If an answer has another size than what its tile owns.

    Examples
    --------
    >>> from nuxel.tiling.grid import plan_tiles
    >>> image = np.arange(10, dtype=np.uint8)[None]
    >>> def answer(tile: Tile) -> Maps:
    ...     y0, x0, y1, x1 = tile.owned
    ...     return np.pad(image, ((0, 3), (0, 2)))[None, y0:y1, x0:x1]
    >>> stitch((1, 10), 1, plan_tiles((1, 10), 4, 4, 4), answer).tolist()
    [[[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]]
    """
    whole = np.zeros((count, *shape), np.uint8)
    for tile in tiles:
        y0, x0, y1, x1 = tile.owned
        y1, x1 = min(y1, shape[0]), min(x1, shape[1])
        maps = answer(tile)
        if maps.shape[1:] != (tile.owned[2] - y0, tile.owned[3] - x0):
            raise ValueError(f"a tile that owns {tile.owned} got maps of shape {maps.shape}")
        whole[:, y0:y1, x0:x1] = maps[:, : y1 - y0, : x1 - x0]
    return whole
