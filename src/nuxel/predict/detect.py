"""What a network that detects reports of a whole image, window by window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuxel.decode.detections import Detections
from nuxel.errors import NuxelError, UsageError
from nuxel.image.resample import ScaledImage
from nuxel.predict.card import ATTENTION, ModelCard
from nuxel.predict.networks import Detector
from nuxel.tiling.grid import Box, Tile, plan_windows

Attend = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

_OVERLAP = 1 / 4
"""Neighbouring windows share at least this part of their side."""
_MARGIN = 1 / 32
"""Two windows may place a nucleus on the seam a little differently: both own what is this part of a side beyond it."""


@dataclass(frozen=True)
class Found:
    """What a network reports of a whole image, in pixels of the image, and in how many windows it may have found more:
    these hold as many nuclei as it reports of one window at most.
    """

    detections: Detections
    full_windows: int


def windows(shape: tuple[int, int], card: ModelCard) -> list[Tile]:
    """The windows in which a network that detects sees an image of this shape."""
    side = fixed_window(card)
    return list(plan_windows(shape, side, int(side * _OVERLAP)))


def fixed_window(card: ModelCard) -> int:
    """The side of the one window that the network runs at.

    Raises
    ------
    NuxelError
        If its card does not say.
    """
    if card.window is None:
        raise NuxelError(f"the model {card.title} detects nuclei but names no window; export the model again")
    return card.window


def find(view: ScaledImage, network: Detector) -> Found:
    """Detect the nuclei of a view.

    A nucleus belongs to the window that owns its box's centre. One on a seam may be found by both neighbours, a little
    apart; the decoder's non-maximum suppression, which sees the whole image, keeps one. A nucleus wider than the
    overlap, a quarter of the window's side, may be cut where it leaves the window that owns it.
    """
    parts = []
    full = 0
    margin = fixed_window(network.card) * _MARGIN
    for tile in windows(view.shape, network.card):
        found = network.detect(view.window(tile.window))
        full += network.card.most is not None and len(found) >= network.card.most
        parts.append(_owned(found.shifted(tile.window[0], tile.window[1]), tile.owned, margin))
    whole = Detections.concatenate(parts)
    factors = (full_side / side for full_side, side in zip(view.full_shape, view.shape, strict=True))
    return Found(whole.scaled(*factors), full)


def _owned(found: Detections, box: Box, margin: float) -> Detections:
    middle = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    low, high = np.array(box[:2]) - margin, np.array(box[2:]) + margin
    return found.take(np.flatnonzero(((middle >= low) & (middle < high)).all(axis=1)))


def attention_output(card: ModelCard, level: int) -> str:
    """The name of the output that holds the attention of a pyramid level.

    Raises
    ------
    UsageError
        If the network has none at that level.
    """
    present = [name for name in card.maps if name.startswith(ATTENTION)]
    if ATTENTION + str(level) not in present:
        levels = ", ".join(name.removeprefix(ATTENTION) for name in present)
        raise UsageError(
            f"the model {card.title} has no attention map of level {level}; "
            + (f"it has levels {levels}" if present else "it has none at all")
        )
    return ATTENTION + str(level)


def attention_of(view: ScaledImage, attend: Attend, card: ModelCard) -> NDArray[np.float32]:
    """The attention map of a whole view ``(h, w)`` float32 in ``[0, 1]``, each window's enlarged to its pixels.

    ``attend`` gives that of a window, at any size.
    """
    whole = np.zeros(view.shape, np.float32)
    for tile in windows(view.shape, card):
        y0, x0, y1, x1 = tile.owned
        top, left, bottom, right = tile.window
        alpha = attend(view.window(tile.window))
        rows = (np.arange(y0, y1) - top) * alpha.shape[0] // (bottom - top)
        columns = (np.arange(x0, x1) - left) * alpha.shape[1] // (right - left)
        whole[y0:y1, x0:x1] = alpha[np.ix_(rows, columns)]
    return whole
