"""From pixels of any type and range to what every network sees: uint8 RGB, stretched over the whole image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LOW_PERCENTILE = 0.5
HIGH_PERCENTILE = 99.8
EMPTY_CHANNEL = 0.15
"""A channel with less than this share of the strongest channel's contrast holds no stain."""

_BAND_ROWS = 512
_SAMPLE = 1 << 22


def normalise(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Stretch an image of any dtype to uint8 RGB with one linear map taken from the whole image.

    The map sends the lowest 0.5th percentile of the channels to 0 and the highest 99.8th to 255, the same for all
    channels, so that colours keep their hue. A stain that sits in one channel only (DAPI shown in blue) is shown
    as grey. Bright and dark backgrounds are left as they are: the networks are trained on both.

    Parameters
    ----------
    pixels
        ``(H, W)`` or ``(H, W, C)``, any real dtype. NaN and infinite values are shown as black and white and do not
        count for the percentiles. Of more than three channels the first three are shown.

    Returns
    -------
    ``(H, W, 3)`` uint8. A constant image is all zeros.

    Examples
    --------
    >>> normalise(np.array([[0, 500, 1000]], np.uint16))[0, :, 0].tolist()
    [0, 127, 255]
    """
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    pixels = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1]
    low, high = np.array([_limits(pixels[..., c]) for c in range(pixels.shape[2])]).T
    contrast = high - low
    stained = contrast > EMPTY_CHANNEL * contrast.max()
    if stained.sum() == 1:
        pixels = pixels[..., stained]
        low, high = low[stained], high[stained]
    return _stretch(pixels, float(low.min()), float(high.max()))


def _limits(channel: NDArray[np.generic]) -> tuple[float, float]:
    """The low and high percentile of the finite values, ``(0, 0)`` if there are none."""
    if channel.dtype in (np.uint8, np.uint16):
        counts = np.bincount(channel.ravel(), minlength=2)
        cumulative = np.cumsum(counts)
        wanted = np.array([LOW_PERCENTILE, HIGH_PERCENTILE]) / 100 * (cumulative[-1] - 1)
        low, high = np.searchsorted(cumulative, wanted, side="right")
        return float(low), float(high)
    step = max(1, int(np.ceil(np.sqrt(channel.size / _SAMPLE))))
    values = channel[::step, ::step].astype(np.float64).ravel()
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, 0.0
    low, high = np.percentile(values, [LOW_PERCENTILE, HIGH_PERCENTILE], method="nearest")
    return float(low), float(high)


def _stretch(pixels: NDArray[np.generic], low: float, high: float) -> NDArray[np.uint8]:
    out = np.zeros((*pixels.shape[:2], 3), np.uint8)
    span = high - low
    if not span > 0:
        return out
    if pixels.dtype == np.uint8:
        table = np.clip((np.arange(256) - low) * (255 / span), 0, 255).astype(np.uint8)
        np.take(table, pixels, out=out) if pixels.shape[2] == 3 else out.__setitem__(..., table[pixels])
        return out
    for top in range(0, len(pixels), _BAND_ROWS):
        band = pixels[top : top + _BAND_ROWS].astype(np.float64)
        band = np.nan_to_num((band - low) * (255 / span), nan=0.0, posinf=255.0, neginf=0.0)
        out[top : top + _BAND_ROWS] = np.clip(band, 0, 255).astype(np.uint8)
    return out
