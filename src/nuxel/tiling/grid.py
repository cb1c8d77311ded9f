"""Tiles: which part of the image each one owns, and how much around it the network must see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nuxel.errors import UsageError

Box = tuple[int, int, int, int]
_Value = TypeVar("_Value", bound=np.generic)


@dataclass(frozen=True)
class Tile:
    """``owned`` pixels belong to this tile and no other; ``window`` is what the network sees (half-open boxes)."""

    owned: Box
    window: Box

    @property
    def inner(self) -> Box:
        """What it owns, in pixels of its window."""
        top, left = self.window[:2]
        y0, x0, y1, x1 = self.owned
        return (y0 - top, x0 - left, y1 - top, x1 - left)


def crop(maps: NDArray[_Value], inner: Box | None) -> NDArray[_Value]:
    """The inner part of maps ``(K, H, W)``; all of them when None."""
    if inner is None:
        return maps
    y0, x0, y1, x1 = inner
    return maps[:, y0:y1, x0:x1]


def plan_tiles(
    shape: tuple[int, int], tile_size: int | tuple[int, int], halo: int, stride: int
) -> Iterator[Tile]:
    """Divide an image into tiles whose owned parts cover it exactly once.

    All tiles start on multiples of ``stride`` (so that the network's grid falls on the same pixels in every window)
    and are as even as that allows; windows reach ``halo`` further on every side, up to the image's edge, which is
    rounded up to a multiple of ``stride``. If ``halo`` is at least the network's reach, the answer on owned pixels
    cannot depend on the tiles.

    Parameters
    ----------
    shape
        Height and width of the image, at least 1 each.
    tile_size
        Greatest height and width of the owned part, one number or two, at least ``stride``.
    halo
        Pixels, rounded up to a multiple of ``stride``.
    stride
        The network's coarsest stride.

    Raises
    ------
    UsageError
        If ``tile_size`` is below ``stride``.

    Examples
    --------
    >>> [tile.owned for tile in plan_tiles((32, 100), 64, 16, 16)]
    [(0, 0, 32, 64), (0, 64, 32, 112)]
    """
    tall, wide = tile_size if isinstance(tile_size, tuple) else (int(tile_size), int(tile_size))
    if min(tall, wide) < stride:
        raise UsageError(f"the tile size must be at least {stride} pixels, got {min(tall, wide)}")
    height, width = (_up(side, stride) for side in shape)
    halo = _up(halo, stride)
    for y0, y1 in _spans(height, tall, stride):
        for x0, x1 in _spans(width, wide, stride):
            window = (max(0, y0 - halo), max(0, x0 - halo), min(height, y1 + halo), min(width, x1 + halo))
            yield Tile((y0, x0, y1, x1), window)


def plan_windows(shape: tuple[int, int], side: int, overlap: int | None = None) -> Iterator[Tile]:
    """Square windows of one fixed side for networks whose answer depends on the whole window.

    Neighbours overlap by at least ``overlap``; each owns the pixels that lie deeper inside it than inside its
    neighbours. An image smaller than the window has one, which reaches beyond its bottom and right edges.

    Parameters
    ----------
    shape
        Height and width of the image, at least 1 each.
    side
        Height and width of every window, at least 2.
    overlap
        Pixels, fewer than ``side``; half a side when None.

    Examples
    --------
    >>> [(tile.owned, tile.window) for tile in plan_windows((8, 20), 16)]
    [((0, 0, 8, 10), (0, 0, 16, 16)), ((0, 10, 8, 20), (0, 4, 16, 20))]
    """
    step = side // 2 if overlap is None else side - overlap
    (rows, columns) = (_fixed_spans(length, side, step) for length in shape)
    for y0, y1, top in rows:
        for x0, x1, left in columns:
            yield Tile((y0, x0, y1, x1), (top, left, top + side, left + side))


def _fixed_spans(length: int, side: int, step: int) -> list[tuple[int, int, int]]:
    """First and last pixel owned, and where the window starts, along one axis."""
    if length <= side:
        return [(0, length, 0)]
    count = 1 + -(-(length - side) // step)
    starts = [round(k * (length - side) / (count - 1)) for k in range(count)]
    cuts = [0, *((a + b + side) // 2 for a, b in pairwise(starts)), length]
    return [(first, last, start) for first, last, start in zip(cuts, cuts[1:], starts, strict=False)]


def fit_tile(shape: tuple[int, int], halo: int, stride: int, largest_window: int) -> tuple[int, int]:
    """The height and width of tiles whose windows are at most ``largest_window`` pixels and overlap least.

    Parameters
    ----------
    shape, halo, stride
        As for :func:`plan_tiles`.
    largest_window
        Pixels that the network may see at once, at least those of a tile of one stride and its halo.

    Examples
    --------
    >>> fit_tile((512, 512), 64, 16, 512 * 512), fit_tile((512, 512), 64, 16, 400 * 400)
    ((512, 512), (512, 176))
    """
    height, width = (_up(side, stride) for side in shape)
    halo = _up(halo, stride)
    narrowest = stride + 2 * halo
    if min(height, narrowest) * min(width, narrowest) > largest_window:
        raise ValueError(
            f"{largest_window} pixels do not hold a tile of {stride} pixels with its halo of {halo}"
        )
    best: tuple[int, int, int] | None = None
    for rows in range(1, height // stride + 1):
        columns = _fewest(width, largest_window // _longest_window(height, rows, halo, stride), halo, stride)
        if columns is None:
            continue
        seen = (height + 2 * halo * (rows - 1)) * (width + 2 * halo * (columns - 1))
        if best is None or seen < best[0]:
            best = (seen, _step(height, rows, stride), _step(width, columns, stride))
        if columns == 1:  # more rows only add halo
            break
    assert best is not None
    return best[1:]


def _longest_window(length: int, count: int, halo: int, stride: int) -> int:
    """The longest of ``count`` even windows: those at the two ends have a halo on one side only."""
    return min(length, _step(length, count, stride) + halo * min(2, count - 1))


def _fewest(length: int, room: int, halo: int, stride: int) -> int | None:
    """The least number of spans whose windows are at most ``room`` long, None if there is none."""
    for count in (1, 2):
        if _longest_window(length, count, halo, stride) <= room:
            return count
    largest = (room - 2 * halo) // stride * stride
    return -(-length // largest) if largest > 0 else None


def _step(length: int, count: int, stride: int) -> int:
    return _up(-(-length // count), stride)


def _up(length: int, stride: int) -> int:
    return -(-length // stride) * stride


def _spans(length: int, tile_size: int, stride: int) -> list[tuple[int, int]]:
    """Even spans of at most ``tile_size`` that start on multiples of ``stride``."""
    largest = tile_size // stride * stride
    count = -(-length // largest)
    step = _step(length, count, stride)
    return [(start, min(start + step, length)) for start in range(0, length, step)]
