"""A network run in stages, so that a large window needs little memory and little halo.

A U-Net sees far because of its deep maps, and needs memory because of its fine ones. Cut where the maps are thin, the
deep part runs on the whole window at once, which takes little memory because its maps are small, and the fine parts
before and after it run tile by tile with a halo as small as they look far. The answer is that of the whole network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuxel.tiling.grid import Box, Tile, fit_tile, plan_tiles

Tensor = NDArray[np.float32]
Run = Callable[[int, Mapping[str, Tensor], bool], Sequence[Tensor]]
"""Runs a stage: its place, what it reads, and whether to free its memory afterwards -> what it gives."""

IMAGE = "image"
LARGEST_WINDOW = 1824 * 1824
"""Pixels that a network sees at once; it needs about 250 bytes for each."""
LARGEST_TILE = 1024 * 1024
"""Pixels that a fine stage sees at once, which needs as much for each."""
LARGEST_STAGED = 3072 * 3072
"""Pixels of a window that is run in stages, which needs about 80 bytes for each."""


@dataclass(frozen=True)
class Stage:
    """A part of a network.

    Parameters
    ----------
    reads, gives
        Names of the graph's tensors that it is computed from and that it computes, ``(1, C, h, w)`` all of them.
    reach
        It runs tile by tile: no pixel of what it gives depends on anything further away, in pixels of the image. None:
        it runs on the whole window at once.
    """

    reads: tuple[str, ...]
    gives: tuple[str, ...]
    reach: int | None


def run_stages(window: NDArray[np.uint8], stages: Sequence[Stage], stride: int, run: Run) -> Tensor:
    """The network's maps of one window, computed stage by stage.

    Parameters
    ----------
    window
        ``(H, W, 3)`` uint8; H and W multiples of ``stride``.
    stages
        In the order of their work. The first reads ``image``; the last gives the maps.
    stride
        The network's coarsest stride.
    run
        Runs one of them on the tensors that it reads, by name.

    Returns
    -------
    ``(K, H, W)`` float32.
    """
    shape = (window.shape[0], window.shape[1])
    held: dict[str, NDArray[Any]] = {IMAGE: window.transpose(2, 0, 1)[None]}

    def compute(place: int, box: Box, free: bool) -> Sequence[Tensor]:
        seen = {name: as_input(_cut(held[name], box, shape)) for name in stages[place].reads}
        return run(place, seen, free)

    for place, stage in enumerate(stages):
        given: dict[str, Tensor] = {}
        for tile in _tiles(shape, stage, stride):
            _keep(given, stage.gives, compute(place, tile.window, False), tile, shape)
        # a runtime frees no memory that holds an answer: now that those are copied, a last small one lets it
        compute(place, (0, 0, stride, stride), True)
        held.update(given)
        later = {name for one in stages[place + 1 :] for name in one.reads} | set(stages[-1].gives)
        for name in held.keys() - later:
            del held[name]
    maps: Tensor = held[stages[-1].gives[0]][0]
    return maps


def as_input(pixels: NDArray[Any]) -> Tensor:
    """What a network is given: contiguous float32, pixels of an image from 0 to 1."""
    values = np.ascontiguousarray(pixels, np.float32)
    if pixels.dtype == np.uint8:
        values *= np.float32(1 / 255)
    return values


def _tiles(shape: tuple[int, int], stage: Stage, stride: int) -> list[Tile]:
    if stage.reach is None:
        whole = (0, 0, *shape)
        return [Tile(whole, whole)]
    return list(plan_tiles(shape, fit_tile(shape, stage.reach, stride, LARGEST_TILE), stage.reach, stride))


def _cut(whole: NDArray[Any], box: Box, shape: tuple[int, int]) -> NDArray[Any]:
    """The part of a tensor that lies in a box, given in pixels of a window of that shape."""
    factor = shape[0] // whole.shape[2]
    y0, x0, y1, x1 = (side // factor for side in box)
    return whole[:, :, y0:y1, x0:x1]


def _keep(
    given: dict[str, Tensor],
    names: Sequence[str],
    answers: Sequence[Tensor],
    tile: Tile,
    shape: tuple[int, int],
) -> None:
    """Put what a tile owns of the answers to its place in the wholes."""
    for name, answer in zip(names, answers, strict=True):
        top, left, bottom, _ = tile.window
        factor = (bottom - top) // answer.shape[2]
        if name not in given:
            given[name] = np.empty((1, answer.shape[1], shape[0] // factor, shape[1] // factor), np.float32)
        y0, x0, y1, x1 = (side // factor for side in tile.owned)
        top, left = top // factor, left // factor
        given[name][:, :, y0:y1, x0:x1] = answer[:, :, y0 - top : y1 - top, x0 - left : x1 - left]
