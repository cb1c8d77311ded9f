"""Tiles: which part of the image each one owns, and how much around it the network must see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nuxel.errors import UsageError

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Tile:
    """``owned`` pixels belong to this tile and no other; ``window`` is what the network sees (half-open boxes)."""

    owned: Box
    window: Box


def plan_tiles(shape: tuple[int, int], tile_size: int, halo: int, stride: int) -> Iterator[Tile]:
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
        Greatest height and width of the owned part, at least ``stride``.
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
    if tile_size < stride:
        raise UsageError(f"the tile size must be at least {stride} pixels, got {tile_size}")
    height, width = (_up(side, stride) for side in shape)
    halo = _up(halo, stride)
    for y0, y1 in _spans(height, tile_size, stride):
        for x0, x1 in _spans(width, tile_size, stride):
            window = (max(0, y0 - halo), max(0, x0 - halo), min(height, y1 + halo), min(width, x1 + halo))
            yield Tile((y0, x0, y1, x1), window)


def _up(length: int, stride: int) -> int:
    return -(-length // stride) * stride


def _spans(length: int, tile_size: int, stride: int) -> list[tuple[int, int]]:
    """Even spans of at most ``tile_size`` that start on multiples of ``stride``."""
    largest = tile_size // stride * stride
    count = -(-length // largest)
    step = _up(-(-length // count), stride)
    return [(start, min(start + step, length)) for start in range(0, length, step)]
