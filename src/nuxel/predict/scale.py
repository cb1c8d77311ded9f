"""How large the nuclei of an image are, estimated from the image itself, and the scale that suits the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuxel.image.resample import ScaledImage
from nuxel.tiling.grid import Box

Network = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""A window ``(H, W, 3)`` uint8 in, the maps ``(K, H, W)`` out: nucleus first, log diameter last."""

REFERENCE_DIAMETER = 16.0
"""Diameter in pixels at which the size map is zero."""

LADDER = (1.0, 0.25)
"""Scales of the coarse pass: between them they see nuclei from 6 to several hundred pixels across."""

_WINDOW = 256
_WINDOWS = 2
_RELIABLE = (7.0, 90.0)
_LEAST_EVIDENCE = 40.0
_USUAL_UM = 8.0
_PLAUSIBLE_UM = (2.5, 60.0)
_LARGEST_SCALE = 4.0


@dataclass(frozen=True)
class Size:
    """``diameter`` in pixels of the image (None if no nucleus was seen) and the ``scale`` to run the network at."""

    diameter: float | None
    scale: float


def choose_scale(diameter: float | None, comfortable: tuple[float, float]) -> Size:
    """Leave an image alone if its nuclei are in the network's comfortable range, else bring them to its middle."""
    low, high = comfortable
    if diameter is None or low <= diameter <= high:
        return Size(diameter, 1.0)
    return Size(diameter, min(_LARGEST_SCALE, float(np.sqrt(low * high)) / diameter))


def estimate_diameter(
    image: NDArray[np.uint8], network: Network, stride: int, pixel_size_um: float | None = None
) -> float | None:
    """The median diameter of the nuclei in pixels, each pixel of a nucleus having one vote.

    The network looks at a few windows at each scale of a ladder and predicts the diameter at every pixel; the scale
    at which the larger part of the view is nucleus of a size that it can judge decides. With a known pixel size, a
    diameter that no nucleus has (below 2.5 or above 60 um) gives way to the usual 8 um.

    Parameters
    ----------
    image
        ``(H, W, 3)`` uint8, normalised.
    network, stride
        The network and the multiple that its input's sides must have.
    pixel_size_um
        Micrometres per pixel, if known.

    Returns
    -------
    Pixels; None where no nucleus was seen and the pixel size is unknown.
    """
    found = [_look(ScaledImage(image, scale), network, stride, scale) for scale in LADDER]
    coverage, diameter = max(found, key=lambda view: view[0])
    if pixel_size_um is None:
        return diameter if coverage > 0 else None
    usual = _USUAL_UM / pixel_size_um
    low, high = (limit / pixel_size_um for limit in _PLAUSIBLE_UM)
    return diameter if coverage > 0 and low <= diameter <= high else usual


def _look(view: ScaledImage, network: Network, stride: int, scale: float) -> tuple[float, float]:
    """The share of the view that is nucleus of a reliable size, and their median diameter in pixels of the image."""
    votes, weights, seen = [], [], 0.0
    for box in _windows(view, stride):
        maps = network(view.window(box))
        nucleus, diameter = maps[0], REFERENCE_DIAMETER * np.exp2(maps[-1])
        sure = (nucleus > 0.5) & (diameter > _RELIABLE[0]) & (diameter < _RELIABLE[1])
        votes.append(diameter[sure])
        weights.append(nucleus[sure])
        seen += nucleus.size
    vote, weight = np.concatenate(votes), np.concatenate(weights)
    if weight.sum() < _LEAST_EVIDENCE:
        return 0.0, 0.0
    order = np.argsort(vote)
    middle = np.searchsorted(np.cumsum(weight[order]), weight.sum() / 2)
    return float(weight.sum() / seen), float(vote[order[middle]]) / scale


def _windows(view: ScaledImage, stride: int) -> list[Box]:
    """The whole view if it is small, else the windows in which the picture varies most."""
    height, width = (-(-side // stride) * stride for side in view.shape)
    if height * width <= _WINDOWS * _WINDOW**2:
        return [(0, 0, height, width)]
    tall, wide = min(_WINDOW, height), min(_WINDOW, width)
    corners = [
        (y, x)
        for y in range(0, max(1, height - tall + 1), max(stride, tall // 2))
        for x in range(0, max(1, width - wide + 1), max(stride, wide // 2))
    ]
    corners.sort(key=lambda corner: -_variation(view, (*corner, corner[0] + tall, corner[1] + wide)))
    chosen: list[tuple[int, int]] = []
    for y, x in corners:
        if all(abs(y - b) >= tall or abs(x - a) >= wide for b, a in chosen):
            chosen.append((y, x))
    return [(y, x, y + tall, x + wide) for y, x in chosen[:_WINDOWS]]


def _variation(view: ScaledImage, box: Box) -> float:
    """Spread of grey values on a coarse grid of the window."""
    full_y, full_x = (full / here for full, here in zip(view.full_shape, view.shape, strict=True))
    rows = (np.linspace(box[0], min(box[2], view.shape[0]) - 1, 48) * full_y).astype(int)
    columns = (np.linspace(box[1], min(box[3], view.shape[1]) - 1, 48) * full_x).astype(int)
    return float(view.pixels[np.ix_(rows, columns)].mean(axis=2).std())
