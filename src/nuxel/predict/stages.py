"""A network run in stages, so that a large window needs little memory and little halo.

A U-Net sees far because of its deep maps, and needs memory because of its fine ones. Cut where the maps are thin, the
deep part runs on the whole window at once, which takes little memory because its maps are small, and the fine parts
before and after it run tile by tile with a halo as small as they look far. The answer is that of the whole network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuxel.tiling.grid import Box, Tile, fit_tile, plan_tiles

Tensor = NDArray[np.float32]
Run = Callable[[int, Mapping[str, Tensor]], Sequence[Tensor]]
"""Runs a stage: its place and what it reads -> what it gives."""

IMAGE = "image"
LARGEST_WINDOW = 1824 * 1824
"""Pixels of a window where there are no stages, or of a turned view; run whole it needs about 250 bytes for each."""
LARGEST_TILE = 1024 * 1024
"""Pixels, about, that a fine stage sees at once, which needs as much for each; smaller windows are run whole."""
LARGEST_STAGED = 3072 * 3072
"""Pixels of a window that is run in stages, which needs about 80 bytes for each."""
LARGEST_KEPT = 2 * LARGEST_STAGED
"""Pixels of an image up to which its windows' memory is kept for the next: of larger ones decoding needs more."""


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


def run_stages(
    window: NDArray[np.uint8], inner: Box, stages: Sequence[Stage], stride: int, run: Run
) -> Tensor:
    """The network's maps of the inner part of one window, computed stage by stage.

    What lies around the inner part is for the stage that looks far, and what comes before it: the stages after it
    compute only what the inner part depends on, and of all others only that is kept.

    Parameters
    ----------
    window
        ``(H, W, 3)`` uint8; H and W multiples of ``stride``.
    inner
        Pixels of the window that are asked for, multiples of ``stride``.
    stages
        In the order of their work. The first reads ``image``; the last gives the maps.
    stride
        The network's coarsest stride.
    run
        Runs one of them on the tensors that it reads, by name.

    Returns
    -------
    ``(K, h, w)`` float32.
    """
    whole = (0, 0, window.shape[0], window.shape[1])
    parts = _needed(whole, inner, stages, stride)
    held = {IMAGE: _Part(window.transpose(2, 0, 1)[None], whole)}

    def compute(place: int, stage: Stage, tile: Tile, given: dict[str, _Part]) -> None:
        answers = run(place, {name: as_input(held[name].cut(tile.window)) for name in stage.reads})
        for name, answer in zip(stage.gives, answers, strict=True):
            seen = _Part(answer, tile.window)
            if name not in parts:  # nothing reads it
                continue
            if parts[name] == tile.owned == tile.window:
                given[name] = seen
                continue
            if name not in given:
                given[name] = seen.room(parts[name])
            given[name].keep(seen, tile.owned)

    for place, stage in enumerate(stages):
        given: dict[str, _Part] = {}
        for tile in _tiles(whole, [parts[name] for name in stage.gives if name in parts], stage, stride):
            compute(place, stage, tile, given)
        held.update(given)
        later = {name for one in stages[place + 1 :] for name in one.reads} | set(stages[-1].gives)
        for name in held.keys() - later:
            del held[name]
    maps: Tensor = held[stages[-1].gives[0]].values[0]
    return maps


@dataclass(frozen=True)
class _Part:
    """A tensor ``(1, C, h, w)`` and where it lies in the window: ``box``, in pixels of the window."""

    values: NDArray[Any]
    box: Box

    @property
    def factor(self) -> int:
        """Pixels of the window per pixel of the tensor."""
        height: int = self.values.shape[2]
        return (self.box[2] - self.box[0]) // height

    def room(self, box: Box) -> _Part:
        """Room for another part of the same tensor."""
        height, width = ((stop - start) // self.factor for start, stop in zip(box[:2], box[2:], strict=True))
        return _Part(np.empty((1, self.values.shape[1], height, width), np.float32), box)

    def cut(self, box: Box) -> NDArray[Any]:
        """What of it lies in ``box``, which is inside."""
        factor = self.factor
        top, left = self.box[:2]
        return self.values[
            :,
            :,
            (box[0] - top) // factor : (box[2] - top) // factor,
            (box[1] - left) // factor : (box[3] - left) // factor,
        ]

    def keep(self, other: _Part, owned: Box) -> None:
        """Take over what lies in both and in ``owned``."""
        box = _common(owned, self.box)
        if box[0] < box[2] and box[1] < box[3]:
            self.cut(box)[:] = other.cut(box)


def _needed(whole: Box, inner: Box, stages: Sequence[Stage], stride: int) -> dict[str, Box]:
    """Of each tensor, the part that the inner pixels of the maps depend on."""
    parts = dict.fromkeys(stages[-1].gives, inner)
    for stage in reversed(stages):
        read = whole
        if stage.reach is not None:
            given = _around([parts[name] for name in stage.gives if name in parts])
            read = _grown(given, stage.reach, stride, whole)
        for name in stage.reads:
            parts[name] = _around([read, parts.get(name, read)])
    return parts


def as_input(pixels: NDArray[Any]) -> Tensor:
    """What a network is given: contiguous float32, pixels of an image from 0 to 1."""
    values = np.ascontiguousarray(pixels, np.float32)
    if pixels.dtype == np.uint8:
        values *= np.float32(1 / 255)
    return values


def _tiles(whole: Box, gives: Sequence[Box], stage: Stage, stride: int) -> Iterator[Tile]:
    """What a stage computes at once, so that all that is needed of what it gives is computed."""
    if stage.reach is None:
        yield Tile(whole, whole)
        return
    y0, x0, y1, x1 = _around(gives)
    shape = (y1 - y0, x1 - x0)
    for tile in plan_tiles(shape, fit_tile(shape, stage.reach, stride, LARGEST_TILE), stage.reach, stride):
        top, left, bottom, right = tile.owned
        owned = (top + y0, left + x0, bottom + y0, right + x0)
        yield Tile(owned, _grown(owned, stage.reach, stride, whole))


def _grown(box: Box, reach: int, stride: int, whole: Box) -> Box:
    reach = -(-reach // stride) * stride
    return _common((box[0] - reach, box[1] - reach, box[2] + reach, box[3] + reach), whole)


def _around(boxes: Sequence[Box]) -> Box:
    tops, lefts, bottoms, rights = zip(*boxes, strict=True)
    return min(tops), min(lefts), max(bottoms), max(rights)


def _common(one: Box, other: Box) -> Box:
    return max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])
