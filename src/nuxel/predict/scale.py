"""How large the nuclei of an image are, estimated from the image itself, and the scale that suits the network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuxel.data.targets import REFERENCE_DIAMETER
from nuxel.image.resample import ScaledImage
from nuxel.predict.card import ModelCard
from nuxel.predict.networks import Network
from nuxel.tiling.grid import Box

TRUSTED = (8.0, 60.0)
"""Diameters in pixels where the median estimate is within a tenth of the truth (on `val`); others are drawn to them."""

_SCALES = (1 / 32, 2.0)
_LEAST_SIDE = 16
_LEAST_EVIDENCE = 20
_WINDOW = 256
_WINDOWS = 2
_WHOLE = (
    512 * 512
)  # pixels of an image of which all is looked at, in the view that may serve for its nuclei too
_USUAL_UM = 8.0
_PLAUSIBLE_UM = (2.5, 60.0)
_LARGEST_SCALE = 4.0


@dataclass(frozen=True)
class Size:
    """``diameter`` in pixels of the image (None if no nucleus was seen) and the ``scale`` to run the network at.

    ``note`` is what the user should know of the two, if anything.
    """

    diameter: float | None
    scale: float
    note: str = ""


def choose_scale(diameter: float | None, comfortable: tuple[float, float]) -> Size:
    """Leave an image alone if its nuclei are in the network's comfortable range, else bring them to its middle."""
    low, high = comfortable
    if diameter is None or low <= diameter <= high:
        return Size(diameter, 1.0)
    return Size(diameter, min(_LARGEST_SCALE, float(np.sqrt(low * high)) / diameter))


def estimate_diameter(
    image: NDArray[np.uint8], network: Network, pixel_size_um: float | None = None
) -> float | None:
    """The median diameter of the nuclei in pixels, each pixel of a nucleus having one vote.

    The network looks at a few windows and predicts the diameter at every pixel of a nucleus. Its estimates are drawn
    towards the sizes it was trained on most, so the view is halved or doubled until they are near the size where it is
    right. Where it sees no nucleus, a known pixel size says how large they usually are: 8 um. What it sees counts
    before that, since files often say a wrong pixel size; see :func:`doubt_size`.

    Parameters
    ----------
    image
        ``(H, W, 3)`` uint8, normalised.
    network
        A network with the maps ``nucleus`` and ``log_diameter``.
    pixel_size_um
        Micrometres per pixel, if known.

    Returns
    -------
    Pixels; None where no nucleus was seen and the pixel size is unknown.
    """
    diameter = _walk(image, network)
    return _USUAL_UM / pixel_size_um if diameter is None and pixel_size_um else diameter


def doubt_size(diameter: float | None, pixel_size_um: float | None) -> str:
    """A sentence if a diameter in pixels is one that no nucleus has: below 2.5 or above 60 um.

    Examples
    --------
    >>> doubt_size(20, 0.5), doubt_size(20, None)
    ('', '')
    >>> doubt_size(120, 1.0)[:49]
    'at 1 um a pixel the nuclei would be 120 um across'
    """
    if diameter is None or pixel_size_um is None:
        return ""
    low, high = _PLAUSIBLE_UM
    if low <= diameter * pixel_size_um <= high:
        return ""
    return (
        f"at {pixel_size_um:g} um a pixel the nuclei would be {diameter * pixel_size_um:.3g} um across: give "
        "the pixel size (--pixel-size) if that is wrong, or the diameter (--diameter) if the outlines are"
    )


def _walk(image: NDArray[np.uint8], network: Network) -> float | None:
    """Halve or double the view until the network is to be trusted on the size of the nuclei in it."""
    scale = 1.0
    here = _look(image, scale, network)
    if here is None:
        scale = 0.25  # nuclei so large that the network saw only their texture
        here = _look(image, scale, network)
    if here is None:
        return None
    factor = 0.5 if here > TRUSTED[1] else 2.0
    while not TRUSTED[0] <= here <= TRUSTED[1] and _SCALES[0] <= scale * factor <= _SCALES[1]:
        there = _look(image, scale * factor, network)
        if there is None:
            break
        crossed = (here > TRUSTED[1]) != (there > TRUSTED[1])
        scale, here = scale * factor, there
        if crossed:
            break
    return here / scale


def _look(image: NDArray[np.uint8], scale: float, network: Network) -> float | None:
    """The median diameter that the network sees, in pixels of the view; None if it sees no nucleus."""
    view = ScaledImage(image, scale)
    if scale < 1 and min(view.shape) < _LEAST_SIDE:
        return None
    names = network.card.maps
    nucleus, log_diameter = names.index("nucleus"), names.index("log_diameter")
    votes = []
    for box in _windows(view, network.card):
        maps = network(view.window(box))
        votes.append(maps[log_diameter][maps[nucleus] > 0.5])
    vote = np.concatenate(votes)
    return REFERENCE_DIAMETER * float(np.exp2(np.median(vote))) if vote.size >= _LEAST_EVIDENCE else None


def _windows(view: ScaledImage, card: ModelCard) -> list[Box]:
    """The whole view if it is small, else the windows in which the picture varies most."""
    stride = card.stride
    height, width = (max(card.window or 0, -(-side // stride) * stride) for side in view.shape)
    whole = _WHOLE if view.shape == view.full_shape else _WINDOWS * _WINDOW**2
    if card.window is None and height * width <= whole:
        return [(0, 0, height, width)]
    side = card.window or _WINDOW
    tall, wide = min(side, height), min(side, width)
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
